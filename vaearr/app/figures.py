"""Figures of the page: pictures without axes, the map of a scan, points in a plane. Drawn by bokeh, fed with arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from bokeh.events import RangesUpdate, SelectionGeometry, Tap
from bokeh.models import BoxSelectTool, ColumnDataSource, LinearColorMapper, Range1d
from bokeh.models.annotations import ColorBar
from bokeh.palettes import Greys256, Viridis256
from bokeh.plotting import figure

from vaearr.app.raster import MOST, raster, thinned
from vaearr.plots.common import NAN_COLOR, as_codes, is_category, is_regular, label, palette, robust_limits, text

MARK = "#e5007e"  # of the chosen sample
Chosen = Callable[[np.ndarray], None]


class Picture:
    """One picture, or a sheet of them, on a grey scale (or in its colours)."""

    def __init__(self, heading: str, width: int, height: int, *, axes: bool = False) -> None:
        self.source = ColumnDataSource({"image": [np.zeros((1, 1), np.float32)], "dw": [1.0], "dh": [1.0]})
        self.colors = ColumnDataSource({"image": [np.zeros((1, 1), np.uint32)], "dw": [1.0], "dh": [1.0]})
        self.mapper = LinearColorMapper(palette=Greys256, low=0, high=1, nan_color=NAN_COLOR)
        self.figure: Any = _figure(
            title=heading, frame_width=width, frame_height=height, x_range=Range1d(start=0, end=1),
            y_range=Range1d(start=1, end=0),
            tools="wheel_zoom,pan,reset,save" if axes else "", toolbar_location="above" if axes else None,
        )  # fmt: skip
        self.figure.toolbar.logo = None
        self.figure.grid.visible = False
        self.figure.axis.visible = axes
        self.grey = self.figure.image("image", 0, 0, "dw", "dh", source=self.source, color_mapper=self.mapper)
        self.rgb = self.figure.image_rgba("image", 0, 0, "dw", "dh", source=self.colors, visible=False)
        self.width, self.height = width, height

    def show(self, image: np.ndarray, limits: tuple[float, float] | None = None) -> None:
        """Show `(H, W)` or `(H, W, 3)` between two limits, by default its 0.5 % and 99.5 % percentile."""
        low, high = limits or robust_limits(image, (0.5, 99.5))
        height, width = image.shape[:2]
        size = {"dw": [float(width)], "dh": [float(height)]}
        is_rgb = image.ndim == 3
        if is_rgb:
            levels = (255 * np.clip((np.nan_to_num(image) - low) / (high - low), 0, 1)).astype(np.uint8)
            opaque = np.full((height, width, 1), 255, np.uint8)
            packed = np.ascontiguousarray(np.concatenate([levels, opaque], -1)).view(np.uint32)[..., 0]
            self.colors.data = {"image": [packed], **size}
        else:
            self.source.data = {"image": [image.astype(np.float32)], **size}
            self.mapper.update(low=low, high=high)
        self.grey.visible, self.rgb.visible = not is_rgb, is_rgb
        wide = width / height * self.height / self.width  # equal scales: the shorter side is framed by empty space
        x, y = max(1.0, 1 / wide) * width, max(1.0, wide) * height
        self.figure.x_range.update(start=(width - x) / 2, end=(width + x) / 2)
        self.figure.y_range.update(start=(height + y) / 2, end=(height - y) / 2)

    def clear(self) -> None:
        """Show nothing."""
        self.show(np.full((1, 1), np.nan, np.float32), (0.0, 1.0))


class Map:
    """A layer over a grid of scan points; large ones in blocks that follow the zoom. A click or a box chooses."""

    def __init__(self, rows: xr.DataArray, columns: xr.DataArray, chosen: Chosen, *, most: int = MOST) -> None:
        self.most, self.values, self.is_code = most, np.zeros((rows.size, columns.size), np.float32), False
        (self.y0, self.dy), (self.x0, self.dx) = _axis(rows.values), _axis(columns.values)
        height, width = rows.size * abs(self.dy), columns.size * abs(self.dx)
        scale = min(400 / width, 430 / height)
        self.figure: Any = _figure(
            frame_width=max(80, int(width * scale)), frame_height=max(80, int(height * scale)),
            tools="pan,wheel_zoom,reset,save", toolbar_location="above", active_scroll="wheel_zoom",
            x_range=Range1d(start=self.x0, end=self.x0 + columns.size * self.dx),
            y_range=Range1d(start=self.y0 + rows.size * self.dy, end=self.y0),
            x_axis_label=text(_words(columns)), y_axis_label=text(_words(rows)), name="map",
        )  # fmt: skip
        self.figure.toolbar.logo = None
        self.figure.grid.visible = False
        self.source = ColumnDataSource({key: [] for key in ("image", "x", "y", "dw", "dh")})
        self.mapper = LinearColorMapper(palette=Viridis256, low=0, high=1, nan_color=NAN_COLOR)
        self.figure.image("image", "x", "y", "dw", "dh", source=self.source, color_mapper=self.mapper)
        self.figure.add_layout(ColorBar(color_mapper=self.mapper, width=10), "right")
        self.mark = ColumnDataSource({"x": [], "y": []})
        self.figure.scatter(
            "x", "y", source=self.mark, size=15, marker="circle_cross", fill_alpha=0, line_color=MARK, line_width=2
        )
        self.figure.add_tools(BoxSelectTool())
        self.chosen = chosen
        self.figure.on_event(Tap, lambda event: self._box(event.x, event.x, event.y, event.y))
        self.figure.on_event(SelectionGeometry, self._selected)
        if self.values.size > most:
            self.figure.on_event(RangesUpdate, lambda event: self.draw((event.y0, event.y1), (event.x0, event.x1)))

    def show(self, da: xr.DataArray) -> None:
        """Show a layer `(rows, columns)`."""
        self.is_code = is_category(da)
        if self.is_code:
            codes, names = as_codes(da)
            self.values = codes.values
            self.mapper.update(palette=palette(len(names)), low=-0.5, high=len(names) - 0.5)
        else:
            self.values = np.asarray(da.values, np.float32)
            low, high = robust_limits(self.values)
            self.mapper.update(palette=list(Viridis256), low=low, high=high)
        self.figure.title.text = label(da)
        x, y = self.figure.x_range, self.figure.y_range
        self.draw((y.start, y.end), (x.start, x.end))

    def draw(self, y: tuple[float, float], x: tuple[float, float]) -> None:
        """Draw the part between two limits on each axis."""
        rows = ((y[0] - self.y0) / self.dy, (y[1] - self.y0) / self.dy)
        columns = ((x[0] - self.x0) / self.dx, (x[1] - self.x0) / self.dx)
        part = raster(self.values, rows, columns, most=self.most, mean=not self.is_code)
        self.source.data = {
            "image": [part.values], "x": [self.x0 + part.left * self.dx], "y": [self.y0 + part.top * self.dy],
            "dw": [(part.right - part.left) * self.dx], "dh": [(part.bottom - part.top) * self.dy],
        }  # fmt: skip

    def point(self, place: tuple[int, int]) -> None:
        """Mark a scan point."""
        self.mark.data = {"x": [self.x0 + (place[1] + 0.5) * self.dx], "y": [self.y0 + (place[0] + 0.5) * self.dy]}

    def _selected(self, event: Any) -> None:
        box = event.geometry
        if event.final and box.get("type") == "rect":
            self._box(box["x0"], box["x1"], box["y0"], box["y1"])

    def _box(self, x0: float, x1: float, y0: float, y1: float) -> None:
        (left, right), (top, bottom) = (
            (max(0, int(np.floor(min(a, b)))), min(size - 1, int(np.floor(max(a, b)))))
            for a, b, size in (
                ((x0 - self.x0) / self.dx, (x1 - self.x0) / self.dx, self.values.shape[1]),
                ((y0 - self.y0) / self.dy, (y1 - self.y0) / self.dy, self.values.shape[0]),
            )
        )
        if right >= left and bottom >= top:
            rows, columns = np.meshgrid(np.arange(top, bottom + 1), np.arange(left, right + 1), indexing="ij")
            self.chosen(np.ravel_multi_index((rows.ravel(), columns.ravel()), self.values.shape))


class Scatter:
    """Samples as points in a plane; many are thinned evenly. A click chooses the nearest, a box all inside."""

    def __init__(self, chosen: Chosen, *, most: int = MOST) -> None:
        self.most, self.chosen, self.points = most, chosen, np.zeros((0, 2), np.float32)
        self.figure: Any = _figure(
            frame_width=400, frame_height=400, tools="pan,wheel_zoom,reset,save", toolbar_location="above",
            active_scroll="wheel_zoom", x_range=Range1d(start=0, end=1), y_range=Range1d(start=0, end=1),
            output_backend="webgl",
            name="plane",
        )  # fmt: skip
        self.figure.toolbar.logo = None
        self.source = ColumnDataSource({"x": [], "y": [], "value": []})
        self.mapper = LinearColorMapper(palette=Viridis256, low=0, high=1, nan_color=NAN_COLOR)
        color: Any = {"field": "value", "transform": self.mapper}
        self.figure.scatter("x", "y", source=self.source, size=4, fill_color=color, line_color=None, fill_alpha=0.8)
        self.figure.add_layout(ColorBar(color_mapper=self.mapper, width=10), "right")
        self.mark = ColumnDataSource({"x": [], "y": []})
        self.figure.scatter("x", "y", source=self.mark, size=11, fill_alpha=0, line_color=MARK, line_width=2)
        self.figure.add_tools(BoxSelectTool())
        self.figure.on_event(Tap, self._tapped)
        self.figure.on_event(SelectionGeometry, self._selected)

    def show(self, points: np.ndarray, axes: tuple[str, str], colors: xr.DataArray) -> None:
        """Points `(samples, 2)` coloured by a layer over the navigation dims."""
        self.points = points
        shown = thinned(np.isfinite(points).all(1), most=self.most)
        flat = colors
        if is_category(colors):
            flat, names = as_codes(colors)
            self.mapper.update(palette=palette(len(names)), low=-0.5, high=len(names) - 0.5)
        else:
            low, high = robust_limits(np.asarray(colors.values, np.float32))
            self.mapper.update(palette=list(Viridis256), low=low, high=high)
        values = np.asarray(flat.values, np.float32).ravel()
        self.source.data = {"x": points[shown, 0], "y": points[shown, 1], "value": values[shown]}
        for axis, bounds, words, column in zip(
            (self.figure.xaxis, self.figure.yaxis), (self.figure.x_range, self.figure.y_range), axes, (0, 1),
            strict=True,
        ):  # fmt: skip
            axis.axis_label = text(words)
            low, high = np.percentile(points[shown, column], (0.1, 99.9))
            bounds.update(start=float(low - 0.08 * (high - low)), end=float(high + 0.08 * (high - low)))
        self.figure.title.text = f"coloured by {label(colors)}"

    def point(self, indices: np.ndarray) -> None:
        """Mark samples, at most 2000 of them."""
        some = indices[thinned(np.isfinite(self.points[indices]).all(1), most=2000)]
        self.mark.data = {"x": self.points[some, 0], "y": self.points[some, 1]}

    def _tapped(self, event: Any) -> None:
        x, y = self.figure.x_range, self.figure.y_range
        away = (self.points - (event.x, event.y)) / (x.end - x.start, y.end - y.start)
        if np.isfinite(away).all(1).any():
            self.chosen(np.array([np.nanargmin((away**2).sum(1))]))

    def _selected(self, event: Any) -> None:
        box = event.geometry
        if event.final and box.get("type") == "rect":
            (x0, x1), (y0, y1) = sorted((box["x0"], box["x1"])), sorted((box["y0"], box["y1"]))
            x, y = self.points.T
            inside = np.flatnonzero((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))
            if len(inside):
                self.chosen(inside)


def _figure(**options: Any) -> Any:
    return figure(**options)


def _axis(values: np.ndarray) -> tuple[float, float]:
    """Edge of the first cell and the step: of the coordinates where they are even and rise, else of positions."""
    if values.dtype.kind in "iuf" and len(values) > 1 and is_regular(values) and values[1] > values[0]:
        step = float(values[-1] - values[0]) / (len(values) - 1)
        return float(values[0]) - step / 2, step
    return -0.5, 1.0


def _words(coord: xr.DataArray) -> str:
    return label(coord) if _axis(coord.values) != (-0.5, 1.0) else f"{coord.name} (position)"
