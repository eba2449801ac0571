"""Maps of clusters: one colour per cluster, brightness by a latent, linked to the scatter with the same colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.errors import SchemaError, UsageError
from vaearr.schema import categories, meanings
from vaearr.views.colors import LEVELS, NOISE_COLOR, class_colors, hex_of, ramp
from vaearr.views.common import NAN_COLOR, as_map, holoviews, label, map_dims, number, text, title
from vaearr.views.kinds import builder
from vaearr.views.maps import BOKEH, names_on_bar, on_grid, overlay, same_grid
from vaearr.views.paper import MOST_NAMES, OUTSIDE_COLOR
from vaearr.views.relations import BRUSH, MOST_POINTS, points_of, subsample

MOST_KEYS = 10  # of a legend beside a scatter
WITHIN = (2.0, 98.0)  # percentiles of the latent within a cluster: darkest and brightest
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
    known, grid = categories(labels), as_map(labels)
    codes = grid.values.astype("i8")
    positions = np.full(grid.shape, np.nan, dtype="f4")
    for position, code in enumerate(known):
        positions[codes == code] = position
    named = labels.attrs.get("flag_meanings")
    if meanings(labels).get(n.NOISE) == "noise" if named else labels.name != n.PHASE:
        positions[codes == n.NOISE] = n.NOISE
    paint = tuple(class_colors(list(known), colors, avoid=[NAN_COLOR]))
    return Classes(tuple(known), tuple(_plain(name) for name in known.values()), paint, grid.copy(data=positions))


def _plain(name: str) -> str:
    head, _, number = name.rpartition("_")
    return text(f"{head} {number}" if head == "cluster" and number.isdecimal() else name)


def brightness(positions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Where a value lies between the percentiles of its own class, 0 to 1; NaN where either is missing.

    A class with one value only is bright.
    """
    share = np.full(positions.shape, np.nan)
    for position in np.unique(positions[positions >= 0]):
        here = (positions == position) & np.isfinite(values)
        if here.any():
            low, high = np.percentile(values[here], WITHIN)
            share[here] = np.clip((values[here] - low) / (high - low), 0, 1) if high > low else 1.0
    return share


def shaded(classes: Classes, latent: xr.DataArray) -> tuple[np.ndarray, list[str]]:
    """A shaded map as numbers (NaN = outside) in a list of colours: shades, noise, no latent."""
    positions = classes.values.values
    share = brightness(positions, as_map(latent).values)
    colors = hex_of(ramp(classes.colors)) if classes.colors else []
    numbers = positions * LEVELS + np.rint(share * (LEVELS - 1))
    numbers = np.where(positions == n.NOISE, len(colors), numbers)
    numbers = np.where((positions >= 0) & np.isnan(share), len(colors) + 1, numbers)
    return numbers.astype("f4"), [*colors, NOISE_COLOR, NAN_COLOR]


@builder("classes", "map", "@n_noise")
def class_map(
    labels: xr.DataArray,
    *,
    colors: Colors | None = None,
    segments: np.ndarray | None = None,
    **options: Any,
) -> Any:
    """A map of clusters (or any classes), one colour each, noise grey, all else white (hatched on paper).

    Parameters
    ----------
    labels
        Whole numbers over two dimensions: clusters from 0, -1 noise, -2 not clustered.
    colors
        A list, one for each cluster, or cluster -> colour for some.
    segments
        Boundaries to lay over the map, `(n, 4)` of x0, y0, x1, y1.
    **options
        Options of `holoviews.Image` (`holoviews.QuadMesh` where coordinates are not evenly spaced).
    """
    classes = classes_of(labels, colors)
    numbers = np.where(classes.values.values == n.NOISE, len(classes.codes), classes.values.values)
    names = [*classes.names, "noise"]
    count = len(names) if classes.has_noise or len(names) == 1 else len(names) - 1
    own: dict[str, Any] = {"title": title(label(labels, "cluster"))}
    if count <= MOST_NAMES:
        own |= {"colorbar": True, "colorbar_opts": names_on_bar(names[:count])}
    shown = _painted(classes, numbers.astype("f4"), {}, [*classes.colors, NOISE_COLOR][:count], own | options)
    return shown if segments is None else holoviews().Overlay([shown, *overlay(classes.values, segments=segments)])


