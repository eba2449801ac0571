"""Views of band contrast or any map: histogram, grey map with the rows that profiles were taken of, profiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import SchemaError
from vaearr.outlines import edges
from vaearr.plots.common import COLORS, as_map, holoviews, label, title, unit
from vaearr.plots.maps import map_plot
from vaearr.plots.paper import WIDTH, draw_map, height_ratio, journal, new_figure

GREY = "gray"
BAR_COLOR = "#6f7a85"
Profiles = xr.DataArray | Sequence[xr.DataArray]


def bars_of(histogram: xr.Dataset) -> tuple[np.ndarray, float, np.ndarray, str]:
    """Left edges, width, counts and the name of the values of a `vaearr.side_maps.histogram`.

    Raises SchemaError for any other Dataset.
    """
    from vaearr.side_maps import BIN, COUNT

    if COUNT not in histogram or BIN not in histogram.coords or "width" not in histogram.attrs:
        raise SchemaError(f"expected a histogram with {COUNT!r} over {BIN!r} and the attribute 'width', as made by "
                          f"vaearr.side_maps.histogram; found {sorted(map(str, histogram.variables))}.")  # fmt: skip
    left = np.asarray(histogram[BIN].values, dtype="f8")
    return left, float(histogram.attrs["width"]), histogram[COUNT].values, label(histogram[BIN], "value")


def _heading(histogram: xr.Dataset) -> str:
    count = histogram[next(iter(histogram.data_vars))]
    total = int(count.sum())
    missing = int(histogram.attrs.get("n_missing", 0))
    width = f"{histogram.attrs['width']:g} {unit(count[count.dims[0]].attrs)}".strip()
    return f"n = {total:,}" + (f" ({missing:,} missing)" if missing else "") + f", bins of {width}"


def histogram_plot(histogram: xr.Dataset, **kwargs: Any) -> Any:
    """How many scan points have which value. `**kwargs` are options of `holoviews.Histogram`."""
    hv = holoviews()
    left, width, count, name = bars_of(histogram)
    options = {
        "title": title(_heading(histogram)), "xlabel": name, "ylabel": "scan points", "frame_width": 420,
        "frame_height": 240, "fill_color": BAR_COLOR, "line_color": "white", "line_width": 0.5, "tools": ["hover"],
        "backend": "bokeh",
    }  # fmt: skip
    return hv.Histogram((np.append(left, left[-1] + width), count), kdims="value", vdims="scan points").opts(
        **options | kwargs
    )


def as_profiles(profiles: Profiles) -> list[tuple[str, str, xr.DataArray, list[float]]]:
    """Along which dim each profile runs, its name, its values, and the rows or columns that it was taken of.

    Raises SchemaError for what is no profile.
    """
    found = []
    for one in [profiles] if isinstance(profiles, xr.DataArray) else profiles:
        along = str(one.dims[0]) if one.ndim == 1 else ""
        across = {n.X: n.Y, n.Y: n.X}.get(along, "")
        if not across:
            raise SchemaError(f"{one.name!r} has dims {one.dims}; a profile runs along {n.X!r} or {n.Y!r} only.")
        places = one.attrs.get(across, one[across].item() if across in one.coords else [])
        rows = [float(value) for value in np.atleast_1d(places)]
        name = f"{across} = {rows[0]:g}" if len(rows) == 1 else f"mean of {len(rows)} at {across} = {_span(rows)}"
        found.append((along, name if rows else "profile", one, rows))
    return found


def _span(rows: list[float]) -> str:
    return f"{min(rows):g} … {max(rows):g}" if rows else "?"


def profile_plot(da: xr.DataArray, profiles: Profiles, *, roi: xr.DataArray | None = None, **kwargs: Any) -> Any:
    """A grey map, the rows and columns of the profiles marked in colour, beside the profiles along x, and along y.

    `profiles` are made by `vaearr.side_maps.profile`. `**kwargs` go to `map_plot`.
    """
    hv = holoviews()
    lines: dict[str, list[Any]] = {}
    marks = []
    values = as_map(da)
    for i, (along, name, one, rows) in enumerate(as_profiles(profiles)):
        color = COLORS[i % len(COLORS)]
        place = one[along].values if along in one.coords else np.arange(one.size)
        curve = hv.Curve((place, one.values.astype("f8")), along, "value", label=name)
        lines.setdefault(along, []).append(curve.opts(color=color, backend="bokeh"))
        for row in rows:
            mark = hv.HLine(row) if along == n.X else hv.VLine(row)
            marks.append(mark.opts(color=color, line_width=1.6, line_dash="dashed", backend="bokeh"))
    shown = hv.Overlay([map_plot(da, roi=roi, **{"cmap": GREY} | kwargs), *marks])
    for along, curves in lines.items():
        shown += hv.Overlay(curves).opts(
            xlabel=label(values[along]), ylabel=label(da), title=title(f"profiles of {label(da)}"), frame_width=420,
            frame_height=240, legend_position="right", show_grid=True, backend="bokeh",
        )  # fmt: skip
    return shown.opts(shared_axes=False, backend="bokeh")


def contrast_sheet(
    da: xr.DataArray, histogram: xr.Dataset, profiles: Profiles = (), *, roi: xr.DataArray | None = None
) -> Any:
    """Grey map with the rows and columns of the profiles marked, histogram beside it, below it the profiles along x,
    and along y.

    `histogram` and `profiles` are made by `vaearr.side_maps`.
    """
    found = as_profiles(profiles)
    left, width, count, name = bars_of(histogram)
    with journal():
        top = float(np.clip(3.0 * height_ratio(da), 1.7, 4.5)) + 0.5
        figure = new_figure(WIDTH, top + (1.9 if found else 0))
        upper, *lower = figure.subfigures(2 if found else 1, 1, height_ratios=[top, 1.9][: 2 if found else 1],
                                          squeeze=False)[:, 0]  # fmt: skip
        ax, bars = upper.subplots(1, 2, width_ratios=[1.25, 1])
        draw_map(ax, da, roi=roi, cmap=GREY)
        bars.bar(left, count, width=width, align="edge", color=BAR_COLOR, edgecolor="white", linewidth=0.4)
        bars.set(xlabel=name, ylabel="scan points")
        bars.set_title(_heading(histogram), fontsize=9)
        directions = list(dict.fromkeys(along for along, *_ in found))
        drawn = lower[0].subplots(1, len(directions), squeeze=False)[0] if lower else ()
        charts = dict(zip(directions, drawn, strict=True))
        for i, (along, called, one, rows) in enumerate(found):
            color = COLORS[i % len(COLORS)]
            for row in rows:
                mark = ax.axhline if along == n.X else ax.axvline
                mark(row, color="white", lw=1.6, alpha=0.8)
                mark(row, color=color, lw=1.0)
            place = one[along].values if along in one.coords else np.arange(one.size)
            charts[along].plot(place, one.values, color=color, label=called)
        for along, chart in charts.items():
            axis = as_map(da)[along]
            borders = edges(axis.values)
            chart.set(xlabel=label(axis), ylabel=label(da), xlim=(borders[0], borders[-1]))
            chart.grid(alpha=0.25, lw=0.4)
            chart.legend(ncols=min(len(chart.lines), 4 // len(charts)), loc="lower right", bbox_to_anchor=(1, 1),
                         borderaxespad=0.2)  # fmt: skip
    return figure
