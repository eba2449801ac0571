"""Tools for band contrast and any other map: histogram, profile, strongest points, lists of kept
points.

Kept points by a threshold are `va.roi(ds, where="BC >= 45")` (above) and `va.roi(ds, where="BC <
45")` (below).
"""

from __future__ import annotations

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


def histogram(da: xr.DataArray, width: float = 10.0) -> xr.Dataset:
    """How many points of a map have which value: `count` over `bin`, the left edges.

    Edges are multiples of `width`; a bin holds its left edge and not its right one, `left <= value
    < left + width` (a value within 1e-9 of a bin below an edge counts as on it). Bins run without
    gap from the smallest value's to the largest's. Attributes: `width`, `n` (points counted),
    `n_missing` (NaN or infinite). Raises UsageError for a width that is not above 0 or makes more
    than a million bins, RoiError where there is no finite value.
    """
    if not (np.isfinite(width) and width > 0):
        raise UsageError(f"the width of a bin is {width}; expected a number above 0.")
    finite = _finite_values(da)
    with np.errstate(over="ignore", invalid="ignore"):
        number = np.floor(finite / width + EDGE)
        first = number.min()
        count = number.max() - first + 1
    if not count <= MAX_BINS:
        raise UsageError(
            f"values from {finite.min():g} to {finite.max():g} make {count:.0f} bins of width "
            f"{width:g}; "
            f"expected at most {MAX_BINS}, so choose a larger width."
        )
    counts = np.bincount((number - first).astype(np.int64))
    left = (first + np.arange(counts.size)) * width
    words = {
        "long_name": str(da.attrs.get("long_name", da.name)),
        "units": str(da.attrs.get("units", "1")),
    }
    return xr.Dataset(
        {COUNT: (BIN, counts, {"long_name": "scan points", "units": "1"})},
        coords={BIN: (BIN, left, words)},
        attrs={
            "width": float(width),
            "edges": "left <= value < left + width",
            "map": str(da.name),
            "n": finite.size,
            "n_missing": da.size - finite.size,
        },
    )


def profile(da: xr.DataArray, dim: str, place: float) -> xr.DataArray:
    """A map along the row (`dim` y) or column (`dim` x) that is nearest to a coordinate; attribute
    `y` or `x` holds it.

    Raises DataError where none lies within half a step.
    """
    axis = np.sort(da[dim].values.astype("f8"))
    half = np.diff(axis).max(initial=0) / 2 or 0.5
    try:
        found = da.assign_coords({dim: da[dim].astype("f8")}).sel(
            {dim: place}, "nearest", half * (1 + 1e-9)
        )
    except KeyError:
        span = f"{axis[0]:g} to {axis[-1]:g} {da[dim].attrs.get('units', '')}".rstrip()
        raise DataError(
            f"no point lies within {half:g} of {dim} = {place:g}; {dim} spans {span}."
        ) from None
    return found.drop_vars(dim).assign_attrs({dim: [float(found[dim])]})


def top_percent(da: xr.DataArray, percent: float) -> xr.DataArray:
    """The `percent` of the points with the largest values, as a boolean map fit for `roi=`.

    Of n finite points the ceil(n percent / 100) largest are wanted; `threshold` is the smallest of
    their values, and every point with at least that value is kept. So ties with the threshold are
    kept all together, and `n_kept` may exceed the number that is wanted. Both stand in the
    attributes.
    """
    if not 0 < percent <= 100:
        raise UsageError(f"percent is {percent}; expected a number above 0 and up to 100.")
    finite = np.sort(_finite_values(da))
    wanted = max(1, int(np.ceil(finite.size * (percent / 100) - EDGE)))
    threshold = finite[-wanted]
    kept = (da >= threshold) & (da < np.inf)
    about = {
        "map": str(da.name),
        "percent": float(percent),
        "threshold": threshold,
        "n_kept": int(kept.sum()),
    }
    return kept.rename(n.ROI).assign_attrs(n.ATTRS[n.ROI] | about)


def write_kept_coordinates(ds: xr.Dataset, mask: xr.DataArray, path: str | Path) -> Path:
    """Write the points that a boolean map keeps: CSV with step numbers `x, y[, z]` and `x_position,
    y_position[, …]`.

    ds: the scan that the map belongs to. Positions are in the scan's coordinate units; points come
    in row-major order, x fastest. Raises ExistsError where a file is there.
    """
    import pandas as pd

    dims = point_dims(ds)
    mask = grid.check_map(ds, mask)
    points = dict(zip(schema.navigation_dims(ds), np.nonzero(mask.values), strict=True))
    columns = {dim: step_numbers_of(ds, dim)[points[dim]] for dim in dims}
    columns |= {f"{dim}_position": ds[dim].values[points[dim]] for dim in dims}
    text = pd.DataFrame(columns).to_csv(index=False, lineterminator="\n").encode()
    file = Path(path).expanduser()
    if file.exists():
        raise ExistsError(f"{file} exists; give another name.")
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, text)
    return file


def read_kept_coordinates(ds: xr.Dataset, path: str | Path) -> xr.DataArray:
    """The boolean map, fit for `roi=`, of the points that a CSV lists: columns x, y[, z], step
    numbers or coordinates.

    `x_position` beside `x`, as `write_kept_coordinates` writes them, must fit the scan. Raises
    DataError for points that repeat or do not all lie on the scan, and for positions of another
    scan.
    """
    dims, file = point_dims(ds), Path(path).expanduser()
    given = read_points(file, dims)
    placement = place_points(ds, given.values, read_as=given.read_as, what=f"the points of {path}")
    if outside := placement.counts()["n_outside"]:
        raise DataError(f"{path}: {outside} of {placement.cells.size} points lie outside the scan.")
    positions = [f"{dim}_position" for dim in dims]
    if file.suffix.lower() == ".csv" and set(positions) <= set(
        (table := read_table(file, dims)).frame.columns
    ):
        there = place_points(
            ds, table.numbers(positions), read_as="coordinates", what=f"the positions of {path}"
        )
        if not np.array_equal(there.cells, placement.cells):
            raise DataError(
                f"{path}: positions and step numbers are not the same points here; it is of "
                f"another scan."
            )
    kept = placement.covered()
    measured = kept & grid.measured(ds)
    nav = schema.navigation_dims(ds)
    about = {
        "source": file.name,
        "n": int(measured.sum()),
        "n_not_measured": int((kept & ~measured).sum()),
    }
    coords = {dim: ds[dim].variable for dim in nav}
    return xr.DataArray(measured, dims=nav, coords=coords, name=n.ROI, attrs=n.ATTRS[n.ROI] | about)


def _finite_values(da: xr.DataArray) -> np.ndarray:
    """Finite values of a map as float64. Raises SchemaError for a map without numbers, RoiError
    where there is none.
    """
    if da.dtype.kind not in "biuf":
        raise SchemaError(f"{da.name} has dtype {da.dtype}; expected a map of numbers.")
    values = da.values.astype("f8")
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise RoiError(f"{da.name} has no finite value among {values.size} points.")
    return np.asarray(finite)
