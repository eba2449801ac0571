"""Maps as HoloViews objects: any map, latents with a selector, side maps, the outline of the region of interest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, SchemaError, did_you_mean
from vaearr.outlines import edges
from vaearr.plots.common import (
    DIVERGING,
    NAN_COLOR,
    PERCENT,
    SEQUENTIAL,
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
    title,
    unit,
    value_text,
)

FRAME = 380  # longer side of a map in screen pixels


def map_plot(
    da: xr.DataArray,
    *,
    roi: xr.DataArray | None = None,
    nan_color: str = NAN_COLOR,
    percent: tuple[float, float] = PERCENT,
    symmetric: bool = False,
    **kwargs: Any,
) -> Any:
    """A map over two dimensions in its coordinates: rows downwards, equal scales, NaN in `nan_color`.

    Parameters
    ----------
    da
        The map. Maps of codes (`phase`, or with `flag_values`) get one colour per code and the names in the colour bar.
    roi
        Boolean map whose outline is drawn on top.
    percent
        Percentiles of the finite values between which the colours run; named in the colour bar unless 0 and 100.
    symmetric
        Colours centred at 0 on a diverging scale.
    **kwargs
        Handed unchanged to `hvplot.image` (to `hvplot.quadmesh` where coordinates are not evenly spaced).
    """
    holoviews()
    codes = as_codes(da) if is_category(da) else None
    values = as_map(da if codes is None else codes[0])
    rows, columns = map_dims(values)
    options: dict[str, Any] = {"x": columns, "y": rows, "flip_yaxis": True, "title": title(label(da)), "colorbar": True}
    options |= {"xlabel": label(values[columns], columns), "ylabel": label(values[rows], rows)}
    options |= frame_size(values)
    if codes is None:
        options |= _amount_colors(da, values, percent, symmetric)
    else:
        options |= {"cmap": palette(len(codes[1])), "clim": (-0.5, len(codes[1]) - 0.5), "clabel": ""}
    options |= kwargs
    padded = _padded(values, rows, columns)
    if padded is not values:
        options = {"xlim": _span(values[columns]), "ylim": _span(values[rows])} | options
        for dim, ticks in ((columns, "xticks"), (rows, "yticks")):
            if values.sizes[dim] == 1:
                options.setdefault(ticks, [float(values[dim][0])])
    regular = all(is_regular(padded[dim].values) for dim in (rows, columns))
    named = padded.rename(text(da.name or "value"))
    element = named.hvplot.image(**options) if regular else named.hvplot.quadmesh(**options)
    element = element.opts(clipping_colors={"NaN": nan_color}, backend="bokeh")
    if codes is not None:
        element = element.opts(colorbar_opts=_names_on_bar(codes[1]), backend="bokeh")
    return element if roi is None else element * roi_overlay(roi)


def _amount_colors(
    da: xr.DataArray, values: xr.DataArray, percent: tuple[float, float], symmetric: bool
) -> dict[str, Any]:
    return {
        "cmap": DIVERGING if symmetric else SEQUENTIAL,
        "clim": robust_limits(values.values, percent, symmetric),
        "clabel": limits_text(da, percent),
    }


def limits_text(da: xr.DataArray, percent: tuple[float, float]) -> str:
    """What the colour bar says: the unit, and between which percentiles the colours run."""
    note = "" if percent == (0.0, 100.0) else f"colours span {percent[0]:g}–{percent[1]:g} %"
    return ", ".join(part for part in (unit(da.attrs), note) if part)


def _names_on_bar(names: list[str]) -> dict[str, Any]:
    from bokeh.models import FixedTicker

    positions = list(range(len(names)))
    return {
        "ticker": FixedTicker(ticks=positions),
        "major_label_overrides": dict(zip(positions, names, strict=True)),
    }


def _span(coord: xr.DataArray) -> tuple[float, float]:
    borders = edges(coord.values)
    return float(borders[0]), float(borders[-1])


def frame_size(values: xr.DataArray) -> dict[str, Any]:
    """Size on the screen of a map as `as_map` returns it: equal scales, unless it is a mere line."""
    rows, columns = map_dims(values)
    (y0, y1), (x0, x1) = _span(values[rows]), _span(values[columns])
    ratio = (x1 - x0) / (y1 - y0)
    if 1 in values.shape or not 1 / 8 <= ratio <= 8:
        width, height = (FRAME, 60) if ratio >= 1 else (60, FRAME)
        return {"frame_width": width, "frame_height": height}
    return {"data_aspect": 1} | ({"frame_width": FRAME} if ratio >= 1 else {"frame_height": FRAME})


def _padded(values: xr.DataArray, rows: str, columns: str) -> xr.DataArray:
    """With a NaN line on either side of a single row or column, whose extent HoloViews cannot know."""
    for dim in (rows, columns):
        if values.sizes[dim] == 1:
            middle = float(values[dim][0])
            attrs = values[dim].attrs
            values = values.reindex({dim: [middle - 1, middle, middle + 1]})
            values[dim].attrs.update(attrs)
    return values


def roi_overlay(roi: xr.DataArray, **kwargs: Any) -> Any:
    """Outline of a region of interest along the borders of its scan points, to lay over a map with `*`.

    Black with a white rim, so that it is seen on any colour. `**kwargs` are options of `holoviews.Segments`, such as
    `color` and `line_width`, for the inner line.
    """
    hv = holoviews()
    x0, y0, x1, y1 = roi_outline(roi).T
    rows, columns = map_dims(roi)
    outline = hv.Segments((x0, y0, x1, y1), [columns, rows, f"{columns}1", f"{rows}1"])
    rim = outline.opts(color="white", line_width=3, backend="bokeh", clone=True)
    return rim * outline.opts(**{"color": "black", "line_width": 1.2, "backend": "bokeh", "clone": True} | kwargs)


def latent_names(ds: xr.Dataset, run: str = n.DEFAULT_RUN) -> xr.DataArray:
    """The latents of a run. Raises NoInputError, naming the runs there are."""
    variable = n.run_name(n.LATENTS, run)
    if variable not in ds:
        raise NoInputError(f"the Dataset holds no latents of a run {run!r}.{did_you_mean(run, schema.runs(ds))}")
    return ds[variable]


def latent_map(ds: xr.Dataset, run: str, latent: int) -> xr.DataArray:
    """One latent of a run as a map, named after it. Raises NoInputError for a latent that is not there."""
    latents = latent_names(ds, run)
    dim = n.run_name(n.LATENT, run)
    known = list(latents[dim].values) if dim in latents.coords else list(range(latents.sizes[dim]))
    if latent not in known:
        raise NoInputError(f"run {run!r} has no latent {latent}; it has {known[0]} to {known[-1]}.")
    one = latents.isel({dim: known.index(latent)}, drop=True)
    return one.rename(f"latent {latent}").assign_attrs(long_name=f"latent {latent}")


def latent_maps(
    ds: xr.Dataset, run: str = n.DEFAULT_RUN, *, roi: xr.DataArray | None = None, dynamic: bool = True, **kwargs: Any
) -> Any:
    """The map of one latent, with a selector over the latents (and over z in a volume).

    Colour limits follow the selected map. `dynamic=False` holds all maps, for a page without Python behind it.
    `**kwargs` go to `map_plot` and from there unchanged to hvplot.
    """
    hv = holoviews()
    latents = latent_names(ds, run)
    dim = n.run_name(n.LATENT, run)
    latents = latents if dim in latents.coords else latents.assign_coords({dim: np.arange(latents.sizes[dim])})
    further = [str(d) for d in latents.dims if d == n.Z]
    kdims = [hv.Dimension(d, values=latents[d].values.tolist()) for d in (dim, *further)]

    def one(latent: int, *place: float) -> Any:
        chosen = dict(zip(further, place, strict=True))
        here = latent_map(ds, run, latent).sel(chosen)
        name = ", ".join([f"latent {latent}", *(f"{d} = {value_text(v, ds[d].attrs)}" for d, v in chosen.items())])
        shown = None if roi is None else roi.sel({d: v for d, v in chosen.items() if d in roi.dims})
        return map_plot(here, roi=shown, **{"title": title(name)} | kwargs)

    if dynamic:
        return hv.DynamicMap(one, kdims=kdims).opts(framewise=True)
    keys = [(k, *rest) for k in latents[dim].values.tolist() for rest in _places(latents, further)]
    return hv.HoloMap({key if further else key[0]: one(*key) for key in keys}, kdims=kdims).opts(framewise=True)


def _places(latents: xr.DataArray, dims: list[str]) -> list[tuple[float, ...]]:
    return [(float(v),) for v in latents[dims[0]].values] if dims else [()]


def side_maps(ds: xr.Dataset, *, roi: xr.DataArray | None = None, columns: int = 3, **kwargs: Any) -> Any:
    """Band contrast, every element and the phase beside each other, as far as the Dataset has them.

    `**kwargs` go to `map_plot` and from there unchanged to hvplot.
    """
    hv = holoviews()
    found = side_map_list(ds)
    if not found:
        raise NoInputError("the Dataset holds no band contrast, elements or phases to show.")
    size = {"frame_width": 260} if "frame_width" not in kwargs and "frame_height" not in kwargs else {}
    return hv.Layout([map_plot(da, roi=roi, **size | kwargs) for da in found]).cols(columns).opts(shared_axes=True)


def side_map_list(ds: xr.Dataset) -> list[xr.DataArray]:
    """Band contrast, elements one by one and phase of a Dataset, as two-dimensional maps."""
    found = [ds[n.BC]] if n.BC in ds else []
    if n.ELEMENTS in ds:
        elements = ds[n.ELEMENTS]
        for i, element in enumerate(elements[n.ELEMENT].values):
            one = elements.isel({n.ELEMENT: i}, drop=True).rename(text(element))
            found.append(one.assign_attrs(long_name=text(element)))
    return found + ([ds[n.PHASE]] if n.PHASE in ds else [])


def same_grid(*maps: xr.DataArray) -> None:
    """Raise SchemaError unless the maps lie over the same scan points."""
    try:
        xr.align(*(da.transpose(*maps[0].dims) for da in maps), join="exact", copy=False)
    except ValueError as error:
        found = ", ".join(f"{da.name!r} over {dict(da.sizes)}" for da in maps)
        raise SchemaError(f"the maps do not lie on the same grid ({found}): {error} Select the same points.") from None


def extra_dim(da: xr.DataArray) -> str:
    """The one dimension of a stack of maps that is no map axis. Raises SchemaError unless there is one."""
    further = [str(dim) for dim in da.dims if dim not in n.SCAN_DIMS]
    if len(further) != 1 or da.ndim != 3:
        raise SchemaError(f"{da.name!r} has dims {da.dims}; expected two map axes and one further dimension.")
    return further[0]


def score_maps(scores: xr.DataArray, *, roi: xr.DataArray | None = None, dynamic: bool = True, **kwargs: Any) -> Any:
    """One map of a variable over one further dim (PCA or NMF scores, elements), with a selector over its entries.

    `dynamic=False` holds all maps, for a page without Python behind it. `**kwargs` go to `map_plot`. Raises SchemaError
    unless there is one further dim.
    """
    hv = holoviews()
    dim = extra_dim(scores)
    known = scores[dim].values.tolist() if dim in scores.coords else list(range(scores.sizes[dim]))

    def one(entry: Any) -> Any:
        here = scores.isel({dim: known.index(entry)}, drop=True)
        return map_plot(here, roi=roi, **{"title": title(f"{label(scores)}, {entry}")} | kwargs)

    kdims = [hv.Dimension(dim, values=known)]
    if dynamic:
        return hv.DynamicMap(one, kdims=kdims).opts(framewise=True)
    return hv.HoloMap({entry: one(entry) for entry in known}, kdims=kdims).opts(framewise=True)


RGB_COLORS = ("#ff0000", "#00ff00", "#0000ff")


def rgb_parts(rgb: xr.DataArray) -> tuple[xr.DataArray, np.ndarray]:
    """A map of the same grid and the values `(row, column, 3)`. Raises SchemaError for another shape or range."""
    if rgb.ndim != 3 or n.CHANNEL not in rgb.dims or rgb.sizes[n.CHANNEL] != 3:
        raise SchemaError(f"{rgb.name!r} has dims {dict(rgb.sizes)}; expected two map axes and 3 of {n.CHANNEL!r}.")
    planes = [as_map(rgb.isel({n.CHANNEL: i}, drop=True)) for i in range(3)]
    values = np.stack([plane.values for plane in planes], axis=-1)
    finite = values[np.isfinite(values)]
    if finite.size and (finite.min() < -1e-6 or finite.max() > 1 + 1e-6):
        raise SchemaError(f"{rgb.name!r} runs from {finite.min():g} to {finite.max():g}; expected 0 to 1.")
    return planes[0], np.clip(values, 0, 1)


def rgb_legend(rgb: xr.DataArray, elements: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """Name and colour of what each channel shows.

    `elements` (else the attribute `elements`, else the labels of the channels): one element is grey, of two the blue
    channel is their mean.
    """
    given = elements if elements is not None else rgb.attrs.get("elements")
    if given is None and n.CHANNEL in rgb.coords:
        given = rgb[n.CHANNEL].values.tolist()
    names = [text(name) for name in ([given] if isinstance(given, str) else given or ("red", "green", "blue"))]
    names = names[:1] if len(set(names)) == 1 else names
    if not 1 <= len(names) <= 3:
        raise SchemaError(f"there are {len(names)} names ({', '.join(names)}) for the channels; expected one to three.")
    if len(names) == 1:
        return [(names[0], "#808080")]
    return list(zip([*names, "mean of both"][:3], RGB_COLORS, strict=True))


def rgb_map(
    rgb: xr.DataArray,
    elements: Sequence[str] | None = None,
    *,
    roi: xr.DataArray | None = None,
    nan_color: str = NAN_COLOR,
    **kwargs: Any,
) -> Any:
    """Elements as red, green and blue, with a legend: `(y, x, channel)` between 0 and 1, NaN in `nan_color`.

    `elements` names the channels as in `rgb_legend`; `**kwargs` are options of `holoviews.RGB`
    (`holoviews.Rectangles` where coordinates are not evenly spaced). Raises SchemaError for another shape or values
    outside 0 to 1.
    """
    hv = holoviews()
    grid, values = rgb_parts(rgb)
    rows, columns = map_dims(grid)
    names = rgb_legend(rgb, elements)
    missing = ~np.isfinite(values).all(axis=-1)
    paint = np.where(missing[..., None], _parts_of(nan_color), np.nan_to_num(values))
    x, y = grid[columns].values, grid[rows].values
    if all(is_regular(c) and c.size > 1 for c in (x, y)):
        body = hv.RGB((x, y, *np.moveaxis(paint, -1, 0)), [columns, rows])
    else:
        left, top = (e.ravel() for e in np.meshgrid(edges(x)[:-1], edges(y)[:-1]))
        right, bottom = (e.ravel() for e in np.meshgrid(edges(x)[1:], edges(y)[1:]))
        whole = np.rint(paint.reshape(-1, 3) * 255).astype(int)
        colors = np.array([f"#{r:02x}{g:02x}{b:02x}" for r, g, b in whole])
        cells = hv.Rectangles((left, top, right, bottom, colors), [columns, rows, f"{columns}1", f"{rows}1"], "paint")
        body = cells.opts(color="paint", line_color="paint", padding=0, backend="bokeh")
    body = body.opts(**{
        "invert_yaxis": True, "title": title(label(rgb, "elements")), "xlabel": label(grid[columns], columns),
        "ylabel": label(grid[rows], rows), "backend": "bokeh", **frame_size(grid), **kwargs,
    })  # fmt: skip
    keys = [
        hv.Points(([np.nan], [np.nan]), [columns, rows], label=name).opts(
            color=color, size=10, marker="square", line_color=None, legend_position="right", backend="bokeh"
        )
        for name, color in [*names, *([("missing", nan_color)] if missing.any() else [])]
    ]
    return hv.Overlay([body, *keys] if roi is None else [body, *roi_overlay(roi), *keys])


def _parts_of(color: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(color)
