"""Tools for band contrast and any other map: histogram, profile, strongest points, lists of kept points.

Kept points by a threshold are `va.roi(ds, where="BC >= 45")` (above) and `va.roi(ds, where="BC < 45")` (below).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError, ExistsError, RoiError, SchemaError, UsageError
from vaearr.ingestion.attaching import read_points
from vaearr.ingestion.placing import place_points, point_dims, step_numbers_of
from vaearr.schema import grid
from vaearr.sources.tables import read_table
from vaearr.store.folders import replace_file

BIN, COUNT = "bin", "count"
MAX_BINS = 1_000_000
EDGE = 1e-9  # of a bin: a value this near below an edge counts as on it


def histogram(da: xr.DataArray, width: float = 10.0, roi: xr.DataArray | None = None) -> xr.Dataset:
    """How many points of a map have which value: `count` over `bin`, the left edges.

    Edges are multiples of `width`; a bin holds its left edge and not its right one, `left <= value < left + width` (a
    value within 1e-9 of a bin below an edge counts as on it). Bins run without gap from the smallest value's to the
    largest's. Attributes: `width`, `n` (points counted), `n_missing` (NaN or infinite, in the ROI). Raises UsageError
    for a width that is not above 0 or makes more than a million bins, RoiError where there is no finite value.
    """
    if not (np.isfinite(width) and width > 0):
        raise UsageError(f"the width of a bin is {width}; expected a number above 0.")
    values, usable, total = _usable(da, roi)
    finite = values[usable].astype("f8")
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
            "n_missing": int(total - finite.size),
        },
    )


def profile(da: xr.DataArray, *, y: float | None = None, x: float | None = None) -> xr.DataArray:
    """A map along a row (`y` given) or a column (`x` given), that which is nearest to this coordinate.

    The coordinate of the row stands in the attribute `y` (or `x`). Raises UsageError unless one of y and x is given,
    DataError where no row lies within half a step.
    """
    if (y is None) == (x is None):
        raise UsageError("a profile runs along a row or a column: give y=… or x=…, one of them.")
    dim, place = (n.Y, y) if y is not None else (n.X, x)
    if not {n.Y, n.X} <= set(da.dims):
        raise SchemaError(f"{_name(da)} has dims {da.dims}; a profile needs a map over y and x.")
    axis = np.sort(da[dim].values.astype("f8"))
    half = np.diff(axis).max(initial=0) / 2 or 0.5
    try:
        found = da.assign_coords({dim: da[dim].astype("f8")}).sel({dim: place}, "nearest", half * (1 + 1e-9))
    except KeyError:
        span = f"{axis[0]:g} to {axis[-1]:g} {da[dim].attrs.get('units', '')}".rstrip()
        raise DataError(f"no point lies within {half:g} of {dim} = {place:g}; {dim} spans {span}.") from None
    return found.drop_vars(dim).load().assign_attrs({dim: [float(found[dim])]})


def top_percent(da: xr.DataArray, percent: float, roi: xr.DataArray | None = None) -> xr.DataArray:
    """The `percent` of the points with the largest values, as a boolean map fit for `roi=`.

    Of n finite points in the ROI the ceil(n percent / 100) largest are wanted; `threshold` is the smallest of their
    values, and every point with at least that value is kept. So ties with the threshold are kept all together, and
    `n_kept` may exceed `n_wanted`; `n_tied` counts the points that equal the threshold. All stand in the attributes.
    """
    if not 0 < percent <= 100:
        raise UsageError(f"percent is {percent}; expected a number above 0 and up to 100.")
    values, usable, _ = _usable(da, roi)
    inside, count = values[usable], int(usable.sum())
    wanted = min(count, max(1, int(np.ceil(count * (percent / 100) - EDGE))))
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
    dims, file = point_dims(ds), Path(path).expanduser()
    given = read_points(file, dims)
    placement = place_points(ds, given.values, read_as=given.read_as, what=f"the points of {path}")
    if outside := placement.counts()["n_outside"]:
        raise DataError(f"{path}: {outside} of {placement.cells.size} points lie outside the scan.")
    positions = [f"{dim}_position" for dim in dims]
    if file.suffix.lower() == ".csv" and set(positions) <= set((table := read_table(file, dims)).frame.columns):
        there = place_points(ds, table.numbers(positions), read_as="coordinates", what=f"the positions of {path}")
        if not np.array_equal(there.cells, placement.cells):
            raise DataError(f"{path}: positions and step numbers are not the same points here; it is of another scan.")
    kept, nav = placement.covered(), schema.navigation_dims(ds)
    measured = kept & grid.measured(ds)
    attrs = {
        **n.ATTRS[n.ROI],
        "source": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "read_as": placement.read_as,
        "n": int(measured.sum()),
        "n_not_measured": int((kept & ~measured).sum()),
    }
    return xr.DataArray(measured, dims=nav, coords={d: ds[d].variable for d in nav}, name=n.ROI, attrs=attrs)


def _usable(da: xr.DataArray, roi: xr.DataArray | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Values of a map as floats, which of them are finite and in the ROI, and how many lie in the ROI."""
    if da.dtype.kind not in "biuf":
        raise SchemaError(f"{_name(da)} has dtype {da.dtype}; expected a map of numbers.")
    values = np.asarray(da.values, "f8" if da.dtype.kind != "f" else da.dtype)
    inside = np.ones(values.shape, bool) if roi is None else grid.laid_over(da, roi, da.dims).values
    usable = inside & np.isfinite(values)
    if not usable.any():
        raise RoiError(f"{_name(da)} has no finite value among {inside.sum()} points; widen the region of interest.")
    return values, usable, int(inside.sum())


def _name(da: xr.DataArray) -> str:
    return str(da.name or "the map")
