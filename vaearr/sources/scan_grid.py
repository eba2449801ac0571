"""From a list of `[x, y]` step numbers, in any order and with gaps, to the grid of scan points they lie on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import DataError
from vaearr.sources.lazy import Read, lazy_array

LARGEST_STEP_NUMBER = 2**53
MAX_REGULAR_FILL = 4
MAX_CELLS_PER_POINT = 16


@dataclass(frozen=True, eq=False)
class ScanGrid:
    """Step numbers of the axes and, for each cell, the row of the file that holds its pattern (-1: not measured)."""

    x: np.ndarray
    y: np.ndarray
    rows: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """Boolean (y, x): the scan point was measured."""
        return self.rows >= 0


def step_numbers(values: np.ndarray, where: str) -> np.ndarray:
    """`(N, 2)` values as int64 step numbers. Raises DataError that names the first row that is not whole numbers."""
    if values.ndim != 2 or values.shape[1] != 2:
        raise DataError(f"{where} has shape {values.shape}; expected (N, 2), one row [x, y] for each pattern.")
    if values.dtype.kind not in "uif":
        raise DataError(f"{where} has dtype {values.dtype}; expected whole numbers, one row [x, y] for each pattern.")
    if values.dtype.kind == "f":
        _refuse_first(~np.isfinite(values), values, where, "is not a number; expected whole step numbers")
        hint = "expected whole step numbers; divide positions by the step size"
        _refuse_first(np.abs(values - np.rint(values)) > 1e-6, values, where, hint)
        values = np.rint(values)
    too_large = (values > LARGEST_STEP_NUMBER) | (values < -LARGEST_STEP_NUMBER)
    _refuse_first(too_large, values, where, "is out of range; expected step numbers")
    return values.astype(np.int64)


def _refuse_first(bad: np.ndarray, values: np.ndarray, where: str, why: str) -> None:
    rows = np.flatnonzero(bad.any(axis=1))
    if rows.size:
        x, y = values[rows[0]]
        more = f" ({rows.size} such rows)" if rows.size > 1 else ""
        raise DataError(f"{where} row {rows[0]}: [x, y] = [{x}, {y}] {why}{more}.")


def scan_grid(steps: np.ndarray, where: str, names: Sequence[str] = ()) -> ScanGrid:
    """The grid for `(N, 2)` step numbers; names: what the rows are called, by default their numbers.

    Axes run in regular steps from the smallest to the largest number where the points fill at least a quarter of that
    grid, and hold only the numbers that occur otherwise. Raises DataError for points that lie scattered or occur twice.
    """
    n_points = len(steps)
    x, y = _regular_axis(steps[:, 0], n_points), _regular_axis(steps[:, 1], n_points)
    if x is None or y is None or x.size * y.size > MAX_REGULAR_FILL * n_points:
        x, y = np.unique(steps[:, 0]), np.unique(steps[:, 1])
    if x.size * y.size > MAX_CELLS_PER_POINT * n_points:
        raise DataError(
            f"{where}: the {n_points} points lie scattered: {x.size} different x and {y.size} different y make "
            f"{x.size * y.size} grid cells; expected a scan grid, so resample the points to one first."
        )
    cells = np.searchsorted(y, steps[:, 1]) * x.size + np.searchsorted(x, steps[:, 0])
    _refuse_duplicates(cells, steps, where, names)
    rows = np.full(y.size * x.size, -1, dtype=np.int64)
    rows[cells] = np.arange(n_points)
    return ScanGrid(x=x, y=y, rows=rows.reshape(y.size, x.size))


def _regular_axis(numbers: np.ndarray, n_points: int) -> np.ndarray | None:
    found = np.unique(numbers)
    spacing = int(np.gcd.reduce(np.diff(found))) if found.size > 1 else 1
    size = (int(found[-1]) - int(found[0])) // spacing + 1
    if size > MAX_REGULAR_FILL * n_points:
        return None
    return found[0] + spacing * np.arange(size, dtype=np.int64)


def _refuse_duplicates(cells: np.ndarray, steps: np.ndarray, where: str, names: Sequence[str]) -> None:
    order = np.argsort(cells, kind="stable")
    again = np.flatnonzero(np.diff(cells[order]) == 0)
    if again.size:
        second = int(order[again + 1].min())
        first = int(np.flatnonzero(cells == cells[second])[0])
        x, y = steps[first]
        both = f"{names[first]!r} and {names[second]!r}" if names else f"rows {first} and {second}"
        raise DataError(
            f"{where}: {both} both have [x, y] = [{x}, {y}] ({again.size} rows repeat a scan point)"
            f"; expected each scan point once, so remove the repeats."
        )


def scan_dataset(
    read: Read,
    grid: ScanGrid,
    row_shape: tuple[int, ...],
    dtype: np.dtype,
    step: tuple[float | None, float | None],
    units: str,
    source: Path,
) -> xr.Dataset:
    """The patterns, lazy, with coordinates and `present`.

    row_shape: `(dy, dx)`, or `(channel, dy, dx)`, where a single channel is left out. step: that of y and of x, None:
    coordinates are step numbers.
    """
    shape = row_shape[1:] if len(row_shape) == 3 and row_shape[0] == 1 else row_shape
    signal = (n.DY, n.DX) if len(shape) == 2 else (n.CHANNEL, n.DY, n.DX)
    data = lazy_array(read, grid.rows, shape, dtype)
    attrs = {**n.ATTRS[n.PATTERNS], n.NAVIGATION_DIMS: [n.Y, n.X], n.SIGNAL_DIMS: list(signal)}
    dims = (n.Y, n.X, *signal)
    tile = dict(zip(dims, data.chunksize, strict=True))
    coords: dict[str, Any] = {}
    for dim, numbers, distance in ((n.Y, grid.y, step[0]), (n.X, grid.x, step[1])):
        values = numbers if distance is None else numbers * distance
        coords[dim] = (dim, values, {**n.ATTRS[dim], "units": units})
        coords[f"{dim}_index"] = (dim, numbers, {"long_name": f"{dim} step number"})
    for dim, size in zip(signal, shape, strict=True):
        coords[dim] = (dim, np.arange(size), n.ATTRS.get(dim, {"long_name": dim}))
    present = xr.Variable((n.Y, n.X), grid.present, n.ATTRS[n.PRESENT])
    patterns = xr.Variable(dims, data, attrs, {"preferred_chunks": tile})
    ds = xr.Dataset({n.PATTERNS: patterns, n.PRESENT: present}, coords)
    ds.encoding["source"] = str(source)
    return ds
