"""The scatter, the sheet of samples and a widget of the explorer's page."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
from bokeh.models import FixedTicker

from vaearr.analysis.latents import evenly_spaced
from vaearr.app.samples import GREY, Colouring, png
from vaearr.views.common import brief, holoviews, robust_limits

MAX_POINTS = 10_000
BOKEH: dict[str, Any] = {"backend": "bokeh"}
SMALL: dict[str, Any] = {
    "fontsize": {"title": "13px", "labels": "12px", "ticks": "11px"},
    "clabel": "",
    "colorbar_opts": {"width": 10, "padding": 4},
    **BOKEH,
}


def points_plot(positions: np.ndarray, values: np.ndarray, colouring: Colouring) -> Any:
    """Samples at positions `(samples, 2)`, coloured by values; evenly spaced ones of many."""
    rows = np.flatnonzero(np.isfinite(positions).all(1))
    rows = rows[evenly_spaced(len(rows), MAX_POINTS)]
    columns = (*positions[rows].T, values[rows])
    return (
        holoviews()
        .Points(columns, ["across", "up"], "value")
        .opts(
            color="value",
            cmap=colouring.palette,
            clim=colouring.limits,
            colorbar=True,
            size=5,
            line_color=None,
            alpha=0.85,
            nonselection_alpha=0.85,
            hooks=[class_ticks(colouring)],
            **SMALL,
        )
    )


def class_ticks(colouring: Colouring) -> Callable[..., None]:
    """A hook that puts names of classes, or even numbers, at a colour bar when it changes.

    The ticker of a visible bar must not be replaced.
    """

    def hook(plot: Any, element: Any) -> None:
        for name, bar in plot.handles.items():
            if not name.endswith("colorbar"):
                continue
            if not isinstance(bar.ticker, FixedTicker):
                bar.ticker = FixedTicker()
            bar.ticker.ticks = colouring.ticks
            bar.major_label_overrides = dict(enumerate(colouring.names))

    return hook


def sheet(title: str, names: list[str], images: np.ndarray) -> Any:
    """Pictures `(samples, k, H, W[, 3])` on one scale, the k of a sample stacked over its name."""
    limits = robust_limits(images, GREY)
    cells = ""
    for name, pictures in zip(names, images, strict=True):
        addresses = [png(picture, limits, 128) for picture in pictures]
        stack = "".join(f'<img alt="" src="{address}">' for address in addresses)
        cells += f"<span>{stack}{html.escape(brief(name, 40))}</span>"
    style = """
    <style>
    section { display: flex; flex-wrap: wrap; gap: 4px; text-align: center; font-size: 11px; }
    p { font-size: 13px; } span { width: 98px; } img { height: 72px; display: block; margin: auto; }
    img { image-rendering: pixelated; max-width: 94px; object-fit: contain; }
    </style>
    """
    return pn.pane.HTML(
        f"{style}<p>{html.escape(title)}</p><section>{cells}</section>", sizing_mode="stretch_width"
    )


def index_slider(label: str, size: int) -> Any:
    """A slider over the indices of a dimension, hidden where there is one index only."""
    last = max(1, size - 1)
    return pmui.IntSlider(
        label=label, end=last, value=last // 2, visible=size > 1, width=150, size="small"
    )
