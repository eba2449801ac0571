"""Samples that lie in files as dask arrays: one task for each block of samples, in the tiles that stores have.

What a source brings is a reader: row numbers `(n,)` -> values `(n, …)`, in that order. HDF5 is read in few slabs of
whole chunks; where the rows lie so far from grid order that blocks would read the file more than twice, they are copied
once to a scratch file that vanishes with the process.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from dask.utils import SerializableLock
from xarray.backends import CachingFileManager

from vaearr.errors import DataError
from vaearr.sources.hdf5 import open_hdf5
from vaearr.sources.retries import patiently
from vaearr.store.layout import pattern_chunks

Read = Callable[[np.ndarray], np.ndarray]
SLAB_BYTES, GAP_BYTES = 32 * 2**20, 64 * 2**10
MOST_READ = 2.0  # times that blocks may read the file before a scratch copy pays
THREADS = 8


def lazy_array(read: Read, rows: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """A dask array (*rows.shape, *shape) of the rows that `rows` names by number, -1 for none (NaN, of integers 0)."""
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
        of=dtype,
    )


def _block(rows: np.ndarray, read: Read, shape: tuple[int, ...], of: np.dtype) -> np.ndarray:
    wanted = rows.ravel()
    there = wanted >= 0
    if there.all():
        out = patiently(lambda: read(wanted)).astype(of, copy=False)
    else:
        out = np.full((wanted.size, *shape), np.nan if of.kind == "f" else 0, of)
        if there.any():
            out[there] = patiently(lambda: read(wanted[there])).reshape(-1, *shape)
    return out.reshape(*rows.shape, *shape)


def one_by_one(read: Callable[[int], np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> Read:
    """A reader of samples that are files of their own, several at a time. Raises DataError for one that has changed."""

    def rows(wanted: np.ndarray) -> np.ndarray:
        out = np.empty((wanted.size, *shape), dtype.newbyteorder("="))

        def one(place: int) -> None:
            values = read(int(wanted[place]))
            if values.shape != shape:
                raise DataError(f"sample {wanted[place]} changed its shape while it was read; open the source again.")
            out[place] = values

        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            for _ in pool.map(one, range(wanted.size)):
                pass
        return out

    return rows


def raw_rows(wanted: np.ndarray, path: Path, offset: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Rows that lie one after the other in a binary file, from `offset` on."""
    try:
        return np.asarray(np.memmap(path, dtype, "r", offset, shape)[wanted])
    except ValueError as error:
        raise DataError(f"{path} became shorter while it was read; open it again.") from error


class Flat:
    """An HDF5 dataset over rows and columns of a scan `(ny, nx, …)`, as one of its points `(ny * nx, …)`."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.of, self.dtype, self.name, self.file, self.id = (
            dataset,
            dataset.dtype,
            dataset.name,
            dataset.file,
            dataset.id,
        )
        self.shape = (dataset.shape[0] * dataset.shape[1], *dataset.shape[2:])
        self.chunks = dataset.chunks and dataset.chunks[1:]

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, points: slice) -> np.ndarray:
        (first, x0), (last, x1) = (divmod(point, self.of.shape[1]) for point in (points.start, points.stop - 1))
        if first == last:
            return np.asarray(self.of[first, x0 : x1 + 1])
        parts = self.of[first, x0:], *(self.of[y] for y in range(first + 1, last)), self.of[last, : x1 + 1]
        return np.concatenate(parts)


class H5Rows:
    """Rows of an HDF5 dataset; `close` lets go of the file, which opens again when it is needed, in any process.

    grid: row number of each point, in the order in which the rows will be asked for. scratch: folder for one copy, made
    at the first read where blocks of the grid would read the file more than twice.
    """

    def __init__(self, dataset: h5py.Dataset | Flat, grid: np.ndarray, scratch: Path | None) -> None:
        self.name, self._lock, self._is_flat = str(dataset.name), SerializableLock(), isinstance(dataset, Flat)
        self._copy: np.ndarray | None = None
        self.scratch = scratch if scratch is not None and _times_read(dataset, grid) > MOST_READ else None
        self._file = CachingFileManager(open_hdf5, str(Path(dataset.file.filename).resolve()), mode="r")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "scratch": None, "_copy": None}

    def close(self) -> None:
        """Close the file and drop a scratch copy."""
        self._copy = None
        self._file.close()

    def __call__(self, wanted: np.ndarray) -> np.ndarray:
        dataset = self._file.acquire()[self.name]
        dataset = Flat(dataset) if self._is_flat else dataset
        with self._lock:
            if self.scratch is not None:  # asked once
                self._copy, self.scratch = _scratch_copy(dataset, self.scratch), None
        return _slabs(dataset, wanted) if self._copy is None else np.asarray(self._copy[wanted])


def _slabs(dataset: h5py.Dataset | Flat, wanted: np.ndarray) -> np.ndarray:
    """Rows in few reads: neighbours together, whole chunks, at most `SLAB_BYTES` at a time."""
    out = np.empty((wanted.size, *dataset.shape[1:]), dataset.dtype)
    order = np.argsort(wanted, kind="stable")
    rows, chunk, n_bytes = wanted[order], *_chunk(dataset)
    slab = rows // (chunk * max(1, SLAB_BYTES // (n_bytes * chunk)))
    cuts = np.flatnonzero((np.diff(rows) > max(chunk, GAP_BYTES // n_bytes)) | (np.diff(slab) > 0)) + 1
    for part in np.split(np.arange(rows.size), cuts):
        start, stop = int(rows[part[0]]), int(rows[part[-1]]) + 1
        try:
            out[order[part]] = dataset[start:stop][rows[part] - start]
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{dataset.file.filename}: rows {start} to {stop - 1} of {dataset.name!r} cannot be read ({error}); "
                f"the file is damaged, so fetch it again from where it was written."
            ) from error
    return out


def _chunk(dataset: h5py.Dataset | Flat) -> tuple[int, int]:
    """Rows that must be read together, which are one where nothing is compressed, and bytes of a row."""
    is_packed = dataset.chunks and dataset.id.get_create_plist().get_nfilters()
    return int(dataset.chunks[0]) if is_packed else 1, dataset.dtype.itemsize * math.prod(dataset.shape[1:])


def _times_read(dataset: h5py.Dataset | Flat, grid: np.ndarray) -> float:
    """How often each chunk of the file is touched when the grid is read once in blocks."""
    side = pattern_chunks(grid.shape, dataset.shape[1:], dataset.dtype.itemsize)
    iy, ix = np.nonzero(grid >= 0)
    chunks = grid[iy, ix] // _chunk(dataset)[0]
    blocks = (iy // side[0]) * (grid.shape[1] // side[1] + 1) + ix // side[1]
    return np.unique(blocks * (int(chunks.max()) + 1) + chunks).size / np.unique(chunks).size


def _scratch_copy(dataset: h5py.Dataset | Flat, folder: Path) -> np.ndarray:
    """All rows in file order, mapped from an unnamed file in `folder`."""
    chunk, n_bytes = _chunk(dataset)
    step = chunk * max(1, SLAB_BYTES // (n_bytes * chunk))
    with tempfile.TemporaryFile(dir=folder, prefix=".vaearr-scratch-") as file:
        for start in range(0, len(dataset), step):
            file.write(_slabs(dataset, np.arange(start, min(start + step, len(dataset)))).data)
        file.flush()
        return np.memmap(file, dataset.dtype, "r", shape=dataset.shape)
