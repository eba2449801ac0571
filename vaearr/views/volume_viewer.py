"""Volumes to slide through in a saved page: three planes with a cross-hair, moved by sliders, without a server.

A volume travels once, in 8 bits between its limits (255 = NaN), as differences along its rows, deflated; the browser
unpacks it and cuts the slices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vaearr.schema.grid import edges
from vaearr.views.common import DIVERGING, NAN_COLOR, holoviews, robust_limits, text, unit
from vaearr.views.page import packed
from vaearr.views.volumes import AXES, CROSS, LIMITS, PLANES, SIDES, as_volume, is_ras

LEVELS = 254
FRAME = 300  # pixels of the longest side of a plane

_SHOW = """
(async () => {
  const chosen = Number(select.value);
  const kept = (globalThis.vaearr_volumes ??= {});
  const key = select.id + ":" + chosen;
  if (!(key in kept)) {
    const packed = Uint8Array.from(atob(data[chosen]), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const codes = new Uint8Array(await new Response(stream).arrayBuffer());
    for (let i = 1; i < codes.length; i++) codes[i] = (codes[i] + codes[i - 1]) & 255;
    kept[key] = codes;
  }
  const codes = kept[key];
  const [nz, ny, nx] = shape;
  const [z, y, x] = sliders.map((slider) => slider.value);
  const step = (highs[chosen] - lows[chosen]) / levels;
  const value = (i) => codes[i] === 255 ? NaN : lows[chosen] + codes[i] * step;
  const fill = (source, rows, columns, at) => {
    const out = source.data.value[0];
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[r * columns + c] = value(at(r, c));
    source.change.emit();
  };
  fill(sources[0], ny, nx, (r, c) => (z * ny + r) * nx + c);
  fill(sources[1], nz, nx, (r, c) => (r * ny + y) * nx + c);
  fill(sources[2], nz, ny, (r, c) => (r * ny + c) * nx + x);
  const place = [z, y, x];
  spans.forEach((span, i) => { span.location = coords[span_axes[i]][place[span_axes[i]]]; });
  sliders.forEach((slider, i) => {
    slider.title = names[i] + " = " + coords[i][place[i]].toFixed(digits[i]) + units[i];
  });
  mapper.palette = palettes[chosen];
  mapper.low = lows[chosen];
  mapper.high = highs[chosen];
})();
"""


def volume_viewer(
    volumes: Mapping[str, xr.DataArray],
    *,
    diverging: Sequence[str] = (),
) -> Any:
    """Volumes (z, y, x) of one grid, by name, as a bokeh layout: a list of them, three planes, a slider for each axis.

    All but those named in `diverging` share one grey scale (0.5 % to 99.5 % percentile); the others have one of half
    its width to both sides of 0. Raises SchemaError for arrays that are no volumes.
    """
    holoviews()
    from bokeh.layouts import column, row
    from bokeh.models import CustomJS, LinearColorMapper
    from bokeh.models.annotations import ColorBar
    from bokeh.models.widgets import Select, Slider

    ready = {name: as_volume(volume) for name, volume in volumes.items()}
    first = next(iter(ready.values()))
    grey = robust_limits(np.stack([v.values for k, v in ready.items() if k not in diverging]), LIMITS)
    half = (grey[1] - grey[0]) / 2
    limits = {name: (-half, half) if name in diverging else grey for name in ready}
    palettes = [_palette(DIVERGING if name in diverging else "gray") for name in ready]
    mapper = LinearColorMapper(palette=palettes[0], low=grey[0], high=grey[1], nan_color=NAN_COLOR)
    sources, spans, span_axes, figures = [], [], [], []
    for plane in PLANES:
        figure, source, lines, axes = _plane(first, plane, mapper)
        figures.append(figure)
        sources.append(source)
        spans += lines
        span_axes += axes
    bar = ColorBar(color_mapper=mapper, width=10, title=unit(dict(first.attrs)) or None)
    figures[-1].add_layout(bar, "right")
    sliders = [
        Slider(
            start=0, end=first.sizes[dim] - 1, step=1, value=first.sizes[dim] // 2, show_value=False, width=FRAME - 20
        )
        for dim in AXES
    ]
    options: list[str | tuple[Any, str]] = [(str(i), text(name)) for i, name in enumerate(ready)]
    select = Select(title="Shown", value="0", options=options, width=180)
    coords = [first[dim].values.astype("f8").tolist() for dim in AXES]
    units = [f" {unit(dict(first[dim].attrs))}".rstrip() for dim in AXES]
    digits = [0 if all(float(v).is_integer() for v in values) else 1 for values in coords]
    for slider, dim, values, after, places in zip(sliders, AXES, coords, units, digits, strict=True):
        slider.title = f"{dim} = {values[int(slider.value)]:.{places}f}{after}"
    arguments = {
        "data": [packed(v.values, limits[k], LEVELS) for k, v in ready.items()], "shape": list(first.shape),
        "lows": [limits[k][0] for k in ready], "highs": [limits[k][1] for k in ready], "palettes": palettes,
        "levels": LEVELS, "select": select, "sliders": sliders, "sources": sources, "mapper": mapper, "spans": spans,
        "span_axes": span_axes, "coords": coords, "units": units, "digits": digits, "names": list(AXES),
    }  # fmt: skip
    show = CustomJS(args=arguments, code=_SHOW)
    select.js_on_change("value", show)
    for slider in sliders:
        slider.js_on_change("value", show)
    return column(select, row(*(column(f, s) for f, s in zip(figures, sliders, strict=True)), spacing=12))


def _palette(name: str) -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    colors = colormaps[name](np.linspace(0, 1, 256))
    return [str(to_hex(color)) for color in colors]


def _plane(volume: xr.DataArray, plane: str, mapper: Any) -> tuple[Any, Any, list[Any], list[int]]:
    """Figure of a plane, its data, the lines of the cross-hair and the axis (0 = z) that each of them tells."""
    from bokeh.models import ColumnDataSource, HoverTool, Range1d
    from bokeh.models.annotations import Label, Span
    from bokeh.plotting import figure

    across, up, along = PLANES[plane]
    place = {dim: volume.sizes[dim] // 2 for dim in AXES}
    image = volume.isel({across: place[across]}).transpose(up, along)
    x, y = edges(image[along].values), edges(image[up].values)
    wide, tall = x[-1] - x[0], y[-1] - y[0]
    scale = FRAME / max(edges(volume[d].values)[-1] - edges(volume[d].values)[0] for d in AXES)
    shown = figure(
        title=plane, tools="pan,wheel_zoom,reset,save", frame_width=max(40, round(scale * wide)),
        frame_height=max(40, round(scale * tall)), x_range=Range1d(x[0], x[-1]),
        y_range=Range1d(y[0], y[-1]), x_axis_label=text(f"{along} {unit(dict(volume[along].attrs))}".strip()),
        y_axis_label=text(f"{up} {unit(dict(volume[up].attrs))}".strip()),
    )  # fmt: skip
    shown.grid.visible = False
    shown.toolbar.logo = None
    source = ColumnDataSource({"value": [np.ascontiguousarray(image.values)]})
    paint: Any = shown.image  # its signature leaves out the colour mapper
    glyph = paint("value", x[0], y[0], wide, tall, source=source, color_mapper=mapper)
    shown.add_tools(
        HoverTool(tooltips=[(along, "$x{0.[0]}"), (up, "$y{0.[0]}"), ("value", "@value{0.[000]}")], renderers=[glyph])
    )
    lines = [
        Span(location=float(volume[along][place[along]]), dimension="height", line_color=CROSS, line_width=1),
        Span(location=float(volume[up][place[up]]), dimension="width", line_color=CROSS, line_width=1),
    ]
    for line in lines:
        shown.add_layout(line)
    if is_ras(volume):
        for where, letter, side in ((x[0], SIDES[along][0], "left"), (x[-1], SIDES[along][1], "right")):
            words = Label(x=where, y=y[0] + tall / 2, text=letter, text_color="white", text_font_style="bold")
            words.update(text_align=side, background_fill_color="black", background_fill_alpha=0.4)
            shown.add_layout(words)
    return shown, source, lines, [AXES.index(along), AXES.index(up)]
