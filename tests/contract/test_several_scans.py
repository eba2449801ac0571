"""Several scans, one latent space: one model learns from all of them, and each store gets it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.testing import synthetic_scan

from .harness import TINY, attributes, vaearr, zarr

SETTINGS = {
    "latent_dim": 3,
    "epochs": 2,
    "model": {"options": {"width": 8, "max_width": 8, "hidden": 16}},
    "progress": False,
}


@pytest.fixture
def scans(tmp_path: Path) -> list[Path]:
    """Two scans of other grids and steps, with two patterns in common."""
    first = synthetic_scan(14, 10, pattern_shape=(24, 24), n_grains=4, seed=1)
    second = synthetic_scan(9, 16, pattern_shape=(24, 24), n_grains=3, seed=2, step=0.5)
    second.patterns[3, 4] = first.patterns[2, 5].values
    paths = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    for ds, path in zip((first, second), paths, strict=True):
        va.ingest(ds[["patterns", "BC"]], path)
    return paths


def test_each_store_gets_the_one_model_and_its_own_points(scans: list[Path]) -> None:
    run = va.train(scans, **SETTINGS)
    assert run.path == scans[0]
    runs = [va.load_run(path) for path in scans]
    weights = {one.manifest["weights_sha256"] for one in runs}
    assert len(weights) == 1
    assert [one.manifest["n_roi"] for one in runs] == [140, 144]
    assert all(one.manifest["n_train"] + one.manifest["n_validation"] == 284 for one in runs)
    stores = [attributes(path)["store_id"] for path in scans]
    for one in runs:
        assert [each["store_id"] for each in one.manifest["data"]["together"]] == stores
        assert one.history.sizes["epoch"] == 2
    for path, shape in zip(scans, ((10, 14), (16, 9)), strict=True):
        ds = zarr(path)
        assert ds.split.shape == shape
        assert set(np.unique(ds.split)) == {1, 2}
        va.encode(path, progress=False)
    a, b = (xr.open_zarr(path) for path in scans)
    np.testing.assert_allclose(a.latents[2, 5], b.latents[3, 4], atol=1e-5)
    np.testing.assert_array_equal(
        va.load_model(scans[0]).preprocess.background, va.load_model(scans[1]).preprocess.background
    )


def test_all_points_decide_the_model(scans: list[Path]) -> None:
    together = va.train(scans, **SETTINGS)
    alone = va.train(scans[0], run="alone", **SETTINGS)
    assert together.manifest["weights_sha256"] != alone.manifest["weights_sha256"]
    mean = np.concatenate([xr.open_zarr(path).patterns.values.reshape(-1, 24, 24) for path in scans])[
        np.concatenate([xr.open_zarr(path).split.values.ravel() for path in scans]) == 1
    ].mean(0)
    np.testing.assert_allclose(together.model.preprocess.background.numpy().squeeze(), mean, rtol=1e-3)


def test_streamed_is_what_is_held_in_memory_learns_from(scans: list[Path]) -> None:
    run = va.train(scans, memory=50_000 / 2**30, epoch_samples=0, **SETTINGS)
    assert np.isfinite(run.history.loss).all()
    assert run.manifest["n_train"] == va.load_run(scans[1]).manifest["n_train"]


def test_the_same_training_is_made_once_and_finished_where_it_was_cut_short(scans: list[Path]) -> None:
    first = va.train(scans, **SETTINGS)
    again = va.train(scans, **SETTINGS)
    assert again.manifest["time"] == first.manifest["time"]
    vaearr("verify", scans[1], "--remove", "runs/vae")  # as if it had ended before the second store had its run
    with pytest.raises(NoInputError, match="no run"):
        va.load_run(scans[1])
    finished = va.train(scans, **SETTINGS)
    assert finished.manifest["time"] == first.manifest["time"]
    assert va.load_run(scans[1]).manifest["weights_sha256"] == first.manifest["weights_sha256"]
    with pytest.raises(ExistsError, match="latent_dim"):
        va.train(scans, **(SETTINGS | {"latent_dim": 4}))
    replaced = va.train(scans, overwrite=True, **(SETTINGS | {"latent_dim": 4}))
    assert va.load_run(scans[1]).manifest["weights_sha256"] == replaced.manifest["weights_sha256"]


def test_refusals_name_the_stores(scans: list[Path], tmp_path: Path) -> None:
    va.ingest(synthetic_scan(8, 8, pattern_shape=(20, 24), n_grains=2)[["patterns"]], tmp_path / "c.zarr")
    with pytest.raises(UsageError, match=r"a\.zarr and .*c\.zarr cannot train one model"):
        va.train([scans[0], tmp_path / "c.zarr"], **SETTINGS)
    with pytest.raises(UsageError, match="named twice"):
        va.train([scans[0], scans[0]], **SETTINGS)
    with pytest.raises(UsageError, match="one store's"):
        va.train(scans, roi=va.roi(va.open_store(scans[0])), **SETTINGS)
    va.train(scans[1], **SETTINGS)
    with pytest.raises(ExistsError, match=r"b\.zarr already has a run 'vae'"):
        va.train(scans, **SETTINGS)
    with pytest.raises(NoInputError, match="no run"):
        va.load_run(scans[0])
    assert "latents" not in zarr(scans[0])


def test_from_the_command_line(scans: list[Path]) -> None:
    assert "run 'vae'" in vaearr("train", *scans, "--epochs", 1, *TINY).err
    for path in scans:
        vaearr("encode", path)
        assert "latents" in zarr(path)


def test_clusters_and_colours_over_all_scans(scans: list[Path], tmp_path: Path) -> None:
    va.train(scans, **SETTINGS)
    parts = [va.encode(path, progress=False) for path in scans]
    samples = [va.to_samples(ds.latents, ds.roi) for ds in parts]
    labels = va.cluster(xr.concat(samples, "sample"), method="kmeans", k=3)
    ends = np.cumsum([len(one) for one in samples])
    own = [labels[end - len(one) : end] for one, end in zip(samples, ends, strict=True)]
    maps = [va.to_grid(part, ds.roi, fill=-2) for part, ds in zip(own, parts, strict=True)]
    assert [one.shape for one in maps] == [(10, 14), (16, 9)]
    assert maps[0].values[2, 5] == maps[1].values[3, 4]
    shown = va.view({"a": parts[0].latents[..., 0], "b": parts[1].latents[..., 0]})
    limits = {tuple(one.opts.get().kwargs["clim"]) for one in shown}
    assert len(limits) == 1
    va.view({"a": parts[0].BC, "b": parts[1].BC}, backend="matplotlib").savefig(tmp_path / "both.png")
