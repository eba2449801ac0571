"""Pictures and sheets of pictures, and what all figures of the page share. Drawn by bokeh, fed with arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from bokeh.models import ColumnDataSource, FixedTicker, LinearColorMapper, Range1d
from bokeh.models.annotations import ColorBar
from bokeh.palettes import Greys256, Viridis256
from bokeh.plotting import figure

from vaearr.app.raster import sheet
from vaearr.app.template import DARK, LIGHT
from vaearr.plots.common import NAN_COLOR, as_codes, brief, is_category, palette, robust_limits

MARK = "#e5007e"  # of the chosen sample and region
CLEAR = "rgba(0,0,0,0)"
MOST_NAMES = 12  # of classes beside the colour bar
MOST_LETTERS = 7  # of a class beside the colour bar
GREY_LIMITS = (0.5, 99.5)  # percentiles
GAP = 2  # pixels between the pictures of a sheet


def new_figure(**options: Any) -> Any:
    """A bokeh figure without bokeh's mark and without a grid."""
    found: Any = figure(min_border=2, **options)
    found.toolbar.logo = None
    found.grid.visible = False
    return found


def dressed(found: Any, *, is_dark: bool) -> Any:
    """A figure in the colours of the page."""
    colors = DARK if is_dark else LIGHT
    ink, paper, line = (colors[name] for name in ("ink", "paper", "line"))
    found.update(background_fill_color=paper, border_fill_color=paper)
    found.title.update(text_color=ink, text_font_size="13px")
    if found.outline_line_color is not None:
        found.outline_line_color = line
    bars = [part for part in found.right if isinstance(part, ColorBar)]
    for bar in bars:
        bar.update(major_label_text_color=ink, background_fill_color=paper, major_label_text_font_size="11px")
    for axis in found.axis:
        axis.update(
            axis_label_text_color=ink, major_label_text_color=ink, axis_line_color=line, major_tick_line_color=line,
            minor_tick_line_color=line, axis_label_text_font_size="12px", major_label_text_font_size="11px",
            axis_label_standoff=3,
        )  # fmt: skip
    return found


class Picture:
    """One picture, or a sheet of them, on a grey scale (or in its colours)."""

    def __init__(
        self,
        heading: str,
        width: int,
        height: int,
        *,
        name: str = "",
        axes: bool = False,
        colors: Any = Greys256,
        missing: str = CLEAR,
    ) -> None:
        blank = np.full((1, 1), np.nan, np.float32)
        self.source = ColumnDataSource({"image": [blank], "dw": [1.0], "dh": [1.0]})
        self.colors = ColumnDataSource({"image": [np.zeros((1, 1), np.uint32)], "dw": [1.0], "dh": [1.0]})
        self.mapper = LinearColorMapper(palette=colors, low=0, high=1, nan_color=missing)
        self.beyond = np.nan
        if missing != CLEAR:  # what is between the pictures is told from what is missing in them
            self.beyond, self.mapper.high_color = np.inf, CLEAR
        self.figure: Any = new_figure(
            title=heading, frame_width=width, frame_height=height, x_range=Range1d(start=0, end=1), name=name or None,
            y_range=Range1d(start=1, end=0), toolbar_location=None, tools="",
        )  # fmt: skip
        self.figure.axis.visible = axes
        self.figure.outline_line_color = None
        self.grey = self.figure.image("image", 0, 0, "dw", "dh", source=self.source, color_mapper=self.mapper)
        self.rgb = self.figure.image_rgba("image", 0, 0, "dw", "dh", source=self.colors, visible=False)
        self.width, self.height = width, height

    def show(self, image: np.ndarray, limits: tuple[float, float] | None = None) -> None:
        """Show `(H, W)` or `(H, W, 3)` between two limits, by default its 0.5 % and 99.5 % percentile."""
        low, high = limits or robust_limits(image, GREY_LIMITS)
        height, width = image.shape[:2]
        size = {"dw": [float(width)], "dh": [float(height)]}
        is_rgb = image.ndim == 3
        if is_rgb:
            levels = (255 * np.clip((np.nan_to_num(image) - low) / (high - low), 0, 1)).astype(np.uint8)
            opaque = np.where(np.isfinite(image).all(-1, keepdims=True), 255, 0).astype(np.uint8)
            packed = np.ascontiguousarray(np.concatenate([levels, opaque], -1)).view(np.uint32)[..., 0]
            self.colors.data = {"image": [packed], **size}
        else:
            self.source.data = {"image": [image.astype(np.float32)], **size}
            self.mapper.update(low=low, high=high)
        self.grey.visible, self.rgb.visible = not is_rgb, is_rgb
        wide = width / height * self.height / self.width  # equal scales: the shorter side is framed by empty space
        x, y = max(1.0, 1 / wide) * width, max(1.0, wide) * height
        x0, y0 = ((width - x) / 2, (height - y) / 2) if not self.figure.axis[0].visible else (0.0, 0.0)
        self.figure.x_range.update(start=x0, end=x0 + x)
        self.figure.y_range.update(start=y0 + y, end=y0)

    def clear(self) -> None:
        """Show nothing."""
        self.show(np.full((1, 1), np.nan, np.float32), (0.0, 1.0))

    def show_sheet(
        self, pictures: np.ndarray, columns: list[str], rows: list[str], limits: tuple[float, float] | None = None
    ) -> None:
        """Show `(rows, columns, H, W[, 3])` side by side, named along both axes."""
        image = sheet(pictures, gap=GAP, fill=self.beyond)
        self.show(image, limits)
        ticks(self.figure.xaxis, image.shape[1], columns)
        ticks(self.figure.yaxis, image.shape[0], rows)


class Colors:
    """Colours of a layer, for a glyph, with its bar; classes are named there where they are few."""

    def __init__(self, over: Any, missing: str = NAN_COLOR) -> None:
        self.mapper = LinearColorMapper(palette=Viridis256, low=0, high=1, nan_color=missing)
        self.numbers, self.names = (ColorBar(color_mapper=self.mapper, width=10, padding=4) for _ in range(2))
        self.names.visible = False
        for bar in (self.numbers, self.names):
            over.add_layout(bar, "right")

    def fit(self, da: xr.DataArray) -> np.ndarray:
        """Fit to a layer; its values, of classes their numbers 0, 1, …, NaN for none."""
        is_class = is_category(da)
        self.numbers.visible, self.names.visible = not is_class, is_class
        if not is_class:
            values = np.asarray(da.values, np.float32)
            low, high = robust_limits(values)
            self.mapper.update(palette=list(Viridis256), low=low, high=high)
            return values
        codes, names = as_codes(da)
        self.mapper.update(palette=palette(len(names)), low=-0.5, high=len(names) - 0.5)
        some = np.unique(np.linspace(0, len(names) - 1, min(len(names), MOST_NAMES)).round().astype(int)).tolist()
        words = {i: brief(names[i], MOST_LETTERS) for i in some}
        self.names.update(ticker=FixedTicker(ticks=some), major_label_overrides=words)
        return np.asarray(codes.values, np.float32)


def ticks(axis: Any, size: int, words: list[str]) -> None:
    """One tick in the middle of each picture of a sheet."""
    middles = [(i + 0.5) * size / len(words) for i in range(len(words))]
    axis.ticker = middles
    axis.major_label_overrides = dict(zip(middles, words, strict=True))
