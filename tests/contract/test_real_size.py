"""Scans of real size: large patterns are binned for the network, an epoch may be part of a pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import vaearr as va
from vaearr.errors import UsageError
from vaearr.testing import synthetic_scan

from .harness import vaearr

TINY = {
    "latent_dim": 3,
    "model": {"options": {"width": 8, "max_width": 8, "hidden": 16}},
    "progress": False,
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> va.Run:
    """A run on patterns of 127 x 141 pixels, encoded."""
    store = tmp_path_factory.mktemp("large") / "scan.zarr"
    va.ingest(synthetic_scan(14, 12, pattern_shape=(127, 141), n_grains=4), store)
    run = va.train(store, epochs=2, **TINY)
    va.encode(run)
    return va.load_run(store)


def test_a_network_sees_large_patterns_binned_and_gives_detector_pixels(large: va.Run) -> None:
    ds, seen = xr.open_zarr(large.path), large.manifest["config"]["preprocess"]
    assert seen["bin"] == 2
    x = ds.patterns[0, :3]
    for found in (
        large.decode(ds.latents[0, :3]),
        large.model.reconstruct(x),
        large.traverse(0)["decoded"],
    ):
        assert found.shape[-2:] == (127, 141)
        assert np.isfinite(found).all()
    off = np.abs(large.model.reconstruct(x).values - x.values.astype("f4")).mean()
    assert off < np.abs(x.values - x.values.astype("f4").mean()).mean()  # better than a constant
    np.testing.assert_allclose(large.model.encode(x).values, ds.latents[0, :3].values, atol=2e-2)
    judged = large.reconstruct()
    assert judged["reconstruction"].shape[1:] == (127, 141)
    parts = va.train(large.path, run="pca", model="pca", latent_dim=2).components
    assert parts.shape == (2, 127, 141)


def test_binning_is_a_setting(large: va.Run, tmp_path: Path) -> None:
    store = tmp_path / "scan.zarr"
    va.ingest(xr.open_zarr(large.path)[["patterns"]].isel(x=slice(0, 8)), store)
    whole = va.train(store, run="whole", epochs=1, preprocess={"bin": 1}, **TINY)
    coarse = va.train(store, run="coarse", epochs=1, preprocess={"bin": 8}, **TINY)
    assert sum(p.numel() for p in whole.model.network.parameters()) != 0
    assert (
        whole.decode(np.zeros((1, 3), "f4")).shape
        == coarse.decode(np.zeros((1, 3), "f4")).shape
        == (1, 127, 141)
    )
    with pytest.raises(UsageError, match=r"preprocess\.bin is 200"):
        va.train(store, run="none", epochs=1, preprocess={"bin": 200}, **TINY)
    assert (
        "bin" in vaearr("train", store, "--run", "none", "--set", "preprocess.bin=0", code=2).error
    )


def test_an_epoch_may_be_part_of_a_pass_and_the_next_goes_on(tmp_path: Path) -> None:
    store, steps = tmp_path / "scan.zarr", list[tuple[int, int]]()
    va.ingest(synthetic_scan(16, 12, pattern_shape=(16, 16), n_grains=4), store)
    settings = TINY | {"epochs": 4, "epoch_samples": 64, "batch_size": 16, "checkpoint_every": 1}
    run = va.train(store, on_step=lambda epoch, step: steps.append((epoch, step)), **settings)
    assert steps == [(i // 4, i + 1) for i in range(16)]
    assert run.history.sizes["epoch"] == 4
    assert np.isfinite(run.history.to_dataframe()).all(axis=None)
    (middle,) = store.rglob(
        "checkpoint-0003*"
    )  # 12 batches: a pass of the 182 samples or so ends in between
    again = va.train(store, run="again", resume=middle, **settings)
    for one, other in zip(
        run.model.state_dict().values(), again.model.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def test_long_comparisons_tell_how_far_they_are(large: va.Run) -> None:
    told = list[tuple[int, int, str]]()
    noise = np.random.default_rng(0).normal(size=(12, 14))
    va.keep(large.path, noise=xr.DataArray(noise, dims=("y", "x")))
    large.associate(
        metrics=("pearson", "mutual_information"),
        targets=("noise", "BC"),
        significance={"n_surrogates": 99},
        progress=lambda *how: told.append(how),
    )
    maps = [how for how in told if how[2].startswith("surrogate maps")]
    assert maps == [(1, 2, "surrogate maps, noise"), (2, 2, "surrogate maps, BC")]
    compared = [(done, total) for done, total, text in told if text == "comparing"]
    assert compared[-1][0] == compared[-1][1] > 0
