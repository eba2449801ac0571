"""Clusters shaded by a latent with a linked scatter; clusters compared with a reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr.errors import SchemaError
from vaearr.views.colors import LEVELS, shades
from vaearr.views.common import (
    NAN_COLOR,
    NOISE,
    Colors,
    Options,
    as_map,
    colored_classes,
    holoviews,
    label,
    text,
    title,
)
from vaearr.views.kinds import builder
from vaearr.views.maps import on_grid, with_lines
from vaearr.views.relations import (
    MOST_POINTS,
    correlation_words,
    legend_points,
    linked,
    matrix,
    random_rows,
    table_of,
)

MAX_LEGEND = 10  # of more clusters the largest are named
WITHIN = (2.0, 98.0)  # percentiles of the latent within a cluster: darkest and brightest


def shaded(positions: np.ndarray, names: list[str], latent: np.ndarray) -> np.ndarray:
    """A map of classes as numbers in the list of their `shades`, by the latent within the class.

    Shades span the 2 % to the 98 % percentile of the class; noise and constant classes are bright.
    """
    numbers = positions * LEVELS + LEVELS - 1
    for position, name in enumerate(names):
        inside = (positions == position) & np.isfinite(latent)
        if name == NOISE or not inside.any():
            continue
        low, high = np.percentile(latent[inside], WITHIN)
        if high > low:
            share = np.clip((latent[inside] - low) / (high - low), 0, 1)
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
    """Plot clusters shaded by a latent next to that latent against a target in the same colours.

    The hue is that of the cluster, noise is grey; the brightness shows where the latent of a scan
    point lies between the 2 % and 98 % percentiles of its cluster. Selections by box or lasso are
    linked, also in a saved page. The legend names at most the ten largest clusters.

    Parameters
    ----------
    labels, latent, target
        Maps on the same grid.
    colors, segments, **options
        As of a map.
    most_points
        Number of random points in the scatter; r is computed from all points.

    Raises
    ------
    SchemaError
        If the maps lie on different grids.
    RoiError
        If no scan point has all three values.
    """
    try:
        xr.align(labels, latent, target, join="exact", copy=False)
    except ValueError as error:
        raise SchemaError(f"the maps do not lie on the same grid: {error}") from None
    names, class_colors, values = colored_classes(labels, colors)
    positions = as_map(values)
    latent_values = as_map(latent).values
    across = text(latent.name or "latent")
    up = text(target.name or "target")
    paint = shades(class_colors)
    style: Options = {
        "cmap": paint,
        "clim": (-0.5, len(paint) - 0.5),
        "clipping_colors": {"NaN": NAN_COLOR},
        "tools": ["hover"],
        "title": title(f"{label(labels, 'cluster')}, shaded by {label(latent)}"),
    } | options
    columns = {"number": shaded(positions.values, names, latent_values), across: latent_values}
    picture = on_grid(positions, columns, style)
    table = table_of(**{across: latent, up: target, "cluster": positions})
    heading = correlation_words(table, across, up)
    source = random_rows(table, most_points)
    source["cluster"] = np.array(names)[source["cluster"].astype(int)]
    if len(source) < len(table):
        heading += f", {len(source):,} plotted"
    sizes = np.bincount(table["cluster"].astype(int), minlength=len(names))
    largest = np.sort(np.argsort(-sizes, kind="stable")[:MAX_LEGEND])
    legend = legend_points(
        [names[i] for i in largest], [class_colors[i] for i in largest], [across, up]
    )
    return linked(
        with_lines(picture, segments),
        source,
        [str(dim) for dim in positions.dims[::-1]],
        [across, up],
        legend,
        frame={"xlabel": label(latent), "ylabel": label(target), "title": title(heading)},
        color="cluster",
        cmap=dict(zip(names, class_colors, strict=True)),
        size=3.5,
        alpha=0.6,
        selection_alpha=0.95,
        nonselection_alpha=0.05,
        show_legend=False,
    )


@builder("confusion", "map", "confusion")
def confusion_view(table: xr.DataArray, **options: Any) -> Any:
    """Plot counts of clusters (rows) and reference classes (columns), coloured by share of row.

    `table` holds counts over two dims; entries are named by `<dim>_name` or the coordinate of the
    dim. `**options` are those of `holoviews.QuadMesh`. Raises SchemaError for other tables.
    """
    counts = np.asarray(table.values, dtype="f8")
    if counts.ndim != 2 or 0 in counts.shape or not (counts >= 0).all():
        raise SchemaError(
            f"a confusion table holds counts over two dimensions, not {dict(table.sizes)}."
        )
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows, columns = map(str, table.dims)
    names = []
    for dim in (rows, columns):
        labels = table.coords.get(f"{dim}_name", table[dim])
        names.append([text(name) for name in labels.values])
    style: Options = {
        "cmap": "Blues",
        "clim": (0.0, 1.5),
        "colorbar": False,
        "title": f"n = {int(counts.sum()):,}",
        "xlabel": columns,
        "ylabel": rows,
        "xticks": list(enumerate(names[1])),
        "xrotation": 90,
        "frame_width": max(160, min(640, 80 * counts.shape[1])),
    } | options
    row, column = np.nonzero(counts)
    words = [f"{count:.0f}" for count in counts[row, column]]
    numbers = holoviews().Labels((column, row, words), ["column", "row"], "word")
    numbers = numbers.opts(text_color="black", text_font_size="8pt")
    return matrix(share, *names, **style) * numbers
