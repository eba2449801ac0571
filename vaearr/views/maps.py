"""Maps in their coordinates, stacks of them with a selector, elements as colours, and what is laid over any map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, SchemaError, did_you_mean
from vaearr.schema.grid import edges
from vaearr.views.common import (
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
    paintable,
    palette,
    robust_limits,
    roi_outline,
    text,
    title,
    unit,
)
from vaearr.views.kinds import builder

FRAME = 380  # longer side of a map in screen pixels
BOKEH = {"backend": "bokeh"}


@builder("map", "map")
def map_plot(
    da: xr.DataArray,
    *,
    roi: xr.DataArray | None = None,
    segments: np.ndarray | None = None,
    nan_color: str = NAN_COLOR,
    **options: Any,
) -> Any:
    """A map over two dimensions in its coordinates: rows downwards, equal scales, NaN in `nan_color`.

    Colours run from the 1 % to the 99 % percentile of the finite values, which the colour bar says. Further layers are
    HoloViews elements laid over it, such as `va.view(ds.BC) * hv.Points((x, y))`.

    Parameters
    ----------
    da
        The map. Maps of codes (`phase`, or with `flag_values`) get one colour per code and the names in the colour bar.
    roi
        Boolean map whose outline is drawn on top.
    segments
        Boundaries on top, `(n, 4)` of x0, y0, x1, y1.
    **options
        Options of `holoviews.Image` (`holoviews.QuadMesh` where coordinates are not evenly spaced).
    """
    codes = as_codes(da) if is_category(da) else None
    values = as_map(da if codes is None else codes[0])
    own: dict[str, Any] = {"title": title(label(da)), "colorbar": True, "tools": ["hover"]}
    if codes is None:
        clabel = ", ".join(filter(None, (unit(da.attrs), f"colours span {PERCENT[0]:g}–{PERCENT[1]:g} %")))
        own |= {"cmap": SEQUENTIAL, "clim": robust_limits(values.values), "clabel": clabel}
    else:
        own |= {"cmap": palette(len(codes[1])), "clim": (-0.5, len(codes[1]) - 0.5), "clabel": ""}
        own["colorbar_opts"] = names_on_bar(codes[1])
    own["clipping_colors"] = {"NaN": nan_color}
    shown = on_grid(values, {text(da.name or "value"): values.values}, own | options)
    lines = [] if segments is None else overlay(da, segments=segments)
    lines += [] if roi is None else overlay(roi, segments=roi_outline(roi))
    return holoviews().Overlay([shown, *lines]) if lines else shown


def on_grid(values: xr.DataArray, columns: dict[str, np.ndarray], options: dict[str, Any]) -> Any:
    """Arrays on the grid of a map (as `as_map` gives it) as `holoviews.Image`, or QuadMesh where steps are uneven."""
    hv = holoviews()
    rows, across = map_dims(values)
    x, y = values[across], values[rows]
    kdims, even = [across, rows], all(is_regular(axis.values) and axis.size > 1 for axis in (x, y))
    where = (x.values, y.values) if even else (edges(x.values), edges(y.values))
    own: dict[str, Any] = {"invert_yaxis": True, "xlabel": label(x, across), "ylabel": label(y, rows)}
    own |= frame_size(values)
    for axis, ticks in ((x, "xticks"), (y, "yticks")):
        own |= {ticks: [float(axis[0])]} if axis.size == 1 else {}
    first = next(iter(columns))
    shown, cmap = paintable(columns[first], options["cmap"], options["clipping_colors"]["NaN"])
    element = (hv.Image if even else hv.QuadMesh)((*where, shown, *list(columns.values())[1:]), kdims, list(columns))
    own |= {} if even else {"line_color": None}
    return element.opts(**own | options | {"cmap": cmap}, **BOKEH)


def names_on_bar(names: Sequence[str]) -> dict[str, Any]:
    """Options of a colour bar of classes."""
    from bokeh.models import FixedTicker

    places = list(range(len(names)))
    return {"ticker": FixedTicker(ticks=places), "major_label_overrides": dict(zip(places, names, strict=True))}


def frame_size(values: xr.DataArray) -> dict[str, Any]:
    """Size on the screen of a map as `as_map` returns it: equal scales, unless it is a mere line."""
    rows, columns = map_dims(values)
    (y0, y1), (x0, x1) = ((b[0], b[-1]) for b in (edges(values[rows].values), edges(values[columns].values)))
    ratio = (x1 - x0) / (y1 - y0)
    if 1 in values.shape or not 1 / 8 <= ratio <= 8:
        width, height = (FRAME, 60) if ratio >= 1 else (60, FRAME)
        return {"frame_width": width, "frame_height": height}
    size = {"frame_width": FRAME} if ratio >= 1 else {"frame_height": FRAME}
    return {"data_aspect": 1, "xlim": (float(x0), float(x1)), "ylim": (float(y0), float(y1)), **size}


def overlay(da: xr.DataArray, *, segments: np.ndarray) -> list[Any]:
    """Lines `(n, 4)` of x0, y0, x1, y1 over a map, black with a white rim so that they are seen on any colour.

    Raises SchemaError for another shape or values that are not finite.
    """
    found = np.asarray(segments, dtype="f8")
    if found.ndim != 2 or found.shape[1] != 4 or not np.isfinite(found).all():
        raise SchemaError(f"segments have shape {found.shape}; expected (n, 4), finite, of x0, y0, x1, y1.")
    rows, columns = map_dims(da)
    lines = holoviews().Segments(tuple(found.T), [columns, rows, f"{columns}1", f"{rows}1"])
    return [
        lines.opts(color=color, line_width=width, clone=True, **BOKEH)
        for color, width in (("white", 2.8), ("black", 1.2))
    ]


def latent_map(ds: xr.Dataset, run: str, latent: int) -> xr.DataArray:
    """One latent of a run as a map, named after it. Raises NoInputError for a run or latent that is not there."""
    variable, dim = n.run_name(n.LATENTS, run), n.run_name(n.LATENT, run)
    if variable not in ds:
        raise NoInputError(f"the Dataset holds no latents of a run {run!r}.{did_you_mean(run, schema.runs(ds))}")
    known = _entries(ds[variable], dim)
    if latent not in known:
        raise NoInputError(f"run {run!r} has no latent {latent}; it has {known[0]} to {known[-1]}.")
    one = ds[variable].isel({dim: known.index(latent)}, drop=True)
    return one.rename(f"latent {latent}").assign_attrs(long_name=f"latent {latent}")


def _entries(da: xr.DataArray, dim: str) -> list[Any]:
    return list(da[dim].values.tolist()) if dim in da.coords else list(range(da.sizes[dim]))


@builder("stack", "stack")
def stack(
    da: xr.DataArray, entries: Sequence[Any] | None = None, *, roi: xr.DataArray | None = None, **options: Any
) -> Any:
    """Maps of a variable over one further dim (latents, PCA or NMF scores, elements): all entries, or those named.

    On the screen a selector over the entries; on paper all of them beside each other, each from its 1 % to its 99 %
    percentile, which stand above it. `roi` and `**options` as of a map. Raises SchemaError unless there is one further
    dim, NoInputError for an entry that is not there.
    """
    further = [str(dim) for dim in da.dims if dim not in n.SCAN_DIMS]
    if len(further) != 1 or da.ndim != 3:
        raise SchemaError(f"{da.name!r} has dims {da.dims}; expected two map axes and one further dimension.")
    (dim,) = further
    known = _entries(da, dim)
    wanted = known if entries is None else list(entries)
    if not wanted:
        raise NoInputError(f"no entry of {dim!r} is named for the sheet.")
    for entry in wanted:
        if entry not in known:
            raise NoInputError(f"{dim!r} has no entry {entry!r}.{did_you_mean(str(entry), [str(e) for e in known])}")
    name = "latent" if dim.startswith(n.LATENT) else dim
    frames = {
        text(entry) if isinstance(entry, str) else entry: map_plot(
            da.isel({dim: known.index(entry)}, drop=True), roi=roi, **{"title": title(f"{name} {entry}")} | options
        )
        for entry in wanted
    }
    what = "latent (posterior mean)" if name == "latent" else label(da)
    shown = holoviews().HoloMap(frames, kdims=[name], sort=False)
    return shown.relabel(f"{what}: number, 1 % … 99 % percentile = colour range").opts(framewise=True)


@builder("side_maps")
def side_maps(ds: xr.Dataset, *, roi: xr.DataArray | None = None, columns: int = 3, **options: Any) -> Any:
    """Band contrast, every element and the phase beside each other, as far as the Dataset has them."""
    found = side_map_list(ds)
    if not found:
        raise NoInputError("the Dataset holds no band contrast, elements or phases to show.")
    size = {"frame_width": 260, "frame_height": None} | options
    shown = []
    for da in found:
        wide = "frame_width" in frame_size(as_map(da if not is_category(da) else as_codes(da)[0]))
        shown.append(map_plot(da, roi=roi, **(size if wide else options)))
    return holoviews().Layout(shown).cols(columns).opts(shared_axes=True)


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


@builder("rgb", "array", n.CHANNEL, n.Y, n.X)
def rgb_map(
    rgb: xr.DataArray,
    elements: Sequence[str] | None = None,
    *,
    roi: xr.DataArray | None = None,
    nan_color: str = NAN_COLOR,
    **options: Any,
) -> Any:
    """Elements as red, green and blue, with a legend: `(y, x, channel)` between 0 and 1, NaN in `nan_color`.

    `elements` (else the attribute `elements`, else the labels of the channels) names the channels: one element is
    grey, of two the blue channel is their mean. Raises SchemaError for another shape or values outside 0 to 1.
    """
    from matplotlib.colors import to_rgb

    hv = holoviews()
    if rgb.ndim != 3 or n.CHANNEL not in rgb.dims or rgb.sizes[n.CHANNEL] != 3:
        raise SchemaError(f"{rgb.name!r} has dims {dict(rgb.sizes)}; expected two map axes and 3 of {n.CHANNEL!r}.")
    planes = [as_map(rgb.isel({n.CHANNEL: i}, drop=True)) for i in range(3)]
    grid, values = planes[0], np.stack([plane.values for plane in planes], axis=-1)
    finite = values[np.isfinite(values)]
    if finite.size and (finite.min() < -1e-6 or finite.max() > 1 + 1e-6):
        raise SchemaError(f"{rgb.name!r} runs from {finite.min():g} to {finite.max():g}; expected 0 to 1.")
    missing = ~np.isfinite(values).all(axis=-1)
    paint = np.where(missing[..., None], to_rgb(nan_color), np.clip(np.nan_to_num(values), 0, 1))
    rows, columns = map_dims(grid)
    x, y = grid[columns], grid[rows]
    own = {"title": title(label(rgb, "elements")), **options}
    if all(is_regular(axis.values) and axis.size > 1 for axis in (x, y)):
        body = hv.RGB((x.values, y.values, *np.moveaxis(paint, -1, 0)), [columns, rows]).opts(**{
            "invert_yaxis": True, "xlabel": label(x, columns), "ylabel": label(y, rows), **frame_size(grid), **own,
            **BOKEH,
        })  # fmt: skip
    else:  # as numbers in a list of colours
        colors, number = np.unique(np.rint(paint.reshape(-1, 3) * 255).astype("u1"), axis=0, return_inverse=True)
        cmap = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colors]
        own |= {"cmap": cmap, "clim": (-0.5, len(cmap) - 0.5), "clipping_colors": {"NaN": nan_color}}
        body = on_grid(grid, {"paint": number.reshape(grid.shape).astype("f4")}, own)
    names = [*_rgb_legend(rgb, elements), *([("missing", nan_color)] if missing.any() else [])]
    keys = [
        hv.Points(([np.nan], [np.nan]), [columns, rows], label=name).opts(
            color=color, size=10, marker="square", line_color=None, legend_position="right", **BOKEH
        )
        for name, color in names
    ]
    lines = [] if roi is None else overlay(roi, segments=roi_outline(roi))
    return hv.Overlay([body, *lines, *keys]).opts(legend_position="right", **BOKEH)


def _rgb_legend(rgb: xr.DataArray, elements: Sequence[str] | None) -> list[tuple[str, str]]:
    """Name and colour of what each channel shows."""
    given = elements if elements is not None else rgb.attrs.get("elements")
    if given is None and n.CHANNEL in rgb.coords:
        given = rgb[n.CHANNEL].values.tolist()
    names = [text(name) for name in ([given] if isinstance(given, str) else given or ("red", "green", "blue"))]
    names = names[:1] if len(set(names)) == 1 else names
    if not 1 <= len(names) <= 3:
        raise SchemaError(f"there are {len(names)} names ({', '.join(names)}) for the channels; expected one to three.")
    if len(names) == 1:
        return [(names[0], "#808080")]
    return list(zip([*names, "mean of both"][:3], ("#ff0000", "#00ff00", "#0000ff"), strict=True))
