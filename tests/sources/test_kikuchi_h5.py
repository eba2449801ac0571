"""HDF5 pattern stacks: values land at their coordinates, whatever the file's order; bad files fail
in one line.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sources.refusals import refused
from vaearr.sources import open_source

GZIP = {"chunks": (4, 1, 5, 7), "compression": "gzip"}


def raster(ny: int, nx: int) -> np.ndarray:
    """[x, y] step numbers, x fastest."""
    y, x = np.divmod(np.arange(ny * nx), nx)
    return np.stack([x, y], axis=1)


def patterns_at(
    coords: np.ndarray, shape: tuple[int, ...] = (1, 5, 7), dtype: Any = "u2"
) -> np.ndarray:
    """Patterns that tell which scan point and which detector pixel each value belongs to."""
    base = (coords[:, 0] % 10) * 10 + coords[:, 1] % 10
    inner = np.arange(np.prod(shape)).reshape(shape)
    return (base.reshape(-1, *(1,) * len(shape)) + inner % 100).astype(dtype)


def write(path: Path, images: Any, coords: Any, **layout: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, **layout)
        file["coords"] = coords
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """4 rows of 6 scan points, 5 x 7 pixels: no two axes alike."""
    coords = raster(4, 6)
    return write(tmp_path / "scan.h5", patterns_at(coords), coords)


# what comes out


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_values_land_at_their_coordinates(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    ny, nx = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 7))
    n_points = data.draw(st.integers(-(-ny * nx // 4), ny * nx))
    order = data.draw(st.permutations(range(ny * nx)))[:n_points]
    origin = data.draw(st.tuples(st.integers(-5, 5), st.integers(-5, 5)))
    spacing = data.draw(st.integers(1, 3))
    coords = raster(ny, nx)[list(order)] * spacing + origin
    dtype = data.draw(st.sampled_from(["u1", "f4"]))
    layout = data.draw(st.sampled_from([{}, GZIP])) if n_points >= 4 else {}
    path = write(
        tmp_path_factory.mktemp("h5") / "a.h5", patterns_at(coords, dtype=dtype), coords, **layout
    )
    with open_source(path) as ds:
        block = ds.patterns.load()
        assert int(ds.present.sum()) == n_points
        for (x, y), pattern in zip(coords, patterns_at(coords, dtype=dtype), strict=True):
            np.testing.assert_array_equal(block.sel(x=x, y=y), pattern[0])
            assert ds.present.sel(x=x, y=y)
        absent = block.values[~ds.present.values]
        assert np.isnan(absent).all() if dtype == "f4" else (absent == 0).all()


# reading


def test_order_of_the_rows_and_blocks_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaearr.store.layout.CHUNK_SAMPLES", 64)
    monkeypatch.setattr("vaearr.sources.lazy.SLAB_BYTES", 4096)
    layout = {"chunks": (16, 1, 5, 7), "compression": "gzip"}
    coords = raster(24, 20)
    order = np.random.default_rng(1).permutation(len(coords))[:-7]
    for name, rows in (("raster", np.sort(order)), ("shuffled", order)):
        write(tmp_path / f"{name}.h5", patterns_at(coords[rows]), coords[rows], **layout)
    a, b = (open_source(tmp_path / f"{name}.h5") for name in ("raster", "shuffled"))
    xr.testing.assert_identical(a.load(), b.load())


# the xarray engine


@pytest.mark.parametrize("chunks", [None, {}], ids=["lazy", "dask"])
def test_engine_pickles(scan: Path, chunks: Any) -> None:
    with xr.open_dataset(scan, engine="kikuchi-h5", chunks=chunks, cache=False) as ds:
        ds.patterns[0, 0].values  # noqa: B018
        with pickle.loads(pickle.dumps(ds)) as again:
            xr.testing.assert_identical(again.compute(), open_source(scan).load())


# refusals of the file


NAN, HALF, TWICE, FAR = (
    np.where(np.arange(12).reshape(6, 2) == 8, v, raster(2, 3)) for v in (np.nan, 1.5, 0, 1e300)
)


@pytest.mark.parametrize(
    ("images", "coords", "match"),
    [
        (
            np.zeros((6, 3)),
            raster(2, 3),
            r"shape \(6, 3\); expected integers or floats \(N, H, W\)",
        ),
        (np.zeros((6, 3, 3)), raster(2, 2), "4 rows for 6 patterns"),
        (np.zeros((0, 3, 3)), np.zeros((0, 2)), "at least one pattern"),
        (np.zeros((6, 3, 3), bool), raster(2, 3), "dtype bool"),
        (np.zeros((6, 3, 3)), np.zeros((6, 3)), r"shape \(6, 3\); expected whole numbers \(N, 2\)"),
        (np.zeros((6, 3, 3)), raster(2, 3).astype("S2"), r"dtype \|S2"),
        (np.zeros((6, 3, 3)), NAN, r"row 4: \[x, y\] = \[nan, 1.0\] are no step numbers"),
        (np.zeros((6, 3, 3)), HALF, "divide positions by the step size"),
        (np.zeros((6, 3, 3)), FAR, "row 4: .* no step numbers"),
        (
            np.zeros((6, 3, 3)),
            TWICE,
            r"row 3 and row 4 are both the scan point \[x, y\] = \[0, 1\]",
        ),
        (
            np.zeros((40, 3, 3)),
            np.stack([np.arange(40), np.arange(40) * 7 % 40], 1),
            "40 points lie scattered",
        ),
    ],
)
def test_refuses_what_is_no_scan(
    tmp_path: Path, images: np.ndarray, coords: np.ndarray, match: str
) -> None:
    refused(write(tmp_path / "a.h5", images, coords), match)


def test_refuses_truncated(scan: Path) -> None:
    raw = scan.read_bytes()
    scan.write_bytes(raw[:-20])
    refused(scan, rf"truncated file: eof = {len(raw) - 20}.* stored_eof = {len(raw)}")
