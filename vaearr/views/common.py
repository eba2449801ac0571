"""What all views share: the optional libraries, labels, colour limits, the outline of a region."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.errors import SchemaError, UsageError
from vaearr.schema import categories, meanings
from vaearr.schema.grid import edges, region_outline
from vaearr.views.colors import CLASS_COLORS, NOISE_COLOR, class_colors

NAN_COLOR = "#d4d4d4"
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
COLORS = (*CLASS_COLORS[:4], "#56B4E9", *CLASS_COLORS[4:6])  # Okabe and Ito's
PERCENT = (1.0, 99.0)
UNUSED = "#9a9a9a"  # grey of latents that are not in use and of samples without a class
NOISE = "noise"  # name of the class of points without one
Colors = (
    Sequence[str] | Mapping[int, str]
)  # of classes: one for each in order, or code -> colour for some
_UNITS = {"um": "µm", "micron": "µm", "microns": "µm", "deg": "°", "degree": "°", "1": "", "": ""}


def holoviews() -> ModuleType:
    """HoloViews with the bokeh backend.

    In a notebook, figures then need no network; a backend that has been loaded before is left as it
    is.
    """
    hv = importlib.import_module("holoviews")
    if "bokeh" not in hv.Store.renderers:
        hv.extension("bokeh", logo=False, inline=True)
    return hv


@contextmanager
def bokeh_is_current() -> Iterator[None]:
    """Options are those of bokeh inside this context, whichever backend of HoloViews a notebook
    works with.
    """
    store = holoviews().Store
    before = store.current_backend
    store.set_current_backend("bokeh")
    try:
        yield
    finally:
        store.set_current_backend(before)


def text(value: object) -> str:
    """A label that is shown as it is: no control characters, no TeX (which bokeh would fetch a
    library for).
    """
    plain = re.sub(r"[\x00-\x1f\x7f]+", " ", str(value))
    return plain.replace("$$", "$\u200b$").replace("\\(", "\\\u200b(").replace("\\[", "\\\u200b[")


def brief(value: object, most: int = 24) -> str:
    """`text`, cut in its middle where it is too long for a legend."""
    whole = text(value)
    return (
        whole if len(whole) <= most else f"{whole[: most // 2]}…{whole[-(most - most // 2 - 1) :]}"
    )


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
    """A map in memory as float32 `(rows, columns)` with ascending numeric coordinates; missing ones
    are counted out.
    """
    rows, columns = map_dims(da)
    da = da.transpose(rows, columns)
    for dim in (rows, columns):
        if dim not in da.coords or da[dim].dtype.kind not in "iuf":
            attrs = {"long_name": f"{dim} (index)"}
            da = da.assign_coords(
                {dim: xr.DataArray(np.arange(da.sizes[dim], dtype="f8"), dims=dim, attrs=attrs)}
            )
    if 0 in da.shape:
        raise SchemaError(f"{da.name!r} holds no scan point: its shape is {da.shape}.")
    return da.astype("f4").reset_coords(drop=True).sortby([rows, columns]).load()


class Classes(NamedTuple):
    """The classes of an array with their colours, and where they are; noise is the last."""

    names: list[str]
    colors: list[str]
    values: xr.DataArray  # positions in `names`, NaN elsewhere


def colored_classes(labels: xr.DataArray, colors: Colors | None = None) -> Classes:
    """The classes of an array of codes, one colour each, noise grey. Raises UsageError for an array
    of amounts.

    Noise is code -1 where `flag_meanings` calls it so or names nothing; of other maps, such as
    `phase`, all codes below 0 are missing.
    """
    if labels.dtype.kind not in "iu":
        raise UsageError(
            f"{labels.name!r} holds {labels.dtype} values; a map of classes holds whole numbers."
        )
    known = categories(labels)
    paint = class_colors(list(known), colors)
    is_named = "flag_meanings" in labels.attrs or labels.name == n.PHASE
    if (labels == n.NOISE).any() and (not is_named or meanings(labels).get(n.NOISE) == NOISE):
        known = known | {n.NOISE: NOISE}
        paint.append(NOISE_COLOR)
    positions = xr.full_like(labels, np.nan, dtype="f4")
    for position, code in enumerate(known):
        positions = positions.where(labels != code, position)
    names = [brief(name) for name in known.values()]
    if len(set(names)) < len(names):
        names = [text(name) for name in known.values()]
    return Classes(names or ["none"], paint or [NAN_COLOR], positions)


def plot(table: pd.DataFrame, kind: str = "line", **options: Any) -> Any:
    """A table as curves, points or bars in the style of all views.

    kind: line, step, scatter, bar, errorbars or another of hvplot's, whose options are `**options`.
    """
    holoviews()
    from hvplot import hvPlot

    own: dict[str, Any] = {"frame_width": 420, "frame_height": 240, "grid": True}
    own["color"] = (
        list(COLORS)
        if "by" in options or ("y" not in options and len(table.columns) > 1)
        else COLORS[0]
    )
    if kind in ("bar", "hist", "scatter"):
        own["line_color"] = None
    if kind == "bar":
        own["bar_width"] = 0.95
    if kind == "scatter":
        own["size"] = 30
    return getattr(hvPlot(table), kind)(**own | options)


def by_class(table: pd.DataFrame, labels: xr.DataArray | None, kind: str, **options: Any) -> Any:
    """A plot of the rows of each class in its colour, of those without one in grey; see `plot`."""
    if labels is None:
        return plot(table, kind, **options)
    names, colors, codes = colored_classes(labels)
    groups = {"none": (codes.isnull().values, UNUSED)}
    for position, (name, color) in enumerate(zip(names, colors, strict=True)):
        groups[name] = codes.values == position, color
    shown = {
        name: plot(table[rows], kind, color=c, **options)
        for name, (rows, c) in groups.items()
        if rows.any()
    }
    by = text(labels.attrs.get("long_name", "class"))
    return holoviews().NdOverlay(shown, kdims=by, sort=False).opts(legend_position="right")


def paintable(values: np.ndarray, colors: Any, missing: str) -> tuple[np.ndarray, Any]:
    """Values and colours for HoloViews, which finds no range where none is finite: then all in the
    missing colour.
    """
    return (
        (values, colors)
        if np.isfinite(values).any()
        else (np.zeros_like(values), [missing, missing])
    )


def robust_limits(
    values: np.ndarray, percent: tuple[float, float] = PERCENT, symmetric: bool = False
) -> tuple[float, float]:
    """Colour limits: the given percentiles of the finite values; equal distances from 0 if
    `symmetric`.
    """
    finite = np.asarray(values)[np.isfinite(values)]
    if not finite.size:
        return (-1.0, 1.0) if symmetric else (0.0, 1.0)
    low, high = (float(v) for v in np.percentile(finite, percent))
    if symmetric:
        high = max(abs(low), abs(high)) or 1.0
        return -high, high
    if low == high:  # most of the map is one value: show the rest all the same
        low, high = float(finite.min()), float(finite.max())
    margin = 0.0 if low < high else abs(low) * 0.5 or 0.5
    return low - margin, high + margin


def is_regular(coord: np.ndarray) -> bool:
    """Whether coordinates are evenly spaced, to a thousandth of a step."""
    steps = np.diff(np.asarray(coord, dtype="f8"))
    return bool(steps.size == 0 or np.allclose(steps, steps.mean(), rtol=1e-3, atol=0))


def roi_outline(roi: xr.DataArray) -> np.ndarray:
    """Border of a region along the edges of its scan points: segments `(n, 4)` of x0, y0, x1, y1,
    runs merged.
    """
    rows, columns = map_dims(roi)
    grid = as_map(roi)
    return region_outline(grid.values > 0, edges(grid[columns].values), edges(grid[rows].values))
