"""Sheets of several parts, set by matplotlib: samples of a store, paths in a plane, pairs, tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, did_you_mean
from vaearr.run.facts import class_names, class_of_each
from vaearr.schema import meanings
from vaearr.schema.grid import measured
from vaearr.views.common import COLORS, brief, holoviews, number, palette, robust_limits, text, unit
from vaearr.views.curves import UNUSED
from vaearr.views.kinds import builder
from vaearr.views.maps import latent_map, map_plot, side_map_list
from vaearr.views.paper import MOST_NAMES, SMALL, WIDTH, draw, journal, new_figure
from vaearr.views.pictures import COLUMNS, LIMITS, Row, draw_rows, pictures, sheet, tiles, units_of
from vaearr.views.relations import DENSITY
from vaearr.views.spread import legend_names, scatter

MARK = "#111111"
SHARES = (0.5, 0.9)  # of the samples, within the contours of a density
MOST_ROWS = 12


@builder("samples")
def data_sheet(ds: xr.Dataset, *, by: str | None = None, seed: int = 0) -> Any:
    """Samples as they are stored, chosen by chance: a row for each class, or three rows where there are none.

    Each picture has a grey scale (of colours a brightness) of its own, from its 0.5 % to its 99.5 % percentile; of
    volumes the middle slice is shown. Above each stands its number or its coordinates.

    by : variable or coordinate of classes; default: `label`, else the first (for a scan its phase) with two or more
    seed : of the choice

    At most 12 classes are shown, the first. Raises NoInputError for a variable that is not there and for a store none
    of whose samples can be used.
    """
    known, present, rng = class_names(ds), measured(ds), np.random.default_rng(seed)
    if by is not None and by not in known:
        raise NoInputError(f"the store has no variable of classes {by!r}.{did_you_mean(by, known)}")
    by = by or next((name for name in known if len(np.unique(class_of_each(ds, name)[0][present])) > 1), None)
    codes, names = class_of_each(ds, by) if by else (np.zeros(present.shape), {0: ""})
    groups = {name: np.argwhere((codes == code) & present) for code, name in names.items()}
    groups = {name: places for name, places in groups.items() if len(places)}
    if not groups:
        raise NoInputError(f"none of the {schema.samples_word(ds)} can be used; there is nothing to show.")
    rows, nav = list[Row](), schema.navigation_dims(ds)
    for name, places in [*groups.items()][:MOST_ROWS]:
        chosen = places[np.sort(rng.permutation(len(places))[: COLUMNS if by else 3 * COLUMNS])]
        at = {dim: xr.DataArray(place, dims="picture") for dim, place in zip(nav, chosen.T, strict=True)}
        part = ds[n.PATTERNS].isel(at).transpose("picture", ...).load()
        images = pictures(part)
        where = [", ".join(_short(part[dim].values[i]) for dim in nav[::-1]) for i in range(len(images))]
        rows += tiles(images, [robust_limits(image, LIMITS) for image in images], where)
        rows[-1].name = f"{brief(name.replace('_', ' '), 14)}\n{len(places):,}" if by else ""
    cut = f", {MOST_ROWS} of {len(groups)} classes" if len(groups) > MOST_ROWS else ""
    slices = ", middle slices" if n.Z in schema.signal_dims(ds) else ""
    heading = f"{schema.samples_word(ds)}{f' by {by}' if by else ''}{cut}{slices}"
    if schema.is_scan(ds):
        heading += f" at {', '.join(nav[::-1])} in {unit(ds[nav[-1]].attrs)}".removesuffix(" in ")
    return sheet(rows, heading)


@builder("patterns", "samples of a dataset")
def patterns_sheet(patterns: xr.DataArray, *, seed: int = 0) -> Any:
    """Samples of an array of patterns, chosen at random, see `data_sheet`."""
    return data_sheet(schema.as_dataset(patterns), seed=seed)


MAX_OVERVIEW_LATENTS = 6


@builder("dataset", "dataset")
def overview(ds: xr.Dataset, run: str | None = None, *, columns: int = 3, **options: Any) -> Any:
    """The maps of a scan: band contrast, elements, phase, clusters, the first latents; of a collection its samples.

    run: whose latents are shown; default: each run's. Of a 3-D scan the middle plane is shown. `**options` are those
    of a map. Raises NoInputError where there is nothing to show.
    """
    if n.PATTERNS in ds and not schema.is_scan(ds):
        return data_sheet(ds)
    if n.Z in ds.dims:
        ds = ds.isel({n.Z: ds.sizes[n.Z] // 2})
    maps = side_map_list(ds)
    shown_names = {n.BC, n.PHASE}
    for name, variable in ds.data_vars.items():
        is_map = set(variable.dims) == {n.Y, n.X} and variable.dtype != bool
        if is_map and name not in shown_names and not str(name).startswith((n.SPLIT, n.ROI, n.PRESENT)):
            maps.append(variable)
    for run_name in schema.runs(ds) if run is None else [run]:
        latents = ds.get(n.run_name(n.LATENTS, run_name))
        if latents is None or latents.ndim != 3:
            continue
        for latent in latents[n.run_name(n.LATENT, run_name)].values[:MAX_OVERVIEW_LATENTS]:
            maps.append(latent_map(ds, run_name, int(latent)))
    if not maps:
        raise NoInputError("the Dataset has no maps to show; view one of its variables, such as ds.patterns.")
    views = [map_plot(map_, **{"frame": 260} | options) for map_ in maps]
    return holoviews().Layout(views).cols(columns)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else brief(value, 14)


@builder("path", "decoded", "scatter", "position", "requested")
def path_sheet(found: xr.Dataset) -> Any:
    """The samples in a plane with the numbered points of `path`, beside what the points decode to.

    For t-SNE and UMAP a number stands at the sample that is decoded, a line leads to the point that was asked for.
    """
    images = pictures(found["decoded"])
    tall, wide = images.shape[1:3]
    columns = min(len(images), max(1, round(math.sqrt(len(images) * tall / wide))))
    rows = tiles(images, robust_limits(images, LIMITS), [f"{i + 1}" for i in range(len(images))], most=columns)
    words = {"plane": f"others: {brief(found.attrs['base'], 45)}", "pca": "principal components, inverted"}
    with journal():
        figure = new_figure(WIDTH, max(3.3, len(rows) * (min(2.5 / columns, 1.1) * tall / wide + 0.2)) + 0.35)
        left, right = figure.subfigures(1, 2, width_ratios=[1.15, 1])
        ax, axes = left.subplots(), [text(name) for name in found["axis"].values]
        cloud = scatter(found, found["scatter"].values, axes)
        draw(ax, cloud.opts(title="", legend_position="top_right", backend="bokeh"))
        if legend := ax.get_legend():
            legend.set(visible=len(legend.get_texts()) <= 12, zorder=9)
        _mark(ax, found["position"].values, found["requested"].values)
        draw_rows(right, rows)
        left.suptitle(text(words.get(found.attrs["space"], "nearest encoded sample")))
        right.suptitle(f"decoded ({units_of(found['decoded'])})")
    return figure


def _mark(ax: Any, position: np.ndarray, asked: np.ndarray) -> None:
    """Numbered points, and lines from where they were asked for."""
    moved = ~np.isclose(position, asked).all(1)
    for start, end in zip(asked[moved], position[moved], strict=True):
        ax.plot(*zip(start, end, strict=True), color=MARK, lw=0.6, marker="x", markevery=[0], ms=3, zorder=3)
    if not moved.any():
        ax.plot(*position.T, color=MARK, lw=0.8, zorder=3)
    for i, point in enumerate(position):
        _number(ax, i, point, clip_on=False)
    ax.update_datalim(np.concatenate([position, asked]))
    ax.autoscale_view()


def _number(ax: Any, i: int, place: np.ndarray, **options: Any) -> None:
    box = {"boxstyle": "circle,pad=0.18", "facecolor": "white", "edgecolor": MARK, "linewidth": 0.6}
    ax.text(*place, f"{i + 1}", fontsize=SMALL, ha="center", va="center", zorder=4, bbox=box, **options)


def smoothed(density: np.ndarray, count: int) -> np.ndarray:
    """A density `(rows, columns)` on equal bins as a Gaussian kernel estimate of it, of `count` samples.

    The kernel of each axis has half the width of Scott's rule, the standard deviation of the samples times count^(-1/6)
    ("Multivariate Density Estimation", 1992, eq. 6.42): the rule is for one Gaussian, latents lie in several groups.
    """
    from scipy.ndimage import gaussian_filter

    widths = []
    for axis in (0, 1):
        weights, place = density.sum(1 - axis), np.arange(density.shape[axis])
        spread = np.average((place - np.average(place, weights=weights)) ** 2, weights=weights)
        widths.append(math.sqrt(spread) * count ** (-1 / 6) / 2)
    return np.asarray(gaussian_filter(density, widths, mode="constant"))


def levels_of(density: np.ndarray) -> list[float]:
    """Values of a density above which SHARES of it lie, ascending and different."""
    falling = np.sort(density.ravel())[::-1]
    total = np.cumsum(falling)
    found = [float(falling[np.searchsorted(total, share * total[-1])]) for share in SHARES]
    return sorted({level for level in found if 0 < level < falling[0]})


@builder("pairs", "density", "x_dim", "y_dim", "correlation")
def pair_sheet(found: xr.Dataset) -> Any:
    """The result of `pairs`: histograms on the diagonal, below it densities, above it samples by class, or r.

    The lines of a density hold 50 % and 90 % of a Gaussian kernel estimate of it.
    """
    dims = [int(d) for d in found["latent"].values]
    size, edges = len(dims), found["edges"].values
    place, color_of = {dim: i for i, dim in enumerate(dims)}, dict[str, str]()
    if by_class := "class_of_point" in found.coords:
        words, codes = meanings(found["class_of_point"]), found["class_of_point"].values
        there = [words[code] for code in np.unique(codes) if code >= 0]
        color_of = dict(zip(there, palette(len(there)), strict=True))
        colors = np.array([color_of.get(words.get(int(code), ""), UNUSED) for code in codes])
    with journal():
        from matplotlib.colors import PowerNorm
        from matplotlib.lines import Line2D

        side = min(1.35, (WIDTH - 1.0) / size)
        figure = new_figure(side * size + (1.6 if by_class else 0.7), side * size + 0.7)
        axes = figure.subplots(size, size, squeeze=False)
        for i in range(size):
            if "class_counts" not in found:
                axes[i, i].stairs(found["counts"].values[i], edges[i], fill=True, color=COLORS[0])
            else:
                for name, counts in zip(found["class"].values, found["class_counts"].values[:, i], strict=True):
                    axes[i, i].stairs(counts, edges[i], color=color_of.get(str(name), UNUSED), lw=0.8)
            axes[i, i].set(xlim=edges[i][[0, -1]], yticks=[])
        for x, y, density in zip(found["x_dim"].values, found["y_dim"].values, found["density"].values, strict=True):
            i, j = place[int(x)], place[int(y)]
            lower, upper, r = axes[j, i], axes[i, j], number(float(found["correlation"].values[i, j]))
            norm, soft = PowerNorm(0.5, 0, float(density.max())), smoothed(density, found.attrs["n"])
            shown = np.ma.masked_equal(density, 0)
            lower.pcolormesh(edges[i], edges[j], shown, cmap=DENSITY, norm=norm, rasterized=True)
            if levels := levels_of(soft):
                middles = [(edges[k][1:] + edges[k][:-1]) / 2 for k in (i, j)]
                lower.contour(*middles, soft, levels=levels, colors=COLORS[5], linewidths=0.8)
            lower.set(xlim=edges[i][[0, -1]], ylim=edges[j][[0, -1]])
            if not by_class:
                upper.set_axis_off()
                upper.text(0.5, 0.5, r, ha="center", va="center", transform=upper.transAxes, fontsize=9)
                continue
            lower.set_title(f"r = {r}", fontsize=SMALL, pad=2)
            order = np.random.default_rng(0).permutation(len(codes))
            area = float(np.clip(3000 / max(len(order), 1), 1.2, 7))
            points = found["vectors"].values[:, [j, i]][order].T
            upper.scatter(*points, c=colors[order], s=area, linewidths=0, alpha=0.7, rasterized=True)
            upper.set(xlim=edges[j][[0, -1]], ylim=edges[i][[0, -1]])
        for (i, j), ax in np.ndenumerate(axes):
            ax.tick_params(labelsize=SMALL, labelbottom=i == size - 1, labelleft=j == 0 and i > 0)
            ax.locator_params(nbins=3)
            ax.set_xlabel(f"latent {dims[j]}" if i == size - 1 else "", fontsize=SMALL)
            ax.set_ylabel(f"latent {dims[i]}" if j == 0 else "", fontsize=SMALL)
        if by_class and len(there) <= MOST_NAMES:
            marks = [Line2D([], [], marker="s", ls="", ms=4, color=color) for color in color_of.values()]
            by = brief(found["class_of_point"].attrs["long_name"], 18)
            figure.legend(marks, legend_names(there), title=by, loc="outside right upper", fontsize=SMALL,
                          title_fontsize=SMALL, handletextpad=0.1)  # fmt: skip
        is_cut = by_class and found.sizes["point"] < found.attrs["n"]
        cut = "" if not is_cut else f", {found.sizes['point']:,} shown above the diagonal"
        figure.suptitle(f"pairs of latents, {found.attrs['n']:,} samples{cut}")
    return figure


@builder("latent_table", "summary", "statistic", "latent")
def table_view(found: xr.Dataset) -> Any:
    """The result of `latent_table` as a table."""
    cells = [[f"{value:.4g}" for value in row] for row in found["summary"].values]
    names, columns = ([str(name) for name in found[dim].values] for dim in ("latent", "statistic"))
    with journal():
        figure = new_figure(WIDTH * 0.9, 0.19 * len(cells) + 0.75)
        axes = figure.subplots()
        axes.set_axis_off()
        table = axes.table(cells, rowLabels=names, colLabels=columns, loc="center", edges="horizontal")
        table.auto_set_font_size(False)
        table.set_fontsize(8)
        axes.set_title(f"latents (posterior mean), {found.attrs['n']:,} samples")
    return figure
