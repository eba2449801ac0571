"""Maps in their coordinates, stacks of maps with a selector, elements as colours, boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, SchemaError, UsageError, did_you_mean
from vaearr.schema.grid import edges, label_borders
from vaearr.views import common as c
from vaearr.views.common import NAN_COLOR, PERCENT, SEQUENTIAL
from vaearr.views.kinds import builder
from vaearr.views.paper import CLIPPED, MAX_NAMES

FRAME = 380  # longer side of a map in screen pixels


@builder("map", "map")
def map_plot(
    da: xr.DataArray,
    *,
    roi: xr.DataArray | None = None,
    segments: np.ndarray | None = None,
    colors: c.Colors | None = None,
    nan_color: str = NAN_COLOR,
    **options: Any,
) -> Any:
    """Plot a map over two dimensions in its coordinates, rows downwards, with equal scales.

    Colours span the 1 % to the 99 % percentile of the finite values, which the colour bar states.
    HoloViews elements can be laid over it, such as `va.view(ds.BC) * hv.Points((x, y))`.

    Parameters
    ----------
    da
        The map. Maps of codes (clusters, `phase`, or with `flag_values`) get one colour per code,
        noise grey, and the names in the colour bar.
    roi
        Boolean map whose outline is drawn on top.
    segments
        Boundaries on top, `(n, 4)` of x0, y0, x1, y1.
    colors
        Colours of the codes: a list with one for each, or code -> colour for some.
    nan_color
        Colour of NaN.
    **options
        c.Options of `holoviews.Image` (`holoviews.QuadMesh` for uneven coordinates).
    """
    style: c.Options = {
        "title": c.title(c.label(da)),
        "colorbar": True,
        "tools": ["hover"],
        "clipping_colors": {"NaN": nan_color},
    }
    if schema.is_categorical(da) or colors:
        classes = c.colored_classes(da, colors)
        values = c.as_map(classes.values)
        style |= {"cmap": classes.colors, **named_bar(classes.names)}
    else:
        values = c.as_map(da)
        span = f"{CLIPPED} {PERCENT[0]:g}–{PERCENT[1]:g} %"
        unit = c.unit(da.attrs)
        style["clabel"] = f"{unit}, {span}" if unit else span
        style |= {"cmap": SEQUENTIAL, "clim": c.robust_limits(values.values)}
    image = on_grid(values, {c.text(da.name or "value"): values.values}, style | options)
    return with_lines(image, segments, roi)


def on_grid(values: xr.DataArray, columns: dict[str, np.ndarray], options: c.Options) -> Any:
    """Arrays on the grid of a map (as `as_map` returns it) as Image, or QuadMesh if it is uneven.

    Both axes have the same scale unless the map is nearly a line.
    """
    hv = c.holoviews()
    rows, across = c.map_dims(values)
    x = values[across]
    y = values[rows]
    x_edges = edges(x.values)
    y_edges = edges(y.values)
    width = np.ptp(x_edges)
    height = np.ptp(y_edges)
    longer, shorter = ("frame_width", "frame_height")
    if width < height:
        longer, shorter = shorter, longer
    style: c.Options = {
        "invert_yaxis": True,
        "xlabel": c.label(x, across),
        "ylabel": c.label(y, rows),
        longer: options.pop("frame", FRAME),
    }
    if 1 in values.shape or max(width, height) > 8 * min(width, height):
        style[shorter] = 60
    else:
        style["data_aspect"] = 1
    style |= options
    is_even = c.is_regular(x.values) and c.is_regular(y.values) and 1 not in values.shape
    element = hv.Image
    coordinates = (x.values, y.values)
    if "R" in columns:
        element = hv.RGB
        if not is_even:
            raise UsageError(
                "red, green and blue need evenly spaced coordinates; view each element instead."
            )
    else:
        name, first = next(iter(columns.items()))
        missing = style["clipping_colors"]["NaN"]
        columns[name], style["cmap"] = c.paintable(first, style["cmap"], missing)
    if not is_even:
        element = hv.QuadMesh
        coordinates = (x_edges, y_edges)
        style["line_color"] = None
    data = (*coordinates, *columns.values())
    return element(data, [across, rows], list(columns)).opts(**style)


def named_bar(names: Sequence[str]) -> c.Options:
    """c.Options of a map of positions in a list: limits, and the names on the colour bar."""
    from bokeh.models import FixedTicker

    bar: c.Options = {"clim": (-0.5, len(names) - 0.5), "clabel": ""}
    if len(names) > MAX_NAMES:
        return bar | {"colorbar": False}
    ticks = FixedTicker(ticks=list(range(len(names))))
    return bar | {
        "colorbar_opts": {"ticker": ticks, "major_label_overrides": dict(enumerate(names))}
    }


def with_lines(
    image: Any, segments: np.ndarray | None = None, roi: xr.DataArray | None = None
) -> Any:
    """A map with lines `(n, 4)` of x0, y0, x1, y1 and the border of a region.

    The lines are black with a white rim, which contrasts with any colour.
    """
    outlines = [segments]
    if roi is not None:
        grid = c.as_map(roi)
        y, x = (np.pad(edges(grid[dim].values), 1, mode="edge") for dim in grid.dims)
        is_inside = np.pad(grid.values > 0, 1)
        outlines.append(label_borders(is_inside.astype(int), x, y))
    for outline in outlines:
        if outline is not None:
            lines = c.holoviews().Segments(outline, [*image.kdims, "x1", "y1"])
            image = image * lines.opts(color="white", line_width=2.8, clone=True)
            image = image * lines.opts(color="black", line_width=1.2, clone=True)
    return image


def latent_map(ds: xr.Dataset, run: str, latent: int) -> xr.DataArray:
    """One latent of a run as a map. Raises NoInputError for an unknown run or latent."""
    variable = n.run_name(n.LATENTS, run)
    dim = n.run_name(n.LATENT, run)
    if variable not in ds:
        raise NoInputError(
            f"the Dataset holds no latents of a run {run!r}.{did_you_mean(run, schema.runs(ds))}"
        )
    numbers = ds[dim].values
    if latent not in numbers:
        raise NoInputError(
            f"run {run!r} has no latent {latent}; it has {numbers[0]} to {numbers[-1]}."
        )
    name = f"latent {latent}"
    values = ds[variable].sel({dim: latent}, drop=True)
    return values.rename(name).assign_attrs(long_name=name)


@builder("stack", "stack")
def stack(
    da: xr.DataArray,
    entries: Sequence[Any] | None = None,
    *,
    roi: xr.DataArray | None = None,
    **options: Any,
) -> Any:
    """Plot maps of a variable over one further dim, such as latents, scores or elements.

    On the screen with a selector; on paper side by side, each from its 1 % to its 99 % percentile,
    which are printed above it.

    Parameters
    ----------
    da
        Array over two map dims and one further dim.
    entries
        Coordinates of the further dim to show. Default: all.
    roi, **options
        As of a map.

    Raises
    ------
    SchemaError
        If the array does not have one further dim.
    NoInputError
        If an entry does not exist.
    """
    positions = {*n.SCAN_DIMS, *schema.position_dims(da)}
    further_dims = [str(dim) for dim in da.dims if dim not in positions]
    if len(further_dims) != 1 or da.ndim != 3:
        raise SchemaError(
            f"{da.name!r} has dims {da.dims}; expected two map axes and one further dimension."
        )
    dim = further_dims[0]
    labels = da[dim].values.tolist()
    name = "latent" if dim.startswith(n.LATENT) else dim
    frames = {}
    for entry in labels if entries is None else entries:
        if entry not in labels:
            hint = did_you_mean(str(entry), list(map(str, labels)))
            raise NoInputError(f"{dim!r} has no entry {entry}.{hint}")
        map_ = da.isel({dim: labels.index(entry)}, drop=True)
        style = {"title": c.title(f"{name} {entry}")} | options
        frames[c.text(entry)] = map_plot(map_, roi=roi, **style)
    heading = "latent (posterior mean)" if name == "latent" else c.label(da)
    heading += ": number, 1 % … 99 % percentile = colour range"
    maps = c.holoviews().HoloMap(frames, kdims=[name], sort=False)
    return maps.relabel(heading).opts(framewise=True)


@builder("side_maps")
def side_maps(ds: xr.Dataset, **options: Any) -> Any:
    """Show the band contrast, every element and the phase of a Dataset side by side."""
    return beside_each_other(side_map_list(ds), **options)


def beside_each_other(maps: Sequence[xr.DataArray], **options: Any) -> Any:
    """Maps in rows with linked zoom. Raises NoInputError if there is none."""
    if not maps:
        raise NoInputError(
            "the Dataset has no maps to show; view one of its variables, such as ds.patterns."
        )
    views = [map_plot(da, **{"frame": 260} | options) for da in maps]
    return c.holoviews().Layout(views).cols(3)


def side_map_list(ds: xr.Dataset) -> list[xr.DataArray]:
    """Band contrast, each element and phase of a Dataset as two-dimensional maps."""
    maps = []
    if n.BC in ds:
        maps.append(ds[n.BC])
    if n.ELEMENTS in ds:
        for element in ds[n.ELEMENTS].transpose(n.ELEMENT, ...):
            name = c.text(element[n.ELEMENT].item())
            maps.append(element.rename(name).assign_attrs(long_name=name))
    if n.PHASE in ds:
        maps.append(ds[n.PHASE])
    return maps


@builder("rgb", "array", n.CHANNEL, n.Y, n.X)
def rgb_map(
    rgb: xr.DataArray,
    *,
    roi: xr.DataArray | None = None,
    nan_color: str = NAN_COLOR,
    **options: Any,
) -> Any:
    """Plot elements as red, green and blue: `(y, x, channel)` from 0 to 1, NaN in `nan_color`.

    The attribute `elements` names the channels in the title; three equal channels are grey. Raises
    SchemaError for another shape or values outside 0 to 1, UsageError for uneven coordinates.
    """
    low, high = float(rgb.min()), float(rgb.max())
    has_three_channels = rgb.ndim == 3 and rgb.sizes.get(n.CHANNEL) == 3
    if not has_three_channels or low < -1e-6 or high > 1 + 1e-6:
        raise SchemaError(
            f"{rgb.name!r} has {dict(rgb.sizes)} values, {low:g} to {high:g}; "
            "expected two dims, 3 channels, 0 to 1."
        )
    names = [c.text(name) for name in rgb.attrs.get("elements", ())]
    pairs = zip(names, ("red", "green", "blue"), strict=False)
    heading = ", ".join(f"{name} {color}" for name, color in pairs)
    if len(set(names)) <= 1:
        heading = c.label(rgb, *names[:1])
    planes = [c.as_map(plane) for plane in rgb.transpose(n.CHANNEL, ...)]
    is_finite = np.isfinite(planes).all(axis=0)
    channels = [np.nan_to_num(plane.values).clip(0, 1) for plane in planes]
    columns = dict(zip("RGBA", (*channels, is_finite.astype("f4")), strict=True))
    style: c.Options = {"title": c.title(heading), "bgcolor": nan_color}
    return with_lines(on_grid(planes[0], columns, style | options), roi=roi)
