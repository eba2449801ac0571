"""Shared by all views: HoloViews, labels, classes, colour limits."""

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
from vaearr.views.colors import CLASS_COLORS, NOISE_COLOR, class_colors

NAN_COLOR = "#d4d4d4"
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
COLORS = (*CLASS_COLORS[:4], "#56B4E9", *CLASS_COLORS[4:6])  # Okabe and Ito's
PERCENT = (1.0, 99.0)
UNUSED = "#9a9a9a"  # grey of latents that are not in use and of samples without a class
NOISE = "noise"  # name of the class of points without one
Options = dict[str, Any]  # of HoloViews and hvplot
# colours of classes: one for each in order, or code -> colour for some
Colors = Sequence[str] | Mapping[int, str]
_UNITS = {"um": "µm", "micron": "µm", "microns": "µm", "deg": "°", "degree": "°", "1": "", "": ""}


def holoviews() -> ModuleType:
    """HoloViews with the bokeh backend, which is loaded with its scripts if it is not yet."""
    hv = importlib.import_module("holoviews")
    if "bokeh" not in hv.Store.renderers:
        hv.extension("bokeh", logo=False, inline=True)
    return hv


@contextmanager
def bokeh_is_current() -> Iterator[None]:
    """Interpret options as those of bokeh inside this context, whichever backend is current."""
    store = holoviews().Store
    before = store.current_backend
    if before == "bokeh":  # setting it again builds all option classes anew, 0.2 s each time
        yield
        return
    store.set_current_backend("bokeh")
    try:
        yield
    finally:
        store.set_current_backend(before)


def text(value: object) -> str:
    """A label without control characters and TeX, for which bokeh would fetch a library."""
    plain = re.sub(r"[\x00-\x1f\x7f]+", " ", str(value))
    return plain.replace("$$", "$\u200b$").replace("\\(", "\\\u200b(").replace("\\[", "\\\u200b[")


def brief(value: object, most: int = 24) -> str:
    """`text`, shortened in the middle if it is too long for a legend."""
    label = text(value)
    if len(label) <= most:
        return label
    half = most // 2
    return f"{label[:half]}…{label[half + 1 - most :]}"


def title(value: object) -> str:
    """`text` for a HoloViews title, which is a format string."""
    return text(value).replace("{", "{{").replace("}", "}}")


def unit(attrs: dict[Any, Any]) -> str:
    """The unit as it is printed: "µm" for "um", "" for "1"."""
    stored = str(attrs.get("units", ""))
    return brief(_UNITS.get(stored, stored))


def label(da: xr.DataArray, fallback: str | None = None) -> str:
    """Long name and unit of an array or coordinate, "x (µm)"."""
    name = text(da.attrs.get("long_name") or fallback or da.name or "value")
    units = unit(da.attrs)
    return f"{name} ({units})" if units else name


def value_text(value: object, attrs: dict[Any, Any]) -> str:
    """A coordinate value with its unit, "12.5 µm"."""
    words = text(value)
    if isinstance(value, int | float | np.number):
        words = number(float(value), ".6g")
    return f"{words} {unit(attrs)}".strip()


def number(value: float, form: str = ".2f") -> str:
    """A number, by default with two decimals, with a typographic minus sign."""
    return format(float(value), form).replace("-", "−")


def map_dims(da: xr.DataArray) -> tuple[str, str]:
    """The dims of a map, rows first. Raises UsageError unless it has two."""
    dims = [str(dim) for dim in da.dims]
    if len(dims) != 2:
        raise UsageError(
            f"a map has two dimensions, {da.name!r} has {dims}; "
            "select one of the others, such as .isel(z=0)."
        )
    if dims == [n.X, n.Y]:
        return n.Y, n.X
    return dims[0], dims[1]


def as_map(da: xr.DataArray) -> xr.DataArray:
    """A map in memory as float32 `(rows, columns)` with ascending numeric coordinates.

    Missing coordinates are replaced by indices.
    """
    rows, columns = map_dims(da)
    da = da.transpose(rows, columns)
    for dim in (rows, columns):
        if dim not in da.coords or da[dim].dtype.kind not in "iuf":
            index = np.arange(da.sizes[dim], dtype="f8")
            da = da.assign_coords({dim: (dim, index, {"long_name": f"{dim} (index)"})})
    if 0 in da.shape:
        raise SchemaError(f"{da.name!r} holds no scan point: its shape is {da.shape}.")
    da = da.astype("f4").reset_coords(drop=True)
    return da.sortby([rows, columns]).load()


class Classes(NamedTuple):
    """The classes of an array with their colours and positions; noise is the last."""

    names: list[str]
    colors: list[str]
    values: xr.DataArray  # positions in `names`, NaN elsewhere


