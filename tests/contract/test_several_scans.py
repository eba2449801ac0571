"""Several scans joined by `va.concat` train one model, which `Run.apply` takes to each store."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import vaearr as va
from vaearr.batching import Walk
from vaearr.errors import ExistsError, SchemaError, UsageError
from vaearr.testing import synthetic_scan

from .harness import vaearr, zarr

SETTINGS = {
    "latent_dim": 3,
    "epochs": 2,
    "model": {"options": {"width": 8, "max_width": 8, "hidden": 16}},
    "progress": False,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def joined_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores a and b, of other grids and steps, with two patterns in common, and in a a run trained
    on both.
    """
    folder = tmp_path_factory.mktemp("scans")
    first = synthetic_scan(14, 10, pattern_shape=(24, 24), n_grains=4, seed=1)
    second = synthetic_scan(9, 16, pattern_shape=(24, 24), n_grains=3, seed=2, step=0.5)
    second.patterns[3, 4] = first.patterns[2, 5].values
    for ds, name in ((first, "a"), (second, "b")):
        va.ingest(ds[["patterns", "BC"]], folder / f"{name}.zarr", progress=False)
    va.train(va.concat([folder / "a.zarr", folder / "b.zarr"]), **SETTINGS)
    return folder


@pytest.fixture
def scans(joined_template: Path, tmp_path: Path) -> list[Path]:
    return [
        Path(shutil.copytree(joined_template / name, tmp_path / name))
        for name in ("a.zarr", "b.zarr")
    ]


def test_scans_lie_one_below_the_other_with_a_gap(scans: list[Path]) -> None:
    both = va.concat(scans)
    assert both.sizes == {"y": 27, "x": 14, "dy": 24, "dx": 24}
    assert both.scan.values.tolist() == [0] * 10 + [-1] + [1] * 16
    assert both.patterns.chunks is not None
    stores = [xr.open_zarr(path) for path in scans]
    np.testing.assert_array_equal(both.patterns[:10], stores[0].patterns)
    np.testing.assert_array_equal(both.patterns[11:, :9], stores[1].patterns)
    np.testing.assert_array_equal(both.BC[11:, :9], stores[1].BC)
    assert int(both.present.sum()) == 140 + 144
    assert not both.present[10].any()
    assert not both.present[11:, 9:].any()
    assert not {"latents", "roi", "split"} & set(both)
    np.testing.assert_array_equal(va.roi(both, where="BC > 100")[:10], stores[0].BC > 100)


def test_neighbours_never_cross_a_gap(scans: list[Path]) -> None:
    both = va.concat(scans)
    rows = xr.ones_like(both.patterns, dtype="f4") * both.y  # a sample tells its row
    both["patterns"] = rows.assign_attrs(both.patterns.attrs).transpose(*both.patterns.dims)

    def alike(patterns: torch.Tensor) -> torch.Tensor:
        return torch.linspace(0, 1, patterns[0].numel()).expand(len(patterns), 1, -1)

    n_moved = 0
    for batch in va.batches(both, batch_size=64, seed=1).epoch(0, walk=Walk(alike, 8)):
        own, target = batch.patterns.flatten(1)[:, 0], batch.target.flatten(1)[:, 0]
        assert ((own < 10) == (target < 10)).all()
        n_moved += int((own != target).sum())
    assert n_moved > 100


def test_the_run_is_applied_to_each_store(scans: list[Path]) -> None:
    run = va.load_run(scans[0])
    applied = run.apply(scans[1])
    assert applied.path == scans[1]
    for one, n_points in ((run, 140), (applied, 144)):
        assert one.manifest["n_roi"] == n_points
        assert one.manifest["n_train"] + one.manifest["n_validation"] == 284
        assert one.manifest["weights_sha256"] == run.manifest["weights_sha256"]
        assert one.history.sizes["epoch"] == 2
        assert set(np.unique(one.ds.split)) == {1, 2}
    stores = [va.open_store(path).attrs["store_id"] for path in scans]
    assert [scan["store_id"] for scan in applied.manifest["data"]["scans"].values()] == stores
    assert applied.ds.split.shape == (16, 9)
    maps = zarr(scans[0], "runs/vae/scans")
    np.testing.assert_array_equal(applied.ds.split, maps.split[11:, :9])
    np.testing.assert_array_equal(run.ds.split, maps.split[:10])
    for one in (run, applied):
        one.encode(progress=False)
        assert vaearr("verify", one.path).code == 0
        xr.open_datatree(one.path, engine="zarr").close()
    a, b = (xr.open_zarr(path) for path in scans)
    np.testing.assert_allclose(a.latents[2, 5], b.latents[3, 4], atol=1e-5)
    again = run.apply(scans[1])
    assert again.manifest["time"] == applied.manifest["time"]
    assert "latents" in again.ds
    vaearr("associate", scans[1], "--target", "BC", "--metric", "pearson")


