"""Reading: the values that were written or an error, whatever the chunks; no setting left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from vaearr import store as vs
from vaearr.errors import DataError
from vaearr.store import layout
from vaearr.store.listing import refresh_listing, write_seal
from vaearr.store.places import Folder

from ..data import random_patterns_dataset

BOXES = [(0, 40, 0, 35), (3, 35, 2, 35), (31, 33, 7, 9), (39, 40, 34, 35), (0, 32, 0, 32), (0, 16, 8, 24)]


def _sharded(path: Path) -> Path:
    """The same store with its patterns as earlier versions wrote them: chunks of 8 x 8 in shards of 32 x 32."""
    array = zarr.open_array(path / "patterns", mode="r")
    values, attrs, (_, _, *signal) = np.asarray(array[:]), dict(array.attrs), array.shape
    shutil.rmtree(path / "patterns")
    zarr.open_group(path, mode="r+").create_array(
        "patterns",
        shape=values.shape,
        dtype=values.dtype,
        chunks=(8, 8, *signal),
        shards=(32, 32, *signal),
        compressors=layout.pattern_codecs(),
        fill_value=layout.fill_value(values.dtype),
        dimension_names=["y", "x", "dy", "dx"],
        attributes=attrs,
        config={"write_empty_chunks": True},
    )[:] = values
    write_seal(path / "patterns", Folder(path / "patterns").files())
    refresh_listing(path)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shards, three of them at the border of the scan."""
    ds = random_patterns_dataset({"y": 40, "x": 35}, dtype="uint16")
    return _sharded(vs.create_store(ds, tmp_path_factory.mktemp("s") / "s.zarr"))


def test_values_are_zarrs_own(path: Path) -> None:
    want = zarr.open_group(path, mode="r")["patterns"][:]
    patterns = vs.open_store(path, chunks=None).patterns
    for y0, y1, x0, x1 in BOXES:
        region = {"y": slice(y0, y1), "x": slice(x0, x1)}
        np.testing.assert_array_equal(vs.read_block(patterns, region), want[y0:y1, x0:x1])
    np.testing.assert_array_equal(patterns.isel(y=[1, 5, 30], x=slice(2, 34, 3)), want[[1, 5, 30], 2:34:3])
    points = {"y": xr.DataArray([3, 39], dims="p"), "x": xr.DataArray([34, 0], dims="p")}
    np.testing.assert_array_equal(patterns.isel(points), want[[3, 39], [34, 0]])
    np.testing.assert_array_equal(patterns.isel(y=7, dx=3), want[7, :, :, 3])


def _problem(patterns: xr.DataArray, region: vs.Region, want: np.ndarray) -> str | None:
    """What reading says; values that differ are not accepted."""
    try:
        np.testing.assert_array_equal(vs.read_block(patterns, region), want)
    except DataError as error:
        return str(error)
    return None


def test_no_flipped_bit_is_silent(tmp_path: Path) -> None:
    store = _sharded(vs.create_store(random_patterns_dataset({"y": 40, "x": 19}), tmp_path / "s.zarr"))
    rng = np.random.default_rng(0)
    regions = [{"y": slice(0, 40), "x": slice(0, 19)}, {"y": slice(1, 39), "x": slice(3, 18)}]
    wants = [vs.read_block(vs.open_store(store, chunks=None).patterns, region) for region in regions]
    n_found = 0
    for shard in [file for file in (store / "patterns" / "c").rglob("*") if file.is_file()]:
        good = shard.read_bytes()
        for place in rng.integers(0, len(good), 30):
            bad = bytearray(good)
            bad[place] ^= 1 << int(rng.integers(8))
            shard.write_bytes(bytes(bad))
            for region, want in zip(regions, wants, strict=True):
                patterns = vs.open_store(store, chunks=None).patterns
                problem = _problem(patterns, region, want)
                assert problem is None or f"s.zarr is damaged: {shard.relative_to(store)} cannot be decoded" in problem
                n_found += problem is not None
        shard.write_bytes(good)
    assert n_found > 100  # of 120; a chunk beyond the border is not read