def _painted(
    classes: Classes, numbers: np.ndarray, values: dict[str, np.ndarray], paint: list[str],
    options: dict[str, Any],
) -> Any:  # fmt: skip
    """Numbers as colours of a list, with the class and the values under the pointer."""
    from bokeh.models import HoverTool
    from holoviews.core.util import dimension_sanitizer

    rows, columns = map_dims(classes.values)
    code = np.full(numbers.shape, float(n.NOT_CLUSTERED))
    for position in (n.NOISE, *range(len(classes.codes))):
        code[classes.values.values == position] = position if position < 0 else classes.codes[position]
    tips = [(columns, "$x{0.[00]}"), (rows, "$y{0.[00]}"), ("class", "@class")]
    tips += [(name, f"@{{{dimension_sanitizer(name)}}}") for name in values]
    own = {
        "cmap": paint, "clim": (-0.5, len(paint) - 0.5), "clipping_colors": {"NaN": OUTSIDE_COLOR}, "clabel": "",
        "tools": [HoverTool(tooltips=tips)], "bgcolor": OUTSIDE_COLOR,
    }  # fmt: skip
    return on_grid(classes.values, {"number": numbers, "class": code, **values}, own | options)


@builder("clusters")
def cluster_view(
    labels: xr.DataArray,
    latent: xr.DataArray,
    target: xr.DataArray,
    *,
    colors: Colors | None = None,
    segments: np.ndarray | None = None,
    most_points: int = MOST_POINTS,
    **options: Any,
) -> Any:
    """Clusters shaded by a latent, linked to the scatter of that latent against a target in the same base colours.

    The brightness of a scan point says where its latent lies between the 2 % and 98 % percentiles of its own cluster;
    hue and chroma are the cluster's (`vaearr.views.colors`). A box or a lasso in one side lights up in the other, also
    in a saved page. Above `most_points` the scatter shows a random part and says so; r is over all points.
    Parameters as of a map of classes. Raises SchemaError where the maps differ in grid, RoiError where no point has
    all.
    """
    hv = holoviews()
    same_grid(labels, latent, target)
    classes = classes_of(labels, colors)
    numbers, paint = shaded(classes, latent)
    rows, columns = map_dims(classes.values)
    across, up = text(latent.name or "latent"), text(target.name or "target")
    maps = {"latent": as_map(latent), "target": as_map(target), "cluster": classes.values}
    table = points_of(maps, "target")
    shown = subsample(table, most_points)
    shown = shown.isel(point=np.random.default_rng(0).permutation(shown.sizes["point"]))  # none lies on top
    names = [*classes.names, "noise"]
    source = pd.DataFrame({
        columns: shown["x"].values, rows: shown["y"].values, across: shown["latent"].values, up: shown["target"].values,
        "cluster": [names[int(position)] for position in shown["cluster"].values],
    })  # fmt: skip
    heading = f"{label(labels, 'cluster')}, brightness by {label(latent)}, {WITHIN[0]:g}–{WITHIN[1]:g} % within"
    values = {across: as_map(latent).values}
    picture = _painted(classes, numbers, values, paint, {"title": title(heading)} | options)
    lines = [] if segments is None else overlay(classes.values, segments=segments)
    hidden = hv.Points(source, [columns, rows], [across, up, "cluster"]).opts(
        alpha=0, selection_alpha=1, nonselection_alpha=0, color="white", selection_line_color="black", size=5, **BRUSH
    )
    part = "" if shown.sizes["point"] == table.sizes["point"] else f", {shown.sizes['point']:,} shown"
    points = hv.Points(source, [across, up], [columns, rows, "cluster"]).opts(
        color="cluster", cmap=dict(zip(names, [*classes.colors, NOISE_COLOR], strict=True)), alpha=0.6, size=3.5,
        nonselection_alpha=0.05, selection_alpha=0.95, line_color=None, show_legend=False, **BRUSH,
    )  # fmt: skip
    scatter = hv.Overlay([points, *_legend_keys(classes, [across, up])]).opts(
        frame_width=340, frame_height=340, xlabel=label(latent), ylabel=label(target), legend_position="right",
        title=title(f"Pearson r = {number(table.attrs['r'])}, n = {table.sizes['point']:,}{part}"),
        fontsize={"title": "10pt"}, **BOKEH,
    )  # fmt: skip
    return (hv.Overlay([picture, *lines, hidden]) + scatter).opts(shared_axes=False, shared_datasource=True, **BOKEH)


