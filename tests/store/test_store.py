"""The store's promises: round trip, layout, publishing, refusals, resuming."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr import store as vs
from vaearr.errors import DataError, ExistsError, NoInputError, SchemaError, UsageError
from vaearr.store import commit

from ..data import random_patterns_dataset


def tree_hash(folder: Path) -> str:
    """One hash over names and contents of all files."""
    seal = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            seal.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return seal.hexdigest()


@given(
    ny=st.integers(1, 40),
    nx=st.integers(1, 37),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, ny: int, nx: int, dtype: str, seed: int) -> None:
    ds = random_patterns_dataset({"y": ny, "x": nx}, dtype=dtype, seed=seed)
    path = vs.create_store(ds, tmp_path_factory.mktemp("s") / "a.zarr")
    back = xr.open_zarr(path).load()
    assert back.patterns.dtype == np.dtype(dtype)
    xr.testing.assert_equal(back, ds)
    assert back.patterns.attrs["signal_dims"] == ["dy", "dx"]
    assert back.x.attrs == ds.x.attrs


def test_failure_while_streaming_leaves_nothing(scan: xr.Dataset, tmp_path: Path) -> None:
    def transform(block: np.ndarray, region: vs.Region) -> np.ndarray:
        raise DataError("bad block")

    with pytest.raises(DataError, match="bad block"):
        vs.create_store(scan, tmp_path / "a.zarr", transform=transform)
    assert [p.name for p in tmp_path.iterdir()] == [".a.zarr.lock"]


@pytest.mark.parametrize("what", ["missing", "file", "folder", "zarr", "future"])
def test_what_is_not_a_store_is_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    error, message = DataError, "not a zarr v3 store"
    if what == "missing":
        error, message = NoInputError, "there is no store"
    elif what == "file":
        path.write_text("text")
    elif what == "folder":
        path.mkdir()
    else:
        group = zarr.create_group(path, zarr_format=3)
        message = "not one of vaearr's"
        if what == "future":
            group.attrs["vaearr_schema"] = 99
            message = "update vaearr"
    with pytest.raises(error, match=message):
        vs.open_store(path)


def test_add_variables_refusals_leave_the_store_as_it_was(scan_store: Path, scan: xr.Dataset) -> None:
    before = tree_hash(scan_store)
    with pytest.raises(ExistsError, match="already holds BC"):
        vs.add_variables(scan_store, scan[["BC"]])
    with pytest.raises(SchemaError, match=r"'y'.*align the data to the store first"):
        vs.add_variables(scan_store, scan[["BC"]].rename(BC="b").assign_coords(y=scan.y + 0.1))
    with pytest.raises(SchemaError, match=r"'y'.*align the data to the store first"):
        vs.add_variables(scan_store, scan[["BC"]].rename(BC="b").isel(y=slice(4)))
    with pytest.raises(UsageError, match=r"'\.\./b' cannot be a variable name"):
        vs.add_variables(scan_store, scan[["BC"]].rename(BC="../b"))
    assert tree_hash(scan_store) == before


def _stage(path: Path, request: dict[str, object], *, stop_after: int | None = None) -> int:
    """Write blocks numbered by their place; returns how many were pending."""
    specs = {"latents": vs.VariableSpec(dims=("y", "x", "latent")), "error": vs.VariableSpec(dims=("y", "x"))}
    coords = xr.Dataset(coords={"latent": np.arange(2)})
    with vs.staged_variables(path, specs, coords=coords, request=request) as staging:
        left = vs.pending(staging)
        for i, region in enumerate(left):
            if i == stop_after:
                return len(left)
            shape = tuple(s.stop - s.start for s in region.values())
            value = np.nan if region["y"].start == 0 else float(region["x"].start)
            vs.write_block(staging, region, {"latents": np.full((*shape, 2), value), "error": np.full(shape, value)})
        vs.publish_staged(staging)
    return len(left)


@pytest.fixture
def wide_store(tmp_path: Path) -> Path:
    return vs.create_store(random_patterns_dataset({"y": 70, "x": 40}, {"dy": 4, "dx": 4}), tmp_path / "wide.zarr")


def test_staged_variables_resume_and_appear_together(wide_store: Path) -> None:
    assert _stage(wide_store, {"a": 1}, stop_after=4) == 6
    assert "latents" not in xr.open_zarr(wide_store)
    assert _stage(wide_store, {"a": 1}) == 2
    ds = xr.open_zarr(wide_store)
    assert np.isnan(ds.latents.values[:32]).all()
    assert (ds.latents.values[32:, 32:] == 32).all()
    assert (ds.error.values[32:, :32] == 0).all()
    assert not commit.staging_root(wide_store).exists()
    with pytest.raises(ExistsError, match="already holds"):
        _stage(wide_store, {"a": 1})


def test_another_request_starts_anew(wide_store: Path) -> None:
    _stage(wide_store, {"a": 1}, stop_after=4)
    assert _stage(wide_store, {"a": 2}) == 6


def test_incomplete_staging_is_not_published(wide_store: Path) -> None:
    specs = {"latents": vs.VariableSpec(dims=("y", "x"))}
    with (
        pytest.raises(RuntimeError, match="6 of 6 blocks"),
        vs.staged_variables(wide_store, specs, coords=xr.Dataset(), request={}) as staging,
    ):
        vs.publish_staged(staging)
    assert "latents" not in xr.open_zarr(wide_store)


def test_runs_and_tables(scan_store: Path, scan: xr.Dataset) -> None:
    with vs.staged_run(scan_store, "vae") as folder:
        vs.write_dataset(
            xr.Dataset({"loss": ("epoch", [2.0, 1.0])}, attrs={"a": [1, 2]}), folder / "history", run="vae"
        )
        assert vs.run_names(scan_store) == []
        vs.publish_run(scan_store, "vae", folder, {"state": "trained"}, xr.Dataset({"roi": scan.present}))
    assert vs.run_manifest(scan_store, "vae")["state"] == "trained"
    assert vs.open_table(scan_store, "vae", "history").attrs["a"] == [1, 2]
    vs.write_table(scan_store, "vae", "ranking", xr.Dataset({"r": ("latent", [0.5])}))
    with pytest.raises(ExistsError, match="already holds runs/vae/ranking"):
        vs.write_table(scan_store, "vae", "ranking", xr.Dataset({"r": ("latent", [0.6])}))
    vs.write_table(scan_store, "vae", "ranking", xr.Dataset({"r": ("latent", [0.6])}), replace=True)
    assert float(vs.open_table(scan_store, "vae", "ranking").r[0]) == 0.6
    with pytest.raises(ExistsError, match="already has a run 'vae'"), vs.staged_run(scan_store, "vae"):
        pass
    with pytest.raises(NoInputError, match=r"no run 'vea'\. Did you mean 'vae'"):
        vs.run_manifest(scan_store, "vea")
    with pytest.raises(NoInputError, match="no table 'health'"):
        vs.open_table(scan_store, "vae", "health")
    assert "runs" in xr.open_datatree(scan_store, engine="zarr").children


def test_one_lock_however_the_path_is_spelt(scan_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "link"
    link.symlink_to(scan_store)
    monkeypatch.chdir(scan_store)
    assert vs.check_store(link) == vs.check_store(".") == scan_store.resolve()


def test_tables_of_runs_with_other_sizes_stand_in_one_tree(scan_store: Path, scan: xr.Dataset) -> None:
    for run, size in (("vae", 2), ("b", 3)):
        table = xr.Dataset({"kl": ("latent", np.arange(size) * 1.0)}, coords={"latent": np.arange(size)})
        with vs.staged_run(scan_store, run) as folder:
            vs.write_dataset(table, folder / "health", run=run)
            coords = {f"latent{'' if run == 'vae' else '_b'}": np.arange(size)}
            vs.publish_run(scan_store, run, folder, {}, xr.Dataset(coords=coords))
        xr.testing.assert_equal(vs.open_table(scan_store, run, "health"), table)
    assert set(xr.open_datatree(scan_store, engine="zarr")["runs"].children) == {"vae", "b"}


def _table(count: int) -> xr.Dataset:
    return xr.Dataset({"r": (("i", "j"), np.full((count, 40), float(count)))})


def test_a_table_that_is_replaced_while_it_is_read_is_read_again(
    trained_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vs.write_table(trained_store, "vae", "ranking", _table(5))
    opened: list[xr.Dataset] = []
    really = xr.open_dataset

    def open_slowly(*args: Any, **kwargs: Any) -> xr.Dataset:
        ds = really(*args, **kwargs)
        if not opened:  # between its metadata and its chunks
            vs.write_table(trained_store, "vae", "ranking", _table(3), replace=True)
        opened.append(ds)
        return ds

    monkeypatch.setattr("vaearr.store.read.xr.open_dataset", open_slowly)
    found = vs.open_table(trained_store, "vae", "ranking")
    xr.testing.assert_equal(found, _table(3))
    with pytest.raises(ValueError, match="ranking"):
        opened[0].load()
    assert len(opened) > 1
