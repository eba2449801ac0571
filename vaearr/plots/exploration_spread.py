"""Sheets of how latents spread: pairs with densities, histograms and heat maps by class, principal components."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from vaearr.plots.common import COLORS, DIVERGING, SEQUENTIAL, brief, number, robust_limits, text
from vaearr.plots.decoded import UNUSED
from vaearr.plots.exploration_scatter import (
    class_colors_of_points,
    colors_of,
    integer_ticks,
    legend_names,
    point_classes,
    scatter_size,
)
from vaearr.plots.paper import MOST_NAMES, SMALL, WIDTH, journal, new_figure, panels

SHARES = (0.5, 0.9)  # of the samples, within the contours of a density
DENSITY = "cividis"


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
            r = float(found["correlation"].values[i, j])
            if classes:
                axes[j, i].set_title(f"r = {number(r)}", fontsize=SMALL, pad=2)
            _upper(axes[i, j], found["vectors"].values[:, [j, i]], (edges[j], edges[i]), classes, r)
        for i, row in enumerate(axes):
            for j, ax in enumerate(row):
                ax.tick_params(labelsize=SMALL, labelbottom=i == size - 1, labelleft=j == 0 and i > 0)
                ax.locator_params(nbins=3)
                ax.set_xlabel(f"latent {dims[j]}" if i == size - 1 else "", fontsize=SMALL)
                ax.set_ylabel(f"latent {dims[i]}" if j == 0 else "", fontsize=SMALL)
        if classes:
            _legend(figure, classes[1], classes[2])
        is_cut = classes and found.sizes["point"] < found.attrs["n"]
        cut = "" if not is_cut else f", {found.sizes['point']:,} shown above the diagonal"
        figure.suptitle(f"pairs of latents, {found.attrs['n']:,} samples{cut}")
    return figure


def _legend(figure: Any, names: list[str], by: str) -> None:
    from matplotlib.lines import Line2D

    if len(names) > MOST_NAMES:
        return
    marks = [
        Line2D([], [], marker="s", ls="", ms=4, color=c, label=x)
        for x, c in zip(names, colors_of(len(names)), strict=True)
    ]
    figure.legend(
        handles=marks, title=brief(by, 18), loc="outside right upper", fontsize=SMALL, title_fontsize=SMALL,
        handletextpad=0.1,
    )  # fmt: skip


def _diagonal(ax: Any, found: xr.Dataset, i: int, classes: tuple[np.ndarray, list[str], str] | None) -> None:
    edges = found["edges"].values[i]
    if classes is None or "class_counts" not in found:
        ax.stairs(found["counts"].values[i], edges, fill=True, color=COLORS[0])
    else:
        attrs = found["class_of_point"].attrs
        names = dict(zip(attrs["flag_values"], attrs["flag_meanings"], strict=True))
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


def _upper(
    ax: Any,
    vectors: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray],
    classes: tuple[np.ndarray, list[str], str] | None,
    r: float,
) -> None:
    if classes is None:
        ax.set_axis_off()
        ax.text(0.5, 0.5, number(r), ha="center", va="center", transform=ax.transAxes, fontsize=9)
        return
    order = np.random.default_rng(0).permutation(len(vectors))
    colors = class_colors_of_points(classes)[order]
    ax.scatter(*vectors[order].T, c=colors, s=scatter_size(len(vectors)) / 2, linewidths=0, alpha=0.7, rasterized=True)
    ax.set(xlim=(edges[0][0], edges[0][-1]), ylim=(edges[1][0], edges[1][-1]))


def histogram_sheet(found: xr.Dataset) -> Any:
    """The result of `histograms`: a panel for each dimension; by class, the share of each class's samples per bin."""
    dims, edges = found["latent"].values, found["edges"].values
    count = len(dims)
    columns = min(count, 4 if count <= 8 else 5 if count <= 20 else 8)
    by_class = "class" in found["counts"].dims
    with journal():
        figure = new_figure(
            max(WIDTH * columns / 5, 3.2) if columns < 5 else WIDTH, math.ceil(count / columns) * 1.2 + 0.8
        )
        for i, ax in enumerate(panels(figure, count, columns)):
            if by_class:
                counts = found["counts"].values[:, i]
                kept = [k for k, row in enumerate(found["counts"].values) if row.any()]
                for color, k in zip(colors_of(len(kept)), kept, strict=True):
                    ax.stairs(counts[k] / max(counts[k].sum(), 1), edges[i], color=color, lw=0.8)
            else:
                ax.stairs(found["counts"].values[i], edges[i], fill=True, color=COLORS[0])
            ax.set_title(f"latent {int(dims[i])}", fontsize=SMALL, pad=2)
            ax.tick_params(labelsize=SMALL)
            ax.set_ylim(bottom=0)
            ax.locator_params(axis="x", nbins=3 if columns < 8 else 2, steps=[1, 2, 5, 10])
            if by_class or columns == 8:
                ax.set_yticks([])
            else:
                ax.locator_params(axis="y", nbins=3)
        if by_class:
            names = legend_names([found["class"].values[k] for k in kept])
            _legend(figure, names, str(found.attrs["by"]))
        what = "share of each class" if by_class else "samples"
        figure.suptitle(f"latents (posterior mean), {what} per bin, {found.attrs['n']:,} samples")
    return figure


