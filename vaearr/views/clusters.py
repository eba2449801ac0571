"""Maps of classes: one colour each, brightness by a latent, linked to the scatter in the same colours, and compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import SchemaError, UsageError
from vaearr.schema import categories, meanings
from vaearr.views.colors import LEVELS, NOISE_COLOR, class_colors, hex_of, ramp
from vaearr.views.common import NAN_COLOR, as_codes, as_map, holoviews, label, number, text, title
from vaearr.views.kinds import builder
from vaearr.views.maps import BOKEH, legend_keys, named_bar, on_grid, same_grid, with_lines
from vaearr.views.paper import MAX_NAMES
from vaearr.views.relations import MOST_POINTS, drawn, linked, matrix, table_of

MOST_KEYS = 10  # of a legend beside a scatter
WITHIN = (2.0, 98.0)  # percentiles of the latent within a cluster: darkest and brightest
Colors = Sequence[str] | Mapping[int, str]


@dataclass(frozen=True)
class Classes:
    """The classes of a map with their colours, and where they are."""

    names: tuple[str, ...]
    colors: tuple[str, ...]
    values: xr.DataArray  # float map of positions in `names`, n.NOISE for noise, NaN for all else


def classes_of(labels: xr.DataArray, colors: Colors | None = None) -> Classes:
    """The classes of an integer map and their colours. Raises UsageError for a map of amounts.

    Noise is code -1 where `flag_meanings` calls it so or names nothing; of other maps, such as `phase`, all codes below
    0 are missing.
    """
    if labels.dtype.kind not in "iu":
        raise UsageError(f"{labels.name!r} holds {labels.dtype} values; a map of classes holds whole numbers.")
    known, values = categories(labels), as_map(as_codes(labels)[0])
    named = labels.attrs.get("flag_meanings")
    if meanings(labels).get(n.NOISE) == "noise" if named else labels.name != n.PHASE:
        values = values.where(as_map(labels) != n.NOISE, n.NOISE)
    names = tuple(re.sub(r"^cluster_(?=\d+$)", "cluster ", text(name)) for name in known.values())
    return Classes(names, tuple(class_colors(list(known), colors, avoid=[NAN_COLOR])), values)


def shaded(classes: Classes, latent: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """A map as numbers (NaN = outside) in a list of colours: shades by where a latent lies in its class.

    Shades run from the 2 % to the 98 % percentile of the class; one with a single value is bright.
    """
    positions = classes.values.values
    numbers = np.where(positions == n.NOISE, LEVELS * len(classes.names), np.nan)
    for position in np.unique(positions[positions >= 0]):
        known = (positions == position) & np.isfinite(latent)
        numbers[positions == position] = LEVELS * len(classes.names) + 1
        if known.any():
            low, high = np.percentile(latent[known], WITHIN)
            share = np.clip((latent[known] - low) / (high - low), 0, 1) if high > low else 1.0
            numbers[known] = position * LEVELS + np.rint(share * (LEVELS - 1))
    colors = hex_of(ramp(classes.colors)) if classes.colors else []
    return numbers.astype("f4"), [*colors, NOISE_COLOR, NAN_COLOR]


@builder("classes", "map", "@n_noise")
def class_map(
    labels: xr.DataArray, *, colors: Colors | None = None, segments: np.ndarray | None = None, **options: Any
) -> Any:
    """A map of clusters (or any classes), one colour each, noise grey, all else white.

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
    numbers = np.where(classes.values.values == n.NOISE, len(classes.names), classes.values.values)
    names, paint = [*classes.names, "noise"], [*classes.colors, NOISE_COLOR]
    count = len(names) if (classes.values == n.NOISE).any() or len(names) == 1 else len(names) - 1
    own = {"title": title(label(labels, "cluster"))} | (named_bar(names[:count]) if count <= MAX_NAMES else {})
    return with_lines(_painted(labels, classes, numbers.astype("f4"), {}, paint[:count], own | options), segments)


