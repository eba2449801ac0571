"""Rows of a pattern stack, read in any order: few large reads, bounded memory, no loop over scan points.

Rows come from an HDF5 dataset (chunked, perhaps compressed), read in slabs of whole chunks, or straight from the bytes
of a file: a contiguous HDF5 dataset, a raw binary file, or the scratch copy of a dataset whose rows lie far from grid
order. A source with a form of its own, such as one file per row, brings an object with the method `gather`.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import h5py
import numpy as np

from vaearr.errors import DataError, WriteError
from vaearr.retries import patiently

SLAB_BYTES = 32 * 2**20
GAP_BYTES = 64 * 2**10


@dataclass(frozen=True, eq=False)
class FileRows:
    """Rows of `dtype` and `shape` that lie one after the other in an open file (descriptor), from `offset` on."""

    file: int
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]


class OtherRows(Protocol):
    """Rows that read themselves."""

    def gather(self, wanted: np.ndarray, out: np.ndarray, where: np.ndarray, window: tuple[slice, ...]) -> None:
        """Read `self[wanted][:, *window]` into `out[where]`."""


Rows: TypeAlias = h5py.Dataset | FileRows | OtherRows


class RowManager(Protocol):
    """Opens a file when it is needed; what `acquire` gives maps a name to rows."""

    def acquire(self) -> Any:
        """The open file."""

    def close(self) -> None:
        """Close it; it opens again at the next `acquire`."""


class RawFile:
    """A binary file of rows that lie one after the other from `offset` on; a mapping of one entry, for a manager."""

    def __init__(self, path: str, offset: int, dtype: str, shape: tuple[int, ...]) -> None:
        with open(path, "rb") as file:
            self._rows: FileRows | None = file_rows(file.fileno(), offset, np.dtype(dtype), shape)

    def __getitem__(self, name: str) -> FileRows:
        if self._rows is None:
            raise ValueError("the file is closed")
        return self._rows

    def close(self) -> None:
        """Let go of the file; it is closed when nothing reads from it any more."""
        self._rows = None


def file_rows(file: int, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> FileRows:
    """Rows in an open file, through a descriptor of their own that is closed with them."""
    own = os.dup(file)
    rows = FileRows(own, offset, dtype, shape)
    weakref.finalize(rows, os.close, own)
    return rows


def contiguous_rows(dataset: h5py.Dataset) -> FileRows | None:
    """The dataset's rows where it lies plainly in its file; None where only HDF5 can read it."""
    offset = dataset.id.get_offset()
    if dataset.chunks is not None or offset is None or dataset.file.driver != "sec2" or dataset.size == 0:
        return None
    if not dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype)):
        return None
    with open(dataset.file.filename, "rb") as file:
        if offset + dataset.nbytes > os.fstat(file.fileno()).st_size:
            return None
        rows = file_rows(file.fileno(), offset, dataset.dtype, dataset.shape)
    ends = np.array([0, dataset.shape[0] - 1])
    probe = np.empty((2, *dataset.shape[1:]), dataset.dtype)
    gather(rows, ends, probe, np.arange(2), _whole(rows.shape))
    return rows if probe.tobytes() == dataset[0].tobytes() + dataset[-1].tobytes() else None


def _whole(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, size) for size in shape[1:])


def gather(rows: Rows, wanted: np.ndarray, out: np.ndarray, where: np.ndarray, window: tuple[slice, ...]) -> None:
    """Read `rows[wanted][:, *window]` into `out[where]`; `window` holds one bounded slice for each axis of a row."""
    if wanted.size == 0:
        return
    if isinstance(rows, FileRows):
        patiently(lambda: _gather_file(rows, wanted, out, where, window))
    elif isinstance(rows, h5py.Dataset):
        patiently(lambda: _gather_slabs(rows, wanted, out, where, window))
    else:
        patiently(lambda: rows.gather(wanted, out, where, window))


