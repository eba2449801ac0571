"""Tools for band contrast and any other map: histogram, profile, strongest points.

Points by a threshold are `va.roi(ds, where="BC >= 45")` (above) and `va.roi(ds, where="BC < 45")`
(below).
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import DataError, RoiError, SchemaError, UsageError

BIN, COUNT = "bin", "count"
MAX_BINS = 1_000_000
EDGE = 1e-9  # of a bin: a value this near below an edge counts as on it


def histogram(da: xr.DataArray, width: float = 10.0) -> xr.Dataset:
    """Count the points of a map by their value.

    Parameters
    ----------
    da
        A map of numbers.
    width
        Width of a bin, in the unit of the map. Edges are multiples of it.

    Returns
    -------
    xarray.Dataset
        `count` over `bin`, the left edges, without gap from the smallest value to the largest. A
        bin holds `left <= value < left + width`; a value within 1e-9 of a bin below an edge counts
        as on it. Attributes: `width`, `n` (points counted), `n_missing` (NaN or infinite).

    Raises
    ------
    UsageError
        For a width that is not above 0 or makes more than a million bins.
    RoiError
        If there is no finite value.
    """
    if not (np.isfinite(width) and width > 0):
        raise UsageError(f"the width of a bin is {width}; expected a number above 0.")
    finite = _finite_values(da)
    with np.errstate(over="ignore", invalid="ignore"):
        number = np.floor(finite / width + EDGE)
        n_bins = np.ptp(number) + 1
    if not n_bins <= MAX_BINS:
        raise UsageError(
            f"values from {finite.min():g} to {finite.max():g} make {n_bins:.0f} bins of width "
            f"{width:g}; expected at most {MAX_BINS}, so choose a larger width."
        )
    first = number.min()
    counts = np.bincount((number - first).astype(np.int64))
    left = (first + np.arange(counts.size)) * width
    attrs = {
        "long_name": str(da.attrs.get("long_name", da.name)),
        "units": str(da.attrs.get("units", "1")),
    }
    return xr.Dataset(
        {COUNT: n.named(BIN, counts, "scan points")},
        {BIN: (BIN, left, attrs)},
        {
            "width": float(width),
            "edges": "left <= value < left + width",
            "map": str(da.name),
            "n": finite.size,
            "n_missing": da.size - finite.size,
        },
    )


def profile(da: xr.DataArray, dim: str, position: float) -> xr.DataArray:
    """Select the row or column of a map that is nearest to a coordinate.

    Parameters
    ----------
    da
        A map.
    dim
        "y" for a row, "x" for a column.
    position
        Coordinate along `dim`.

    Returns
    -------
    xarray.DataArray
        Without `dim`; the attribute of its name holds the coordinate of the row or column.

    Raises
    ------
    DataError
        If no point lies within half a step.
    """
    axis = np.sort(da[dim].values.astype("f8"))
    half = np.diff(axis).max(initial=0) / 2 or 0.5
    numeric = da.assign_coords({dim: da[dim].astype("f8")})
    try:
        line = numeric.sel({dim: position}, "nearest", half * (1 + 1e-9))
    except KeyError:
        span = f"{axis[0]:g} to {axis[-1]:g} {da[dim].attrs.get('units', '')}".rstrip()
        raise DataError(
            f"no point lies within {half:g} of {dim} = {position:g}; {dim} spans {span}."
        ) from None
    return line.drop_vars(dim).assign_attrs({dim: [float(line[dim])]})


def top_percent(da: xr.DataArray, percent: float) -> xr.DataArray:
    """Select the points with the largest values.

    Parameters
    ----------
    da
        A map of numbers.
    percent
        Share of the finite points, above 0 and up to 100; rounded up to whole points.

    Returns
    -------
    xarray.DataArray
        Boolean map, for `roi=`. The attribute `threshold` is the smallest selected value; all
        points with this value are selected, so `n_kept` may exceed the share.

    Raises
    ------
    UsageError
        For another percentage.
    RoiError
        If there is no finite value.
    """
    if not 0 < percent <= 100:
        raise UsageError(f"percent is {percent}; expected a number above 0 and up to 100.")
    finite = np.sort(_finite_values(da))
    n_wanted = max(1, int(np.ceil(finite.size * (percent / 100) - EDGE)))
    threshold = finite[-n_wanted]
    kept = (da >= threshold) & (da < np.inf)
    attrs = {
        "map": str(da.name),
        "percent": float(percent),
        "threshold": threshold,
        "n_kept": int(kept.sum()),
    }
    return kept.rename(n.ROI).assign_attrs(n.ATTRS[n.ROI] | attrs)


def _finite_values(da: xr.DataArray) -> np.ndarray:
    if da.dtype.kind not in "biuf":
        raise SchemaError(f"{da.name} has dtype {da.dtype}; expected a map of numbers.")
    values = da.values.astype("f8")
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise RoiError(f"{da.name} has no finite value among {values.size} points.")
    return np.asarray(finite)
