"""Activations by class, filters, amounts and the most unusual samples are those of plain calculations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import NoInputError, UsageError
from vaearr.store import create_store
from vaearr.testing import random_patterns_dataset

from .conftest import attached_values

explore = va.explore


@pytest.fixture(scope="module")
def frame(attached_path: Path) -> pd.DataFrame:
    """Known latents with the phase of each."""
    ds = va.open_store(attached_path, chunks=None)
    table = pd.DataFrame(attached_values()).assign(phase=ds["phase"].values.ravel())
    return table.dropna()


def test_sorted_by_class_with_its_means(attached_path: Path, frame: pd.DataFrame) -> None:
    found = explore.activations(attached_path, "own", dims=[2, 0])
    inside = frame[frame.phase >= 0]
    want = inside.groupby("phase")[[2, 0]]
    np.testing.assert_allclose(found["class_mean"], want.mean(), rtol=1e-6)
    np.testing.assert_allclose(found["class_std"], want.std(ddof=0), rtol=1e-6)
    np.testing.assert_array_equal(found["n"], want.size())
    assert found["class"].values.tolist() == ["fcc", "bcc"]
    assert (np.diff(found["class_of_point"]) >= 0).all()
    np.testing.assert_allclose(found["activation"], attached_values()[found["number"]][:, [2, 0]])
    np.testing.assert_allclose(found["all_mean"], frame[[2, 0]].mean(), rtol=1e-6)


def test_only_some_classes_and_samples(attached_path: Path) -> None:
    found = explore.activations(attached_path, "own", "phase", classes=["bcc"], max_points=10, seed=1)
    assert found.sizes["point"] == 10 < found.attrs["n"]
    assert found["class"].values.tolist() == ["bcc"]
    phase = va.open_store(attached_path, chunks=None)["phase"].values.ravel()
    assert (phase[found["number"]] == 1).all()
    table = explore.activation_table(attached_path, "own", classes=["bcc"], dims=[3])
    assert (table["phase_name"] == "bcc").all()
    assert len(table) == found.attrs["n"]
    assert [c for c in table if c.startswith("latent")] == ["latent_3"]
    parts = explore.histograms(attached_path, "own", "phase", classes=["bcc"], bins=5)
    assert int(parts["counts"].sum()) == 4 * found.attrs["n"]
    assert not parts["unclassified"].any()


def test_without_classes_all_in_their_order(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"sample": 9}).drop_vars("label")
    path = create_store(ds, tmp_path / "images.zarr")
    va.attach(path, np.arange(18.0).reshape(9, 2), run="own")
    found = explore.activations(path, "own")
    assert "class_mean" not in found
    np.testing.assert_array_equal(found["activation"], np.arange(18).reshape(9, 2))
    assert explore.pairs(path, "own")["vectors"].shape == (9, 2)  # the collection's dim is named sample
    with pytest.raises(NoInputError, match="none of label"):
        explore.activations(path, "own", classes=["a"])


def test_pairs_count_by_class(attached_path: Path) -> None:
    found = explore.pairs(attached_path, "own", by="phase", bins=6)
    inside = explore.histograms(attached_path, "own", by="phase", bins=6)
    np.testing.assert_array_equal(found["class_counts"], inside["counts"])
    assert found["class_of_point"].dims == ("point",)


def test_amounts_for_colours(attached_path: Path) -> None:
    found = explore.embedding(attached_path, "own", "pca", color=["latent:2", "BC", "Fe", "phase"])
    ds = va.open_store(attached_path, chunks=None)
    assert found["color"].values.tolist() == ["latent 2", "BC", "Fe", "phase: fcc", "phase: bcc"]
    np.testing.assert_allclose(found["amount"][0], attached_values()[found["number"], 2])
    np.testing.assert_allclose(found["amount"][1], ds["BC"].values.ravel()[found["number"]])
    np.testing.assert_allclose(found["amount"][2], ds["elements"].sel(element="Fe").values.ravel()[found["number"]])
    with pytest.raises(UsageError, match="latent:0 to latent:3"):
        explore.embedding(attached_path, "own", "pca", color=["latent:4"])
    with pytest.raises(NoInputError, match="BCC"):
        explore.embedding(attached_path, "own", "pca", color=["BCC"])


def test_the_farthest_come_first_with_their_patterns(attached_path: Path) -> None:
    maps = explore.out_of_distribution(attached_path, "own")
    found = explore.unusual(attached_path, "own", 5, maps=maps)
    assert int(found["number"][0]) == 20
    z = attached_values().astype("f8")
    off = z - np.nanmean(z, 0)
    covariance = np.cov(z[np.isfinite(z).all(1)].T, bias=True)
    distance = np.sqrt(np.einsum("ij,jk,ik->i", off, np.linalg.inv(covariance), off))
    np.testing.assert_allclose(maps["distance"].values.ravel(), distance, rtol=1e-5)
    np.testing.assert_allclose(found["distance"], np.sort(distance[np.isfinite(distance)])[::-1][:5], rtol=1e-5)
    patterns = va.open_store(attached_path, chunks=None)["patterns"].values.reshape(168, 8, 9)
    np.testing.assert_array_equal(found["input"], patterns[found["number"]])
    assert found["class"].attrs["long_name"] == "phase"
    xr.testing.assert_identical(found, explore.unusual(attached_path, "own", 5))
    with pytest.raises(UsageError, match="at least 1"):
        explore.unusual(attached_path, "own", 0)
    with pytest.raises(UsageError, match="maps are of run 'x'"):
        explore.unusual(attached_path, "own", maps=maps.assign_attrs(run="x"))


def test_attached_latents_do_not_decode_but_all_else_works(attached_path: Path) -> None:
    for name in ("traverse", "manifold", "prototypes"):
        with pytest.raises(NoInputError, match="own"):
            getattr(explore, name)(attached_path, "own")
    with pytest.raises(NoInputError, match="own"):
        explore.path(attached_path, "own", points=[[0, 0]])
    assert explore.latent_table(attached_path, "own").attrs["n"] == 166
    assert explore.latent_pca(attached_path, "own").sizes["component"] == 4
    assert explore.embedding(attached_path, "own", max_points=20).sizes["point"] == 20


def test_refusals(attached_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no class 'bc'\. Did you mean 'bcc'"):
        explore.activations(attached_path, "own", "phase", classes=["bc"])
    for wrong in ([], ["bcc", "bcc"]):
        with pytest.raises(UsageError, match="different names"):
            explore.histograms(attached_path, "own", "phase", classes=wrong)
    with pytest.raises(UsageError, match="max_points is 0"):
        explore.activations(attached_path, "own", max_points=0)
    with pytest.raises(UsageError, match="different whole numbers"):
        explore.activations(attached_path, "own", dims=[9])