def test_all_points_decide_the_model(scans: list[Path]) -> None:
    run = va.load_run(scans[0])
    applied = run.apply(scans[1])
    patterns = [one.ds.patterns.values[one.ds.split.values == 1] for one in (run, applied)]
    mean = np.concatenate(patterns).mean(0)
    np.testing.assert_allclose(run.model.preprocess.background.numpy().squeeze(), mean, rtol=1e-3)


def test_the_same_training_is_made_once(scans: list[Path]) -> None:
    time = va.load_run(scans[0]).manifest["time"]
    both = va.concat(scans)
    assert va.train(both, **SETTINGS).manifest["time"] == time
    with pytest.raises(ExistsError, match="latent_dim"):
        va.train(both, **(SETTINGS | {"latent_dim": 4}))
    with pytest.raises(ExistsError, match=r"scans\.1\.region"):
        va.train(both, roi=va.roi(both, y=(0, 20)), **SETTINGS)


def test_a_run_in_the_second_store_streamed(scans: list[Path]) -> None:
    both = va.concat(scans)
    run = va.train(
        both, store=scans[1], run="other", memory=50_000 / 2**30, epoch_samples=0, **SETTINGS
    )
    assert run.path == scans[1]
    assert np.isfinite(run.history.loss).all()
    assert run.ds.roi_other.shape == (16, 9)
    back = run.apply(scans[0], name="back")
    assert back.ds.split_back.shape == (10, 14)


def test_lazy_steps_on_joined_scans(scans: list[Path]) -> None:
    both = va.concat(scans)
    halved = both.assign(patterns=(both.patterns // 2).assign_attrs(both.patterns.attrs))
    run = va.train(halved, run="halved", **SETTINGS)
    with pytest.raises(UsageError, match="was trained on a Dataset whose patterns"):
        run.encode(progress=False)
    own = va.open_store(scans[0])
    own = own.assign(patterns=(own.patterns // 2).assign_attrs(own.patterns.attrs))
    assert "latents_halved" in va.encode(own, run, progress=False)


def test_a_store_that_was_not_trained_on(scans: list[Path], tmp_path: Path) -> None:
    third = synthetic_scan(8, 8, pattern_shape=(24, 24), n_grains=2, seed=3)
    va.ingest(third[["patterns"]], tmp_path / "c.zarr", progress=False)
    run = va.load_run(scans[0]).apply(tmp_path / "c.zarr", name="taken")
    assert run.name == "taken"
    assert run.manifest["n_train"] == 0
    vaearr("encode", tmp_path / "c.zarr", "--from", scans[0])
    latents = zarr(tmp_path / "c.zarr")["latents"]
    run.encode(progress=False)
    np.testing.assert_allclose(
        xr.open_zarr(tmp_path / "c.zarr").latents_taken.values, latents.values, atol=1e-6
    )


def test_refusals(scans: list[Path], tmp_path: Path) -> None:
    va.ingest(
        synthetic_scan(8, 8, pattern_shape=(20, 24), n_grains=2)[["patterns"]],
        tmp_path / "c.zarr",
        progress=False,
    )
    with pytest.raises(SchemaError, match=r"a\.zarr and .*c\.zarr cannot be joined .*sample shape"):
        va.concat([scans[0], tmp_path / "c.zarr"])
    with pytest.raises(UsageError, match=r"a\.zarr is given twice"):
        va.concat([scans[0], scans[0]])
    with pytest.raises(UsageError, match="takes a list of scans"):
        va.concat(scans[0])  # type: ignore[arg-type]
    both = va.concat(scans)
    with pytest.raises(UsageError, match=r"c\.zarr is none of the joined scans"):
        va.train(both, store=tmp_path / "c.zarr", **SETTINGS)
    unsaved = va.concat([synthetic_scan(8, 8, pattern_shape=(24, 24), n_grains=2), scans[0]])
    with pytest.raises(UsageError, match="was not opened from a store"):
        va.train(unsaved, **SETTINGS)
    run = va.load_run(scans[0])
    with pytest.raises(UsageError, match="leave out roi"):
        run.apply(scans[1], roi=va.roi(va.open_store(scans[1])))
    va.train(scans[1], **SETTINGS)
    with pytest.raises(ExistsError, match=r"b\.zarr already has a run 'vae'"):
        run.apply(scans[1])
    assert (
        run.apply(scans[1], overwrite=True).manifest["weights_sha256"]
        == run.manifest["weights_sha256"]
    )


def test_clusters_and_colours_over_all_scans(scans: list[Path]) -> None:
    va.load_run(scans[0]).apply(scans[1])
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
