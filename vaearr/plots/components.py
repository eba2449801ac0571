"""Views of a decomposition: component images, explained variance with the knee."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from vaearr.errors import NoInputError, SchemaError
from vaearr.plots.common import COLORS, DIVERGING, holoviews, robust_limits, text, title
from vaearr.plots.paper import SMALL, WIDTH, journal, new_figure, panels

KNEE_COLOR = COLORS[5]


def image_stack(components: xr.DataArray) -> tuple[list[str], np.ndarray]:
    """Names and images `(component, dy, dx)` of components over `(component, [channel,] dy, dx)`, first channel.

    Raises SchemaError for other dims.
    """
    if components.ndim not in (3, 4) or 0 in components.shape:
        raise SchemaError(
            f"{components.name!r} has dims {dict(components.sizes)}; expected (component, [channel,] dy, dx)."
        )
    first = str(components.dims[0])
    names = components[first].values.tolist() if first in components.coords else list(range(components.sizes[first]))
    images = np.asarray(components.values, dtype="f4")
    return [text(name) for name in names], images[:, 0] if images.ndim == 4 else images


def component_sheet(
    components: xr.DataArray, ratio: xr.DataArray | None = None, *, most: int = 32, columns: int = 8
) -> Any:
    """The first `most` component images of a decomposition, with the share of the variance each explains.

    Signed components (PCA) are centred at 0 on a diverging scale, others (NMF) grey; limits are the 0.5 % and 99.5 %
    percentiles of each image. Raises SchemaError for other dims than (component, [channel,] dy, dx).
    """
    names, images = image_stack(components)
    shown = min(len(names), most)
    signed = bool(np.nanmin(images) < 0)
    columns = min(columns, shown)
    with journal():
        width = max(WIDTH / 8 * columns, 2.6)
        lines = math.ceil(shown / columns)
        ratio_of = images.shape[1] / images.shape[2]
        figure = new_figure(width, lines * ((width / columns - 0.1) * ratio_of + 0.2) + 0.3)
        for i, ax in enumerate(panels(figure, shown, columns)):
            low, high = robust_limits(images[i], (0.5, 99.5), symmetric=signed)
            ax.imshow(images[i], cmap=DIVERGING if signed else "gray", vmin=low, vmax=high)
            ax.set(xticks=[], yticks=[])
            share = f": {float(ratio[i]):.1%}" if ratio is not None else ""
            ax.set_title(f"{names[i]}{share}", fontsize=SMALL, pad=2)
        part = "" if shown == len(names) else f", {shown} of {len(names)}"
        figure.suptitle(f"component images{part}" + (", share of the variance" if ratio is not None else ""))
    return figure


def _shares(ratio: xr.DataArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values = np.asarray(ratio.values, dtype="f8")
    if values.ndim != 1:
        raise SchemaError(f"{ratio.name!r} has dims {ratio.dims}; expected one value for each component.")
    if not values.size:
        raise NoInputError("there is no component to show.")
    return np.arange(1, values.size + 1), values, np.cumsum(values)


def variance_curve(ratio: xr.DataArray, *, knee: int | None = None, **kwargs: Any) -> Any:
    """Share of the variance that each component explains, and the sum of the shares so far; the knee marked.

    `ratio` is of the total variance, `(component,)`; `knee` is the number of components before it. `**kwargs` are
    options of the HoloViews overlay.
    """
    hv = holoviews()
    number, values, total = _shares(ratio)
    parts: list[Any] = [
        hv.Histogram((np.append(number - 0.4, number[-1] + 0.6), values), kdims="component", vdims="share").opts(
            fill_color=COLORS[0], line_color="white", tools=["hover"], backend="bokeh"
        ),
        hv.Curve((number, total), "component", "share", label="sum so far").opts(
            color=COLORS[1], line_width=2, backend="bokeh"
        ),
        hv.Points((number, total), ["component", "share"]).opts(color=COLORS[1], size=4, backend="bokeh"),
    ]
    if knee is not None:
        parts.append(hv.VLine(knee + 0.5).opts(color=KNEE_COLOR, line_dash="dashed", line_width=1.6, backend="bokeh"))
    options = {
        "title": title(_heading(total, knee)), "xlabel": "component", "ylabel": "share of the variance",
        "ylim": (0, 1.03), "frame_width": 460, "frame_height": 240, "legend_position": "right", "show_grid": True,
        "backend": "bokeh",
    }  # fmt: skip
    return hv.Overlay(parts).opts(**options | kwargs)


def _heading(total: np.ndarray, knee: int | None) -> str:
    before = f", {knee} before the knee: {total[min(knee, total.size) - 1]:.1%}" if knee else ""
    return f"{total.size} components: {total[-1]:.1%}{before}"


def variance_sheet(ratio: xr.DataArray, *, knee: int | None = None) -> Any:
    """Explained variance on paper: shares on a logarithmic axis, the sum so far beside them, the knee marked."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    number, values, total = _shares(ratio)
    with journal():
        figure = new_figure(WIDTH, 2.3)
        left, right = figure.subplots(1, 2)
        positive = values[values > 0]
        left.semilogy(number[values > 0], positive, marker="o", ms=3, color=COLORS[0])
        left.set(xlabel="component", ylabel="share of the variance")
        right.plot(number, total, marker="o", ms=3, color=COLORS[0])
        right.set(xlabel="component", ylabel="sum of the shares", ylim=(0, 1.03))
        for ax in (left, right):
            ax.grid(alpha=0.25, lw=0.4)
            ax.xaxis.get_major_locator().set_params(integer=True)
            if knee is not None:
                ax.axvline(knee + 0.5, color=KNEE_COLOR, ls="--", lw=1)
        percent = FuncFormatter(lambda value, _: f"{100 * value:.3g} %")
        left.yaxis.set_major_formatter(percent)
        left.yaxis.set_minor_formatter(percent if values.max() < 10 * positive.min(initial=1) else NullFormatter())
        right.yaxis.set_major_formatter(percent)
        figure.suptitle(_heading(total, knee))
    return figure


def component_images(components: xr.DataArray, entries: Sequence[int] | None = None, **kwargs: Any) -> Any:
    """Component images beside each other, signed ones centred at 0. `**kwargs` are options of `holoviews.Image`."""
    hv = holoviews()
    names, images = image_stack(components)
    chosen = list(range(min(len(names), 16))) if entries is None else list(entries)
    if any(not 0 <= i < len(names) for i in chosen) or not chosen:
        raise NoInputError(f"of {len(names)} components the entries {chosen} cannot be shown.")
    signed = bool(np.nanmin(images) < 0)
    shown = []
    for i in chosen:
        rows, columns = images[i].shape
        options = {
            "cmap": DIVERGING if signed else "gray", "clim": robust_limits(images[i], (0.5, 99.5), symmetric=signed),
            "frame_width": 130, "frame_height": max(30, round(130 * rows / columns)), "xaxis": None, "yaxis": None,
            "title": title(f"component {names[i]}"), "fontsize": {"title": 9}, "backend": "bokeh",
        }  # fmt: skip
        image = hv.Image(images[i], ["dx", "dy"], "weight", bounds=(0, 0, columns, rows))
        shown.append(image.opts(**options | kwargs))
    return hv.Layout(shown).cols(6).opts(shared_axes=False)
