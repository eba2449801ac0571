"""The store's promises: round trip, refusals, what is replaced while it is read."""

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
from vaearr.store.commit import edit_store

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
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, ny: int, nx: int, dtype: str, seed: int
) -> None:
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
        message = "is a file, not a store"
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


def test_refusals_of_variables_leave_the_store_as_it_was(
    scan_store: Path, scan: xr.Dataset
) -> None:
    before = tree_hash(scan_store)
    with pytest.raises(ExistsError, match="already holds BC"):
        vs.write_results(scan_store, variables=scan[["BC"]])
    with pytest.raises(SchemaError, match=r"'y'.*align the data to the store first"):
        vs.write_results(
            scan_store, variables=scan[["BC"]].rename(BC="b").assign_coords(y=scan.y + 0.1)
        )
    with pytest.raises(SchemaError, match=r"'y'.*align the data to the store first"):
        vs.write_results(scan_store, variables=scan[["BC"]].rename(BC="b").isel(y=slice(4)))
    with pytest.raises(UsageError, match=r"'\.\./b' cannot be a variable name"):
        vs.write_results(scan_store, variables=scan[["BC"]].rename(BC="../b"))
    assert tree_hash(scan_store) == before


def test_one_lock_however_the_path_is_spelt(
    scan_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link"
    link.symlink_to(scan_store)
    monkeypatch.chdir(scan_store)
    assert vs.check_store(link) == vs.check_store(".") == scan_store.resolve()


def test_a_missing_run_names_the_command_that_writes(scan_store: Path) -> None:
    with edit_store(scan_store), pytest.raises(NoInputError, match=r"complete.*written by process"):
        vs.run_manifest(scan_store, "not_yet")


def _table(count: int) -> xr.Dataset:
    return xr.Dataset({"r": (("i", "j"), np.full((count, 40), float(count)))})


def _write_table(store: Path, count: int) -> None:
    tables = {"ranking": _table(count)}
    vs.write_results(store, run="vae", tables=tables, replacing=["runs/vae/ranking"])


def test_a_table_that_is_replaced_while_it_is_read_is_read_again(
    trained_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_table(trained_store, 5)
    opened: list[xr.Dataset] = []
    really = xr.open_dataset

    def open_slowly(*args: Any, **kwargs: Any) -> xr.Dataset:
        ds = really(*args, **kwargs)
        if not opened:  # between its metadata and its chunks
            _write_table(trained_store, 3)
        opened.append(ds)
        return ds

    monkeypatch.setattr("vaearr.store.read.xr.open_dataset", open_slowly)
    found = vs.open_table(trained_store, "vae", "ranking")
    xr.testing.assert_equal(found, _table(3))
    with pytest.raises(ValueError, match="ranking"):
        opened[0].load()
    assert len(opened) > 1
