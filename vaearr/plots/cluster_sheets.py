"""Clusters on paper: shaded map beside the scatter, clusters beside a reference, the table of how they agree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from vaearr.errors import SchemaError
from vaearr.outlines import edges
from vaearr.plots.clusters import (
    WITHIN,
    Classes,
    Colors,
    classes_of,
    cluster_points,
    legend_entries,
    shaded,
)
from vaearr.plots.colors import NOISE_COLOR, rgb_of
from vaearr.plots.common import NAN_COLOR, label, map_dims, number, text
from vaearr.plots.maps import same_grid
from vaearr.plots.paper import SMALL, WIDTH, draw_segments, frame_map, height_ratio, journal, new_figure

_HATCH: dict[str, Any] = {"hatch": "////", "facecolor": "white", "edgecolor": "#d0d0d0", "linewidth": 0}


def draw_classes(
    axes: Any,
    classes: Classes,
    numbers: np.ndarray | None = None,
    paint: list[str] | None = None,
    *,
    ticks: bool = True,
) -> None:
    """Draw a map of classes into axes, all that belongs to none hatched; `numbers` in `paint` for a shaded map."""
    if numbers is None or paint is None:
        numbers = np.where(classes.values.values == -1, len(classes.codes), classes.values.values)
        paint = [*classes.colors, NOISE_COLOR]
    seen = np.isfinite(numbers)
    rgba = np.zeros((*numbers.shape, 4))
    rgba[seen, :3] = rgb_of(paint)[numbers[seen].astype(int)]
    rgba[..., 3] = seen
    rows, columns = map_dims(classes.values)
    x, y = edges(classes.values[columns].values), edges(classes.values[rows].values)
    axes.pcolormesh(x, y, rgba, rasterized=True)
    axes.patch.set(**_HATCH)
    frame_map(axes, classes.values, ticks=ticks)


def _handles(classes: Classes) -> list[Any]:
    from matplotlib.patches import Patch

    entries, left = legend_entries(classes)
    found = [Patch(facecolor=color, label=name) for name, color in entries]
    if left:
        found.append(Patch(facecolor="none", label=left))
    if bool(np.isnan(classes.values).any()):
        found.append(Patch(**_HATCH, label="not clustered" if "cluster" in " ".join(classes.names) else "no class"))
    return found


def _legend(target: Any, handles: list[Any], most: int, **options: Any) -> None:
    """Swatches with a thin line around, so that white ones are seen, in rows of at most `most`."""
    lines = math.ceil(len(handles) / most)
    options |= {"ncols": math.ceil(len(handles) / lines), "handlelength": 1.1, "handleheight": 1.1}
    for patch in target.legend(handles=handles, handletextpad=0.5, columnspacing=1.4, **options).get_patches():
        if not patch.get_hatch():
            patch.set(edgecolor="#606060" if patch.get_facecolor()[3] else "none", linewidth=0.3)


def cluster_sheet(
    labels: xr.DataArray,
    latent: xr.DataArray,
    target: xr.DataArray,
    *,
    colors: Colors | None = None,
    percent: tuple[float, float] = WITHIN,
    segments: np.ndarray | None = None,
    seed: int = 0,
) -> Any:
    """Clusters shaded by a latent beside the scatter of that latent against a target, same base colours.

    The brightness of a scan point says where its latent lies between the percentiles `percent` of its own cluster; the
    legend shows the colours at their full brightness. All points are in the scatter, in an order drawn by `seed`, so
    that no cluster lies on top of another. Noise is grey, not clustered points are hatched. Raises as `cluster_view`.
    """
    same_grid(labels, latent, target)
    classes = classes_of(labels, colors)
    points = cluster_points(classes, latent, target)
    order = np.random.default_rng(seed).permutation(points.sizes["point"])
    paint = np.concatenate([rgb_of(classes.colors), rgb_of([NOISE_COLOR])])  # position -1 is noise
    size = float(np.clip(6000 / order.size, 0.6, 7))
    with journal():
        ratio = height_ratio(classes.values)
        figure = new_figure(WIDTH, float(np.clip(3.4 * ratio, 2.2, 5.2)) + 0.9)
        left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
        numbers, shades = shaded(classes, latent, percent)
        draw_classes(left, classes, numbers, shades)
        if segments is not None:
            draw_segments(left, segments, width=0.5)
        left.set_title(
            f"{label(labels, 'cluster')}, brightness: {label(latent)},\n{percent[0]:g}–{percent[1]:g} % within each"
        )
        chosen = points.isel(point=order)
        right.scatter(
            chosen["latent"], chosen["target"], s=size, c=paint[chosen["cluster"].values.astype(int)], alpha=0.6,
            linewidths=0, rasterized=True,
        )  # fmt: skip
        right.set(xlabel=label(latent), ylabel=label(target))
        right.set_title(f"Pearson r = {number(points.attrs['r'])}, n = {points.sizes['point']:,}")
        handles = _handles(classes)
        if (numbers == len(shades) - 1).any():
            from matplotlib.patches import Patch

            handles.append(Patch(facecolor=NAN_COLOR, label=f"no {label(latent)}"))
        _legend(figure, handles, 7, loc="outside lower center")
    return figure


def comparison_sheet(
    labels: xr.DataArray,
    reference: xr.DataArray,
    *,
    segments: np.ndarray | None = None,
    scores: dict[str, float] | None = None,
    colors: Colors | None = None,
    reference_colors: Colors | None = None,
) -> Any:
    """A cluster map beside a reference (phases, true grains), boundaries on both, numbers of agreement above.

    `segments` are commonly those of the reference; `scores` are shown as they are, such as {"ARI": 0.61}.
    """
    same_grid(labels, reference)
    with journal():
        both = [classes_of(labels, colors), classes_of(reference, reference_colors)]
        lines = max([0, *(math.ceil((len(c.by_size()) + 2) / 3) for c in both if len(c.by_size()) <= 12)])
        figure = new_figure(WIDTH, float(np.clip(3.1 * height_ratio(both[0].values), 1.6, 5.5)) + 0.75 + 0.19 * lines)
        for axes, classes, da in zip(figure.subplots(1, 2), both, (labels, reference), strict=True):
            draw_classes(axes, classes)
            count = len(classes.by_size())
            axes.set_title(f"{label(da)}, {count} classes")
            if segments is not None:
                draw_segments(axes, segments, width=0.5)
            if count <= 12:
                _legend(axes, _handles(classes), 3, loc="upper center", bbox_to_anchor=(0.5, -0.18), borderaxespad=0)
        if scores:
            figure.suptitle(", ".join(f"{name} = {value:.3f}" for name, value in scores.items()))
    return figure


def confusion_sheet(table: xr.DataArray) -> Any:
    """How many points of each cluster (rows) are of each reference class (columns): colour = share of the cluster.

    `table` holds counts over two dimensions; entries are named by `<dimension>_name` or the dimension's coordinate.
    Counts are written where they fit. Raises SchemaError for any other table.
    """
    counts, names = confusion_parts(table)
    share = confusion_share(counts)
    rows, columns = counts.shape
    with journal():
        width = float(np.clip(1.6 + 0.55 * columns, 2.6, WIDTH))
        figure = new_figure(width, float(np.clip(1.1 + 0.24 * rows, 1.8, 9)))
        axes = figure.subplots()
        mesh = axes.pcolormesh(share, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.4, rasterized=True)
        axes.set_facecolor(NAN_COLOR)
        axes.invert_yaxis()
        cell = (width - 1.6) / columns
        for axis, entries, many in ((axes.xaxis, names[1], 40), (axes.yaxis, names[0], 40)):
            step = -(-len(entries) // many)
            axis.set_ticks(np.arange(0, len(entries), step) + 0.5, labels=entries[::step])
        axes.tick_params(length=0)
        if max(map(len, names[1])) * 0.07 > cell:
            axes.tick_params(axis="x", rotation=90)
        if cell > 0.07 * len(f"{int(counts.max(initial=0))}") and rows <= 36:
            for (row, column), count in np.ndenumerate(counts):
                if count:
                    dark = share[row, column] > 0.6
                    axes.text(
                        column + 0.5, row + 0.5, f"{count:.0f}", ha="center", va="center", fontsize=SMALL,
                        color="white" if dark else "black",
                    )  # fmt: skip
        axes.set(xlabel=text(table.dims[1]), ylabel=text(table.dims[0]), title=f"n = {int(counts.sum()):,}")
        figure.colorbar(mesh, ax=axes, label="share of the row", pad=0.02)
    return figure


def confusion_parts(table: xr.DataArray) -> tuple[np.ndarray, tuple[list[str], list[str]]]:
    """Counts and the names of rows and columns. Raises SchemaError unless there are two dimensions of counts."""
    values = np.asarray(table.values, dtype="f8")
    if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).all() or (values < 0).any():
        raise SchemaError(f"a confusion table holds counts over two dimensions, not {dict(table.sizes)}.")
    rows, columns = ([text(name) for name in _entries(table, str(dim))] for dim in table.dims)
    return values, (rows, columns)


def _entries(table: xr.DataArray, dim: str) -> list[Any]:
    for name in (f"{dim}_name", dim):
        if name in table.coords and table[name].dims == (dim,):
            return list(table[name].values.tolist())
    return list(range(table.sizes[dim]))


def confusion_share(counts: np.ndarray) -> np.ma.MaskedArray:
    """Share of each row, masked where a row is empty."""
    total = counts.sum(axis=1, keepdims=True)
    return np.ma.masked_invalid(np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0))
