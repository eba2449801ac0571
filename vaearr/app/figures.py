"""The scatter of the explorer's page, and its colour bars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from bokeh.models import FixedTicker

from vaearr.analysis.latents import evenly_spaced
from vaearr.app.samples import Colouring
from vaearr.views.common import holoviews

MAX_POINTS = 10_000
BOKEH: dict[str, Any] = {"backend": "bokeh"}
SMALL: dict[str, Any] = {
    "fontsize": {"title": "13px", "labels": "12px", "ticks": "11px"},
    "clabel": "",
    "colorbar_opts": {"width": 10, "padding": 4, "background_fill_alpha": 0},
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
