"""From a list of `[x, y]` step numbers, in any order and with gaps, to the grid of scan points they lie on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vaearr.errors import DataError

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


def scan_grid(steps: np.ndarray, where: str) -> ScanGrid:
    """The grid for `(N, 2)` step numbers.

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
    _refuse_duplicates(cells, steps, where)
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


def _refuse_duplicates(cells: np.ndarray, steps: np.ndarray, where: str) -> None:
    order = np.argsort(cells, kind="stable")
    again = np.flatnonzero(np.diff(cells[order]) == 0)
    if again.size:
        second = int(order[again + 1].min())
        first = int(np.flatnonzero(cells == cells[second])[0])
        x, y = steps[first]
        raise DataError(
            f"{where}: rows {first} and {second} both have [x, y] = [{x}, {y}] ({again.size} rows repeat a scan point)"
            f"; expected each scan point once, so remove the repeats."
        )


def read_amplification(rows: np.ndarray, rows_per_chunk: int, block: tuple[int, int]) -> float:
    """How many times each chunk of the file is touched when the grid is read once in blocks of (y, x) cells."""
    iy, ix = np.nonzero(rows >= 0)
    chunks = rows[iy, ix] // rows_per_chunk
    blocks = (iy // block[0]) * (rows.shape[1] // block[1] + 1) + ix // block[1]
    touches = np.unique(blocks * (int(chunks.max()) + 1) + chunks).size
    return touches / np.unique(chunks).size