def activation_sheet(found: xr.Dataset) -> Any:
    """The result of `activations`: samples sorted by class, and the means of the classes, over the dimensions."""
    values = found["activation"].values
    dims = [int(d) for d in found["latent"].values]
    limits = robust_limits(values, symmetric=True)
    by_class = "class_mean" in found
    names = [brief(x, 14) for x in found["class"].values] if by_class else []
    with journal():
        height = float(np.clip(0.17 * max(len(names), 1) + 1.4, 3.6, 9))
        figure = new_figure(WIDTH if by_class else WIDTH * 0.6, height)
        axes = figure.subplots(1, 2 if by_class else 1, squeeze=False)[0]
        wide = np.repeat(values, 16, axis=1)  # rows may be averaged to fit the paper, columns may not
        mesh = axes[0].imshow(
            wide, cmap=DIVERGING, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="antialiased",
            interpolation_stage="data", extent=(-0.5, len(dims) - 0.5, len(values) - 0.5, -0.5),
        )  # fmt: skip
        cut = "" if len(values) == found.attrs["n"] else f"{len(values):,} of "
        axes[0].set_title(f"{cut}{found.attrs['n']:,} samples", fontsize=9)
        figure.colorbar(mesh, ax=axes[0], fraction=0.05, pad=0.02, extend="both", label="latent")
        if by_class:
            _groups(axes[0], found, names)
            means = found["class_mean"].values
            reach = float(abs(means).max()) or 1.0
            drawn = axes[1].imshow(means, cmap=DIVERGING, vmin=-reach, vmax=reach, aspect="auto")
            axes[1].set_yticks(range(len(names)), names, fontsize=SMALL)
            axes[1].set_title(f"means by {brief(found.attrs['by'], 24)}", fontsize=9)
            figure.colorbar(drawn, ax=axes[1], fraction=0.05, pad=0.02, label="mean latent")
        for ax in axes:
            ax.set_xlabel("latent dimension")
            _dim_ticks(ax, dims)
        if not by_class:
            axes[0].set_ylabel("sample")
    return figure


def _dim_ticks(ax: Any, dims: list[int]) -> None:
    """Numbers of the chosen dimensions under the columns of a heat map."""
    if dims == list(range(len(dims))):
        ax.xaxis.set_major_locator(integer_ticks(len(dims), 12))
    else:
        ax.set_xticks(range(len(dims)), [str(d) for d in dims])


def _groups(ax: Any, found: xr.Dataset, names: list[str]) -> None:
    """Lines between the classes of sorted samples, a name beside each."""
    codes = found["class_of_point"].values
    starts = np.flatnonzero(np.diff(codes, prepend=codes[0] - 1))
    ends = np.append(starts[1:], len(codes))
    for start in starts[1:]:
        ax.axhline(start - 0.5, color="black", lw=0.5)
    flags = found["class_of_point"].attrs
    words = dict(zip(flags["flag_values"], flags["flag_meanings"], strict=True))
    room = (ends - starts) > len(codes) / 40
    shown = [brief(words[int(codes[start])], 14) if wide else "" for start, wide in zip(starts, room, strict=True)]
    ax.set_yticks((starts + ends - 1) / 2, shown, fontsize=SMALL)
    ax.tick_params(axis="y", length=0)


def latent_pca_sheet(found: xr.Dataset) -> Any:
    """The result of `latent_pca`: loadings of the dimensions, and the variance that components explain.

    Of spatial latents the loading of a channel is the root of the sum of squares over its positions, without a sign.
    """
    loadings = found["loadings"].values
    spatial = loadings.ndim > 2
    if spatial:
        loadings = np.sqrt((loadings.reshape(*loadings.shape[:2], -1) ** 2).sum(-1))
    count = len(loadings)
    reach = float(abs(loadings).max()) or 1.0
    share, total = found["explained_variance_ratio"].values, found["explained_variance_cumulative"].values
    with journal():
        figure = new_figure(WIDTH, 3.0)
        left, right = figure.subplots(1, 2)
        mesh = left.imshow(
            loadings,
            cmap=SEQUENTIAL if spatial else DIVERGING,
            vmin=0 if spatial else -reach,
            vmax=reach,
            aspect="auto",
        )
        left.set(xlabel="latent dimension", ylabel="principal component", title="loadings")
        left.set_yticks(ticks := np.unique(np.linspace(0, count - 1, min(count, 10)).round().astype(int)), ticks + 1)
        _dim_ticks(left, list(range(loadings.shape[1])))
        figure.colorbar(mesh, ax=left, fraction=0.05, pad=0.02)
        right.bar(np.arange(1, count + 1), share, color=COLORS[0], label="of each")
        right.plot(np.arange(1, count + 1), total, color=COLORS[1], marker="o", ms=2.5, label="sum so far")
        right.axhline(0.9, color=UNUSED, lw=0.6, ls="--")
        enough = int(np.searchsorted(total, 0.9 - 1e-12)) + 1
        words = f"{enough} components hold 90 %" if enough <= count else f"{count} components hold {total[-1]:.0%}"
        right.set(xlabel="principal component", ylabel="share of the variance", ylim=(0, 1.03), title=text(words))
        right.xaxis.get_major_locator().set_params(integer=True)
        right.legend(loc="center right")
    return figure
