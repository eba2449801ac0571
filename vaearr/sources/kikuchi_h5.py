"""HDF5 with a stack of patterns and the `[x, y]` step numbers of each: lazy, in any row order, with points missing.

`/images` is (N, H, W), (N, 1, H, W) or (N, C, H, W) of any integer or float type, `/coords` is (N, 2). The distance of
scan points is taken from the settings, else from an attribute `step` or `step_size` (with `unit` or `units`) of
`/coords`, `/images` or the file; without one, coordinates are the step numbers themselves. Scan points without a
pattern are NaN (floats) or 0 (integers) and False in `present`.

Also an xarray engine: `xr.open_dataset("scan.h5", engine="kikuchi-h5")`.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint, CachingFileManager

from vaearr import names as n
from vaearr.borrowed import indexing
from vaearr.config import IngestConfig
from vaearr.errors import DataError
from vaearr.sources.hdf5 import check_file, damage_in_words, find_dataset, has_hdf5_signature, open_hdf5
from vaearr.sources.rows import FileRows, RowManager, Rows, contiguous_rows, copy_to_scratch, gather, rows_per_chunk
from vaearr.sources.scan_grid import ScanGrid, read_amplification, scan_grid, step_numbers

ENGINE = "kikuchi-h5"
BLOCK_BYTES = 16 * 2**20
MAX_AMPLIFICATION = 2.0


def sniff(path: Path) -> int:
    """2: HDF5 with `images` and `coords`; 1: some HDF5; 0: another format."""
    if not has_hdf5_signature(path):
        return 0
    try:
        with open_hdf5(path) as file:
            links = [file.get(name, getlink=True) for name in ("images", "coords")]
            is_ours = all(isinstance(link, h5py.HardLink) for link in links) and all(
                issubclass(file.get(name, getclass=True), h5py.Dataset) for name in ("images", "coords")
            )
            return 2 if is_ours else 1
    except (DataError, OSError, RuntimeError, KeyError, ValueError, TypeError, SystemError):  # opening it says how
        return 1


def open_kikuchi_h5(path: str | Path, config: IngestConfig | None = None, *, scratch: Path | None = None) -> xr.Dataset:
    """Lazy Dataset of patterns (y, x[, channel], dy, dx) with `present`.

    scratch: folder for one copy of the rows, made at the first read if the rows lie so far from grid order that reading
    blocks of that size would read the file more than twice. Raises DataError or NoInputError for a file that does not
    hold what it should.
    """
    config = config or IngestConfig()
    file = check_file(path)
    with open_hdf5(file) as opened, damage_in_words(file):
        images = _images(opened, config.images)
        coords = find_dataset(opened, config.coords, "coords")
        where = f"{file}: {config.coords!r}"
        if coords.ndim != 2 or coords.shape[1] != 2:
            raise DataError(f"{where} has shape {coords.shape}; expected (N, 2), one row [x, y] for each pattern.")
        if coords.shape[0] != images.shape[0]:
            raise DataError(
                f"{file}: {config.images!r} holds {images.shape[0]} patterns, {config.coords!r} {coords.shape[0]} "
                f"rows; expected one row [x, y] for each pattern."
            )
        grid = scan_grid(step_numbers(coords[()], where), where)
        step, units = _step(opened, images, coords, config)
        row_shape, dtype = images.shape[1:], images.dtype
    manager = CachingFileManager(open_hdf5, str(file.resolve()), mode="r")
    array = KikuchiArray(manager, config.images, grid, row_shape, dtype, scratch)
    ds = scan_dataset(array, grid, (step, step), units)
    ds.encoding["source"] = str(file)
    ds.set_close(array.close)
    return ds


def _images(file: h5py.File, name: str) -> h5py.Dataset:
    images = find_dataset(file, name, "images")
    where = f"{file.filename}: {name!r}"
    if images.ndim not in (3, 4):
        raise DataError(f"{where} has shape {images.shape}; expected (N, H, W), (N, 1, H, W) or (N, C, H, W).")
    if images.dtype.kind not in "uif" or h5py.check_enum_dtype(images.dtype):
        raise DataError(f"{where} has dtype {images.dtype}; expected an integer or float type.")
    if 0 in images.shape:
        raise DataError(f"{where} is empty: its shape is {images.shape}; expected at least one pattern.")
    return images


def _step(
    file: h5py.File, images: h5py.Dataset, coords: h5py.Dataset, config: IngestConfig
) -> tuple[float | None, str]:
    """Distance of scan points and its unit: from the settings, else from the file."""
    if config.step is not None:
        return config.step, config.units
    for item in (coords, images, file):
        step = _number(_attribute(item, ("step", "step_size")))
        if step is not None:
            return step, _text(_attribute(item, ("units", "unit"))) or config.units
    return None, "step"


def _attribute(item: Any, keys: Iterable[str]) -> Any:
    for key in keys:
        try:
            if key in item.attrs:
                return item.attrs[key]
        except (OSError, TypeError, ValueError, RuntimeError):  # a type that h5py cannot read is no step size
            continue
    return None


def _number(value: Any) -> float | None:
    try:
        number = float(np.asarray(value, dtype="f8").item())
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _text(value: Any) -> str:
    value = value.decode(errors="replace") if isinstance(value, bytes) else value
    return value.strip() if isinstance(value, str) else ""


def scan_dataset(
    array: KikuchiArray, grid: ScanGrid, step: tuple[float | None, float | None], units: str
) -> xr.Dataset:
    """The patterns with their coordinates and `present`; step: that of y and of x, None: coordinates are numbers."""
    signal = (n.DY, n.DX) if array.ndim == 4 else (n.CHANNEL, n.DY, n.DX)
    dims = (n.Y, n.X, *signal)
    attrs = {**n.ATTRS[n.PATTERNS], n.NAVIGATION_DIMS: [n.Y, n.X], n.SIGNAL_DIMS: list(signal)}
    rows_in_block = max(1, BLOCK_BYTES // (array.row_bytes * grid.x.size))
    columns = max(1, min(grid.x.size, BLOCK_BYTES // array.row_bytes))
    preferred = {n.Y: min(rows_in_block, grid.y.size), n.X: columns}
    patterns = xr.Variable(
        dims,
        indexing.LazilyIndexedArray(array),
        attrs,
        {"preferred_chunks": preferred | dict(zip(signal, array.shape[2:], strict=True))},
    )
    coords: dict[str, Any] = {}
    for dim, numbers, distance in ((n.Y, grid.y, step[0]), (n.X, grid.x, step[1])):
        values = numbers if distance is None else numbers * distance
        coords[dim] = (dim, values, {**n.ATTRS[dim], "units": units})
        coords[f"{dim}_index"] = (dim, numbers, {"long_name": f"{dim} step number"})
    for dim, size in zip(signal, array.shape[2:], strict=True):
        coords[dim] = (dim, np.arange(size), n.ATTRS.get(dim, {"long_name": dim}))
    present = xr.Variable((n.Y, n.X), grid.present, n.ATTRS[n.PRESENT])
    return xr.Dataset({n.PATTERNS: patterns, n.PRESENT: present}, coords)


class KikuchiArray(BackendArray):
    """The patterns as an array over the grid; reads only the rows that a block needs."""

    def __init__(
        self,
        manager: RowManager,
        images: str,
        grid: ScanGrid,
        row_shape: tuple[int, ...],
        dtype: np.dtype,
        scratch: Path | None,
    ) -> None:
        self._manager, self._images, self._table = manager, images, grid.rows
        self._row_shape, self._scratch = row_shape, scratch
        signal = row_shape[1:] if len(row_shape) == 3 and row_shape[0] == 1 else row_shape
        self.shape = (*grid.rows.shape, *signal)
        self.dtype = dtype.newbyteorder("=")
        self.row_bytes = int(dtype.itemsize * np.prod(row_shape))
        self._rows: Rows | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_lock"} | {"_rows": None, "_scratch": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def close(self) -> None:
        """Close the file and drop a scratch copy."""
        self._rows = None
        self._manager.close()

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        picks = [_positions(k, size) for k, size in zip(key, self.shape, strict=True)]
        iy, ix, *inner = picks
        cells = self._table[np.ix_(iy, ix)]
        window = tuple(slice(int(p.min()), int(p.max()) + 1) if p.size else slice(0, 0) for p in inner)
        extra = (slice(0, 1),) * (len(self._row_shape) - len(inner))
        lengths = [w.stop - w.start for w in (*extra, *window)]
        out = np.empty((cells.size, *lengths), self.dtype)
        if out.size:
            where = np.flatnonzero(cells >= 0)
            if where.size < cells.size:
                out[cells.ravel() < 0] = np.nan if self.dtype.kind == "f" else 0
            gather(self._source(cells.shape), cells.ravel()[where], out, where, (*extra, *window))
        block = out.reshape(*cells.shape, *lengths[len(extra) :])
        if any(p.size != length for p, length in zip(inner, lengths[len(extra) :], strict=True)) or any(
            np.any(np.diff(p) != 1) for p in inner
        ):
            relative = [p - w.start for p, w in zip(inner, window, strict=True)]
            block = block[np.ix_(np.arange(len(iy)), np.arange(len(ix)), *relative)]
        return block[tuple(0 if isinstance(k, (int, np.integer)) else slice(None) for k in key)]

    def _source(self, block: tuple[int, ...]) -> Rows:
        """Where to read rows from: the file's bytes, a scratch copy, or HDF5. Decided at the first read."""
        with self._lock:
            if self._rows is not None and not isinstance(self._rows, h5py.Dataset):
                return self._rows
            dataset = self._manager.acquire()[self._images]
            if not isinstance(dataset, h5py.Dataset):
                self._rows = dataset
                return dataset
            if self._rows is None:
                self._rows = contiguous_rows(dataset) or self._scratch_copy(dataset, (block[0], block[1])) or dataset
            return self._rows if isinstance(self._rows, FileRows) else dataset

    def _scratch_copy(self, dataset: h5py.Dataset, block: tuple[int, int]) -> FileRows | None:
        if self._scratch is None:
            return None
        if read_amplification(self._table, rows_per_chunk(dataset), block) <= MAX_AMPLIFICATION:
            return None
        return copy_to_scratch(dataset, self._scratch)


def _positions(key: Any, size: int) -> np.ndarray:
    if isinstance(key, slice):
        return np.arange(*key.indices(size))
    return np.atleast_1d(np.asarray(key)) % size


class KikuchiH5Backend(BackendEntrypoint):
    """`xr.open_dataset(path, engine="kikuchi-h5")`."""

    description = "Pattern stacks with scan coordinates in HDF5 (images, coords)"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "images", "coords", "step", "units")

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        images: str | None = None,
        coords: str | None = None,
        step: float | None = None,
        units: str | None = None,
    ) -> xr.Dataset:
        """See `open_kikuchi_h5`."""
        if not isinstance(filename_or_obj, (str, os.PathLike)):
            raise DataError(f"the {ENGINE} engine reads files by path, not {type(filename_or_obj).__name__} objects.")
        config = IngestConfig().replace(images=images, coords=coords, step=step, units=units)
        ds = open_kikuchi_h5(Path(filename_or_obj), config)
        drop = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return ds.drop_vars(drop, errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Only files that hold both datasets."""
        if not isinstance(filename_or_obj, (str, os.PathLike)):
            return False
        try:
            return Path(filename_or_obj).is_file() and sniff(Path(filename_or_obj)) == 2
        except OSError:
            return False
