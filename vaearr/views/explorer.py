"""Maps with a selector that works in a saved page: side map and latent beside each other, zoom and
cross-hair linked.

The maps travel once, packed (see `page.packed`); the browser unpacks the one that is chosen. The
store keeps the full precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr

from vaearr.schema import is_categorical
from vaearr.views.colors import colors_of
from vaearr.views.common import (
    SEQUENTIAL,
    as_map,
    bokeh_is_current,
    colored_classes,
    holoviews,
    label,
    robust_limits,
    title,
)
from vaearr.views.maps import map_plot
from vaearr.views.page import LEVELS, UNPACK, packed

FRAME = 400

_CHOOSE = f"""
{UNPACK}
(async () => {{
  const m = maps[Number(select.value)], codes = await unpack(m.data);
  const column = source.data[name], values = name === "image" ? column[0] : column;
  for (let i = 0; i < codes.length; i++) {{
    values[i] = codes[i] === 255 ? NaN : m.low + (codes[i] * (m.high - m.low)) / {LEVELS};
  }}
  mapper.palette = m.palette;
  [mapper.low, mapper.high] = m.limits;
  bar.ticker.ticks = m.ticks;
  bar.major_label_overrides = new Map(m.names.map((word, i) => [i, word]));
  figure.title.text = m.title;
  source.change.emit();
}})();
"""


def pack(da: xr.DataArray, *, turned: bool = False) -> dict[str, Any]:
    """A map in 127 steps between its 1 % and 99 % percentiles for the page; maps of up to 127
    classes without loss.

    More classes than that are numbers to the eye too, and shown as such. turned: column after
    column.
    """
    names: list[str] = []
    colors, grid = colors_of(SEQUENTIAL), da
    if is_categorical(da):
        classes = colored_classes(da)
        if len(classes.names) <= LEVELS + 1:
            names, colors, grid = classes
    grid = as_map(grid)
    low, high = (0.0, float(LEVELS)) if names else robust_limits(grid.values)
    return {
        "title": label(da), "data": packed(grid.values.T if turned else grid.values, (low, high)), "low": low,
        "high": high, "names": names, "palette": colors,
        "limits": (-0.5, len(names) - 0.5) if names else (low, high),
        "ticks": list(range(len(names))) if names else even_ticks(low, high),
    }  # fmt: skip


def even_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two limits, about six."""
    from matplotlib.ticker import MaxNLocator

    return [float(tick) for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]


@bokeh_is_current()
def explorer(
    sides: Sequence[xr.DataArray], latents: Sequence[xr.DataArray], roi: xr.DataArray | None = None
) -> Any:
    """Side map and latent beside each other as a bokeh layout, each with a selector; zoom and
    cross-hair are linked.
    """
    from bokeh.layouts import column, row
    from bokeh.models import CrosshairTool
    from bokeh.models.annotations import Span

    panels = [
        _panel(maps, heading, roi)
        for maps, heading in ((sides, "side map"), (latents, "latent"))
        if len(maps)
    ]
    across, up = (
        Span(dimension=dim, line_dash="dotted", line_width=1) for dim in ("width", "height")
    )
    first = panels[0][1]
    for _, figure in panels:
        figure.x_range, figure.y_range = first.x_range, first.y_range
        figure.add_tools(CrosshairTool(overlay=(across, up)))
    return row(*(column(select, figure) for select, figure in panels), spacing=20)


def _panel(maps: Sequence[xr.DataArray], heading: str, roi: xr.DataArray | None) -> tuple[Any, Any]:
    """The first map as a figure, and the selector that shows another one in it."""
    from bokeh.models import CustomJS, FixedTicker, LinearColorMapper
    from bokeh.models.annotations import ColorBar
    from bokeh.models.renderers import GlyphRenderer
    from bokeh.models.widgets import Select

    shown = map_plot(
        maps[0].rename("value"),
        roi=roi,
        title=title(label(maps[0])),
        clabel="",
        colorbar=True,
        frame=FRAME,
    )
    figure = holoviews().renderer("bokeh").get_plot(shown).state
    sources = [drawn.data_source for drawn in figure.select({"type": GlyphRenderer})]
    source, name = next(
        (one, key) for one in sources for key in ("image", "value") if key in one.data
    )
    drawn = [pack(da, turned=name == "value") for da in maps]
    bar = figure.select_one({"type": ColorBar})
    bar.ticker = FixedTicker(ticks=drawn[0]["ticks"])
    mapper = figure.select_one({"type": LinearColorMapper})
    options: list[Any] = [(str(i), item["title"]) for i, item in enumerate(drawn)]
    select = Select(title=f"Choose a {heading}", value="0", width=240, options=options)
    parts = {"maps": drawn, "select": select, "source": source, "name": name, "figure": figure}
    select.js_on_change(
        "value", CustomJS(args=parts | {"mapper": mapper, "bar": bar}, code=_CHOOSE)
    )
    return select, figure