def _gather_file(
    rows: FileRows, wanted: np.ndarray, out: np.ndarray, where: np.ndarray, window: tuple[slice, ...]
) -> None:
    row_shape = rows.shape[1:]
    if out.shape[1:] == row_shape and rows.dtype == out.dtype and out.flags.c_contiguous:
        _read_runs(rows, wanted, out.view(np.uint8).reshape(len(out), -1), where)
        return
    n_rows = max(1, SLAB_BYTES // (rows.dtype.itemsize * math.prod(row_shape)))
    for start in range(0, wanted.size, n_rows):
        some, there = wanted[start : start + n_rows], where[start : start + n_rows]
        part = np.empty((some.size, *row_shape), rows.dtype)
        _read_runs(rows, some, part.view(np.uint8).reshape(some.size, -1), np.arange(some.size))
        out[there] = part[(slice(None), *window)]


def _read_runs(rows: FileRows, wanted: np.ndarray, out: np.ndarray, where: np.ndarray) -> None:
    """Read rows as bytes, each run of neighbours (in the file and in `out`) by one call."""
    n_bytes, buffer = out.shape[1], out.data.cast("B")
    cuts = np.flatnonzero((np.diff(wanted) != 1) | (np.diff(where) != 1)) + 1
    firsts, lasts = np.concatenate([[0], cuts]), np.concatenate([cuts, [wanted.size]])
    sources = (rows.offset + wanted[firsts] * n_bytes).tolist()
    starts, stops = (where[firsts] * n_bytes).tolist(), ((where[lasts - 1] + 1) * n_bytes).tolist()
    for source, start, stop in zip(sources, starts, stops, strict=True):
        while start < stop:
            n_read = os.preadv(rows.file, [buffer[start:stop]], source)
            if n_read == 0:
                raise DataError(f"the file ends before byte {source}: it became shorter while it was read.")
            start, source = start + n_read, source + n_read


def _gather_slabs(
    dataset: h5py.Dataset, wanted: np.ndarray, out: np.ndarray, where: np.ndarray, window: tuple[slice, ...]
) -> None:
    order = np.argsort(wanted, kind="stable")
    wanted, where = wanted[order], where[order]
    for first, last in _slabs(wanted, rows_per_chunk(dataset), row_bytes(dataset)):
        start, stop = int(wanted[first]), int(wanted[last - 1]) + 1
        some, there = wanted[first:last] - start, where[first:last]
        try:
            if some.size == stop - start and _is_run(there):
                dataset.read_direct(out, (slice(start, stop), *window), slice(int(there[0]), int(there[-1]) + 1))
            else:
                out[there] = dataset[(slice(start, stop), *window)][some]
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{dataset.file.filename}: rows {start} to {stop - 1} of {dataset.name!r} cannot be read ({error}); "
                f"the file is damaged, so fetch it again from where it was written."
            ) from error


def _slabs(wanted: np.ndarray, chunk: int, n_bytes: int) -> Iterator[tuple[int, int]]:
    """Cut sorted row numbers into pieces `[first, last)` that are read in one go: near each other, whole chunks."""
    gap = max(chunk, GAP_BYTES // n_bytes)
    n_rows = chunk * max(1, SLAB_BYTES // (n_bytes * chunk))
    slab = wanted // n_rows
    cuts = np.flatnonzero((np.diff(wanted) > gap) | (np.diff(slab) > 0)) + 1
    edges = [0, *cuts.tolist(), wanted.size]
    yield from pairwise(edges)


def _is_run(numbers: np.ndarray) -> bool:
    return bool(np.all(np.diff(numbers) == 1))


def rows_per_chunk(dataset: h5py.Dataset) -> int:
    """Rows that must be read together: those of one HDF5 chunk."""
    return int(dataset.chunks[0]) if dataset.chunks else 1


def row_bytes(dataset: h5py.Dataset) -> int:
    """Bytes of one row."""
    return int(dataset.dtype.itemsize * np.prod(dataset.shape[1:]))


def copy_to_scratch(dataset: h5py.Dataset, folder: Path) -> FileRows:
    """Copy all rows in file order into an unnamed file in `folder`, which vanishes with the process."""
    need, free = dataset.nbytes, shutil.disk_usage(folder).free
    if need * 1.05 > free:
        raise WriteError(
            f"{folder}: the rows of {Path(dataset.file.filename).name} lie far from grid order and need a scratch copy "
            f"of {need / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free; free some space or choose another folder."
        )
    chunk = rows_per_chunk(dataset)
    step = chunk * max(1, SLAB_BYTES // (row_bytes(dataset) * chunk))
    buffer = np.empty((min(step, dataset.shape[0]), *dataset.shape[1:]), dataset.dtype)
    window = _whole(dataset.shape)
    with tempfile.TemporaryFile(dir=folder, prefix=".vaearr-scratch-") as file:
        for start in range(0, dataset.shape[0], step):
            n_rows = min(step, dataset.shape[0] - start)
            part = buffer[:n_rows]
            gather(dataset, np.arange(start, start + n_rows), part, np.arange(n_rows), window)
            file.write(part.data)
        file.flush()
        return file_rows(file.fileno(), 0, dataset.dtype, dataset.shape)
