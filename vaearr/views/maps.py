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
from vaearr.views import common as c
from vaearr.views.colors import hex_of
from vaearr.views.common import NAN_COLOR, PERCENT, SEQUENTIAL
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
    values, names = c.as_values(da)
    clabel = ", ".join(filter(None, (c.unit(da.attrs), f"colours span {PERCENT[0]:g}–{PERCENT[1]:g} %")))
    own: dict[str, Any] = {"cmap": SEQUENTIAL, "clim": c.robust_limits(values.values), "clabel": clabel}
    own = {
        "title": c.title(c.label(da)),
        "colorbar": True,
        "tools": ["hover"],
        "clipping_colors": {"NaN": nan_color},
    } | ({"cmap": c.palette(len(names)), **named_bar(names)} if names else own)
    shown = on_grid(values, {c.text(da.name or "value"): values.values}, own | options)
    return with_lines(shown, segments, None if roi is None else c.roi_outline(roi))


def on_grid(values: xr.DataArray, columns: dict[str, np.ndarray], options: dict[str, Any]) -> Any:
    """Arrays on the grid of a map (as `as_map` gives it) as `holoviews.Image`, or QuadMesh where steps are uneven.

    Scales are equal, unless the map is a mere line.
    """
    hv = c.holoviews()
    rows, across = c.map_dims(values)
    x, y = values[across], values[rows]
    borders = edges(x.values), edges(y.values)
    even = all(c.is_regular(axis.values) and axis.size > 1 for axis in (x, y))
    (x0, x1), (y0, y1) = ((float(border[0]), float(border[-1])) for border in borders)
    ratio = (x1 - x0) / (y1 - y0)
    own: dict[str, Any] = {"invert_yaxis": True, "xlabel": c.label(x, across), "ylabel": c.label(y, rows)}
    if 1 in values.shape or not 1 / 8 <= ratio <= 8:
        own |= dict(zip(("frame_width", "frame_height"), (FRAME, 60) if ratio >= 1 else (60, FRAME), strict=True))
    else:
        own |= {"data_aspect": 1, "xlim": (x0, x1), "ylim": (y0, y1)}
        own["frame_width" if ratio >= 1 else "frame_height"] = options.get("frame", FRAME)
    own |= {ticks: [float(axis[0])] for ticks, axis in (("xticks", x), ("yticks", y)) if axis.size == 1}
    own |= {} if even else {"line_color": None}
    own |= {name: value for name, value in options.items() if name != "frame"}
    first = next(iter(columns))
    shown, own["cmap"] = c.paintable(columns[first], own["cmap"], own["clipping_colors"]["NaN"])
    where = (x.values, y.values) if even else borders
    element = (hv.Image if even else hv.QuadMesh)(
        (*where, shown, *list(columns.values())[1:]), [across, rows], list(columns)
    )
    return element.opts(**own, **BOKEH)


def named_bar(names: Sequence[str]) -> dict[str, Any]:
    """Options of a map of positions in a list of names: limits, and the names on the colour bar."""
    from bokeh.models import FixedTicker

    places = list(range(len(names)))
    bar = {"ticker": FixedTicker(ticks=places), "major_label_overrides": dict(zip(places, names, strict=True))}
    return {"clim": (-0.5, len(names) - 0.5), "clabel": "", "colorbar": True, "colorbar_opts": bar}


def with_lines(shown: Any, *many: np.ndarray | None) -> Any:
    """A map with lines `(n, 4)` of x0, y0, x1, y1, black with a white rim so that they are seen on any colour.

    Raises SchemaError for another shape or values that are not finite.
    """
    hv = c.holoviews()
    parts = [shown]
    for segments in many:
        if segments is None:
            continue
        found = np.asarray(segments, dtype="f8")
        if found.ndim != 2 or found.shape[1] != 4 or not np.isfinite(found).all():
            raise SchemaError(f"segments have shape {found.shape}; expected (n, 4), finite, of x0, y0, x1, y1.")
        across, rows = map(str, shown.kdims[:2])
        lines = hv.Segments(tuple(found.T), [across, rows, f"{across}1", f"{rows}1"])
        parts += [
            lines.opts(color=color, line_width=width, clone=True, **BOKEH)
            for color, width in (("white", 2.8), ("black", 1.2))
        ]
    return hv.Overlay(parts) if len(parts) > 1 else shown


