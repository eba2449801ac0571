"""Find the scan points of the rows of a table: by step numbers, by coordinates, or by their order.

With `read_as="auto"`, points are step numbers (`x_index`, `y_index` of the store, else positions
0, 1, … along each axis) if all are whole numbers, or coordinates in the store's units, to a quarter
of a step. The reading that places every point on the scan is chosen. If both do and differ, or
neither does and both place some points, an error asks which is meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError, SchemaError, UsageError
from vaearr.sources.scan_grid import WHOLE, refuse_repeats
from vaearr.sources.tables import ReadAs

OUTSIDE, LEFT_OUT = -1, -2
TOLERANCE = 0.25  # of a step


@dataclass(frozen=True, eq=False)
class Placement:
    """The scan point of each row, as row-major position on the navigation grid.

    -1: outside the grid; -2: a scan point that was not measured or lies outside the region.
    """

    cells: np.ndarray
    region: np.ndarray
    read_as: str

    def covered(self) -> np.ndarray:
        """Boolean, navigation shape: the scan point has a row."""
        return self.on_grid(np.ones(self.cells.size, bool), False)

    def on_grid(self, values: np.ndarray, fill: float) -> np.ndarray:
        """Put values `(N, …)` on the grid `(*shape, …)`, `fill` where no row is."""
        is_placed = self.cells >= 0
        grid = np.full((self.region.size, *values.shape[1:]), fill, values.dtype)
        grid[self.cells[is_placed]] = values[is_placed]
        return grid.reshape(*self.region.shape, *values.shape[1:])

    def within(self, region: np.ndarray) -> Placement:
        """Leave out the rows outside a region (boolean, navigation shape)."""
        is_kept = (self.cells < 0) | region.reshape(-1)[self.cells]
        return replace(self, cells=np.where(is_kept, self.cells, LEFT_OUT), region=region)

    def counts(self) -> dict[str, Any]:
        """Count rows, and scan points of the region without one, for attributes and messages."""
        return {
            "read_as": self.read_as,
            "n_rows": int(self.cells.size),
            "n_placed": int((self.cells >= 0).sum()),
            "n_outside": int((self.cells == OUTSIDE).sum()),
            "n_left_out": int((self.cells == LEFT_OUT).sum()),
            "n_missing": int((self.region & ~self.covered()).sum()),
        }


def point_dims(ds: xr.Dataset) -> tuple[str, ...]:
    """Return the navigation dims of a scan in the order of a point, `("x", "y"[, "z"])`."""
    if not schema.is_scan(ds):
        raise UsageError(
            "the samples are a collection without coordinates; give one row per sample, in order."
        )
    return tuple(dim for dim in reversed(n.SCAN_DIMS) if dim in schema.navigation_dims(ds))


def step_numbers_of(ds: xr.Dataset, dim: str) -> np.ndarray:
    """Return step numbers along a navigation dim: its `<dim>_index` coordinate, else 0, 1, …"""
    name = f"{dim}_index"
    return np.asarray(ds[name].values if name in ds.coords else np.arange(ds.sizes[dim]))


def place_in_order(
    ds: xr.Dataset, n_rows: int, roi: xr.DataArray | None = None, *, what: str = "values"
) -> Placement:
    """Place rows in row-major order (x fastest): one per scan point of the grid or of the ROI.

    Raises DataError with the numbers found and expected where neither fits.
    """
    everywhere = np.ones(schema.navigation_shape(ds), bool)
    orders = {"full field, row-major": np.arange(everywhere.size)}
    if roi is not None:
        orders["points of the region of interest, row-major"] = np.flatnonzero(roi.values)
    for order, cells in orders.items():
        if n_rows == cells.size:
            return Placement(cells, everywhere, order)
    expected = " or ".join(f"{cells.size} ({order})" for order, cells in orders.items())
    raise DataError(
        f"{what}: {n_rows} rows found, expected {expected}, or an array of the grid's "
        f"{everywhere.shape}; give coordinates, or the region that the rows belong to (roi='RUN')."
    )


def place_points(
    ds: xr.Dataset,
    points: np.ndarray,
    *,
    read_as: ReadAs = "auto",
    what: str = "points",
    lines: np.ndarray | None = None,
) -> Placement:
    """Place points by the rule of this module.

    Parameters
    ----------
    ds
        A scan.
    points
        `(N, 2)` x, y or `(N, 3)` x, y, z.
    read_as
        What the points are.
    what
        Their name in messages.
    lines
        Line of the file of each row.

    Returns
    -------
    Placement

    Raises
    ------
    DataError
        If points are not finite, repeat a scan point, or none lies on the scan.
    UsageError
        If the two readings contradict each other.
    """
    dims = point_dims(ds)
    points = _finite(points, dims, what)
    ways: Sequence[str] = [read_as]
    if read_as == "auto":
        ways = ["steps", "coordinates"] if are_whole(points) else ["coordinates"]
    elif read_as not in get_args(ReadAs):
        raise UsageError(f"read_as is {read_as!r}; expected one of {', '.join(get_args(ReadAs))}.")
    readings = {way: _cells(ds, dims, points, way) for way in ways}
    n_placed = {way: int((cells >= 0).sum()) for way, cells in readings.items()}
    best = max(ways, key=lambda way: n_placed[way])
    if not n_placed[best]:
        scan = _extent(dims, [ds[dim].values for dim in dims])
        raise DataError(
            f"{what}: none lies on the scan: they cover {_extent(dims, points.T)}, the scan {scan}."
        )
    n_possible = len(points) if n_placed[best] == len(points) else 1
    for way, cells in readings.items():
        if n_placed[way] >= n_possible and not np.array_equal(cells, readings[best]):
            raise UsageError(
                f"{what} can be read as step numbers ({n_placed['steps']} on the scan) and as "
                f"coordinates ({n_placed['coordinates']} on the scan), which are different scan "
                "points; choose one with read_as='steps' or read_as='coordinates'."
            )
    refuse_repeats(
        readings[best], what, lambda row: row_words(lines, row), f"[{', '.join(dims)}]", points
    )
    return Placement(readings[best], np.ones(schema.navigation_shape(ds), bool), best)


def _finite(points: np.ndarray, dims: Sequence[str], what: str) -> np.ndarray:
    """Return points as floats. Raises DataError for other than finite numbers `(N, len(dims))`."""
    if points.ndim != 2 or points.shape[1] != len(dims) or points.dtype.kind not in "uif":
        raise DataError(
            f"{what} have dtype {points.dtype} and shape {points.shape}; expected numbers "
            f"(N, {len(dims)}), one row [{', '.join(dims)}] each."
        )
    points = points.astype("f8")
    bad_rows = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad_rows.size:
        row = bad_rows[0]
        raise DataError(
            f"{what}: row {row} is {points[row].tolist()} ({bad_rows.size} such rows); expected "
            "numbers."
        )
    return points


def row_words(lines: np.ndarray | None, row: int) -> str:
    """Name a row by its line of the file, if that is known."""
    return f"row {row}" if lines is None else f"line {lines[row]}"


def are_whole(points: np.ndarray) -> bool:
    """Whether all coordinates are whole numbers, as step numbers are."""
    return bool(np.all(np.abs(points - np.rint(points)) <= WHOLE))


def _cells(ds: xr.Dataset, dims: Sequence[str], points: np.ndarray, read_as: str) -> np.ndarray:
    """Row-major position of the scan point nearest to each point, -1 beyond the tolerance."""
    positions = {}
    for dim, values in zip(dims, points.T, strict=True):
        axis = pd.Index(step_numbers_of(ds, dim) if read_as == "steps" else ds[dim].values)
        is_ordered = axis.is_monotonic_increasing or axis.is_monotonic_decreasing
        if axis.dtype.kind not in "iuf" or not is_ordered:
            raise SchemaError(
                f"coordinate {dim!r} holds no numbers in order; points cannot be placed by it."
            )
        tolerance = WHOLE
        if read_as == "coordinates" and axis.size > 1:
            tolerance = TOLERANCE * float(np.abs(np.diff(axis)).min())
        elif read_as == "coordinates":
            tolerance = WHOLE * max(abs(float(axis[0])), 1.0)
        positions[dim] = axis.astype("f8").get_indexer(
            values, method="nearest", tolerance=tolerance
        )
    on_grid = np.all([position >= 0 for position in positions.values()], axis=0)
    index = [np.where(on_grid, positions[dim], 0) for dim in schema.navigation_dims(ds)]
    return np.where(on_grid, np.ravel_multi_index(index, schema.navigation_shape(ds)), OUTSIDE)


def _extent(dims: Sequence[str], axes: Iterable[np.ndarray]) -> str:
    return ", ".join(
        f"{dim} {np.min(axis):g} to {np.max(axis):g}" for dim, axis in zip(dims, axes, strict=True)
    )
