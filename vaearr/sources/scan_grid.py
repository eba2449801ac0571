"""Make a grid of scan points from `[x, y]` step numbers in any order and with gaps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.config import IngestConfig
from vaearr.errors import DataError

LARGEST_STEP_NUMBER = 2**53
WHOLE = 1e-6
MAX_REGULAR_FILL = 4
MAX_CELLS_PER_POINT = 16


@dataclass(frozen=True, eq=False)
class ScanGrid:
    """Step numbers of the axes, and the row of the file for each cell (-1: not measured)."""

    x: np.ndarray
    y: np.ndarray
    rows: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """Boolean (y, x): the scan point was measured."""
        return self.rows >= 0

    def put(self, values: np.ndarray, fill: float = np.nan) -> np.ndarray:
        """Values of the rows as floats (y, x, …), `fill` where there is no row."""
        out = np.full((*self.rows.shape, *values.shape[1:]), fill, "f8")
        out[self.present] = values[self.rows[self.present]]
        return out


def step_numbers(values: np.ndarray, where: str) -> np.ndarray:
    """`(N, 2)` values as int64 step numbers. Raises DataError unless they are whole numbers."""
    if values.ndim != 2 or values.shape[1] != 2 or values.dtype.kind not in "uif":
        raise DataError(
            f"{where} has dtype {values.dtype} and shape {values.shape}; expected whole numbers "
            "(N, 2), one row [x, y] for each pattern."
        )
    with np.errstate(invalid="ignore"):
        numbers = values.astype("f8")
        is_whole = np.abs(numbers - np.rint(numbers)) <= WHOLE
        is_step_number = is_whole & (np.abs(numbers) <= LARGEST_STEP_NUMBER)
    bad = np.flatnonzero(~is_step_number.all(axis=1))
    if bad.size:
        raise DataError(
            f"{where} row {bad[0]}: [x, y] = {values[bad[0]].tolist()} are no step numbers "
            f"({bad.size} such rows); expected whole numbers, so divide positions by the step size."
        )
    return np.rint(numbers).astype(np.int64)


def scan_grid(steps: np.ndarray, where: str, names: Sequence[str] = ()) -> ScanGrid:
    """The grid of `(N, 2)` step numbers. names: of the rows, by default their numbers.

    Axes run in regular steps from the smallest to the largest number where the points fill at least
    a quarter of that grid; otherwise they hold only the numbers that occur. Raises DataError for
    points that are scattered or occur twice.
    """
    n_points = len(steps)
    x_steps, y_steps = steps.T
    x = _regular_axis(x_steps, n_points)
    y = _regular_axis(y_steps, n_points)
    if x is None or y is None or x.size * y.size > MAX_REGULAR_FILL * n_points:
        x = np.unique(x_steps)
        y = np.unique(y_steps)
    if x.size * y.size > MAX_CELLS_PER_POINT * n_points:
        raise DataError(
            f"{where}: the {n_points} points lie scattered: {x.size} different x and {y.size} "
            f"different y make {x.size * y.size} grid cells; expected a scan grid, so resample the "
            "points to one first."
        )
    cells = np.searchsorted(y, y_steps) * x.size + np.searchsorted(x, x_steps)
    refuse_repeats(cells, where, lambda i: repr(names[i]) if names else f"row {i}", "[x, y]", steps)
    rows = np.full(y.size * x.size, -1)
    rows[cells] = np.arange(n_points)
    return ScanGrid(x=x, y=y, rows=rows.reshape(y.size, x.size))


def _regular_axis(numbers: np.ndarray, n_points: int) -> np.ndarray | None:
    """Numbers in regular steps that include all given ones; None where these would be too many."""
    occurring = np.unique(numbers)
    first, last = int(occurring[0]), int(occurring[-1])
    spacing = int(np.gcd.reduce(np.diff(occurring))) if occurring.size > 1 else 1
    size = (last - first) // spacing + 1
    if size > MAX_REGULAR_FILL * n_points:
        return None
    return first + spacing * np.arange(size)


def refuse_repeats(
    cells: np.ndarray, where: str, called: Callable[[int], str], axes: str, points: np.ndarray
) -> None:
    """Raise DataError where two rows lie on one scan point; cells below 0 are none.

    called: from the number of a row to its name.
    """
    again = np.flatnonzero(pd.Series(cells).duplicated() & (cells >= 0))
    if again.size:
        second = int(again[0])
        first = int((cells == cells[second]).argmax())
        raise DataError(
            f"{where}: {called(first)} and {called(second)} are both the scan point {axes} = "
            f"{points[second].tolist()} ({again.size} repeat one); expected each once, so remove "
            "the repeats."
        )


def scan_dataset(
    patterns: Any,
    grid: ScanGrid,
    config: IngestConfig,
    source: Path,
    steps: Mapping[str, float] | None = None,
) -> xr.Dataset:
    """A Dataset of patterns, a dask array (y, x[, channel], dy, dx), and `present`.

    steps: of y and x in um, as the file states them; those of the settings replace them. Without
    any, coordinates are step numbers.
    """
    steps = steps or {}
    units = "um" if steps else "step"
    if config.step is not None:
        steps = {n.Y: config.step, n.X: config.step}
        units = config.units
    signal = (n.CHANNEL, n.DY, n.DX)[-(patterns.ndim - 2) :]
    dims = (n.Y, n.X, *signal)
    coords: dict[str, Any] = {}
    for dim, numbers in ((n.Y, grid.y), (n.X, grid.x)):
        positions = numbers * steps[dim] if dim in steps else numbers
        coords[dim] = (dim, positions, {**n.ATTRS[dim], "units": units})
        coords[f"{dim}_index"] = (dim, numbers, {"long_name": f"{dim} step number"})
    for dim, size in zip(signal, patterns.shape[2:], strict=True):
        coords[dim] = (dim, np.arange(size), n.ATTRS.get(dim, {"long_name": dim}))
    attrs = {**n.ATTRS[n.PATTERNS], n.NAVIGATION_DIMS: [n.Y, n.X], n.SIGNAL_DIMS: list(signal)}
    encoding = {"preferred_chunks": dict(zip(dims, patterns.chunksize, strict=True))}
    data = {
        n.PATTERNS: xr.Variable(dims, patterns, attrs, encoding),
        n.PRESENT: xr.Variable((n.Y, n.X), grid.present, n.ATTRS[n.PRESENT]),
    }
    ds = xr.Dataset(data, coords)
    ds.encoding["source"] = str(source)
    return ds
