"""Maps in their coordinates, stacks of them with a selector, elements as colours, and what is laid
over any map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, SchemaError, did_you_mean
from vaearr.schema.grid import edges
from vaearr.views import common as c
from vaearr.views.common import NAN_COLOR, PERCENT, SEQUENTIAL
from vaearr.views.kinds import builder
from vaearr.views.paper import MAX_NAMES

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
    """A map over two dimensions in its coordinates: rows downwards, equal scales, NaN in
    `nan_color`.

    Colours run from the 1 % to the 99 % percentile of the finite values, which the colour bar says.
    Further layers are HoloViews elements laid over it, such as `va.view(ds.BC) * hv.Points((x,
    y))`.

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
        Of the codes: a list, one for each, or code -> colour for some.
    **options
        Options of `holoviews.Image` (`holoviews.QuadMesh` where coordinates are not evenly spaced).
    """
    own: dict[str, Any] = {"title": c.title(c.label(da)), "colorbar": True, "tools": ["hover"]}
    own["clipping_colors"] = {"NaN": nan_color}
    if schema.is_categorical(da) or colors:
        classes = c.colored_classes(da, colors)
        values = c.as_map(classes.values)
        own |= {"cmap": classes.colors, **named_bar(classes.names)}
    else:
        values = c.as_map(da)
        span = f"colours span {PERCENT[0]:g}–{PERCENT[1]:g} %"
        own |= {"cmap": SEQUENTIAL, "clim": c.robust_limits(values.values)}
        own["clabel"] = ", ".join(filter(None, (c.unit(da.attrs), span)))
    shown = on_grid(values, {c.text(da.name or "value"): values.values}, own | options)
    return with_lines(shown, segments, None if roi is None else c.roi_outline(roi))


def on_grid(values: xr.DataArray, columns: dict[str, np.ndarray], options: dict[str, Any]) -> Any:
    """Arrays on the grid of a map (as `as_map` gives it) as `holoviews.Image`, or QuadMesh where
    steps are uneven.

    Scales are equal, unless the map is a mere line.
    """
    hv = c.holoviews()
    rows, across = c.map_dims(values)
    x, y = values[across], values[rows]
    borders = edges(x.values), edges(y.values)
    width, height = np.ptp(borders[0]), np.ptp(borders[1])
    long = {"frame_width": options.pop("frame", FRAME)}
    own: dict[str, Any] = {
        "invert_yaxis": True,
        "xlabel": c.label(x, across),
        "ylabel": c.label(y, rows),
    }
    if 1 in values.shape or max(width, height) > 8 * min(width, height):
        own |= long | {"frame_height": 60}
    else:
        own |= long | {
            "data_aspect": 1,
            "xlim": tuple(borders[0][[0, -1]]),
            "ylim": tuple(borders[1][[0, -1]]),
        }
    if height > width:
        own["frame_height"], own["frame_width"] = own["frame_width"], own.get("frame_height")
    own |= options
    first, *others = columns.values()
    first, own["cmap"] = c.paintable(first, own["cmap"], own["clipping_colors"]["NaN"])
    if c.is_regular(x.values) and c.is_regular(y.values) and 1 not in values.shape:
        shown = hv.Image((x.values, y.values, first, *others), [across, rows], list(columns))
    else:
        shown = hv.QuadMesh((*borders, first, *others), [across, rows], list(columns)).opts(
            line_color=None
        )
    return shown.opts(**own)


def named_bar(names: Sequence[str]) -> dict[str, Any]:
    """Options of a map of positions in a list of names: limits, and the names on the colour bar."""
    from bokeh.models import FixedTicker

    bar: dict[str, Any] = {"clim": (-0.5, len(names) - 0.5), "clabel": ""}
    if len(names) > MAX_NAMES:
        return bar | {"colorbar": False}
    ticks = FixedTicker(ticks=list(range(len(names))))
    return bar | {
        "colorbar_opts": {"ticker": ticks, "major_label_overrides": dict(enumerate(names))}
    }


def with_lines(shown: Any, *many: np.ndarray | None) -> Any:
    """A map with lines `(n, 4)` of x0, y0, x1, y1, black with a white rim so that they are seen on
    any colour.
    """
    hv = c.holoviews()
    parts = [shown]
    for segments in many:
        if segments is None:
            continue
        lines = hv.Segments(segments, [*shown.kdims, "x1", "y1"])
        for color, width in (("white", 2.8), ("black", 1.2)):
            parts.append(lines.opts(color=color, line_width=width, clone=True))
    return hv.Overlay(parts) if len(parts) > 1 else shown


def latent_map(ds: xr.Dataset, run: str, latent: int) -> xr.DataArray:
    """One latent of a run as a map, named after it. Raises NoInputError for a run or latent that is
    not there.
    """
    variable, dim = n.run_name(n.LATENTS, run), n.run_name(n.LATENT, run)
    if variable not in ds:
        raise NoInputError(
            f"the Dataset holds no latents of a run {run!r}.{did_you_mean(run, schema.runs(ds))}"
        )
    known = ds[dim].values
    if latent not in known:
        raise NoInputError(f"run {run!r} has no latent {latent}; it has {known[0]} to {known[-1]}.")
    one = ds[variable].sel({dim: latent}, drop=True)
    return one.rename(f"latent {latent}").assign_attrs(long_name=f"latent {latent}")


@builder("stack", "stack")
def stack(
    da: xr.DataArray,
    entries: Sequence[Any] | None = None,
    *,
    roi: xr.DataArray | None = None,
    **options: Any,
) -> Any:
    """Maps of a variable over one further dim (latents, PCA or NMF scores, elements): all entries,
    or those named.

    On the screen a selector over the entries; on paper all of them beside each other, each from its
    1 % to its 99 % percentile, which stand above it. `roi` and `**options` as of a map. Raises
    SchemaError unless there is one further dim, NoInputError for an entry that is not there.
    """
    further = [str(dim) for dim in da.dims if dim not in n.SCAN_DIMS]
    if len(further) != 1 or da.ndim != 3:
        raise SchemaError(
            f"{da.name!r} has dims {da.dims}; expected two map axes and one further dimension."
        )
    (dim,) = further
    known = da[dim].values.tolist()
    name = "latent" if dim.startswith(n.LATENT) else dim
    frames = {}
    for entry in known if entries is None else entries:
        if entry not in known:
            raise NoInputError(
                f"{dim!r} has no entry {entry}.{did_you_mean(str(entry), [str(label) for label in known])}"
            )
        own = {"title": c.title(f"{name} {entry}")}
        frames[c.text(entry)] = map_plot(
            da.isel({dim: known.index(entry)}, drop=True), roi=roi, **own | options
        )
    what = "latent (posterior mean)" if name == "latent" else c.label(da)
    shown = c.holoviews().HoloMap(frames, kdims=[name], sort=False)
    return shown.relabel(f"{what}: number, 1 % … 99 % percentile = colour range").opts(
        framewise=True
    )


@builder("side_maps")
def side_maps(ds: xr.Dataset, **options: Any) -> Any:
    """Band contrast, every element and the phase beside each other, as far as the Dataset has them."""
    return beside_each_other(side_map_list(ds), **options)


def beside_each_other(maps: Sequence[xr.DataArray], columns: int = 3, **options: Any) -> Any:
    """Maps in rows, zoom linked. Raises NoInputError where there is none."""
    if not maps:
        raise NoInputError(
            "the Dataset has no maps to show; view one of its variables, such as ds.patterns."
        )
    shown = [map_plot(da, **{"frame": 260} | options) for da in maps]
    return c.holoviews().Layout(shown).cols(columns)


def side_map_list(ds: xr.Dataset) -> list[xr.DataArray]:
    """Band contrast, elements one by one and phase of a Dataset, as two-dimensional maps."""
    maps = [ds[n.BC]] if n.BC in ds else []
    for element in ds[n.ELEMENT].values if n.ELEMENTS in ds else ():
        one = ds[n.ELEMENTS].sel({n.ELEMENT: element}, drop=True).rename(c.text(element))
        maps.append(one.assign_attrs(long_name=c.text(element)))
    return maps + ([ds[n.PHASE]] if n.PHASE in ds else [])


@builder("rgb", "array", n.CHANNEL, n.Y, n.X)
def rgb_map(
    rgb: xr.DataArray,
    *,
    roi: xr.DataArray | None = None,
    nan_color: str = NAN_COLOR,
    **options: Any,
) -> Any:
    """Elements as red, green and blue: `(y, x, channel)` between 0 and 1, NaN in `nan_color`.

    The attribute `elements` names the channels in the title; one element three times is grey.
    Raises SchemaError for another shape or values outside 0 to 1.
    """
    if rgb.ndim != 3 or rgb.sizes.get(n.CHANNEL) != 3 or rgb.min() < -1e-6 or rgb.max() > 1 + 1e-6:
        span = f"{float(rgb.min()):g} to {float(rgb.max()):g}"
        raise SchemaError(
            f"{rgb.name!r} has {dict(rgb.sizes)} values, {span}; expected two dims, 3 channels, 0 to 1."
        )
    planes = [c.as_map(plane) for plane in rgb.transpose(n.CHANNEL, ...)]
    values = np.stack(planes, axis=-1)
    # each scan point as the number of its colour in a list
    whole = np.rint(255 * np.clip(np.nan_to_num(values.reshape(-1, 3)), 0, 1)).astype("u1")
    colors, numbers = np.unique(whole, axis=0, return_inverse=True)
    paint = np.where(
        np.isfinite(values).all(axis=-1), numbers.reshape(values.shape[:2]), np.nan
    ).astype("f4")
    names = [c.text(name) for name in rgb.attrs.get("elements", ())]
    words = [
        f"{name} {color}" for name, color in zip(names, ("red", "green", "blue"), strict=False)
    ]
    heading = ", ".join(words) if len(set(names)) > 1 else c.label(rgb, *names[:1])
    own: dict[str, Any] = {
        "cmap": [f"#{bytes(color).hex()}" for color in colors],
        "clim": (-0.5, len(colors) - 0.5),
    }
    own |= {"clipping_colors": {"NaN": nan_color}, "title": c.title(heading)}
    body = on_grid(planes[0], {"paint": paint}, own | options)
    return with_lines(body, None if roi is None else c.roi_outline(roi))
