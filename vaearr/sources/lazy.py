"""Samples in files as dask arrays: one task for each block of samples, in the tiles of stores.

A source provides a reader: row numbers `(n,)` -> values `(n, …)`, in that order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from xarray.backends import CachingFileManager

from vaearr.errors import DataError
from vaearr.sources.hdf5 import open_hdf5
from vaearr.store.layout import pattern_chunks

Read = Callable[[np.ndarray], np.ndarray]
SLAB_BYTES = 32 * 2**20
THREADS = 8


def lazy_array(read: Read, rows: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """A dask array (*rows.shape, *shape) of rows by number; -1 for none (NaN, of integers 0)."""
    import dask.array as da

    dtype = dtype.newbyteorder("=")
    tile = pattern_chunks(rows.shape, shape, dtype.itemsize)[: rows.ndim]
    numbers = da.from_array(rows, chunks=tile, name=False)
    return da.map_blocks(
        _block,
        numbers,
        read=read,
        shape=shape,
        new_axis=list(range(rows.ndim, rows.ndim + len(shape))),
        chunks=(*numbers.chunks, *((side,) for side in shape)),
        dtype=dtype,
        meta=np.empty((0,) * (rows.ndim + len(shape)), dtype),
        as_dtype=dtype,
    )


def _block(rows: np.ndarray, read: Read, shape: tuple[int, ...], as_dtype: np.dtype) -> np.ndarray:
    is_present = rows >= 0
    if is_present.all():
        values = read(rows.ravel()).astype(as_dtype, copy=False)
        return values.reshape(*rows.shape, *shape)
    missing = np.nan if as_dtype.kind == "f" else 0
    block = np.full((*rows.shape, *shape), missing, as_dtype)
    if is_present.any():
        block[is_present] = read(rows[is_present]).reshape(-1, *shape)
    return block


def one_by_one(read: Callable[[int], np.ndarray]) -> Read:
    """A reader of samples that are separate files, several at a time."""

    def rows(numbers: np.ndarray) -> np.ndarray:
        with ThreadPoolExecutor(THREADS) as pool:
            return np.stack(list(pool.map(read, numbers)))

    return rows


class H5Rows:
    """Rows of an HDF5 dataset `(N, …)`, or `(ny, nx, …)` of a scan with `is_grid`.

    `close` closes the file, which opens again when it is needed, in any process.
    """

    def __init__(self, dataset: h5py.Dataset, *, is_grid: bool = False) -> None:
        self.name, self.is_grid = dataset.name, is_grid
        file = Path(dataset.file.filename).resolve()
        self._file = CachingFileManager(open_hdf5, str(file), mode="r")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        dataset = self._file.acquire()[self.name]
        try:
            return _points(dataset, numbers) if self.is_grid else _rows(dataset, numbers)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{dataset.file.filename}: rows {numbers.min()} to {numbers.max()} of "
                f"{self.name!r} cannot be read ({error}); the file is damaged, so fetch it again "
                "from where it was written."
            ) from error


def _points(dataset: h5py.Dataset, numbers: np.ndarray) -> np.ndarray:
    """Points of a scan by their row-major number, from the box around them."""
    y, x = np.divmod(numbers, dataset.shape[1])
    box = dataset[y.min() : y.max() + 1, x.min() : x.max() + 1]
    return np.asarray(box[y - y.min(), x - x.min()])


def _rows(dataset: h5py.Dataset, numbers: np.ndarray) -> np.ndarray:
    """Rows in few reads: neighbours together, complete chunks, at most `SLAB_BYTES` at a time."""
    out = np.empty((numbers.size, *dataset.shape[1:]), dataset.dtype)
    order = np.argsort(numbers)
    rows = numbers[order]
    chunk = dataset.chunks[0] if dataset.chunks else 1
    n_bytes = chunk * dataset.dtype.itemsize * math.prod(dataset.shape[1:])
    slab = rows // (chunk * max(1, SLAB_BYTES // n_bytes))
    is_cut = (np.diff(rows) > chunk) | (np.diff(slab) > 0)
    for positions in np.split(np.arange(rows.size), np.flatnonzero(is_cut) + 1):
        read_rows = rows[positions]
        start = read_rows[0]
        out[order[positions]] = dataset[start : read_rows[-1] + 1][read_rows - start]
    return out
