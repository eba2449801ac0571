"""Tools for band contrast and any other map: histogram, profile, strongest points, lists of kept points.

Kept points by a threshold are `va.roi(ds, where="BC >= 45")` (above) and `va.roi(ds, where="BC < 45")` (below).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from vaearr import grid, schema
from vaearr import names as n
from vaearr.attaching import read_points
from vaearr.errors import DataError, ExistsError, RoiError, SchemaError, UsageError
from vaearr.placing import place_points, point_dims, step_numbers_of
from vaearr.store.folders import replace_file

BIN, COUNT = "bin", "count"
MAX_BINS = 1_000_000
HALF = 0.5  # of a step: further away from a row is outside the map
EDGE = 1e-9  # of a bin: a value this near below an edge counts as on it

Place = float | Sequence[float] | slice


def histogram(da: xr.DataArray, width: float = 10.0, roi: xr.DataArray | None = None) -> xr.Dataset:
    """How many points of a map have which value: `count` over `bin`, the left edges.

    Edges are multiples of `width`; a bin holds its left edge and not its right one, `left <= value < left + width` (a
    value within 1e-9 of a bin below an edge counts as on it). Bins run without gap from the smallest value's to the
    largest's. Attributes: `width`, `n` (points counted), `n_missing` (NaN or infinite, in the ROI). Raises UsageError
    for a width that is not above 0 or makes more than a million bins, RoiError where there is no finite value.
    """
    if not (np.isfinite(width) and width > 0):
        raise UsageError(f"the width of a bin is {width}; expected a number above 0.")
    values = _values(da, roi)
    finite = values[np.isfinite(values)].astype("f8")
    if not finite.size:
        raise RoiError(f"{_name(da)} has no finite value among {values.size} points; widen the region of interest.")
    with np.errstate(over="ignore", invalid="ignore"):
        number = np.floor(finite / width + EDGE)
        first, last = number.min(), number.max()
        count = last - first + 1
    if not count <= MAX_BINS:
        raise UsageError(
            f"values from {finite.min():g} to {finite.max():g} make {count:.0f} bins of width {width:g}; "
            f"expected at most {MAX_BINS}, so choose a larger width."
        )
    counts = np.bincount((number - first).astype(np.int64))
    left = (first + np.arange(counts.size)) * width
    units = str(da.attrs.get("units", "1"))
    return xr.Dataset(
        {COUNT: (BIN, counts, {"long_name": "scan points", "units": "1"})},
        coords={BIN: (BIN, left, {"long_name": str(da.attrs.get("long_name", _name(da))), "units": units})},
        attrs={
            "width": float(width),
            "edges": "left <= value < left + width",
            "map": _name(da),
            "n": int(finite.size),
            "n_missing": int(values.size - finite.size),
        },
    )


def profile(
    da: xr.DataArray, *, y: Place | None = None, x: Place | None = None, tolerance: float | None = None
) -> xr.DataArray:
    """A map along a row (`y` given) or a column (`x` given), named by its coordinate.

    A number takes the nearest row, which must lie within `tolerance` (half a step unless given); several numbers, or a
    slice for the half-open band `start <= y < stop`, give the mean of these rows, NaN left out point by point. The
    rows that were used stand in the attribute `y` (or `x`), the finite ones at each point in the coordinate `n`.
    Further dims, such as `latent`, are kept. Raises UsageError unless one of y and x is given, DataError where no row
    lies there.
    """
    if (y is None) == (x is None):
        raise UsageError("a profile runs along a row or a column: give y=… or x=…, one of them.")
    dim, along, place = (n.Y, n.X, y) if y is not None else (n.X, n.Y, x)
    assert place is not None
    if lacking := [d for d in (dim, along) if d not in da.dims]:
        raise SchemaError(f"{_name(da)} has dims {da.dims} and lacks {lacking}; a profile needs a map over y and x.")
    positions = _positions(da, dim, place, tolerance)
    rows = da.isel({dim: positions}).load()
    result = rows.mean(dim, skipna=True) if len(positions) > 1 else rows.isel({dim: 0}, drop=True)
    used = [float(v) for v in np.sort(da[dim].values[positions])]
    result = result.assign_coords({"n": rows.notnull().sum(dim).variable})
    result["n"].attrs.update(long_name=f"finite {'rows' if dim == n.Y else 'columns'}", units="1")
    return result.rename(da.name).assign_attrs({**da.attrs, dim: used})


def _positions(da: xr.DataArray, dim: str, place: Place, tolerance: float | None) -> np.ndarray:
    axis = np.asarray(da[dim].values, "f8") if dim in da.coords else np.arange(da.sizes[dim], dtype="f8")
    span = f"{dim} spans {axis.min():g} to {axis.max():g} {da[dim].attrs.get('units', '')}".rstrip()
    if isinstance(place, slice):
        low = -np.inf if place.start is None else place.start
        high = np.inf if place.stop is None else place.stop
        found = np.flatnonzero((axis >= low) & (axis < high))
        if not found.size:
            raise DataError(f"no point lies in {low:g} <= {dim} < {high:g}; {span}.")
        return found
    wanted = np.atleast_1d(np.asarray(place, "f8"))
    if not wanted.size or not np.isfinite(wanted).all():
        raise UsageError(f"{dim}={place} names no row or column; give numbers.")
    nearest = np.abs(axis[None, :] - wanted[:, None]).argmin(axis=1)
    steps = np.abs(np.diff(np.sort(axis)))
    allowed = tolerance if tolerance is not None else (float(steps.max()) * HALF if steps.size else HALF)
    distance = np.abs(axis[nearest] - wanted)
    if (distance > allowed * (1 + 1e-9)).any():
        worst = int(distance.argmax())
        raise DataError(
            f"no point lies within {allowed:g} of {dim} = {wanted[worst]:g}, the nearest at {axis[nearest[worst]]:g}; "
            f"{span}."
        )
    return np.unique(nearest)


def top_percent(da: xr.DataArray, percent: float, roi: xr.DataArray | None = None) -> xr.DataArray:
    """The `percent` of the points with the largest values, as a boolean map fit for `roi=`.

    Of n finite points in the ROI the ceil(n percent / 100) largest are wanted; `threshold` is the smallest of their
    values, and every point with at least that value is kept. So ties with the threshold are kept all together, and
    `n_kept` may exceed `n_wanted`; `n_tied` counts the points that equal the threshold. All stand in the attributes.
    """
    if not 0 < percent <= 100:
        raise UsageError(f"percent is {percent}; expected a number above 0 and up to 100.")
    values = np.asarray(da.values, "f8" if da.dtype.kind != "f" else da.dtype)
    usable = np.isfinite(values) & (True if roi is None else _mask(da, roi))
    count = int(usable.sum())
    if not count:
        raise RoiError(f"{_name(da)} has no finite value to choose from; widen the region of interest.")
    wanted = min(count, max(1, int(np.ceil(count * (percent / 100) - EDGE))))
    inside = values[usable]
    threshold = np.partition(inside, count - wanted)[count - wanted]
    kept = usable & (values >= threshold)
    attrs = {
        **n.ATTRS[n.ROI],
        "map": _name(da),
        "percent": float(percent),
        "threshold": float(threshold),
        "n": count,
        "n_wanted": wanted,
        "n_kept": int(kept.sum()),
        "n_tied": int((inside == threshold).sum()),
    }
    coords = {name: coord for name, coord in da.coords.items() if coord.dims}
    return xr.DataArray(kept, dims=da.dims, coords=coords, name=n.ROI, attrs=attrs)


def write_kept_coordinates(ds: xr.Dataset, mask: xr.DataArray, path: str | Path) -> Path:
    """Write the points that a boolean map keeps: CSV with step numbers `x, y[, z]` and `x_position, y_position[, …]`.

    ds: the scan that the map belongs to. Positions are in the scan's coordinate units; points come in row-major order,
    x fastest. A file with the same text is left as it is; raises ExistsError where another one is there.
    """
    import pandas as pd

    dims = point_dims(ds)
    mask = grid.check_map(ds, mask)
    points = dict(zip(schema.navigation_dims(ds), np.nonzero(mask.values), strict=True))
    columns = {dim: step_numbers_of(ds, dim)[points[dim]] for dim in dims}
    columns |= {f"{dim}_position": ds[dim].values[points[dim]] for dim in dims}
    text = pd.DataFrame(columns).to_csv(index=False, lineterminator="\n").encode()
    file = Path(path).expanduser()
    if file.exists() and (not file.is_file() or file.read_bytes() != text):
        raise ExistsError(f"{file} is there and holds something else; give another name.")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, text)
    return file


def read_kept_coordinates(ds: xr.Dataset, path: str | Path) -> xr.DataArray:
    """The boolean map, fit for `roi=`, of the points that a CSV lists: columns x, y[, z], step numbers or coordinates.

    `x_position` beside `x`, as `write_kept_coordinates` writes them, must fit the scan. Raises DataError for points
    that repeat or do not all lie on the scan, and for positions of another scan.
    """
    dims = point_dims(ds)
    given = read_points(path, dims)
    placement = place_points(ds, given.values, read_as=given.read_as, what=f"the points of {path}")
    if placement.n_outside:
        raise DataError(f"{path}: {placement.n_outside} of {placement.cells.size} points lie outside the scan.")
    _check_positions(ds, path, placement.cells, dims)
    if n.PRESENT in ds:
        placement = placement.within(ds[n.PRESENT].values)
    nav = schema.navigation_dims(ds)
    kept = placement.covered()
    origin = Path(path)
    attrs = {
        **n.ATTRS[n.ROI],
        "source": origin.name,
        "sha256": hashlib.sha256(origin.expanduser().read_bytes()).hexdigest(),
        "read_as": placement.read_as,
        "n": int(kept.sum()),
        "n_not_measured": placement.n_left_out,
    }
    return xr.DataArray(kept, dims=nav, coords={d: ds[d].variable for d in nav}, name=n.ROI, attrs=attrs)


def _check_positions(ds: xr.Dataset, path: str | Path, cells: np.ndarray, dims: tuple[str, ...]) -> None:
    """Raise DataError where the file also holds positions and they are those of other scan points."""
    if Path(path).suffix.lower() != ".csv":
        return
    from vaearr.sources.tables import numbers_of, read_csv

    frame = read_csv(path)
    names = [f"{dim}_position" for dim in dims]
    if dims[0] not in frame.columns or not set(names) <= set(frame.columns):
        return
    positions = np.stack([numbers_of(frame, name, Path(path), dtype="f8") for name in names], axis=1)
    there = place_points(ds, positions, read_as="coordinates", what=f"the positions of {path}").cells
    if not np.array_equal(there, cells):
        row = int((there != cells).argmax())
        raise DataError(
            f"{path}: row {row} has the position {positions[row].tolist()}, which is not that scan point's on this "
            "scan; the file belongs to another scan."
        )


def _values(da: xr.DataArray, roi: xr.DataArray | None) -> np.ndarray:
    """Values of a map, those in the ROI, as one row."""
    values = np.asarray(da.values)
    if values.dtype.kind not in "biuf":
        raise SchemaError(f"{_name(da)} has dtype {values.dtype}; expected a map of numbers.")
    return values.reshape(-1) if roi is None else values[_mask(da, roi)]


def _mask(da: xr.DataArray, roi: xr.DataArray) -> np.ndarray:
    """The ROI as an array over the dims of the map. Raises SchemaError where it lies on another grid."""
    if roi.dtype != bool or set(roi.dims) != set(da.dims):
        raise SchemaError(f"the region of interest is {roi.dtype} over {roi.dims}; expected boolean over {da.dims}.")
    for dim in da.dims:
        if roi.sizes[dim] != da.sizes[dim] or not np.array_equal(roi[dim].values, da[dim].values):
            raise SchemaError(
                f"the region of interest has another coordinate {dim!r} than {_name(da)}; make both alike."
            )
    return np.asarray(roi.transpose(*da.dims).values)


def _name(da: xr.DataArray) -> str:
    return str(da.name or "the map")
