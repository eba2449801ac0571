"""Sheets of samples in a plane: coloured by class and amount, with a path through them and what it decodes to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from vaearr.plots.colors import distinct_colors
from vaearr.plots.common import DIVERGING, SEQUENTIAL, brief, palette, robust_limits, text
from vaearr.plots.decoded import LIMITS, UNUSED, pictures, show_picture
from vaearr.plots.exploration import units_of
from vaearr.plots.paper import MOST_NAMES, SMALL, WIDTH, journal, new_figure, panels

MARK = "#111111"
NONE = "none"


def point_classes(found: xr.Dataset, coord: str = "class") -> tuple[np.ndarray, list[str], str] | None:
    """Class of each point `(k,)`, -1 for none, the names of the classes there are, and what they are of; or None."""
    if coord not in found.coords:
        return None
    codes, attrs = found[coord].values, found[coord].attrs
    names = dict(zip(attrs["flag_values"], attrs["flag_meanings"], strict=True))
    there = [int(code) for code in np.unique(codes) if code >= 0]
    place = np.full(max([0, *map(int, attrs["flag_values"])]) + 2, -1)
    place[there] = range(len(there))
    return place[codes], legend_names([names[code] for code in there]), str(attrs["long_name"])


def legend_names(names: list[str]) -> list[str]:
    """Names of classes cut to fit a legend, whole where two would become one."""
    cut = [brief(name, 18) for name in names]
    return cut if len(set(cut)) == len(cut) else [text(name) for name in names]


def colors_of(count: int) -> list[str]:
    """A colour for each of so many classes, told apart by all eyes; of more than 40 a run through the spectrum."""
    return distinct_colors(count) if count <= 40 else palette(count)


def class_colors_of_points(classes: tuple[np.ndarray, list[str], str]) -> np.ndarray:
    """A colour for each point `(k,)` by `point_classes`, grey for none."""
    return np.asarray([*colors_of(len(classes[1])), UNUSED])[classes[0]]


def scatter_size(count: int) -> float:
    """Area of a marker, in square points, so that many do not become one blot."""
    return float(np.clip(6000 / max(count, 1), 2.5, 14))


def draw_classes(ax: Any, position: np.ndarray, codes: np.ndarray, names: list[str], by: str, *, legend: bool) -> None:
    """Points `(k, 2)` in the colours of their classes, in mixed order so that no class lies on top."""
    order = np.random.default_rng(0).permutation(len(position))
    colors = class_colors_of_points((codes, names, by))[order]
    ax.scatter(*position[order].T, c=colors, s=scatter_size(len(position)), alpha=0.7, linewidths=0, rasterized=True)
    if not legend:
        return
    from matplotlib.lines import Line2D

    shown = [(name, color) for name, color in zip(names, colors_of(len(names)), strict=True)]
    if (codes < 0).any():
        shown.append((NONE, UNUSED))
    if len(shown) > MOST_NAMES:
        ax.set_title(text(f"{ax.get_title()} ({len(names)} of {by})"))
        return
    marks = [Line2D([], [], marker="o", ls="", ms=4, color=color, label=name) for name, color in shown]
    columns = 1 if len(shown) <= 12 else 2
    ax.legend(
        handles=marks, title=brief(by, 18), loc="upper left", bbox_to_anchor=(1.0, 1.0), ncols=columns, fontsize=SMALL,
        title_fontsize=SMALL, handletextpad=0.1, columnspacing=0.6, borderaxespad=0.3,
    )  # fmt: skip


def frame(ax: Any, axes: list[str]) -> None:
    """Names of the two axes of a plane, at one scale for both."""
    ax.set(xlabel=text(axes[0]), ylabel=text(axes[1]))
    ax.set_aspect("equal", adjustable="datalim")
    ax.locator_params(nbins=6)


def embedding_sheet(found: xr.Dataset, *, columns: int = 2) -> Any:
    """The positions of `embedding`, coloured by class, and once more by each of its amounts."""
    position = found["position"].values
    if position.shape[1] == 1:
        position = np.column_stack([position, np.zeros(len(position))])
    axes = [str(a) for a in found["axis"].values] + [""]
    classes = point_classes(found)
    amounts = list(zip(found["color"].values, found["amount"].values, strict=True)) if "amount" in found else []
    count = len(amounts) + (classes is not None or not amounts)
    columns = min(columns, count)
    with journal():
        figure = new_figure(4.6 if columns == 1 else WIDTH, 0.35 + math.ceil(count / columns) * 3.0)
        drawn = panels(figure, count, columns)
        rest = drawn if len(drawn) == len(amounts) else drawn[1:]
        if classes is not None:
            draw_classes(drawn[0], position, *classes, legend=True)
            drawn[0].set_title(brief(classes[2], 40))
        elif not amounts:
            drawn[0].scatter(*position.T, s=scatter_size(len(position)), alpha=0.6, linewidths=0, rasterized=True)
        for ax, (name, values) in zip(rest, amounts, strict=True):
            low, high = robust_limits(values)
            known = np.isfinite(values)
            ax.scatter(*position[~known].T, color=UNUSED, s=scatter_size(len(position)), alpha=0.5, linewidths=0)
            mesh = ax.scatter(
                *position[known].T, c=values[known], cmap=SEQUENTIAL, vmin=low, vmax=high, linewidths=0, alpha=0.8,
                s=scatter_size(len(position)), rasterized=True,
            )  # fmt: skip
            figure.colorbar(mesh, ax=ax, fraction=0.05, pad=0.02, extend="both")
            ax.set_title(brief(name, 40))
        for ax in drawn:
            frame(ax, axes)
        figure.suptitle(text(embedding_words(found)))
    return figure


def embedding_words(found: xr.Dataset) -> str:
    """What an embedding is of."""
    names = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
    attrs = found.attrs
    few = "" if attrs["n_points"] == attrs["n_known"] else f" of {attrs['n_known']:,}"
    about = f"{names.get(attrs['method'], attrs['method'])} of the latents, {attrs['n_points']:,}{few} samples"
    if "explained_variance_ratio" in attrs:
        about += f", {sum(attrs['explained_variance_ratio']):.0%} of their variance"
    for key, word in (("perplexity", "perplexity"), ("neighbours", "neighbours")):
        if key in attrs:
            about += f", {word} {attrs[key]:.3g}"
    return about


def path_sheet(found: xr.Dataset) -> Any:
    """The samples in a plane with the numbered points of `path`, beside what the points decode to.

    For t-SNE and UMAP a number stands at the sample that is decoded, a line leads to the point that was asked for.
    """
    images = pictures(found["decoded"])
    limits = robust_limits(images, LIMITS)
    steps, (tall, wide) = len(images), images.shape[1:3]
    columns = min(steps, max(1, round(math.sqrt(steps * tall / wide))))
    lines = math.ceil(steps / columns)
    side = min(2.5 / columns, 1.1)
    height = max(3.3, lines * (side * tall / wide + 0.2)) + 0.35
    with journal():
        figure = new_figure(WIDTH, height)
        left, right = figure.subfigures(1, 2, width_ratios=[1.15, 1])
        ax = left.subplots()
        classes = point_classes(found)
        if classes is None:
            count = found.sizes["point"]
            ax.scatter(*found["scatter"].values.T, color=UNUSED, s=scatter_size(count), linewidths=0, rasterized=True)
        else:
            draw_classes(ax, found["scatter"].values, *classes, legend=len(classes[1]) <= 12)
        _mark(ax, found["position"].values, found["requested"].values)
        frame(ax, [str(a) for a in found["axis"].values])
        for i, (axes, image) in enumerate(zip(panels(right, steps, columns), images, strict=True)):
            mesh = show_picture(axes, image, limits)
            axes.set_title(f"{i + 1}", fontsize=SMALL, pad=2)
        if images.ndim == 3:
            right.colorbar(mesh, ax=right.axes, fraction=0.04, pad=0.02).ax.tick_params(labelsize=SMALL)
        left.suptitle(text(path_words(found)))
        right.suptitle(f"decoded ({units_of(found['decoded'])})")
    return figure


def path_words(found: xr.Dataset) -> str:
    """In what plane a path lies."""
    space = found.attrs["space"]
    if space == "plane":
        return f"others: {brief(found.attrs['base'], 30)}"
    return {"pca": "principal components, inverted"}.get(space, "nearest encoded sample")


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


def vector_sheet(found: xr.Dataset, *, most: int = 16) -> Any:
    """Decoded pictures of `sample_prior` or `interpolate`, each with its latents beside it; numbers where they fit.

    Of spatial latents the mean of each channel over its positions. At most `most`, of a way between samples spread
    evenly.
    """
    lead = str(found["decoded"].dims[0])
    every = found.sizes[lead]
    picked = np.arange(min(every, most))
    if lead == "step":
        picked = np.unique(np.linspace(0, every - 1, min(most, every)).round().astype(int))
    images = pictures(found["decoded"])[picked]
    vectors = found["latents"].values[picked]
    vectors = vectors.reshape(*vectors.shape[:2], -1).mean(-1)
    rows, size = vectors.shape
    limits, reach = robust_limits(images, LIMITS), float(abs(vectors).max()) or 1.0
    digits = None if size > 24 or (reach < 1 and size > 12) else 1 if reach >= 1 else 2
    side = 0.42
    wide = min(side * images.shape[2] / images.shape[1], 1.2)
    names = [f"t = {t:.3g}" for t in found["t"].values[picked]] if "t" in found.coords else [str(i) for i in picked]
    with journal():
        figure = new_figure(WIDTH, rows * side + 0.9)
        axes = figure.subplots(rows, 2, width_ratios=[wide, WIDTH - wide - 0.6], squeeze=False)
        for i, (left, right) in enumerate(axes):
            show_picture(left, images[i], limits)
            left.set_ylabel(names[i], rotation=0, ha="right", va="center", fontsize=SMALL)
            mesh = draw_heat(right, vectors[i : i + 1], (-reach, reach), digits=digits)
            right.set(yticks=[], xticks=[])
        axes[-1, 1].set_xlabel("latent dimension")
        axes[-1, 1].xaxis.set_major_locator(integer_ticks(size))
        figure.colorbar(mesh, ax=axes[:, 1].tolist(), fraction=0.02, pad=0.01).ax.tick_params(labelsize=SMALL)
        part = f", {rows} of {every}" if rows < every else ""
        about = found.attrs.get("method") or f"draws from {found.attrs.get('source')}"
        figure.suptitle(text(f"{about}{part}: decoded, and latents"))
    return figure


def draw_heat(ax: Any, values: np.ndarray, limits: tuple[float, float], *, digits: int | None = None) -> Any:
    """A signed heat map `(rows, columns)`, centred at 0 where limits are; numbers in the cells with so many digits."""
    low, high = limits
    mesh = ax.imshow(values, cmap=DIVERGING, vmin=low, vmax=high, aspect="auto")
    if digits is not None:
        for (row, column), value in np.ndenumerate(values):
            words = f"{round(float(value), digits) + 0.0:.{digits}f}".replace("-", "−")
            dark = abs(value - (low + high) / 2) > 0.35 * (high - low)
            ax.text(
                column, row, words, fontsize=SMALL, ha="center", va="center",
                color="white" if dark else "black",
            )  # fmt: skip
    return mesh


def integer_ticks(size: int, most: int = 24) -> Any:
    """Ticks at whole numbers from 0, every one where `most` fit."""
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    return MultipleLocator(1) if size <= most else MaxNLocator(integer=True, nbins=2 * most // 3)
