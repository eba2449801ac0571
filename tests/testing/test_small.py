"""random_patterns_dataset(): tiny, valid, deterministic."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from vaearr import schema
from vaearr.errors import UsageError
from vaearr.testing import assert_valid, random_patterns_dataset

KINDS = {
    "scan": {},
    "three_dimensional": {"navigation": {"z": 2, "y": 3, "x": 4}},
    "line": {"navigation": {"x": 6}},
    "channels": {"signal": {"channel": 2, "dy": 5, "dx": 6}},
    "collection": {"navigation": {"sample": 7}},
    "colour": {"navigation": {"sample": 7}, "signal": {"channel": 3, "y": 5, "x": 6}},
    "volumes": {"navigation": {"sample": 3}, "signal": {"z": 4, "y": 5, "x": 6}},
    "float": {"dtype": "float32"},
    "signed": {"dtype": "int16"},
    "all": {"missing": 5, "roi": True, "runs": ("vae", "b"), "chunks": {"y": 2}},
    "float_missing": {"dtype": "float64", "missing": 5, "roi": True, "runs": ("vae",)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_valid_and_deterministic(kind):
    ds = random_patterns_dataset(**KINDS[kind])
    assert_valid(ds)
    xr.testing.assert_identical(ds, random_patterns_dataset(**KINDS[kind]))
    assert not ds.patterns.equals(random_patterns_dataset(**KINDS[kind], seed=1).patterns)
    assert ds.patterns.dtype == np.dtype(KINDS[kind].get("dtype", "uint8"))


def test_declared_dims():
    ds = random_patterns_dataset(**KINDS["colour"])
    assert schema.navigation_dims(ds) == ("sample",)
    assert schema.input_shape(ds) == (3, 5, 6)
    assert {"path", "label", "subject"} <= set(ds.coords)


def test_missing_points_have_no_values():
    ds = random_patterns_dataset(missing=4)
    assert int((~ds.present).sum()) == 4
    assert ds.BC.isnull().equals((~ds.present).rename("BC"))
    assert not ds.patterns.values[~ds.present.values].any()
    assert bool((ds.phase.where(~ds.present, -2) == -2).all())


def test_runs_have_their_own_dims():
    ds = random_patterns_dataset(runs=("vae", "b"), latent_dim=4, roi=True)
    assert schema.runs(ds) == ["vae", "b"]
    assert ds.latents.dims == ("y", "x", "latent")
    assert ds.latents_std_b.dims == ("y", "x", "latent_b")
    assert {"roi", "roi_b"} <= set(ds)
    assert 2 <= int(ds.roi.sum()) < ds.roi.size


@pytest.mark.parametrize(
    "wrong", [{"missing": 30}, {"missing": -1}, {"dtype": "complex64"}, {"navigation": {"y": 3}, "signal": {"y": 2}}]
)
def test_impossible_arguments_are_usage_errors(wrong):
    with pytest.raises(UsageError):
        random_patterns_dataset(**wrong)