def colored_classes(labels: xr.DataArray, colors: Colors | None = None) -> Classes:
    """The classes of an array of codes, one colour each, noise grey.

    Code -1 is noise if `flag_meanings` calls it so or does not exist; in other maps, such as
    `phase`, all codes below 0 are missing values. Raises UsageError for an array of floats.
    """
    if labels.dtype.kind not in "iu":
        raise UsageError(
            f"{labels.name!r} holds {labels.dtype} values; a map of classes holds whole numbers."
        )
    names_of_codes = categories(labels)
    paint = class_colors(list(names_of_codes), colors)
    is_named = "flag_meanings" in labels.attrs or labels.name == n.PHASE
    may_be_noise = not is_named or meanings(labels).get(n.NOISE) == NOISE
    if may_be_noise and (labels == n.NOISE).any():
        names_of_codes = names_of_codes | {n.NOISE: NOISE}
        paint.append(NOISE_COLOR)
    positions = xr.full_like(labels, np.nan, dtype="f4")
    for position, code in enumerate(names_of_codes):
        positions = positions.where(labels != code, position)
    names = [brief(name) for name in names_of_codes.values()]
    if len(set(names)) < len(names):
        names = [text(name) for name in names_of_codes.values()]
    return Classes(names or ["none"], paint or [NAN_COLOR], positions)


def plot(table: pd.DataFrame, kind: str = "line", **options: Any) -> Any:
    """Plot a table by hvplot, in the style of all views.

    `kind` and `**options` are those of hvplot: line, step, scatter, bar, errorbars and others. Its
    class is called, not the accessor, which would be added to pandas.
    """
    holoviews()
    from hvplot import hvPlot

    style: Options = {"frame_width": 420, "frame_height": 240, "grid": True}
    style["color"] = COLORS[0]
    if "by" in options or ("y" not in options and len(table.columns) > 1):
        style |= {"color": list(COLORS), "group_label": " "}
    if kind in ("bar", "barh", "hist", "scatter"):
        style["line_color"] = None
    if kind == "bar":
        style["bar_width"] = 0.95
    if kind == "scatter":
        style["size"] = 30
    return getattr(hvPlot(table), kind)(**style | options)


def in_columns(panels: Sequence[Any], n_columns: int, **options: Any) -> Any:
    """Plots side by side in rows of `n_columns`, each with its axes."""
    return holoviews().Layout(panels).cols(n_columns).opts(shared_axes=False, **options)


def by_class(table: pd.DataFrame, labels: xr.DataArray | None, kind: str, **options: Any) -> Any:
    """Plot the rows of each class in its colour and those without a class in grey; see `plot`."""
    if labels is None:
        return plot(table, kind, **options)
    names, colors, positions = colored_classes(labels)
    names = ["none", *names]
    colors = [UNUSED, *colors]
    numbers = positions.fillna(-1).values + 1
    plots = {}
    for number, (name, color) in enumerate(zip(names, colors, strict=True)):
        rows = table[numbers == number]
        if len(rows):
            plots[name] = plot(rows, kind, color=color, **options)
    by = text(labels.attrs.get("long_name", "class"))
    return holoviews().NdOverlay(plots, kdims=by, sort=False).opts(legend_position="right")


def paintable(values: np.ndarray, colors: Any, missing: str) -> tuple[np.ndarray, Any]:
    """Values and colours for HoloViews; without any finite value all in the missing colour."""
    if np.isfinite(values).any():
        return values, colors
    return np.zeros_like(values), [missing, missing]


def robust_limits(
    values: np.ndarray, percent: tuple[float, float] = PERCENT, symmetric: bool = False
) -> tuple[float, float]:
    """Colour limits: two percentiles of the finite values; symmetric about 0 if `symmetric`."""
    finite = np.asarray(values)[np.isfinite(values)]
    if not finite.size:
        return (-1.0, 1.0) if symmetric else (0.0, 1.0)
    low, high = (float(v) for v in np.percentile(finite, percent))
    if symmetric:
        high = max(abs(low), abs(high)) or 1.0
        return -high, high
    if low == high:  # most of the map has one value
        low, high = float(finite.min()), float(finite.max())
    margin = 0.0 if low < high else abs(low) * 0.5 or 0.5
    return low - margin, high + margin


def is_regular(coord: np.ndarray) -> bool:
    """Whether coordinates are evenly spaced, to a thousandth of a step."""
    steps = np.diff(np.asarray(coord, dtype="f8"))
    if not steps.size:
        return True
    return np.allclose(steps, steps.mean(), rtol=1e-3, atol=0)
