"""Spatial latents: where their positions lie, what a mask leaves out, what a diffusion stage is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import vaearr as va
from vaearr import interpolate, latent_statistics, reconstruct_store, sample_prior
from vaearr import names as n
from vaearr.config import EncodeConfig, ModelConfig
from vaearr.errors import DataError, UsageError
from vaearr.run.encode import _at, channel_attrs, covered_positions
from vaearr.run.statistics import Sums
from vaearr.store import create_store, open_store

from .conftest import TINY_TRAINING
from .data import random_patterns_dataset

SPATIAL = ModelConfig(name="autoencoder-kl", latent_dim=2, options={"channels": [4, 8], "groups": 2})
N, SIZES, COARSE = 20, {"z": 5, "y": 6, "x": 7}, (3, 3, 4)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 volumes of 5 x 6 x 7 voxels, 2 mm apart, with a mask; runs `vae` and `b` with latents 2 x 3 x 3 x 4."""
    ds = random_patterns_dataset({"sample": N}, SIZES)
    ds = ds.assign_coords({dim: (dim, 2.0 * np.arange(size) - 3, {"units": "mm"}) for dim, size in SIZES.items()})
    mask = np.zeros((N, *SIZES.values()), bool)
    mask[:, 3, 4, 5] = True
    mask[:4] = True
    ds = ds.assign(brain=(("sample", "z", "y", "x"), mask), flat=(("sample",), np.ones(N, bool)))
    path = create_store(ds, tmp_path_factory.mktemp("volumes") / "volumes.zarr")
    config = TINY_TRAINING.replace(
        model=SPATIAL.to_attrs(),
        objective={"target": "self", "input_noise": 0.0},
        preprocess={"normalise": "symmetric"},
        split={"method": "random", "fraction": 0.25},
    )
    va.train(path, config=config)
    va.train(path, run="b", config=config.replace(seed=2))
    va.encode(path, config=EncodeConfig(mask="brain"))
    va.encode(path, run="b")
    return path


def test_positions_lie_over_the_voxels_that_they_stand_for(encoded: Path) -> None:
    ds = open_store(encoded)
    assert ds.latents.dims == ("sample", "latent", "lz", "ly", "lx")
    assert ds.latents_b.dims == ("sample", "latent_b", "lz_b", "ly_b", "lx_b")
    assert ds.latents.shape == (N, 2, *COARSE)
    np.testing.assert_allclose(ds.ly, [-2, 2, 6])  # voxels 0 and 1 lie at -3 and -1 mm
    np.testing.assert_allclose(ds.lz, [-2, 2, 6])  # the last half in the padding
    assert ds.lx.attrs["units"] == "mm"
    assert ds.reconstruction_error.dims == ("sample",)


def test_latents_are_missing_where_the_mask_has_no_voxel(encoded: Path) -> None:
    ds = open_store(encoded).load()
    known = ds.latents.notnull()
    assert bool(known[:4].all())
    assert bool((known[4:].sum(("latent", "lz", "ly", "lx")) == 2).all()), "one position of each of two channels"
    assert bool(ds.latents_b.notnull().all())
    np.testing.assert_array_equal(ds.latents_std.notnull(), known)


