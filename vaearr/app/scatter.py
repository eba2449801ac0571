"""Samples as points in a plane: few as points, many as the mean colour of the cells that they fall in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from bokeh.events import DoubleTap, RangesUpdate, SelectionGeometry, Tap
from bokeh.models import BoxSelectTool, ColumnDataSource, LassoSelectTool, Range1d

from vaearr.app.figures import CLEAR, MARK, Colors, new_figure
from vaearr.app.raster import cells, in_polygon, thinned
from vaearr.plots.common import is_category, label, text

MOST_POINTS = 4000  # in the window, beyond which cells are drawn
MOST_MARKED = 1500
CELL = 2  # pixels


class Scatter:
    """Points `(samples, 2)`. A click chooses the nearest, a box or a drawn outline all inside."""

    def __init__(self, size: tuple[int, int], chosen: Callable[[np.ndarray], None] | None, *, name: str) -> None:
        self.size, self.chosen, self.points = size, chosen, np.zeros((0, 2), np.float32)
        self.values, self.is_code = np.zeros(0, np.float32), False
        self.figure: Any = new_figure(
            frame_width=size[0], frame_height=size[1], tools="pan,wheel_zoom,reset,save" if chosen else "",
            toolbar_location="above" if chosen else None, x_range=Range1d(start=0, end=1),
            y_range=Range1d(start=0, end=1), name=name,
        )  # fmt: skip
        self.colors = Colors(self.figure, CLEAR)
        self.source = ColumnDataSource({"x": [], "y": [], "value": []})
        self.image = ColumnDataSource({key: [] for key in ("image", "x", "y", "dw", "dh")})
        self.mark = ColumnDataSource({"x": [], "y": []})
        self.figure.image("image", "x", "y", "dw", "dh", source=self.image, color_mapper=self.colors.mapper)
        color: Any = {"field": "value", "transform": self.colors.mapper}
        self.figure.scatter("x", "y", source=self.source, size=5, fill_color=color, line_color=None, fill_alpha=0.85)
        self.marks = self.figure.scatter(
            "x", "y", source=self.mark, size=11, fill_color=MARK, fill_alpha=0, line_color=MARK, line_width=2
        )
        if chosen is not None:
            box = BoxSelectTool(renderers=[], persistent=False)
            self.figure.add_tools(box, LassoSelectTool(renderers=[], persistent=False))
            self.figure.toolbar.active_drag = box
            for tap in (Tap, DoubleTap):  # the second of two quick clicks, at another place too, is a double one
                self.figure.on_event(tap, self._tapped)
            self.figure.on_event(SelectionGeometry, self._drawn)
            self.figure.on_event(RangesUpdate, lambda event: self.draw((event.x0, event.x1, event.y0, event.y1)))

    def show(self, points: np.ndarray, axes: tuple[str, str], colors: xr.DataArray) -> None:
        """Points `(samples, 2)` coloured by a layer over the navigation dims."""
        self.points = points
        for axis, bounds, words, column in zip(
            (self.figure.xaxis, self.figure.yaxis), (self.figure.x_range, self.figure.y_range), axes, points.T,
            strict=True,
        ):  # fmt: skip
            axis.axis_label = text(words)
            known = column[np.isfinite(column)]
            low, high = np.percentile(known, (0.1, 99.9)) if len(known) else (0.0, 1.0)
            margin = 0.08 * (high - low) or 0.5
            bounds.update(start=float(low - margin), end=float(high + margin))
            bounds.update(reset_start=bounds.start, reset_end=bounds.end)
        self.recolor(colors)

    def recolor(self, colors: xr.DataArray) -> None:
        """Colour the points by a layer over the navigation dims."""
        self.is_code, self.values = is_category(colors), self.colors.fit(colors).ravel()
        self.figure.title.text = f"coloured by {label(colors)}"
        x, y = self.figure.x_range, self.figure.y_range
        self.draw((x.start, x.end, y.start, y.end))

    def draw(self, window: tuple[float, float, float, float]) -> None:
        """Draw what lies in a window x0, x1, y0, y1."""
        x0, x1, y0, y1 = window
        x, y = self.points.T
        inside = np.flatnonzero((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))
        if len(inside) <= MOST_POINTS:
            self.image.data = {str(key): [] for key in self.image.data}
            self.source.data = {"x": x[inside], "y": y[inside], "value": self.values[inside]}
            return
        shape = (self.size[1] // CELL, self.size[0] // CELL)
        found = cells(self.points[inside], self.values[inside], window, shape, mean=not self.is_code)
        self.image.data = {"image": [found], "x": [x0], "y": [y0], "dw": [x1 - x0], "dh": [y1 - y0]}
        self.source.data = {"x": [], "y": [], "value": []}

    def point(self, indices: np.ndarray) -> None:
        """Mark samples, at most 1500 of them: one by a ring, several by dots."""
        some = indices[thinned(np.isfinite(self.points[indices]).all(1), most=MOST_MARKED)]
        one = len(indices) == 1
        self.marks.glyph.update(size=11 if one else 4, fill_alpha=0 if one else 0.8, line_width=2 if one else 0)
        self.mark.data = {"x": self.points[some, 0], "y": self.points[some, 1]}

    def _tapped(self, event: Any) -> None:
        x, y = self.figure.x_range, self.figure.y_range
        away = (((self.points - (event.x, event.y)) / (x.end - x.start, y.end - y.start)) ** 2).sum(1)
        if self.chosen is not None and np.isfinite(away).any():
            self.chosen(np.array([np.nanargmin(away)]))

    def _drawn(self, event: Any) -> None:
        shape = event.geometry
        if not event.final or self.chosen is None:
            return
        if shape.get("type") == "rect":
            (x0, x1), (y0, y1) = sorted((shape["x0"], shape["x1"])), sorted((shape["y0"], shape["y1"]))
            x, y = self.points.T
            inside = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
        elif shape.get("type") == "poly":
            corners = np.stack([np.asarray(shape["x"], float), np.asarray(shape["y"], float)], 1)
            inside = in_polygon(self.points, corners)
        else:
            return
        if inside.any():
            self.chosen(np.flatnonzero(inside))
