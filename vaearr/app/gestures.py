"""What the mouse does on a figure: a click, a box, a drawn outline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from bokeh.events import DoubleTap, SelectionGeometry, Tap
from bokeh.models import BoxSelectTool, LassoSelectTool

TOOLS = "pan,wheel_zoom,reset,save"


def choose_with(
    figure: Any, *, tapped: Callable[[float, float], None], boxed: Callable[[float, float, float, float], None],
    outlined: Callable[[np.ndarray], None],
) -> None:  # fmt: skip
    """Call what a click `x, y`, a box `x0, x1, y0, y1` (ascending) or an outline `(corners, 2)` on a figure chooses."""

    def drawn(event: Any) -> None:
        shape = event.geometry
        if not event.final:
            return
        if shape["type"] == "rect":
            boxed(*sorted((shape["x0"], shape["x1"])), *sorted((shape["y0"], shape["y1"])))
        elif shape["type"] == "poly":
            outlined(np.stack([np.asarray(shape["x"], float), np.asarray(shape["y"], float)], 1))

    box = BoxSelectTool(renderers=[], persistent=False)
    figure.add_tools(box, LassoSelectTool(renderers=[], persistent=False))
    figure.toolbar.active_drag = box
    for tap in (Tap, DoubleTap):  # the second of two quick clicks, at another place too, is a double one
        figure.on_event(tap, lambda event: tapped(event.x, event.y))
    figure.on_event(SelectionGeometry, drawn)