def _legend_keys(classes: Classes, kdims: list[str]) -> list[Any]:
    """Points outside every view that fill the legend: the classes that occur, the largest, noise, what is left."""
    order = classes.by_size()
    entries = [(classes.names[i], classes.colors[i]) for i in sorted(order[:MOST_KEYS])]
    entries += [("noise", NOISE_COLOR)] if classes.has_noise else []
    left = len(order) - MOST_KEYS
    entries += [(f"and {left} smaller", "#00000000")] if left > 0 else []
    return [
        holoviews().Points(([np.nan], [np.nan]), kdims, label=name).opts(color=color, size=9, line_color=None, **BOKEH)
        for name, color in entries
    ]


@builder("comparison")
def comparison_view(
    labels: xr.DataArray,
    reference: xr.DataArray,
    *,
    segments: np.ndarray | None = None,
    scores: Mapping[str, float] | None = None,
    colors: Colors | None = None,
    **options: Any,
) -> Any:
    """A cluster map beside a reference (phases, true grains), boundaries on both; zoom is linked.

    `segments` are commonly those of the reference, `(n, 4)`; `scores`, such as {"ARI": 0.61}, stand above.
    `**options` as of a map of classes. Raises SchemaError where the maps differ in grid.
    """
    same_grid(labels, reference)
    left = class_map(labels, colors=colors, segments=segments, **options)
    right = class_map(reference, segments=segments, **options)
    heading = ", ".join(f"{name} = {value:.3f}" for name, value in (scores or {}).items())
    return (left + right).opts(shared_axes=True, title=heading, **BOKEH)


@builder("confusion", "map", "confusion")
def confusion_view(table: xr.DataArray, **options: Any) -> Any:
    """How many points of each cluster (rows) are of each reference class (columns); colour = share of the cluster.

    `table` holds counts over two dimensions; entries are named by `<dimension>_name` or the dimension's coordinate;
    counts are written where they fit. `**options` are those of `holoviews.QuadMesh`. Raises SchemaError for any other
    table.
    """
    from bokeh.models import HoverTool

    hv = holoviews()
    counts = np.asarray(table.values, dtype="f8")
    if counts.ndim != 2 or 0 in counts.shape or not np.isfinite(counts).all() or (counts < 0).any():
        raise SchemaError(f"a confusion table holds counts over two dimensions, not {dict(table.sizes)}.")
    rows, columns = (_entries(table, str(dim)) for dim in table.dims)
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    shape = counts.shape
    of = np.tile(np.array(rows, dtype=object)[:, None], (1, shape[1]))
    against = np.tile(np.array(columns, dtype=object), (shape[0], 1))
    x, y = np.arange(shape[1] + 1) - 0.5, np.arange(shape[0] + 1) - 0.5
    first, second = (text(dim) for dim in table.dims)
    hover = HoverTool(tooltips=[(first, "@of"), (second, "@against"), ("points", "@count"), ("share", "@share{0.0%}")])
    mesh = hv.QuadMesh((x, y, share, counts, of, against), ["column", "row"], ["share", "count", "of", "against"])
    step = max(1, -(-shape[1] // 40))
    own = {
        "cmap": "Blues", "clim": (0.0, 1.0), "colorbar": True, "clabel": "share of the row", "invert_yaxis": True,
        "xticks": [(i, columns[i]) for i in range(0, shape[1], step)], "yticks": list(enumerate(rows)),
        "xlabel": second, "ylabel": first, "title": title(f"n = {int(counts.sum()):,}"), "tools": [hover],
        "clipping_colors": {"NaN": NAN_COLOR}, "frame_width": int(np.clip(60 * shape[1], 160, 640)),
        "frame_height": int(np.clip(30 * shape[0], 150, 600)), "line_color": "white", "line_width": 0.4,
        "xrotation": 90 if max(map(len, columns)) * 7 > 640 / min(shape[1], 40) else 0,
    }  # fmt: skip
    shown = mesh.opts(**own | options, **BOKEH)
    if counts.size > 200:
        return shown
    row, column = np.nonzero(counts)
    words = np.array([f"{count:.0f}" for count in counts[row, column]], dtype=object)
    dark = share[row, column] > 0.6
    labels = [
        hv.Labels((column[here], row[here], words[here]), ["column", "row"], "word").opts(
            text_color=color, text_font_size="8pt", **BOKEH
        )
        for here, color in ((dark, "white"), (~dark, "black"))
        if here.any()
    ]
    return hv.Overlay([shown, *labels])


def _entries(table: xr.DataArray, dim: str) -> list[str]:
    for name in (f"{dim}_name", dim):
        if name in table.coords and table[name].dims == (dim,):
            return [text(entry) for entry in table[name].values.tolist()]
    return [str(i) for i in range(table.sizes[dim])]
