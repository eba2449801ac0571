"""Clusters shaded by a latent, linked to the scatter in the same colours, and compared with a
reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr.errors import SchemaError
from vaearr.views.colors import LEVELS, shades
from vaearr.views.common import (
    NAN_COLOR,
    NOISE,
    Classes,
    Colors,
    as_map,
    colored_classes,
    holoviews,
    label,
    number,
    text,
    title,
)
from vaearr.views.kinds import builder
from vaearr.views.maps import on_grid, with_lines
from vaearr.views.paper import MAX_NAMES
from vaearr.views.relations import MOST_POINTS, drawn, linked, matrix, table_of

WITHIN = (2.0, 98.0)  # percentiles of the latent within a cluster: darkest and brightest


def shaded(classes: Classes, latent: np.ndarray) -> np.ndarray:
    """A map of classes as numbers in the list of their `shades`, by where a latent lies in its
    class; noise is bright.

    Shades run from the 2 % to the 98 % percentile of the class; one with a single value is bright.
    """
    positions = classes.values.values
    numbers = positions * LEVELS + LEVELS - 1
    for position, name in enumerate(classes.names):
        inside = (positions == position) & np.isfinite(latent)
        if inside.any() and name != NOISE:
            low, high = np.percentile(latent[inside], WITHIN)
            share = np.clip((latent[inside] - low) / (high - low), 0, 1) if high > low else 1.0
            numbers[inside] = position * LEVELS + np.rint(share * (LEVELS - 1))
    return numbers


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
    """Clusters shaded by a latent, linked to the scatter of that latent against a target in the
    same base colours.

    The brightness of a scan point says where its latent lies between the 2 % and 98 % percentiles
    of its own cluster; the hue is the cluster's, noise is grey. A box or a lasso in one side lights
    up in the other, also in a saved page. Above `most_points` the scatter shows a random part and
    says so; r is over all points. `colors`, `segments` and `**options` as of a map. Raises
    SchemaError where the maps differ in grid, RoiError where no point has all.
    """
    try:
        xr.align(labels, latent, target, join="exact", copy=False)
    except ValueError as error:
        raise SchemaError(f"the maps do not lie on the same grid: {error}") from None
    classes = colored_classes(labels, colors)
    classes = classes._replace(values=as_map(classes.values))
    across, up = text(latent.name or "latent"), text(target.name or "target")
    numbers = shaded(classes, as_map(latent).values)
    paint = shades(classes.colors)
    own = {
        "cmap": paint, "clim": (-0.5, len(paint) - 0.5), "clipping_colors": {"NaN": NAN_COLOR}, "tools": ["hover"],
        "title": title(f"{label(labels, 'cluster')}, shaded by {label(latent)}"),
    }  # fmt: skip
    picture = on_grid(
        classes.values, {"number": numbers, across: as_map(latent).values}, own | options
    )
    table = table_of(**{across: latent, up: target, "cluster": classes.values})
    source = drawn(table, most_points)
    source = source.assign(cluster=np.array(classes.names)[source["cluster"].astype(int)])
    rows, columns = map(str, classes.values.dims)
    part = "" if len(source) == len(table) else f", {len(source):,} shown"
    heading = f"Pearson r = {number(table[across].corr(table[up]))}, n = {len(table):,}{part}"
    color_of = dict(zip(classes.names, classes.colors, strict=True))
    return linked(
        with_lines(picture, segments), source, [columns, rows], [across, up],
        [_key(name, color, [across, up]) for name, color in list(color_of.items())[:MAX_NAMES]],
        xlabel=label(latent), ylabel=label(target), title=title(heading), color="cluster", cmap=color_of, alpha=0.6,
        size=3.5, nonselection_alpha=0.05, selection_alpha=0.95, show_legend=False,
    )  # fmt: skip


def _key(name: str, color: str, axes: list[str]) -> Any:
    """A name and its colour in the legend, as a point outside every view."""
    return (
        holoviews()
        .Points([(np.nan, np.nan)], axes, label=name)
        .opts(color=color, size=9, line_color=None)
    )


@builder("confusion", "map", "confusion")
def confusion_view(table: xr.DataArray, **options: Any) -> Any:
    """How many points of each cluster (rows) are of each reference class (columns); colour = share
    of the cluster.

    `table` holds counts over two dimensions; entries are named by `<dimension>_name` or the
    dimension's coordinate. `**options` are those of `holoviews.QuadMesh`. Raises SchemaError for
    any other table.
    """
    counts = np.asarray(table.values, dtype="f8")
    if counts.ndim != 2 or 0 in counts.shape or not (counts >= 0).all():
        raise SchemaError(
            f"a confusion table holds counts over two dimensions, not {dict(table.sizes)}."
        )
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    dims = [str(dim) for dim in table.dims]
    names = [
        [text(name) for name in table.coords.get(f"{dim}_name", table[dim]).values] for dim in dims
    ]
    own: dict[str, Any] = {
        "cmap": "Blues",
        "clim": (0.0, 1.5),
        "xlabel": dims[1],
        "ylabel": dims[0],
        "colorbar": False,
    }
    own |= {"xticks": list(enumerate(names[1])), "xrotation": 90}
    own |= {
        "title": f"n = {int(counts.sum()):,}",
        "frame_width": max(160, min(640, 80 * counts.shape[1])),
    }
    row, column = np.nonzero(counts)
    words = [f"{count:.0f}" for count in counts[row, column]]
    labels = holoviews().Labels((column, row, words), ["column", "row"], "word")
    labels = labels.opts(text_color="black", text_font_size="8pt")
    return matrix(share, *names, **own | options) * labels
