"""Samples as points in a plane: few as points, many as the mean colour of the cells that they fall in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from bokeh.events import RangesUpdate
from bokeh.models import ColumnDataSource, Range1d

from vaearr.app.figures import CLEAR, MARK, Colors, new_figure
from vaearr.app.gestures import TOOLS, choose_with
from vaearr.app.raster import cells, in_polygon, thinned
from vaearr.plots.common import is_category, label, text

MOST_POINTS = 4000  # in the window, beyond which cells are drawn
MOST_MARKED = 1500
CELL = 2  # pixels
NEAR = 8  # pixels between the pointer and the point that it is at


class Scatter:
    """Points `(samples, 2)`. A click chooses the nearest, a box or a drawn outline all inside."""

    def __init__(self, size: tuple[int, int], chosen: Callable[[np.ndarray], None] | None, *, name: str) -> None:
        self.size, self.points = size, np.zeros((0, 2), np.float32)
        self.values, self.is_code = np.zeros(0, np.float32), False
        self.figure: Any = new_figure(
            frame_width=size[0], frame_height=size[1], tools=TOOLS if chosen else "",
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
            self.chosen = chosen
            choose_with(self.figure, tapped=self._tapped, boxed=self._box, outlined=self._polygon)
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

    def at(self, x: float, y: float) -> int | None:
        """The sample at a place, None where none is near."""
        found = self._nearest(x, y)
        return None if found is None or found[1] > NEAR else found[0]

    def _nearest(self, x: float, y: float) -> tuple[int, float] | None:
        """The nearest sample and its distance in pixels, None where there is none."""
        across, up = self.figure.x_range, self.figure.y_range
        pixels = self.size[0] / (across.end - across.start), self.size[1] / (up.end - up.start)
        away = np.hypot(*((self.points - (x, y)) * pixels).T)
        if not np.isfinite(away).any():
            return None
        index = int(np.nanargmin(away))
        return index, float(away[index])

    def _tapped(self, x: float, y: float) -> None:
        if (found := self._nearest(x, y)) is not None:
            self.chosen(np.array([found[0]]))

    def _box(self, x0: float, x1: float, y0: float, y1: float) -> None:
        x, y = self.points.T
        self._inside((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))

    def _polygon(self, corners: np.ndarray) -> None:
        self._inside(in_polygon(self.points, corners))

    def _inside(self, inside: np.ndarray) -> None:
        if inside.any():
            self.chosen(np.flatnonzero(inside))
