"""Maps of clusters: one colour per cluster, brightness by a latent, linked to the scatter with the same colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.association import associate
from vaearr.categories import categories, meanings
from vaearr.errors import RoiError, UsageError
from vaearr.outlines import edges
from vaearr.plots.colors import LEVELS, NOISE_COLOR, class_colors, hex_of, ramp
from vaearr.plots.common import (
    NAN_COLOR,
    as_map,
    holoviews,
    is_regular,
    label,
    map_dims,
    number,
    paintable,
    text,
    title,
)
from vaearr.plots.maps import frame_size, same_grid
from vaearr.plots.overlays import boundary_overlay
from vaearr.plots.scatter import MOST_POINTS, subsample

OUTSIDE_COLOR = "#ffffff"
WITHIN = (2.0, 98.0)  # percentiles of the latent within a cluster: darkest and brightest
MOST_LEGEND = 24
Colors = Sequence[str] | Mapping[int, str]


@dataclass(frozen=True)
class Classes:
    """The classes of a map with their colours, and where they are."""

    codes: tuple[int, ...]
    names: tuple[str, ...]
    colors: tuple[str, ...]
    values: xr.DataArray  # float map of positions in `codes`, n.NOISE for noise, NaN for all else

    def by_size(self) -> list[int]:
        """Positions of the classes that occur, largest first."""
        found, count = np.unique(self.values.values[self.values.values >= 0].astype(int), return_counts=True)
        return [int(i) for i in found[np.argsort(-count, kind="stable")]]

    @property
    def has_noise(self) -> bool:
        """Whether points are in no cluster."""
        return bool((self.values == n.NOISE).any())


def classes_of(labels: xr.DataArray, colors: Colors | None = None) -> Classes:
    """The classes of an integer map and their colours. Raises UsageError for a map of amounts.

    Noise is code -1 where `flag_meanings` calls it so or names nothing; of other maps, such as `phase`, all codes below
    0 are missing.
    """
    if labels.dtype.kind not in "iu":
        raise UsageError(f"{labels.name!r} holds {labels.dtype} values; a map of classes holds whole numbers.")
    known = categories(labels)
    grid = as_map(labels)
    codes = grid.values.astype("i8")
    positions = np.full(grid.shape, np.nan, dtype="f4")
    for position, code in enumerate(known):
        positions[codes == code] = position
    if _names_noise(labels):
        positions[codes == n.NOISE] = n.NOISE
    names = tuple(_plain(name) for name in known.values())
    paint = tuple(class_colors(list(known), colors, avoid=[NAN_COLOR]))
    return Classes(tuple(known), names, paint, grid.copy(data=positions))


def _names_noise(labels: xr.DataArray) -> bool:
    if labels.attrs.get("flag_meanings"):
        return meanings(labels).get(n.NOISE) == "noise"
    return labels.name != n.PHASE


def _plain(name: str) -> str:
    head, _, number = name.rpartition("_")
    return text(f"{head} {number}" if head == "cluster" and number.isdecimal() else name)


def brightness(positions: np.ndarray, values: np.ndarray, percent: tuple[float, float] = WITHIN) -> np.ndarray:
    """Where a value lies between the percentiles of its own class, 0 to 1; NaN where either is missing.

    A class with one value only is bright.
    """
    share = np.full(positions.shape, np.nan)
    for position in np.unique(positions[positions >= 0]):
        here = (positions == position) & np.isfinite(values)
        if here.any():
            low, high = np.percentile(values[here], percent)
            share[here] = np.clip((values[here] - low) / (high - low), 0, 1) if high > low else 1.0
    return share


def shaded(
    classes: Classes, latent: xr.DataArray, percent: tuple[float, float] = WITHIN
) -> tuple[np.ndarray, list[str]]:
    """A shaded map as numbers (NaN = outside) in a list of colours: shades, noise, no latent."""
    positions = classes.values.values
    share = brightness(positions, as_map(latent).values, percent)
    colors = hex_of(ramp(classes.colors)) if classes.colors else []
    numbers = positions * LEVELS + np.rint(share * (LEVELS - 1))
    numbers = np.where(positions == n.NOISE, len(colors), numbers)
    numbers = np.where((positions >= 0) & np.isnan(share), len(colors) + 1, numbers)
    return numbers.astype("f4"), [*colors, NOISE_COLOR, NAN_COLOR]


def cluster_points(classes: Classes, latent: xr.DataArray, target: xr.DataArray) -> xr.Dataset:
    """Points with a cluster (or noise), a latent and a target: `x`, `y`, `latent`, `target`, `cluster` over `point`.

    Attribute `r`: Pearson's, over all of them. Raises RoiError where there are none.
    """
    maps = {"latent": as_map(latent), "target": as_map(target), "cluster": classes.values}
    rows, columns = map_dims(classes.values)
    keep = np.logical_and.reduce([np.isfinite(item.values) for item in maps.values()])
    if not keep.any():
        raise RoiError(f"no scan point holds a cluster, {latent.name!r} and {target.name!r}; choose another map.")
    row, column = np.nonzero(keep)
    found = {key: ("point", item.values[keep]) for key, item in maps.items()}
    found["x"] = ("point", classes.values[columns].values[column])
    found["y"] = ("point", classes.values[rows].values[row])
    r = associate(maps["latent"].expand_dims(n.LATENT, -1), maps["target"].where(keep), "pearson")
    return xr.Dataset(found, attrs={"r": float(r.squeeze())})


def cluster_map(
    labels: xr.DataArray,
    *,
    colors: Colors | None = None,
    outside: str = OUTSIDE_COLOR,
    segments: np.ndarray | None = None,
    **kwargs: Any,
) -> Any:
    """A map of clusters (or any classes), one colour each, noise grey, all else in the colour `outside`.

    Parameters
    ----------
    labels
        Whole numbers over two dimensions: clusters from 0, -1 noise, -2 not clustered.
    colors
        A list, one for each cluster, or cluster -> colour for some.
    segments
        Boundaries to lay over the map, `(n, 4)` of x0, y0, x1, y1.
    **kwargs
        Options of `holoviews.Image` (`holoviews.QuadMesh` where coordinates are not evenly spaced).
    """
    holoviews()
    classes = classes_of(labels, colors)
    numbers = classes.values.values
    numbers = np.where(numbers == n.NOISE, len(classes.codes), numbers)
    names = [*classes.names, "noise"]
    options: dict[str, Any] = {"title": title(label(labels, "cluster"))}
    if len(names) <= MOST_LEGEND:
        count = len(names) if classes.has_noise else max(len(names) - 1, 1)
        options |= {"colorbar": True, "colorbar_opts": _names_on_bar(names[:count])}
    else:
        count = len(names)
    paint = [*classes.colors, NOISE_COLOR][:count]
    shown = _code_map(classes, numbers.astype("f4"), {}, paint, outside, options | kwargs)
    return shown if segments is None else shown * boundary_overlay(segments, dims=map_dims(classes.values))


def cluster_view(
    labels: xr.DataArray,
    latent: xr.DataArray,
    target: xr.DataArray,
    *,
    colors: Colors | None = None,
    percent: tuple[float, float] = WITHIN,
    outside: str = OUTSIDE_COLOR,
    segments: np.ndarray | None = None,
    most_points: int = MOST_POINTS,
    seed: int = 0,
    **kwargs: Any,
) -> Any:
    """Clusters shaded by a latent, linked to the scatter of that latent against a target in the same base colours.

    The brightness of a scan point says where its latent lies between the percentiles `percent` of its own cluster;
    hue and chroma are the cluster's (`vaearr.plots.colors`). A box or a lasso in one side lights up in the other, also
    in a saved page. Above `most_points` the scatter shows a random part (`seed`) and says so; r is over all points.
    Parameters as of `cluster_map`. Raises SchemaError where the maps differ in grid, RoiError where no point has all.
    """
    hv = holoviews()
    same_grid(labels, latent, target)
    classes = classes_of(labels, colors)
    numbers, paint = shaded(classes, latent, percent)
    rows, columns = map_dims(classes.values)
    across, up = text(latent.name or "latent"), text(target.name or "target")
    table = cluster_points(classes, latent, target)
    shown = subsample(table, most_points, seed)
    names = [*classes.names, "noise"]
    source = pd.DataFrame({
        columns: shown["x"].values, rows: shown["y"].values, across: shown["latent"].values, up: shown["target"].values,
        "cluster": [names[int(position)] for position in shown["cluster"].values],
    })  # fmt: skip
    heading = f"{label(labels, 'cluster')}, brightness by {label(latent)}, {percent[0]:g}–{percent[1]:g} % within"
    values = {across: as_map(latent).values}
    picture = _code_map(classes, numbers, values, paint, outside, {"title": title(heading)} | kwargs)
    if segments is not None:
        picture = picture * boundary_overlay(segments, dims=(rows, columns))
    hidden = hv.Points(source, [columns, rows], [across, up, "cluster"]).opts(
        alpha=0, selection_alpha=1, nonselection_alpha=0, color="white", selection_line_color="black", size=5,
        shared_datasource=True, tools=["box_select", "lasso_select"], backend="bokeh",
    )  # fmt: skip
    part = "" if shown.sizes["point"] == table.sizes["point"] else f", {shown.sizes['point']:,} shown"
    points = hv.Points(source, [across, up], [columns, rows, "cluster"]).opts(
        color="cluster", cmap=dict(zip(names, [*classes.colors, NOISE_COLOR], strict=True)), alpha=0.6, size=3.5,
        nonselection_alpha=0.05, selection_alpha=0.95, line_color=None, shared_datasource=True, show_legend=False,
        tools=["box_select", "lasso_select"], backend="bokeh",
    )  # fmt: skip
    scatter = hv.Overlay([points, *legend_keys(classes, [across, up])]).opts(
        frame_width=340, frame_height=340, xlabel=label(latent), ylabel=label(target), legend_position="right",
        title=title(f"Pearson r = {number(table.attrs['r'])}, n = {table.sizes['point']:,}{part}"),
        fontsize={"title": "10pt"}, backend="bokeh",
    )  # fmt: skip
    return (picture * hidden + scatter).opts(shared_axes=False, shared_datasource=True, backend="bokeh")


def legend_entries(classes: Classes) -> tuple[list[tuple[str, str]], str]:
    """Name and colour of the classes that occur and of noise, at most MOST_LEGEND of the largest, and what is left."""
    order = classes.by_size()
    shown = sorted(order[:MOST_LEGEND])
    entries = [(classes.names[i], classes.colors[i]) for i in shown]
    left = f"and {len(order) - len(shown)} smaller" if len(order) > len(shown) else ""
    return entries + ([("noise", NOISE_COLOR)] if classes.has_noise else []), left


def legend_keys(classes: Classes, kdims: list[str]) -> list[Any]:
    """Points without a place that make the legend: the colours at their full brightness."""
    hv = holoviews()
    entries, left = legend_entries(classes)
    return [
        hv.Points(([np.nan], [np.nan]), kdims, label=name).opts(color=color, size=9, line_color=None, backend="bokeh")
        for name, color in [*entries, *([(left, "#00000000")] if left else [])]
    ]


def _names_on_bar(names: list[str]) -> dict[str, Any]:
    from bokeh.models import FixedTicker

    places = list(range(len(names)))
    return {"ticker": FixedTicker(ticks=places), "major_label_overrides": dict(zip(places, names, strict=True))}


def _code_map(
    classes: Classes, numbers: np.ndarray, values: dict[str, np.ndarray], paint: list[str], outside: str,
    options: dict[str, Any],
) -> Any:  # fmt: skip
    """Numbers as colours of a list, with the class and the values under the pointer."""
    from bokeh.models import HoverTool

    hv = holoviews()
    rows, columns = map_dims(classes.values)
    x, y = classes.values[columns], classes.values[rows]
    regular = all(is_regular(dim.values) and dim.size > 1 for dim in (x, y))
    numbers, paint = paintable(numbers, paint, outside)
    code = np.full(numbers.shape, float(n.NOT_CLUSTERED))
    for position in (n.NOISE, *range(len(classes.codes))):
        code[classes.values.values == position] = position if position < 0 else classes.codes[position]
    table = {"number": numbers, "class": code, **values}
    tips = [(columns, "$x{0.[00]}"), (rows, "$y{0.[00]}"), *((name, f"@{{{name}}}") for name in ("class", *values))]
    made = hv.Image if regular else hv.QuadMesh
    where = (x.values, y.values) if regular else (edges(x.values), edges(y.values))
    element = made((*where, *table.values()), [columns, rows], list(table))
    return element.opts(**{
        "cmap": paint, "clim": (-0.5, len(paint) - 0.5), "clipping_colors": {"NaN": outside}, "invert_yaxis": True,
        "clabel": "", "xlabel": label(x, columns), "ylabel": label(y, rows), "backend": "bokeh",
        "tools": [HoverTool(tooltips=tips)],
        "bgcolor": outside, **frame_size(classes.values), **options,
    })  # fmt: skip