def legend_keys(entries: Sequence[tuple[str, str]], kdims: Sequence[Any], **options: Any) -> list[Any]:
    """Points outside every view, a name and a colour each, that fill a legend."""
    empty = ([np.nan], [np.nan])
    own = {"size": 9, "line_color": None, "legend_position": "right", **options, **BOKEH}
    return [c.holoviews().Points(empty, list(kdims), label=name).opts(color=color, **own) for name, color in entries]


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
    if strange := [str(entry) for entry in wanted if entry not in known]:
        raise NoInputError(f"{dim!r} has no entry {strange[0]}.{did_you_mean(strange[0], [str(e) for e in known])}")
    name = "latent" if dim.startswith(n.LATENT) else dim
    frames = {
        c.text(entry) if isinstance(entry, str) else entry: map_plot(
            da.isel({dim: known.index(entry)}, drop=True), roi=roi, **{"title": c.title(f"{name} {entry}")} | options
        )
        for entry in wanted
    }
    what = "latent (posterior mean)" if name == "latent" else c.label(da)
    shown = c.holoviews().HoloMap(frames, kdims=[name], sort=False)
    return shown.relabel(f"{what}: number, 1 % … 99 % percentile = colour range").opts(framewise=True)


@builder("side_maps")
def side_maps(ds: xr.Dataset, *, roi: xr.DataArray | None = None, columns: int = 3, **options: Any) -> Any:
    """Band contrast, every element and the phase beside each other, as far as the Dataset has them."""
    found = side_map_list(ds)
    if not found:
        raise NoInputError("the Dataset holds no band contrast, elements or phases to show.")
    shown = [map_plot(da, roi=roi, **{"frame": 260} | options) for da in found]
    return c.holoviews().Layout(shown).cols(columns).opts(shared_axes=True)


def side_map_list(ds: xr.Dataset) -> list[xr.DataArray]:
    """Band contrast, elements one by one and phase of a Dataset, as two-dimensional maps."""
    found = [ds[n.BC]] if n.BC in ds else []
    if n.ELEMENTS in ds:
        elements = ds[n.ELEMENTS]
        for i, element in enumerate(elements[n.ELEMENT].values):
            one = elements.isel({n.ELEMENT: i}, drop=True).rename(c.text(element))
            found.append(one.assign_attrs(long_name=c.text(element)))
    return found + ([ds[n.PHASE]] if n.PHASE in ds else [])


def same_grid(*maps: xr.DataArray) -> None:
    """Raise SchemaError unless the maps lie over the same scan points."""
    try:
        xr.align(*(da.transpose(*maps[0].dims) for da in maps), join="exact", copy=False)
    except ValueError as error:
        found = ", ".join(f"{da.name!r} over {dict(da.sizes)}" for da in maps)
        raise SchemaError(f"the maps do not lie on the same grid ({found}): {error} Select the same points.") from None


@builder("rgb", "array", n.CHANNEL, n.Y, n.X)
def rgb_map(rgb: xr.DataArray, *, roi: xr.DataArray | None = None, nan_color: str = NAN_COLOR, **options: Any) -> Any:
    """Elements as red, green and blue, with a legend: `(y, x, channel)` between 0 and 1, NaN in `nan_color`.

    The attribute `elements` names the channels; of one element three times it is grey. Raises SchemaError for another
    shape or values outside 0 to 1.
    """
    if rgb.ndim != 3 or rgb.sizes.get(n.CHANNEL) != 3:
        raise SchemaError(f"{rgb.name!r} has dims {dict(rgb.sizes)}; expected two map axes and 3 of {n.CHANNEL!r}.")
    if not -1e-6 <= float(rgb.min().fillna(0)) <= float(rgb.max().fillna(0)) <= 1 + 1e-6:
        raise SchemaError(f"{rgb.name!r} runs from {float(rgb.min()):g} to {float(rgb.max()):g}; expected 0 to 1.")
    planes = [c.as_map(rgb.isel({n.CHANNEL: i}, drop=True)) for i in range(3)]
    values = np.stack([plane.values for plane in planes], axis=-1)
    missing = ~np.isfinite(values).all(axis=-1)
    # each scan point as the number of its colour in a list
    whole = np.rint(255 * np.clip(np.nan_to_num(values.reshape(-1, 3)), 0, 1)).astype("u1")
    colors, numbers = np.unique(whole, axis=0, return_inverse=True)
    paint = np.where(missing, np.nan, numbers.reshape(missing.shape)).astype("f4")
    own = {"cmap": hex_of(colors / 255), "clim": (-0.5, len(colors) - 0.5), "clipping_colors": {"NaN": nan_color}}
    body = on_grid(planes[0], {"paint": paint}, {"title": c.title(c.label(rgb, "elements"))} | own | options)
    names = [c.text(name) for name in rgb.attrs.get("elements", ("red", "green", "blue"))]
    keys = [*zip(names, ("#ff0000", "#00ff00", "#0000ff"), strict=True)]
    keys = [(names[0], "#808080")] if len(set(names)) == 1 else keys
    keys += [("missing", nan_color)] if missing.any() else []
    shown = with_lines(body, None if roi is None else c.roi_outline(roi))
    shown = shown * c.holoviews().Overlay(legend_keys(keys, body.kdims, marker="square"))
    return shown.opts(legend_position="right", **BOKEH)
