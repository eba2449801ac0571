"""Rows of a table -> scan points, without a loop over points: by step numbers, by coordinates, or by their order.

How coordinates are read (`read_as="auto"`): as step numbers (`x_index`, `y_index` of the store; without them, positions
0, 1, … along each axis) if all are whole numbers, and as coordinates in the store's units, to a quarter of a step. The
reading that puts every point on the scan is taken. If both do and differ, or neither does and both put some there,
nothing is guessed: the caller has to say which is meant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError, SchemaError, UsageError
from vaearr.sources.tables import ReadAs

READ_AS: tuple[ReadAs, ...] = ("auto", "steps", "coordinates")
OUTSIDE = -1
TOLERANCE = 0.25  # of a step
WHOLE = 1e-6


@dataclass(frozen=True, eq=False)
class Placement:
    """For each row the scan point it belongs to, as row-major position on the navigation grid; -1 where there is none.

    n_outside: rows that lie on no scan point; n_left_out: rows on scan points that were not measured or lie outside the
    region asked for; n_missing: scan points of the region that no row belongs to.
    """

    cells: np.ndarray
    shape: tuple[int, ...]
    read_as: str
    n_outside: int = 0
    n_left_out: int = 0
    n_missing: int = 0

    @property
    def inside(self) -> np.ndarray:
        """Boolean `(N,)`: the row belongs to a scan point."""
        return self.cells >= 0

    def covered(self) -> np.ndarray:
        """Boolean, navigation shape: a row belongs to the scan point."""
        mask = np.zeros(int(np.prod(self.shape)), bool)
        mask[self.cells[self.inside]] = True
        return mask.reshape(self.shape)

    def on_grid(self, values: np.ndarray, fill: float) -> np.ndarray:
        """Values `(N, …)` on the grid `(*shape, …)`, `fill` where there is none."""
        grid = np.full((int(np.prod(self.shape)), *values.shape[1:]), fill, values.dtype)
        grid[self.cells[self.inside]] = values[self.inside]
        return grid.reshape(*self.shape, *values.shape[1:])

    def within(self, region: np.ndarray) -> Placement:
        """Only the rows in a region (boolean, navigation shape), with the counts that belong to it."""
        kept = self.inside.copy()
        kept[kept] = region.reshape(-1)[self.cells[kept]]
        only = replace(self, cells=np.where(kept, self.cells, OUTSIDE), n_left_out=int((self.inside & ~kept).sum()))
        return replace(only, n_missing=int((region & ~only.covered()).sum()))

    def counts(self) -> dict[str, Any]:
        """For attributes and messages."""
        return {
            "read_as": self.read_as,
            "n_rows": int(self.cells.size),
            "n_placed": int(self.inside.sum()),
            "n_outside": self.n_outside,
            "n_left_out": self.n_left_out,
            "n_missing": self.n_missing,
        }


def point_dims(ds: xr.Dataset) -> tuple[str, ...]:
    """Navigation dims of a scan in the order in which a point names them: `("x", "y")` or `("x", "y", "z")`."""
    if not schema.is_scan(ds):
        raise UsageError("the samples are a collection without coordinates; give one row per sample, in their order.")
    return tuple(dim for dim in reversed(n.SCAN_DIMS) if dim in schema.navigation_dims(ds))


def step_numbers_of(ds: xr.Dataset, dim: str) -> np.ndarray:
    """Step numbers along a navigation dim: its `<dim>_index` coordinate, without one the positions 0, 1, …"""
    name = f"{dim}_index"
    return np.asarray(ds[name].values if name in ds.coords else np.arange(ds.sizes[dim]))


def place_in_order(ds: xr.Dataset, n_rows: int, roi: xr.DataArray | None = None, *, what: str = "values") -> Placement:
    """Rows in row-major order (x fastest): one per scan point of the whole grid, or one per point of the ROI.

    Raises DataError with the numbers found and expected where neither fits.
    """
    shape = schema.navigation_shape(ds)
    total = int(np.prod(shape))
    if n_rows == total:
        return Placement(np.arange(total), shape, "full field, row-major")
    if roi is None:
        raise DataError(
            f"{what}: {n_rows} rows found, {total} expected (every scan point, row-major, or an array of the grid's "
            f"{shape}); give coordinates, or the region that the rows belong to.{_fitting_regions(ds, n_rows)}"
        )
    inside = np.flatnonzero(roi.values)
    if n_rows != inside.size:
        raise DataError(
            f"{what}: {n_rows} rows found, expected {total} (every scan point, row-major) or {inside.size} (the points "
            f"of the region of interest, row-major).{_fitting_regions(ds, n_rows)}"
        )
    return Placement(inside, shape, "points of the region of interest, row-major")


def _fitting_regions(ds: xr.Dataset, n_rows: int) -> str:
    names = [str(v) for v in ds.data_vars if v == n.ROI or str(v).startswith(f"{n.ROI}_")]
    fitting = [name for name in names if int(ds[name].sum()) == n_rows]
    runs = [n.DEFAULT_RUN if name == n.ROI else name.removeprefix(f"{n.ROI}_") for name in fitting]
    return "".join(f" The region of run {run!r} has as many: roi={run!r}." for run in runs[:1])


def place_points(
    ds: xr.Dataset,
    points: np.ndarray,
    *,
    read_as: ReadAs = "auto",
    what: str = "points",
    lines: np.ndarray | None = None,
) -> Placement:
    """Scan points of `(N, 2)` x, y or `(N, 3)` x, y, z; how they are read, see the module. lines: of the file, by row.

    Raises DataError for points that are not finite, that repeat a scan point, or of which none lies on the scan;
    UsageError where the two readings contradict each other.
    """
    if read_as not in READ_AS:
        raise UsageError(f"read_as is {read_as!r}; expected one of {', '.join(READ_AS)}.")
    dims = point_dims(ds)
    if points.ndim != 2 or points.shape[1] != len(dims):
        raise DataError(f"{what} have shape {points.shape}; expected (N, {len(dims)}), one row [{', '.join(dims)}].")
    if points.dtype.kind not in "uif":
        raise DataError(f"{what} have dtype {points.dtype}; expected numbers, one row [{', '.join(dims)}] each.")
    points = points.astype("f8")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size:
        raise DataError(f"{what}: row {bad[0]} is {points[bad[0]].tolist()} ({bad.size} such rows); expected numbers.")
    auto = read_as == "auto"
    readings = _readings(ds, dims, points) if auto else {str(read_as): _cells(ds, dims, points, read_as)}
    name, cells = _decide(readings, what)
    outside = int((cells == OUTSIDE).sum())
    if outside == len(points):
        raise DataError(
            f"{what}: none lies on the scan: they cover {_extent(dict(zip(dims, points.T, strict=True)))}, the scan "
            f"steps {_extent({d: step_numbers_of(ds, d) for d in dims})} and coordinates "
            f"{_extent({d: ds[d].values for d in dims})}."
        )
    _refuse_repeats(cells, points, dims, what, lines)
    shape = schema.navigation_shape(ds)
    missing = int(np.prod(shape)) - (len(points) - outside)
    return Placement(cells, shape, name, n_outside=outside, n_missing=missing)


def _readings(ds: xr.Dataset, dims: tuple[str, ...], points: np.ndarray) -> dict[str, np.ndarray]:
    found = {"coordinates": _cells(ds, dims, points, "coordinates")}
    if np.all(np.abs(points - np.rint(points)) <= WHOLE):
        found = {"steps": _cells(ds, dims, points, "steps")} | found
    return found


def _decide(readings: dict[str, np.ndarray], what: str) -> tuple[str, np.ndarray]:
    placed = {name: cells for name, cells in readings.items() if (cells >= 0).any()}
    complete = {name: cells for name, cells in placed.items() if (cells >= 0).all()}
    candidates = complete or placed or readings
    first, *others = candidates
    if any(not np.array_equal(candidates[first], candidates[name]) for name in others) and placed:
        n_of = {name: int((cells >= 0).sum()) for name, cells in candidates.items()}
        raise UsageError(
            f"{what} can be read as step numbers ({n_of['steps']} on the scan) and as coordinates "
            f"({n_of['coordinates']} on the scan), which are different scan points; say which with "
            "read_as='steps' or read_as='coordinates'."
        )
    return first, candidates[first]


def _cells(ds: xr.Dataset, dims: tuple[str, ...], points: np.ndarray, read_as: str) -> np.ndarray:
    positions: dict[str, np.ndarray] = {}
    for dim, values in zip(dims, points.T, strict=True):
        axis = step_numbers_of(ds, dim) if read_as == "steps" else ds[dim].values
        if axis.dtype.kind not in "iuf":
            raise SchemaError(f"coordinate {dim!r} has dtype {axis.dtype}; points can be placed by numbers only.")
        axis = axis.astype("f8")
        positions[dim] = _nearest(axis, values, WHOLE if read_as == "steps" else _tolerance(axis))
    nav = schema.navigation_dims(ds)
    on_grid = np.all([positions[dim] >= 0 for dim in dims], axis=0)
    index = tuple(np.where(on_grid, positions[dim], 0) for dim in nav)
    cells = np.ravel_multi_index(index, schema.navigation_shape(ds))
    return np.where(on_grid, cells, OUTSIDE)


def _tolerance(axis: np.ndarray) -> float:
    steps = np.abs(np.diff(np.sort(axis)))
    return float(steps.min()) * TOLERANCE if steps.size else max(abs(float(axis[0])), 1.0) * WHOLE


def _nearest(axis: np.ndarray, values: np.ndarray, tolerance: float) -> np.ndarray:
    """Position of the nearest axis value, -1 where it is further away than the tolerance."""
    order = np.argsort(axis, kind="stable")
    ordered = axis[order]
    right = np.clip(np.searchsorted(ordered, values), 0, axis.size - 1)
    left = np.clip(right - 1, 0, axis.size - 1)
    near = np.where(np.abs(ordered[left] - values) <= np.abs(ordered[right] - values), left, right)
    return np.where(np.abs(ordered[near] - values) <= tolerance, order[near], OUTSIDE)


def _refuse_repeats(
    cells: np.ndarray, points: np.ndarray, dims: tuple[str, ...], what: str, lines: np.ndarray | None
) -> None:
    order = np.argsort(cells, kind="stable")
    again = order[1:][(np.diff(cells[order]) == 0) & (cells[order][1:] >= 0)]
    if again.size:
        second = int(again.min())
        both = np.flatnonzero(cells == cells[second])[:2]
        place = ", ".join(f"{dim} = {value:g}" for dim, value in zip(dims, points[second], strict=True))
        rows, word = (both, "rows") if lines is None else (lines[both], "lines")
        raise DataError(
            f"{what}: {word} {rows[0]} and {rows[1]} are both the scan point {place} ({again.size} repeat one); keep "
            "one of each."
        )


def _extent(axes: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{dim} {float(np.min(v)):g} to {float(np.max(v)):g}" for dim, v in axes.items())
