"""Maps with a selector that works in a saved page: side map and latent beside each other, zoom and cross-hair linked.

The maps travel once, in 7 bits between their colour limits (255 = NaN), differences along the row, deflated; the
browser unpacks the one that is chosen. The store keeps the full precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from vaearr.schema.grid import edges
from vaearr.views.common import (
    NAN_COLOR,
    as_codes,
    as_map,
    holoviews,
    is_category,
    is_regular,
    label,
    map_dims,
    palette,
    robust_limits,
    roi_outline,
    text,
)
from vaearr.views.page import packed, unpacked

LEVELS = 126  # steps between the colour limits: finer than colours can be told apart
FRAME = 400

_UNPACK = """
(async () => {
  const m = maps[Number(select.value)];
  const packed = Uint8Array.from(atob(m.data), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const q = new Uint8Array(await new Response(stream).arrayBuffer());
  for (let i = 1; i < q.length; i++) q[i] = (q[i] + q[i - 1]) & 255;
  const values = by_cell ? source.data.value : source.data.value[0];
  const step = (m.high - m.low) / levels;
  for (let i = 0; i < q.length; i++) values[i] = q[i] === 255 ? NaN : m.low + q[i] * step;
  mapper.palette = m.names.length ? m.palette : scale;
  mapper.low = m.color_low;
  mapper.high = m.color_high;
  bars.forEach((bar, i) => { bar.visible = bar_names[i] === m.names.join("|"); });
  figure.title.text = m.title;
  source.change.emit();
})();
"""


@dataclass(frozen=True)
class PackedMap:
    """A map as the page carries it."""

    title: str
    data: str
    low: float
    high: float
    names: tuple[str, ...] = ()

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        """What the browser makes of it."""
        return unpacked(self.data, shape, (self.low, self.high), LEVELS)

    def arguments(self) -> dict[str, Any]:
        """For the script in the page."""
        limits = (-0.5, len(self.names) - 0.5) if self.names else (self.low, self.high)
        return {
            "title": self.title, "data": self.data, "low": self.low, "high": self.high, "names": list(self.names),
            "palette": palette(len(self.names)) if self.names else [], "color_low": limits[0], "color_high": limits[1],
        }  # fmt: skip


def pack(da: xr.DataArray) -> PackedMap:
    """A map in 7 bits between its 1 % and 99 % percentiles; maps of up to 127 classes without loss.

    More classes than that are numbers to the eye too, and shown as such.
    """
    positions, names = as_codes(da) if is_category(da) else (da, [])
    values = as_map(positions).values
    if names and len(names) <= LEVELS + 1:
        low, high = 0.0, float(LEVELS)
    else:
        names = []
        low, high = robust_limits(np.asarray(values, np.float32))
    return PackedMap(label(da), packed(values, (low, high), LEVELS), low, high, tuple(names))


def explorer(
    sides: Sequence[xr.DataArray],
    latents: Sequence[xr.DataArray],
    roi: xr.DataArray | None = None,
) -> Any:
    """Side map and latent beside each other as a bokeh layout, each with a selector; zoom and cross-hair are linked."""
    holoviews()
    from bokeh.layouts import row
    from bokeh.models import CrosshairTool
    from bokeh.models.annotations import Span

    panels = [_panel(maps, heading, roi) for maps, heading in ((sides, "side map"), (latents, "latent")) if len(maps)]
    figures = [figure for _, figure in panels]
    across, up = (Span(dimension=dim, line_dash="dotted", line_width=1) for dim in ("width", "height"))
    for figure in figures:
        figure.x_range, figure.y_range = figures[0].x_range, figures[0].y_range
        figure.add_tools(CrosshairTool(overlay=(across, up)))
    return row(*(panel for panel, _ in panels), spacing=20)


def _panel(maps: Sequence[xr.DataArray], heading: str, roi: xr.DataArray | None) -> tuple[Any, Any]:
    from bokeh.layouts import column
    from bokeh.models import BasicTicker, ColumnDataSource, CustomJS, FixedTicker, LinearColorMapper
    from bokeh.models.annotations import ColorBar
    from bokeh.models.widgets import Select
    from bokeh.palettes import Viridis256

    drawn = [pack(da) for da in maps]
    first = drawn[0].arguments()
    grid = as_map(maps[0] if not is_category(maps[0]) else as_codes(maps[0])[0])
    figure = _figure(grid, first["title"])
    mapper = LinearColorMapper(
        palette=first["palette"] or Viridis256, low=first["color_low"], high=first["color_high"], nan_color=NAN_COLOR
    )
    by_cell = not all(is_regular(grid[dim].values) for dim in map_dims(grid))
    source = ColumnDataSource(_cells(grid, drawn[0].values(grid.shape), by_cell))
    _draw(figure, grid, source, mapper, by_cell)
    if roi is not None:
        x0, y0, x1, y1 = roi_outline(roi).T
        for color, width in (("white", 3), ("black", 1.2)):
            figure.segment(x0, y0, x1, y1, line_color=color, line_width=width)
    bars = {}
    for names in dict.fromkeys(item.names for item in drawn):  # one colour bar for amounts, one for each set of names
        ticks: Any = FixedTicker(ticks=list(range(len(names)))) if names else BasicTicker()
        bars["|".join(names)] = bar = ColorBar(
            color_mapper=mapper, ticker=ticks, width=12, major_label_overrides=dict(enumerate(names)),
            visible=names == drawn[0].names,
        )  # fmt: skip
        figure.add_layout(bar, "right")
    options: list[str | tuple[Any, str]] = [(str(i), item.title) for i, item in enumerate(drawn)]
    select = Select(
        title=f"Choose a {heading}", value="0", width=240,
        options=options,
    )  # fmt: skip
    arguments = {
        "maps": [item.arguments() for item in drawn], "select": select, "source": source, "mapper": mapper,
        "bars": list(bars.values()), "bar_names": list(bars), "figure": figure, "by_cell": by_cell,
        "levels": LEVELS, "scale": list(Viridis256),
    }  # fmt: skip
    select.js_on_change("value", CustomJS(args=arguments, code=_UNPACK))
    return column(select, figure), figure


def _figure(grid: xr.DataArray, heading: str) -> Any:
    from bokeh.models import Range1d
    from bokeh.plotting import figure

    rows, columns = map_dims(grid)
    x, y = edges(grid[columns].values), edges(grid[rows].values)
    ratio = (y[-1] - y[0]) / (x[-1] - x[0])
    shown = figure(
        title=heading, tools="pan,wheel_zoom,box_zoom,reset,save", frame_width=FRAME,
        frame_height=int(np.clip(FRAME * ratio, 60, 520)), x_range=Range1d(x[0], x[-1]), y_range=Range1d(y[-1], y[0]),
        x_axis_label=text(label(grid[columns], columns)), y_axis_label=text(label(grid[rows], rows)),
        match_aspect=True,
    )  # fmt: skip
    if ratio > 520 / FRAME:  # a tall map: equal scales by a narrower frame
        shown.frame_width = max(60, int(520 / ratio))
    shown.grid.visible = False
    shown.toolbar.logo = None
    return shown


def _cells(grid: xr.DataArray, values: np.ndarray, by_cell: bool) -> dict[str, Any]:
    """Columns of the data source: one image, or one rectangle per scan point where steps differ."""
    rows, columns = map_dims(grid)
    x, y = edges(grid[columns].values), edges(grid[rows].values)
    if not by_cell:
        return {"value": [values], "left": [x[0]], "bottom": [y[0]], "dw": [x[-1] - x[0]], "dh": [y[-1] - y[0]]}
    left, bottom = (a.ravel().astype("f4") for a in np.meshgrid(x[:-1], y[:-1]))
    right, top = (a.ravel().astype("f4") for a in np.meshgrid(x[1:], y[1:]))
    return {"value": values.ravel(), "left": left, "bottom": bottom, "right": right, "top": top}


def _draw(figure: Any, grid: xr.DataArray, source: Any, mapper: Any, by_cell: bool) -> None:
    from bokeh.models import HoverTool

    rows, columns = map_dims(grid)
    if by_cell:
        color = {"field": "value", "transform": mapper}
        glyph = figure.quad("left", "right", "bottom", "top", source=source, fill_color=color, line_color=color)
    else:
        glyph = figure.image("value", "left", "bottom", "dw", "dh", source=source, color_mapper=mapper)
    tips = [(columns, "$x{0.[00]}"), (rows, "$y{0.[00]}"), ("value", "@value{0.[000]}")]
    figure.add_tools(HoverTool(tooltips=tips, renderers=[glyph]))
