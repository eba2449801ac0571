"""Sheets of numbers about latents: health and disentanglement, the most unusual samples, the summary table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from vaearr.errors import NoInputError
from vaearr.plots.common import COLORS, DIVERGING, SEQUENTIAL, brief, number, robust_limits, text, value_text
from vaearr.plots.decoded import LIMITS, UNUSED, pictures, show_picture
from vaearr.plots.exploration import units_of
from vaearr.plots.exploration_scatter import MARK, integer_ticks
from vaearr.plots.paper import SMALL, WIDTH, draw_map, height_ratio, journal, new_figure, panels

DARK = "#333333"


def latent_health_sheet(found: xr.Dataset) -> Any:
    """The result of `health`: KL, correlation, the aggregate posterior beside the prior and how far from it."""
    dims, active = found["latent"].values, found["is_active"].values.astype(bool)
    with journal():
        figure = new_figure(WIDTH, 5.6)
        (kl, correlation), (aggregate, distance) = figure.subplots(2, 2)
        _kl_bars(kl, found, active)
        mesh = correlation.imshow(found["correlation"].values, cmap=DIVERGING, vmin=-1, vmax=1)
        correlation.set(title=text(correlation_words(found)), xlabel="latent dimension", ylabel="latent dimension")
        figure.colorbar(mesh, ax=correlation, fraction=0.05, pad=0.02)
        _aggregate(figure, aggregate, found)
        for name, color, shift, words in (
            ("wasserstein", COLORS[0], -0.2, "Wasserstein (σ of the prior)"),
            ("kolmogorov", COLORS[1], 0.2, "Kolmogorov-Smirnov"),
        ):
            distance.bar(dims + shift, found[name].values, width=0.4, color=color, label=words)
        distance.legend(fontsize=SMALL, loc="upper right")
        distance.set(title="distance from the prior", xlabel="latent dimension", xlim=(-0.7, len(dims) - 0.3))
        distance.set_ylim(0, 1.35 * max(float(found["wasserstein"].max()), float(found["kolmogorov"].max()), 0.05))
        for ax in (kl, distance):
            ax.grid(alpha=0.25, lw=0.4, axis="y")
            ax.set_axisbelow(True)
        for ax in (kl, correlation, distance):
            ax.xaxis.set_major_locator(integer_ticks(len(dims), 12))
        correlation.yaxis.set_major_locator(integer_ticks(len(dims), 12))
        figure.suptitle("\n".join(map(text, health_words(found))))
    return figure


def health_words(found: xr.Dataset) -> list[str]:
    """The numbers about all dimensions together, in lines."""
    attrs = found.attrs
    lines = [f"{attrs['n']:,} samples"]
    if attrs["aggregate_kl_total"] is not None:
        lines[0] += f", KL of the aggregate posterior from the prior {attrs['aggregate_kl_total']:.3g} nats"
    low, gaussian = attrs["total_correlation_bound"], attrs["total_correlation"]
    if gaussian is not None:
        bound = "" if low is None else f"; by ranks at least {low:.2g} nats"
        lines.append(f"total correlation if Gaussian {gaussian:.2g} nats{bound}")
    return lines


def correlation_words(found: xr.Dataset) -> str:
    """The largest correlation and of which dimensions."""
    if not found.attrs["largest_pair"]:
        return "correlation of the means"
    i, j = (int(found["latent"][k]) for k in found.attrs["largest_pair"])
    return f"largest correlation {number(found.attrs['largest_correlation'])} ({i}, {j})"


def _kl_bars(ax: Any, found: xr.Dataset, active: np.ndarray) -> None:
    values = found["kl"].values
    ax.set(title=f"{int(active.sum())} of {active.size} latents active", xlabel="latent dimension")
    ax.set_xlim(-0.7, active.size - 0.3)
    if not np.isfinite(values).any():
        ax.bar(found["latent"].values, found["aggregate_std"].values ** 2, color=np.where(active, COLORS[0], UNUSED))
        ax.set_ylabel("variance of the latents")
        return
    ax.bar(found["latent"].values, values, color=np.where(active, COLORS[0], UNUSED).tolist())
    total = found.attrs["kl_total"]
    ax.set(ylabel="KL (nats per sample)", title=f"{ax.get_title()}, KL {total:.4g} nats")


def density_top(found: xr.Dataset) -> float:
    """Where colours of the aggregate posterior end: one narrow dimension does not darken the others."""
    return max(float(np.quantile(found["density"].values.max(1), 0.75)), float(found["prior"].max()))


def _aggregate(figure: Any, ax: Any, found: xr.Dataset) -> None:
    """Histograms side by side as columns of colour, that of the prior to their left."""
    edges, density, prior = found["edges"].values, found["density"].values, found["prior"].values
    columns = np.column_stack([prior, np.full_like(prior, np.nan), *density])
    mesh = ax.imshow(
        columns, cmap=SEQUENTIAL, vmin=0, vmax=density_top(found), origin="lower", aspect="auto",
        extent=(-2.5, len(density) - 0.5, edges[0], edges[-1]),
    )  # fmt: skip
    first = 0 if len(density) <= 12 else 1  # room for the word beside them
    ticks = [t for t in integer_ticks(len(density), 12).tick_values(0, len(density) - 1) if first <= t < len(density)]
    ax.set_xticks([-2, *ticks], ["prior", *(f"{int(t)}" for t in ticks)])
    ax.set(title="aggregate posterior (share per unit)", xlabel="latent dimension", ylabel="latent")
    figure.colorbar(mesh, ax=ax, fraction=0.05, pad=0.02, extend="max")


def unusual_sheet(found: xr.Dataset, maps: xr.Dataset) -> Any:
    """The most unusual samples of `unusual`, numbered, and where they lie: on the map of a scan, in the histogram.

    maps: the result of `out_of_distribution`. The line in the histogram, of vector latents, is that of a
    Gaussian.
    """
    count = found.sizes["point"]
    if not count:
        raise NoInputError("there is no sample with a distance to show.")
    images = pictures(found["input"])
    limits = robust_limits(images, LIMITS)
    is_map = maps["distance"].ndim == 2
    columns = min(count, 8)
    lines = math.ceil(count / columns)
    side = (WIDTH - 0.7) / 8
    words = [sample_words(found.isel(point=i)) for i in range(count)]
    under_each = 0.2 + 0.13 * max(word.count("\n") + 1 for word in words)
    top = 0.45 + lines * (side * images.shape[1] / images.shape[2] + under_each)
    below = min(3.0, 0.5 + 3.0 * height_ratio(maps["distance"])) if is_map else 2.2
    with journal():
        figure = new_figure(WIDTH, top + below)
        above, under = figure.subfigures(2, 1, height_ratios=[top, below])
        for i, (ax, image) in enumerate(zip(panels(above, count, columns), images, strict=True)):
            mesh = show_picture(ax, image, limits)
            ax.set_title(f"{i + 1}: d = {float(found['distance'][i]):.3g}", fontsize=SMALL, pad=2)
            ax.set_xlabel(words[i], fontsize=SMALL, labelpad=2)
        if images.ndim == 3:
            above.colorbar(mesh, ax=above.axes, fraction=0.02, pad=0.01).ax.tick_params(labelsize=SMALL)
        above.suptitle(f"samples farthest from the others in latent space ({units_of(found['input'])})")
        axes = under.subplots(1, 1 + is_map, squeeze=False)[0]
        if is_map:
            draw_map(axes[0], maps["distance"].assign_attrs(long_name="Mahalanobis distance"))
            rows, across = (str(d) for d in maps["distance"].dims)
            _numbers_on_map(axes[0], np.column_stack([found[across].values, found[rows].values]))
        _distances(axes[-1], maps, found)
    return figure


def _numbers_on_map(ax: Any, places: np.ndarray) -> None:
    """A ring at each place `(k, 2)`, with its number where it would not cover one before it."""
    span = abs(np.diff([ax.get_xlim(), ax.get_ylim()])).max()
    numbered: list[np.ndarray] = []
    for i, place in enumerate(places):
        ax.plot(*place, ls="", marker="o", ms=3, mfc="none", mec="white", mew=0.8)
        if all(np.linalg.norm(place - other) > 0.09 * span for other in numbered):
            numbered.append(place)
            ax.annotate(
                f"{i + 1}", place, (6, -6), textcoords="offset points", fontsize=SMALL, ha="center", va="center",
                bbox={"boxstyle": "circle,pad=0.12", "facecolor": "white", "edgecolor": MARK, "linewidth": 0.5},
            )  # fmt: skip


def sample_words(one: xr.Dataset) -> str:
    """Class and place of a sample."""
    lines = []
    if "class" in one.coords:
        attrs = one["class"].attrs
        names = dict(zip(attrs["flag_values"], attrs["flag_meanings"], strict=True))
        lines.append(brief(f"{attrs['long_name']} {names[int(one['class'])]}", 17))
    skipped = {"class", "number", *map(str, one["input"].dims)}
    places = [name for name in map(str, one.coords) if name not in skipped and one[name].ndim == 0]
    lines += [brief(f"{name} = {value_text(one[name].item(), one[name].attrs)}", 17) for name in places[::-1]]
    return "\n".join(lines)


def _distances(ax: Any, maps: xr.Dataset, found: xr.Dataset) -> None:
    from scipy.stats import chi

    values = maps["distance"].values[np.isfinite(maps["distance"].values)]
    bins = int(np.clip(np.sqrt(values.size), 10, 80))
    ax.hist(values, bins=bins, color=COLORS[0], density=True)
    if "p_value" in maps:
        degrees = maps.attrs["degrees"]
        low, high = chi.ppf((0.001, 0.999), degrees)
        grid = np.linspace(min(values.min(), low), max(values.max(), high), 500)
        ax.plot(grid, chi.pdf(grid, degrees), color=COLORS[5], lw=1.0, label="if Gaussian")
        ax.legend(fontsize=SMALL)
    ax.plot(found["distance"].values, np.zeros(found.sizes["point"]), ls="", marker="|", ms=9, color=DARK)
    ax.set(xlabel="Mahalanobis distance", ylabel="share of samples per unit", title=f"{values.size:,} samples")


def table_sheet(found: xr.Dataset) -> Any:
    """The result of `latent_table` as a table on paper."""
    columns = [str(c) for c in found["statistic"].values]
    numbers = zip(found["latent"].values, found["summary"].values, strict=True)
    rows = [[str(int(d)), *map(table_text, row)] for d, row in numbers]
    with journal():
        figure = new_figure(WIDTH * 0.9, 0.165 * len(rows) + 0.75)
        ax = figure.subplots()
        ax.set_axis_off()
        ax.set(xlim=(0, 9), ylim=(len(rows) + 0.6, -1.0))
        for row, cells in enumerate([["latent", *columns], *rows]):
            for column, cell in enumerate(cells):
                ax.text(column + 0.7, row - 0.5, text(cell), ha="right", va="center", fontsize=8)
        for y in (-0.95, 0.05, len(rows) + 0.1):
            ax.axhline(y, color="black", lw=0.6)
        ax.set_title(f"latents (posterior mean), {found.attrs['n']:,} samples")
    return figure


def table_text(value: float) -> str:
    """A number of a table: whole ones as such, others with four digits."""
    if not np.isfinite(value):
        return "–"
    shown = f"{int(value):,}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4g}"
    return shown.replace("-", "−")
