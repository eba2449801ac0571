"""Sheets of several parts, set by matplotlib: paths in a plane, pairs, unusual samples, statistics, tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError
from vaearr.schema import meanings
from vaearr.views.common import COLORS, brief, number, robust_limits, text
from vaearr.views.curves import UNUSED
from vaearr.views.kinds import builder
from vaearr.views.maps import map_plot
from vaearr.views.paper import MOST_NAMES, SMALL, WIDTH, draw, journal, new_figure, panels
from vaearr.views.pictures import LIMITS, draw_rows, height_of, pictures, show_picture, tiles, units_of, where_of
from vaearr.views.relations import DENSITY
from vaearr.views.spread import Classes, colors_of, point_classes, scatter

MARK, DARK = "#111111", "#333333"
SHARES = (0.5, 0.9)  # of the samples, within the contours of a density


@builder("path", "decoded", "scatter", "position", "requested")
def path_sheet(found: xr.Dataset) -> Any:
    """The samples in a plane with the numbered points of `path`, beside what the points decode to.

    For t-SNE and UMAP a number stands at the sample that is decoded, a line leads to the point that was asked for.
    """
    images = pictures(found["decoded"])
    limits, (tall, wide) = robust_limits(images, LIMITS), images.shape[1:3]
    columns = min(len(images), max(1, round(math.sqrt(len(images) * tall / wide))))
    height = max(3.3, math.ceil(len(images) / columns) * (min(2.5 / columns, 1.1) * tall / wide + 0.2)) + 0.35
    space = found.attrs["space"]
    words = {"plane": f"others: {brief(found.attrs['base'], 30)}", "pca": "principal components, inverted"}
    with journal():
        figure = new_figure(WIDTH, height)
        left, right = figure.subfigures(1, 2, width_ratios=[1.15, 1])
        ax = left.subplots()
        cloud = scatter(
            found["scatter"].values, [str(a) for a in found["axis"].values], point_classes(found),
            found["number"].values,
        )  # fmt: skip
        draw(ax, cloud.opts(title="", legend_position="top_right", backend="bokeh"))
        if legend := ax.get_legend():
            legend.set(visible=len(legend.get_texts()) <= 12, zorder=9)
        _mark(ax, found["position"].values, found["requested"].values)
        for i, (axes, image) in enumerate(zip(panels(right, len(images), columns), images, strict=True)):
            mesh = show_picture(axes, image, limits)
            axes.set_title(f"{i + 1}", fontsize=SMALL, pad=2)
        if images.ndim == 3:
            right.colorbar(mesh, ax=right.axes, fraction=0.04, pad=0.02).ax.tick_params(labelsize=SMALL)
        left.suptitle(text(words.get(space, "nearest encoded sample")))
        right.suptitle(f"decoded ({units_of(found['decoded'])})")
    return figure


def _mark(ax: Any, position: np.ndarray, asked: np.ndarray) -> None:
    """Numbered points, and lines from where they were asked for."""
    moved = ~np.isclose(position, asked).all(1)
    if moved.any():
        for start, end in zip(asked[moved], position[moved], strict=True):
            ax.plot(*zip(start, end, strict=True), color=MARK, lw=0.6, zorder=3)
        ax.plot(*asked[moved].T, ls="", marker="x", ms=3, color=MARK, zorder=3)
    elif len(position) > 1:
        ax.plot(*position.T, color=MARK, lw=0.8, zorder=3)
    for i, point in enumerate(position):
        ax.text(
            *point, f"{i + 1}", fontsize=SMALL, ha="center", va="center", zorder=4, clip_on=False,
            bbox={"boxstyle": "circle,pad=0.18", "facecolor": "white", "edgecolor": MARK, "linewidth": 0.6},
        )  # fmt: skip
    ax.update_datalim(np.concatenate([position, asked]))
    ax.autoscale_view()


def smoothed(density: np.ndarray, count: int) -> np.ndarray:
    """A density `(rows, columns)` on equal bins as a Gaussian kernel estimate of it, of `count` samples.

    The kernel of each axis has half the width of Scott's rule, the standard deviation of the samples times count^(-1/6)
    ("Multivariate Density Estimation", 1992, eq. 6.42): the rule is for one Gaussian, latents lie in several groups.
    """
    from scipy.ndimage import gaussian_filter

    widths = []
    for axis in (0, 1):
        weights = density.sum(1 - axis)
        place = np.arange(len(weights))
        mean = np.average(place, weights=weights)
        widths.append(math.sqrt(np.average((place - mean) ** 2, weights=weights)) * count ** (-1 / 6) / 2)
    return np.asarray(gaussian_filter(density, widths, mode="constant"))


def levels_of(density: np.ndarray, shares: tuple[float, ...] = SHARES) -> list[float]:
    """Values of a density above which such shares of it lie, ascending and different."""
    falling = np.sort(density.ravel())[::-1]
    total = np.cumsum(falling)
    found = [float(falling[np.searchsorted(total, share * total[-1])]) for share in shares]
    return sorted({level for level in found if 0 < level < falling[0]})


@builder("pairs", "density", "x_dim", "y_dim", "correlation")
def pair_sheet(found: xr.Dataset) -> Any:
    """The result of `pairs`: histograms on the diagonal, below it densities, above it samples by class, or r.

    The lines of a density hold 50 % and 90 % of a Gaussian kernel estimate of it.
    """
    dims = [int(d) for d in found["latent"].values]
    size, place = len(dims), {dim: i for i, dim in enumerate(dims)}
    edges = found["edges"].values
    classes = point_classes(found, "class_of_point")
    with journal():
        side = min(1.35, (WIDTH - 1.0) / size)
        figure = new_figure(side * size + (1.6 if classes else 0.7), side * size + 0.7)
        axes = figure.subplots(size, size, squeeze=False)
        for i in range(size):
            _diagonal(axes[i, i], found, i, classes)
        for k, (x, y) in enumerate(zip(found["x_dim"].values, found["y_dim"].values, strict=True)):
            i, j = place[int(x)], place[int(y)]
            _density(axes[j, i], edges[i], edges[j], found["density"].values[k], found.attrs["n"])
            r = number(float(found["correlation"].values[i, j]))
            upper = axes[i, j]
            if classes is None:
                upper.set_axis_off()
                upper.text(0.5, 0.5, r, ha="center", va="center", transform=upper.transAxes, fontsize=9)
                continue
            axes[j, i].set_title(f"r = {r}", fontsize=SMALL, pad=2)
            order = np.random.default_rng(0).permutation(len(classes[0]))
            colors = np.asarray([*colors_of(len(classes[1])), UNUSED])[classes[0]][order]
            area = float(np.clip(3000 / max(len(order), 1), 1.2, 7))
            upper.scatter(*found["vectors"].values[:, [j, i]][order].T, c=colors, s=area, linewidths=0, alpha=0.7,
                          rasterized=True)  # fmt: skip
            upper.set(xlim=edges[j][[0, -1]], ylim=edges[i][[0, -1]])
        for i, row in enumerate(axes):
            for j, ax in enumerate(row):
                ax.tick_params(labelsize=SMALL, labelbottom=i == size - 1, labelleft=j == 0 and i > 0)
                ax.locator_params(nbins=3)
                ax.set_xlabel(f"latent {dims[j]}" if i == size - 1 else "", fontsize=SMALL)
                ax.set_ylabel(f"latent {dims[i]}" if j == 0 else "", fontsize=SMALL)
        if classes and len(classes[1]) <= MOST_NAMES:
            from matplotlib.lines import Line2D

            marks = [
                Line2D([], [], marker="s", ls="", ms=4, color=color, label=name)
                for name, color in zip(classes[1], colors_of(len(classes[1])), strict=True)
            ]
            figure.legend(handles=marks, title=brief(classes[2], 18), loc="outside right upper", fontsize=SMALL,
                          title_fontsize=SMALL, handletextpad=0.1)  # fmt: skip
        is_cut = classes and found.sizes["point"] < found.attrs["n"]
        cut = "" if not is_cut else f", {found.sizes['point']:,} shown above the diagonal"
        figure.suptitle(f"pairs of latents, {found.attrs['n']:,} samples{cut}")
    return figure


def _diagonal(ax: Any, found: xr.Dataset, i: int, classes: Classes | None) -> None:
    edges = found["edges"].values[i]
    if classes is None or "class_counts" not in found:
        ax.stairs(found["counts"].values[i], edges, fill=True, color=COLORS[0])
    else:
        names = meanings(found["class_of_point"])
        drawn = [names[code] for code in np.unique(found["class_of_point"].values) if code >= 0]
        colors = dict(zip(drawn, colors_of(len(drawn)), strict=True))
        for name, counts in zip(found["class"].values, found["class_counts"].values[:, i], strict=True):
            ax.stairs(counts, edges, color=colors.get(str(name), UNUSED), lw=0.8)
    ax.set(xlim=(edges[0], edges[-1]), yticks=[])


def _density(ax: Any, x: np.ndarray, y: np.ndarray, density: np.ndarray, count: int) -> None:
    from matplotlib.colors import PowerNorm

    norm = PowerNorm(0.5, 0, float(density.max()))
    ax.pcolormesh(x, y, np.ma.masked_equal(density, 0), cmap=DENSITY, norm=norm, rasterized=True)
    soft = smoothed(density, count)
    if levels := levels_of(soft):
        middles = [(edges[1:] + edges[:-1]) / 2 for edges in (x, y)]
        ax.contour(*middles, soft, levels=levels, colors=COLORS[5], linewidths=0.8)
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))


@builder("unusual", "input", "distance", "point")
def unusual_sheet(found: xr.Dataset, maps: xr.Dataset) -> Any:
    """The most unusual samples of `unusual`, numbered, and where they lie: on the map of a scan, in the histogram.

    maps: the result of `out_of_distribution`.
    """
    count = found.sizes["point"]
    if not count:
        raise NoInputError("there is no sample with a distance to show.")
    images, is_map = pictures(found["input"]), maps["distance"].ndim == 2
    above = [f"{i + 1}: d = {float(d):.3g}" for i, d in enumerate(found["distance"].values)]
    below = [sample_words(found.isel(point=i)) for i in range(count)]
    side = (WIDTH - 0.7) / 8
    rows = tiles(images, robust_limits(images, LIMITS), above, below)
    top = height_of(rows, side) + 0.35
    with journal():
        figure = new_figure(WIDTH, top + (2.9 if is_map else 2.2))
        upper, lower = figure.subfigures(2, 1, height_ratios=[top, 2.9 if is_map else 2.2])
        draw_rows(upper, rows, side, bar=True)
        upper.suptitle(f"samples farthest from the others in latent space ({units_of(found['input'])})")
        axes = lower.subplots(1, 1 + is_map, squeeze=False)[0]
        if is_map:
            draw(axes[0], map_plot(maps["distance"].assign_attrs(long_name="Mahalanobis distance")))
            dims = [str(d) for d in maps["distance"].dims][::-1]
            for i, place in enumerate(zip(*(found[dim].values for dim in dims), strict=True)):
                axes[0].plot(*place, ls="", marker="o", ms=3, mfc="none", mec="white", mew=0.8)
                axes[0].annotate(f"{i + 1}", place, (4, 3), textcoords="offset points", fontsize=SMALL, color="white",
                                 bbox={"facecolor": "black", "alpha": 0.45, "pad": 0.6, "lw": 0})  # fmt: skip
        _distances(axes[-1], maps, found)
    return figure


def sample_words(one: xr.Dataset) -> str:
    """Class and place of a sample."""
    lines = []
    if "class" in one.coords:
        lines.append(brief(f"{one['class'].attrs['long_name']} {meanings(one['class'])[int(one['class'])]}", 17))
    return "\n".join([*lines, where_of(one, skipped={"class", "number", *map(str, one["input"].dims)})])


def _distances(ax: Any, maps: xr.Dataset, found: xr.Dataset) -> None:
    values = maps["distance"].values[np.isfinite(maps["distance"].values)]
    ax.hist(values, bins=int(np.clip(np.sqrt(values.size), 10, 80)), color=COLORS[0], density=True)
    ax.plot(found["distance"].values, np.zeros(found.sizes["point"]), ls="", marker="|", ms=9, color=DARK)
    ax.set(xlabel="Mahalanobis distance", ylabel="share of samples per unit", title=f"{values.size:,} samples")


@builder("statistics", "logvar_mean", "aggregate_std", "min", "max")
def statistics_sheet(found: xr.Dataset) -> Any:
    """Latent statistics: KL per dimension; aggregate posterior beside the prior; range of the means; log-variance."""
    place, active = found[n.LATENT].values, found["is_active"].values.astype(bool)
    with journal():
        figure = new_figure(WIDTH, 4.4)
        (kl, aggregate), (means, logvar) = figure.subplots(2, 2)
        kl.bar(place, found["kl"].values, color=np.where(active, COLORS[0], UNUSED).tolist())
        kl.set(title=f"{int(active.sum())} of {active.size} latents active", ylabel="KL (nats per sample)")
        aggregate.axhspan(-1, 1, color="#e8e8e8", lw=0)
        aggregate.set(title="aggregate posterior (grey: prior)", ylabel="latent")
        means.vlines(place, found["min"].values, found["max"].values, color="#b5b5b5", lw=1)
        means.set(title="posterior mean: mean ± std, range", ylabel="latent", xlabel="latent dimension")
        known = np.isfinite(found["logvar_mean"].values).any()
        if not known:
            logvar.text(0.5, 0.5, "no posterior", ha="center", va="center", transform=logvar.transAxes)
        logvar.set(title="posterior log-variance, mean ± std", ylabel="log-variance", xlabel="latent dimension")
        for ax, middle, spread in (
            (aggregate, "aggregate_mean", "aggregate_std"), (means, "mean", "std"),
            *([(logvar, "logvar_mean", "logvar_std")] if known else []),
        ):  # fmt: skip
            ax.errorbar(place, found[middle].values, found[spread].values, fmt="o", ms=2.5, lw=1, color=COLORS[0])
        for ax in (kl, aggregate, means, logvar):
            ax.set_xlim(-0.7, active.size - 0.3)
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.grid(alpha=0.25, lw=0.4)
            ax.set_axisbelow(True)
    return figure


@builder("latent_table", "summary", "statistic", "latent")
def table_view(found: xr.Dataset) -> Any:
    """The result of `latent_table` as a table."""
    columns = [str(c) for c in found["statistic"].values]
    cells = [[f"{value:.4g}" for value in row] for row in found["summary"].values]
    with journal():
        figure = new_figure(WIDTH * 0.9, 0.19 * len(cells) + 0.75)
        axes = figure.subplots()
        axes.set_axis_off()
        table = axes.table(cells, rowLabels=[str(int(d)) for d in found["latent"].values], colLabels=columns,
                           loc="center", edges="horizontal")  # fmt: skip
        table.auto_set_font_size(False)
        table.set_fontsize(8)
        axes.set_title(f"latents (posterior mean), {found.attrs['n']:,} samples")
    return figure
