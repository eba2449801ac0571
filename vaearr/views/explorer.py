"""Side map and latent next to each other, each with a selector that works in a saved page.

All maps are in the page once, packed by `page.packed`; the browser unpacks the selected one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr

from vaearr.schema import is_categorical
from vaearr.views import common as c
from vaearr.views.colors import colors_of
from vaearr.views.maps import map_plot
from vaearr.views.page import LEVELS, UNPACK, packed

FRAME = 400

_SHOW_SELECTED = f"""
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


def even_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two limits, about six."""
    from matplotlib.ticker import MaxNLocator

    return [float(tick) for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]


@c.bokeh_is_current()
def explorer(
    sides: Sequence[xr.DataArray], latents: Sequence[xr.DataArray], roi: xr.DataArray | None = None
) -> Any:
    """Plot side map and latent as a bokeh layout, each with a selector.

    Zoom and cross-hair are linked.
    """
    from bokeh.layouts import column, row
    from bokeh.models import CrosshairTool
    from bokeh.models.annotations import Span

    panels = []
    for maps, heading in ((sides, "side map"), (latents, "latent")):
        if len(maps):
            panels.append(_panel(maps, heading, roi))
    across = Span(dimension="width", line_dash="dotted", line_width=1)
    up = Span(dimension="height", line_dash="dotted", line_width=1)
    first = panels[0][1]
    for _, figure in panels:
        figure.x_range = first.x_range
        figure.y_range = first.y_range
        figure.add_tools(CrosshairTool(overlay=(across, up)))
    columns = [column(select, figure) for select, figure in panels]
    return row(*columns, spacing=20, styles={"flex-wrap": "wrap"})  # below each other if narrow


def _panel(maps: Sequence[xr.DataArray], heading: str, roi: xr.DataArray | None) -> tuple[Any, Any]:
    """The selector of maps, and the first map as a figure in which it shows the others."""
    from bokeh.models import CustomJS, FixedTicker, LinearColorMapper
    from bokeh.models.annotations import ColorBar
    from bokeh.models.widgets import Select

    first = maps[0].rename("value")
    map_title = c.title(c.label(maps[0]))
    picture = map_plot(first, roi=roi, title=map_title, clabel="", frame=FRAME)
    figure = c.holoviews().renderer("bokeh").get_plot(picture).state
    # an even grid is drawn as an image by rows, an uneven one as quadrangles by columns
    sources = {
        name: glyph.data_source for glyph in figure.renderers for name in glyph.data_source.data
    }
    name = "image" if "image" in sources else "value"
    entries = [_packed_map(da, by_column=name == "value") for da in maps]
    bar = figure.select_one({"type": ColorBar})
    bar.ticker = FixedTicker(ticks=entries[0]["ticks"])
    options: list[Any] = [(str(i), entry["title"]) for i, entry in enumerate(entries)]
    select = Select(title=f"Choose a {heading}", value="0", width=240, options=options)
    variables = {
        "maps": entries,
        "select": select,
        "source": sources[name],
        "name": name,
        "figure": figure,
        "mapper": figure.select_one({"type": LinearColorMapper}),
        "bar": bar,
    }
    select.js_on_change("value", CustomJS(args=variables, code=_SHOW_SELECTED))
    return select, figure


def _packed_map(da: xr.DataArray, by_column: bool) -> dict[str, Any]:
    """A map in steps between its 1 % and 99 % percentiles; of up to LEVELS classes, their positions.

    More classes than that are shown as numbers.
    """
    entry: dict[str, Any] = {"title": c.label(da), "names": [], "palette": colors_of(c.SEQUENTIAL)}
    if is_categorical(da):
        classes = c.colored_classes(da)
        if len(classes.names) <= LEVELS:
            entry["names"] = classes.names
            entry["palette"] = classes.colors
            da = classes.values
    grid = c.as_map(da)
    n_classes = len(entry["names"])
    if n_classes:
        limits = (0.0, float(LEVELS))
        entry["limits"] = (-0.5, n_classes - 0.5)
        entry["ticks"] = list(range(n_classes))
    else:
        limits = c.robust_limits(grid.values)
        entry["limits"] = limits
        entry["ticks"] = even_ticks(*limits)
    values = grid.values.T if by_column else grid.values
    return entry | {"low": limits[0], "high": limits[1], "data": packed(values, limits)}