def _painted(
    labels: xr.DataArray,
    classes: Classes,
    numbers: np.ndarray,
    values: dict[str, np.ndarray],
    paint: list[str],
    options: dict[str, Any],
) -> Any:
    """Numbers as colours of a list, with the class and the values under the pointer."""
    from bokeh.models import HoverTool
    from holoviews.core.util import dimension_sanitizer

    rows, columns = map(str, classes.values.dims)
    tips = [(columns, "$x{0.[00]}"), (rows, "$y{0.[00]}"), ("class", "@class")]
    tips += [(name, f"@{{{dimension_sanitizer(name)}}}") for name in values]
    own = {
        "cmap": paint, "clim": (-0.5, len(paint) - 0.5), "clipping_colors": {"NaN": "white"}, "clabel": "",
        "tools": [HoverTool(tooltips=tips)],
    }  # fmt: skip
    return on_grid(classes.values, {"number": numbers, "class": as_map(labels).values, **values}, own | options)


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
    same_grid(labels, latent, target)
    classes = classes_of(labels, colors)
    names, paint = [*classes.names, "noise"], [*classes.colors, NOISE_COLOR]
    across, up = text(latent.name or "latent"), text(target.name or "target")
    values = {across: as_map(latent).values}
    heading = f"{label(labels, 'cluster')}, shaded by {label(latent)}"
    numbers, shades = shaded(classes, values[across])
    picture = _painted(labels, classes, numbers, values, shades, {"title": title(heading)} | options)
    table = table_of(**{across: latent, up: target, "cluster": classes.values})
    source = drawn(table, most_points)
    part = "" if len(source) == len(table) else f", {len(source):,} shown"
    r = number(table[across].corr(table[up]))
    order = table["cluster"][table["cluster"] >= 0].astype(int).value_counts(sort=True).index.tolist()
    entries = [(names[i], paint[i]) for i in sorted(order[:MOST_KEYS])]
    entries += [("noise", NOISE_COLOR)] if (classes.values == n.NOISE).any() else []
    entries += [(f"and {len(order) - MOST_KEYS} smaller", "#00000000")] if len(order) > MOST_KEYS else []
    return linked(
        with_lines(picture, segments), source.assign(cluster=[names[int(i)] for i in source["cluster"]]),
        list(map(str, classes.values.dims))[::-1], [across, up], legend_keys(entries, [across, up]),
        xlabel=label(latent), ylabel=label(target), title=title(f"Pearson r = {r}, n = {len(table):,}{part}"),
        color="cluster", cmap=dict(zip(names, paint, strict=True)), alpha=0.6, size=3.5, nonselection_alpha=0.05,
        selection_alpha=0.95, show_legend=False,
    )  # fmt: skip


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
    counts = np.asarray(table.values, dtype="f8")
    if counts.ndim != 2 or 0 in counts.shape or not np.isfinite(counts).all() or (counts < 0).any():
        raise SchemaError(f"a confusion table holds counts over two dimensions, not {dict(table.sizes)}.")
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    dims = [str(dim) for dim in table.dims]
    rows, columns = ([text(name) for name in table.coords.get(f"{d}_name", table[d]).values.tolist()] for d in dims)
    wide, high = int(np.clip(60 * counts.shape[1], 160, 640)), int(np.clip(30 * counts.shape[0], 150, 600))
    shown = matrix(
        share, rows, columns, told=counts,
        **{"cmap": "Blues", "clim": (0.0, 1.0), "clabel": "share of the row", "xlabel": text(dims[1]),
           "ylabel": text(dims[0]), "title": title(f"n = {int(counts.sum()):,}"), "frame_width": wide,
           "frame_height": high, "xrotation": 90 if max(map(len, columns)) * 7 > wide / len(columns) else 0} | options,
    )  # fmt: skip
    row, column = np.nonzero(counts if counts.size <= 200 else np.zeros((1, 1)))
    words = np.array([f"{count:.0f}" for count in counts[row, column]], dtype=object)
    dark = share[row, column] > 0.6
    labels = [
        holoviews()
        .Labels((column[here], row[here], words[here]), ["column", "row"], "word")
        .opts(text_color=color, text_font_size="8pt", **BOKEH)
        for here, color in ((dark, "white"), (~dark, "black"))
        if here.any()
    ]
    return holoviews().Overlay([shown, *labels])
