"""The map of a scan: a layer in blocks that follow the zoom, the chosen point, the chosen region."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from bokeh.events import RangesUpdate
from bokeh.models import ColumnDataSource, Range1d

from vaearr.app.figures import MARK, Colors, new_figure
from vaearr.app.gestures import TOOLS, choose_with
from vaearr.app.raster import MOST, in_polygon, raster
from vaearr.app.state import axis
from vaearr.plots.common import is_category, label

Chosen = Callable[[np.ndarray], None]
SHADE = np.array([0xE5, 0x00, 0x7E, 0x90], np.uint8)  # of the chosen points


class Map:
    """A layer over a grid of scan points. A click, a box or a drawn outline chooses points of the grid."""

    def __init__(
        self, rows: xr.DataArray, columns: xr.DataArray, chosen: Chosen | None, size: tuple[int, int], *,
        name: str, most: int = MOST,
    ) -> None:  # fmt: skip
        self.most, self.values, self.is_code = most, np.zeros((rows.size, columns.size), np.float32), False
        self.selected: np.ndarray | None = None
        (self.y0, self.dy, up), (self.x0, self.dx, across) = axis(rows), axis(columns)
        height, width = rows.size * abs(self.dy), columns.size * abs(self.dx)
        scale = min(size[0] / width, size[1] / height)
        self.figure: Any = new_figure(
            frame_width=max(60, int(width * scale)), frame_height=max(60, int(height * scale)),
            tools=TOOLS if chosen else "", toolbar_location="above" if chosen else None,
            x_range=Range1d(start=self.x0, end=self.x0 + columns.size * self.dx),
            y_range=Range1d(start=self.y0 + rows.size * self.dy, end=self.y0),
            x_axis_label=across, y_axis_label=up, name=name,
        )  # fmt: skip
        self.source, self.shade = (ColumnDataSource({key: [] for key in _KEYS}) for _ in range(2))
        self.colors = Colors(self.figure)
        self.figure.image("image", "x", "y", "dw", "dh", source=self.source, color_mapper=self.colors.mapper)
        self.figure.image_rgba("image", "x", "y", "dw", "dh", source=self.shade)
        self.mark = ColumnDataSource({"x": [], "y": []})
        look: dict[str, Any] = {"size": 15, "marker": "circle_cross", "fill_alpha": 0}
        self.figure.scatter("x", "y", source=self.mark, line_color="white", line_width=4, **look)
        self.figure.scatter("x", "y", source=self.mark, line_color=MARK, line_width=2, **look)
        if chosen is not None:
            self.chosen = chosen
            choose_with(self.figure, tapped=lambda x, y: self._box(x, x, y, y), boxed=self._box, outlined=self._polygon)
        if self.values.size > most:
            self.figure.on_event(RangesUpdate, lambda event: self.draw((event.y0, event.y1), (event.x0, event.x1)))

    def show(self, da: xr.DataArray) -> None:
        """Show a layer `(rows, columns)`."""
        self.is_code = is_category(da)
        self.values = self.colors.fit(da)
        self.figure.title.text = label(da)
        self.redraw()

    def redraw(self) -> None:
        """Draw what the window shows."""
        x, y = self.figure.x_range, self.figure.y_range
        self.draw((y.start, y.end), (x.start, x.end))

    def draw(self, y: tuple[float, float], x: tuple[float, float]) -> None:
        """Draw the part between two limits on each axis."""
        self.source.data = self._part(self.values, y, x, mean=not self.is_code)
        if self.selected is None:
            self.shade.data = {key: [] for key in _KEYS}
            return
        part = self._part(self.selected, y, x, mean=True)
        packed = np.zeros((*part["image"][0].shape, 4), np.uint8)
        packed[part["image"][0] > 0] = SHADE
        self.shade.data = {**part, "image": [packed.view(np.uint32)[..., 0]]}

    def _part(
        self, values: np.ndarray, y: tuple[float, float], x: tuple[float, float], *, mean: bool
    ) -> dict[str, Any]:
        rows = ((y[0] - self.y0) / self.dy, (y[1] - self.y0) / self.dy)
        columns = ((x[0] - self.x0) / self.dx, (x[1] - self.x0) / self.dx)
        part = raster(values, rows, columns, most=self.most, mean=mean)
        return {
            "image": [part.values], "x": [self.x0 + part.left * self.dx], "y": [self.y0 + part.top * self.dy],
            "dw": [(part.right - part.left) * self.dx], "dh": [(part.bottom - part.top) * self.dy],
        }  # fmt: skip

    def point(self, place: tuple[int, int] | None) -> None:
        """Mark a scan point, or none."""
        x, y = (
            ([], [])
            if place is None
            else ([self.x0 + (place[1] + 0.5) * self.dx], [self.y0 + (place[0] + 0.5) * self.dy])
        )
        self.mark.data = {"x": x, "y": y}

    def select(self, inside: np.ndarray | None) -> None:
        """Shade the points of a mask `(rows, columns)`, or none."""
        changed = inside is not None or self.selected is not None
        self.selected = None if inside is None else inside.astype(np.float32)
        if changed:
            self.redraw()

    def at(self, x: float, y: float) -> int | None:
        """Number in the grid of the scan point at a place, None beside the map."""
        column, row = int(np.floor((x - self.x0) / self.dx)), int(np.floor((y - self.y0) / self.dy))
        rows, columns = self.values.shape
        return row * columns + column if 0 <= row < rows and 0 <= column < columns else None

    def _polygon(self, corners: np.ndarray) -> None:
        rows, columns = np.indices(self.values.shape)
        middles = np.stack([self.x0 + (columns.ravel() + 0.5) * self.dx, self.y0 + (rows.ravel() + 0.5) * self.dy], 1)
        found = np.flatnonzero(in_polygon(middles, corners))
        if len(found):
            self.chosen(found)

    def _box(self, x0: float, x1: float, y0: float, y1: float) -> None:
        (left, right), (top, bottom) = (
            (max(0, int(np.floor(a))), min(size - 1, int(np.floor(b))))
            for a, b, size in (
                ((x0 - self.x0) / self.dx, (x1 - self.x0) / self.dx, self.values.shape[1]),
                ((y0 - self.y0) / self.dy, (y1 - self.y0) / self.dy, self.values.shape[0]),
            )
        )
        if right >= left and bottom >= top:
            rows, columns = np.meshgrid(np.arange(top, bottom + 1), np.arange(left, right + 1), indexing="ij")
            self.chosen(np.ravel_multi_index((rows.ravel(), columns.ravel()), self.values.shape))


_KEYS = ("image", "x", "y", "dw", "dh")
