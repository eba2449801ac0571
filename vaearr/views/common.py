"""What all views share: the optional libraries, labels, colour limits, the outline of a region."""

from __future__ import annotations

import importlib
import re
from types import ModuleType
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import SchemaError, UsageError
from vaearr.schema import categories
from vaearr.schema import is_categorical as is_category
from vaearr.schema.grid import edges, region_outline
from vaearr.views.colors import FIRST, distinct_colors

NAN_COLOR = "#d4d4d4"
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
COLORS = (*FIRST[:4], "#56B4E9", *FIRST[4:])  # Okabe & Ito's, which people with any colour vision tell apart
PERCENT = (1.0, 99.0)
_UNITS = {"um": "µm", "micron": "µm", "microns": "µm", "deg": "°", "degree": "°", "1": "", "": ""}


def holoviews() -> ModuleType:
    """HoloViews with the bokeh backend.

    In a notebook, figures then need no network; a backend that has been loaded before is left as it is.
    """
    hv = importlib.import_module("holoviews")
    if "bokeh" not in hv.Store.renderers:
        hv.extension("bokeh", logo=False, inline=True)
    return hv


def text(value: object) -> str:
    """A label that is shown as it is: no control characters, no TeX (which bokeh would fetch a library for)."""
    plain = re.sub(r"[\x00-\x1f\x7f]+", " ", str(value))
    return plain.replace("$$", "$\u200b$").replace("\\(", "\\\u200b(").replace("\\[", "\\\u200b[")


def brief(value: object, most: int = 24) -> str:
    """`text`, cut in its middle where it is too long for a legend."""
    whole = text(value)
    return whole if len(whole) <= most else f"{whole[: most // 2]}…{whole[-(most - most // 2 - 1) :]}"


def title(value: object) -> str:
    """`text` for a HoloViews title, which is a format string."""
    return text(value).replace("{", "{{").replace("}", "}}")


def unit(attrs: dict[Any, Any]) -> str:
    """The unit as people write it: "µm" for "um", "" for "1"."""
    given = str(attrs.get("units", ""))
    return brief(_UNITS.get(given, given))


def label(da: xr.DataArray, fallback: str | None = None) -> str:
    """Long name and unit of an array or coordinate, "x (µm)"."""
    name = text(da.attrs.get("long_name") or fallback or da.name or "value")
    units = unit(da.attrs)
    return f"{name} ({units})" if units else name


def value_text(value: object, attrs: dict[Any, Any]) -> str:
    """A coordinate value with its unit, "12.5 µm"."""
    number = f"{float(value):.6g}" if isinstance(value, int | float | np.number) else text(value)
    return f"{number} {unit(attrs)}".strip()


def number(value: float) -> str:
    """Two digits after the point and a minus sign as printers set it."""
    return f"{value:.2f}".replace("-", "−")


def map_dims(da: xr.DataArray) -> tuple[str, str]:
    """The dims of a map, rows first. Raises UsageError unless there are two."""
    dims = [str(dim) for dim in da.dims]
    if len(dims) != 2:
        raise UsageError(
            f"a map has two dimensions, {da.name!r} has {dims}; select one of the others, such as .isel(z=0)."
        )
    if dims == [n.X, n.Y]:
        return n.Y, n.X
    return dims[0], dims[1]


def as_map(da: xr.DataArray) -> xr.DataArray:
    """A map in memory as float32 `(rows, columns)` with ascending numeric coordinates; missing ones are counted out."""
    rows, columns = map_dims(da)
    da = da.transpose(rows, columns)
    for dim in (rows, columns):
        if dim not in da.coords or da[dim].dtype.kind not in "iuf":
            attrs = {"long_name": f"{dim} (index)"}
            da = da.assign_coords({dim: xr.DataArray(np.arange(da.sizes[dim], dtype="f8"), dims=dim, attrs=attrs)})
    if 0 in da.shape:
        raise SchemaError(f"{da.name!r} holds no scan point: its shape is {da.shape}.")
    return da.astype("f4").reset_coords(drop=True).sortby([rows, columns]).load()


def as_codes(da: xr.DataArray) -> tuple[xr.DataArray, list[str]]:
    """A categorical map as positions 0, 1, … in the list of its categories (NaN = missing), and their names."""
    known = categories(da)
    positions = xr.full_like(da, np.nan, dtype="f4")
    for position, code in enumerate(known):
        positions = positions.where(da != code, position)
    return positions, [brief(name) for name in known.values()] or ["none"]


def as_values(da: xr.DataArray) -> tuple[xr.DataArray, list[str]]:
    """A map as `as_map` gives it; one of codes as positions in the list of their names, which of amounts is empty."""
    codes, names = as_codes(da) if is_category(da) else (da, [])
    return as_map(codes), names


def palette(count: int) -> list[str]:
    """`count` colours that can be told apart; of more than 40 a run through the spectrum."""
    if count <= 40:
        return distinct_colors(count)
    from matplotlib import colormaps, colors

    return [str(colors.to_hex(color)) for color in colormaps["turbo"](np.linspace(0.05, 0.95, count))]


def paintable(values: np.ndarray, colors: Any, missing: str) -> tuple[np.ndarray, Any]:
    """Values and colours for HoloViews, which finds no range where none is finite: then all in the missing colour."""
    return (values, colors) if np.isfinite(values).any() else (np.zeros_like(values), [missing, missing])


def robust_limits(
    values: np.ndarray, percent: tuple[float, float] = PERCENT, symmetric: bool = False
) -> tuple[float, float]:
    """Colour limits: the given percentiles of the finite values; equal distances from 0 if `symmetric`."""
    finite = np.asarray(values)[np.isfinite(values)]
    if not finite.size:
        return (-1.0, 1.0) if symmetric else (0.0, 1.0)
    low, high = (float(v) for v in np.percentile(finite, percent))
    if symmetric:
        high = max(abs(low), abs(high)) or 1.0
        return -high, high
    if low == high:  # most of the map is one value: show the rest all the same
        low, high = float(finite.min()), float(finite.max())
    if low == high:
        margin = abs(low) * 0.5 or 0.5
        low, high = low - margin, high + margin
    return low, high


def is_regular(coord: np.ndarray) -> bool:
    """Whether coordinates are evenly spaced, to a thousandth of a step."""
    steps = np.diff(np.asarray(coord, dtype="f8"))
    return bool(steps.size == 0 or np.allclose(steps, steps.mean(), rtol=1e-3, atol=0))


def roi_outline(roi: xr.DataArray) -> np.ndarray:
    """Border of a region along the edges of its scan points: segments `(n, 4)` of x0, y0, x1, y1, runs merged."""
    rows, columns = map_dims(roi)
    grid = as_map(roi)
    return region_outline(grid.values > 0, edges(grid[columns].values), edges(grid[rows].values))