def test_a_diffusion_stage_is_told_the_scale(encoded: Path) -> None:
    ds = open_store(encoded).load()
    attrs, train = ds.latents_b.attrs, ds.latents_b.values[ds.split_b.values == n.TRAIN]
    np.testing.assert_allclose(attrs["channel_mean"], train.mean((0, 2, 3, 4)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(attrs["channel_std"], train.std((0, 2, 3, 4)), rtol=1e-5)
    assert attrs["diffusion_scale"] == pytest.approx(1 / train.std(), rel=1e-5)
    assert attrs["channel_statistics_of"] == "training samples"
    assert np.isfinite(ds.latents.attrs["channel_mean"]).all(), "missing positions are left out"


def test_model_and_store_agree(encoded: Path) -> None:
    ds, model = open_store(encoded), va.load_model(encoded, "b")
    labelled: Any = model.encode(ds.patterns)
    np.testing.assert_allclose(labelled.values, ds.latents_b.values, rtol=1e-4, atol=1e-5)
    assert labelled.dims == ("sample", "latent", "lz", "ly", "lx")
    decoded: Any = model.decode(ds.latents_b.transpose("lx_b", "sample", "ly_b", "latent_b", "lz_b"))
    assert decoded.dims == ("sample", "z", "y", "x")
    np.testing.assert_allclose(decoded.values, model.decode(ds.latents_b.values), rtol=1e-4, atol=1e-5)
    with pytest.raises(DataError, match=r"shape \(2, 3, 3, 5\); the model's have \(2, 3, 3, 4\) last"):
        model.decode(np.zeros((2, 3, 3, 5)))
    with pytest.raises(DataError, match=r"latents over .* have shape \(2, 3, 3\)"):
        model.decode(ds.latents_b.isel(lx_b=0))


def test_the_inference_tool_takes_spatial_latents(encoded: Path) -> None:
    draws = sample_prior(encoded, "b", 3)
    assert draws.latents.dims == ("sample", "latent", "lz", "ly", "lx")
    assert draws.decoded.shape == (3, *SIZES.values())
    fitted = sample_prior(encoded, "b", 3, source="fitted")
    assert bool(np.isfinite(fitted.decoded).all())
    way = interpolate(encoded, "b", 0, 3, 5, "slerp")
    assert way.latents.shape == (5, 2, *COARSE)
    ends: Any = va.load_model(encoded, "b").encode(open_store(encoded).patterns.isel(sample=[0, 3]))
    np.testing.assert_allclose(way.latents.isel(step=[0, -1]).values, ends.values, atol=1e-5)
    found = reconstruct_store(encoded, "b")
    assert found.attrs["compression_ratio"] == pytest.approx(5 * 6 * 7 / (2 * 36 * 4))
    assert found.reconstruction.dims == ("example", "z", "y", "x")


def test_statistics_are_of_channels_over_all_positions(encoded: Path) -> None:
    ds, found = open_store(encoded).load(), latent_statistics(encoded, "b")
    assert found.attrs["n"] == N
    np.testing.assert_allclose(found["mean"], ds.latents_b.mean(("sample", "lz_b", "ly_b", "lx_b")), atol=1e-6)
    mean, std = ds.latents_b.values, ds.latents_std_b.values
    kl = 0.5 * (mean**2 + std**2 - 1 - 2 * np.log(std)).sum((2, 3, 4)).mean(0)
    np.testing.assert_allclose(found.kl, kl, rtol=1e-4)
    masked = latent_statistics(encoded)
    assert masked.attrs["n"] == N
    assert masked.attrs["n_positions"] == pytest.approx((4 * 36 + 16) / N)


def test_windows_that_cover_a_sample_change_nothing_and_others_are_refused(encoded: Path, tmp_path: Path) -> None:
    import shutil

    store = shutil.copytree(encoded, tmp_path / "copy.zarr")
    whole = open_store(store).latents_b.load()
    config = EncodeConfig(window=(8, 8, 8))
    va.train(
        store,
        run="c",
        config=TINY_TRAINING.replace(
            model=SPATIAL.to_attrs(),
            objective={"target": "self"},
            preprocess={"normalise": "symmetric"},
            epochs=1,
        ),
    )
    with pytest.raises(UsageError, match="multiple"):
        va.encode(store, run="c", config=config.replace(window=(3, 4, 4)))
    shutil.copytree(store / "runs" / "b" / "model", store / "runs" / "c" / "model", dirs_exist_ok=True)
    va.encode(store, run="c", config=config)
    np.testing.assert_allclose(open_store(store).latents_c.values, whole.values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "match"), [("brian", "no boolean variable 'brian'.*brain"), ("flat", "no boolean variable 'flat'")]
)
def test_masks_that_do_not_fit_are_refused(encoded: Path, tmp_path: Path, mask: str, match: str) -> None:
    import shutil

    store = shutil.copytree(encoded, tmp_path / "copy.zarr")
    config = TINY_TRAINING.replace(model=SPATIAL.to_attrs(), objective={"target": "self"}, epochs=1)
    va.train(store, run="c", config=config)
    with pytest.raises(UsageError, match=match):
        va.encode(store, run="c", config=EncodeConfig(mask=mask))
    assert "latents_c" not in xr.open_zarr(store)


def test_vector_latents_have_no_positions_to_mask(trained_store: Path) -> None:
    va.train(trained_store, run="b", config=TINY_TRAINING)
    with pytest.raises(UsageError, match="vectors without positions"):
        va.encode(trained_store, run="b", config=EncodeConfig(mask="roi"))


@given(st.integers(1, 9), st.integers(1, 4), st.data())
def test_covered_is_any_pixel_under_a_position(have: int, stride: int, data: st.DataObject) -> None:
    size = -(-have // stride)
    before = data.draw(st.integers(0, size * stride - have))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=have, max_size=have)))
    wanted = [
        any(mask[i] for i in range(k * stride - before, (k + 1) * stride - before) if 0 <= i < have)
        for k in range(size)
    ]
    np.testing.assert_array_equal(covered_positions(mask, (size,), (stride,), (before,)), wanted)


@given(st.lists(st.floats(-5, 30), min_size=1, max_size=5), st.floats(0.1, 9), st.floats(-50, 50))
def test_positions_go_straight_on_beyond_the_edge(pixel: list[float], step: float, first: float) -> None:
    values = first + step * np.arange(8)
    np.testing.assert_allclose(_at(values, np.array(pixel)), first + step * np.array(pixel), rtol=1e-9, atol=1e-9)


def test_constant_latents_have_no_scale() -> None:
    sums = Sums()
    sums.add(np.full((4, 2), 2.0))
    attrs = channel_attrs(sums)
    assert attrs["diffusion_scale"] is None
    assert attrs["channel_std"] == [0.0, 0.0]
