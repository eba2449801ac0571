"""Association tables on paper: heat maps over latents, rankings, calibration of p-values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.association import ranking
from vaearr.errors import NoInputError
from vaearr.plots.associations import (
    ALPHA,
    MOST_LATENTS,
    HeatTable,
    column_of,
    like,
    metric_heat,
    target_heat,
)
from vaearr.plots.common import COLORS, NAN_COLOR, text
from vaearr.plots.paper import SMALL, WIDTH, colormap, journal, new_figure, panels

PER_LINE = 64  # latents beside each other


def association_sheet(
    table: xr.DataArray,
    metric: str | None = None,
    *,
    p_adjusted: xr.DataArray | None = None,
    most: int | None = MOST_LATENTS,
) -> Any:
    """Heat map of latents and targets by one metric, signed ones centred at 0; dots mark adjusted p < 0.05.

    More than 64 latents go in several lines; of more than `most` the strongest are shown (None = all).
    """
    return _draw(target_heat(table, metric, p_adjusted=p_adjusted, most=most))


def metric_sheet(
    table: xr.DataArray,
    target: str | None = None,
    *,
    p_adjusted: xr.DataArray | None = None,
    most: int | None = MOST_LATENTS,
) -> Any:
    """Heat map of latents and metrics for one target, each row relative to its largest |value|; dots as above."""
    return _draw(metric_heat(table, target, p_adjusted=p_adjusted, most=most))


def _draw(heat: HeatTable) -> Any:
    rows, count = heat.shown.shape
    lines = math.ceil(count / PER_LINE)
    width = math.ceil(count / lines)
    with journal():
        figure = new_figure(WIDTH, 0.75 + lines * (0.19 * rows + 0.35))
        axes = figure.subplots(lines, 1, squeeze=False)[:, 0]
        for line, ax in enumerate(axes):
            here = slice(line * width, (line + 1) * width)
            mesh = _draw_line(ax, heat, here, width)
        axes[0].set_title(f"{heat.heading}\n({heat.note})" if heat.note else heat.heading)
        axes[-1].set_xlabel("latent")
        figure.colorbar(mesh, ax=list(axes), label=heat.clabel, pad=0.01, aspect=max(8, 20 * lines))
    return figure


def _draw_line(ax: Any, heat: HeatTable, here: slice, width: int) -> Any:
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(heat.shown[:, here]), cmap=colormap(heat.cmap), vmin=heat.limits[0], vmax=heat.limits[1],
        edgecolors="white" if width <= 24 else "none", linewidth=0.3, rasterized=True,
    )  # fmt: skip
    names = heat.latents[here]
    step = max(1, math.ceil(width * max(map(len, heat.latents)) / 72))
    ax.set_xticks(np.arange(0, len(names), step) + 0.5, labels=names[::step])
    ax.set_yticks(np.arange(len(heat.rows)) + 0.5, labels=heat.rows)
    ax.tick_params(length=0)
    ax.set(xlim=(0, width), facecolor=NAN_COLOR if len(names) == width else "white")
    ax.invert_yaxis()
    if len(names) < width:
        ax.spines["right"].set_visible(False)
    if heat.marked is not None:
        row, column = np.nonzero(heat.marked[:, here])
        ax.scatter(column + 0.5, row + 0.5, s=5, c="black", edgecolors="white", linewidths=0.35, zorder=3)
    return mesh


def ranking_sheet(
    table: xr.DataArray,
    target: str | None = None,
    metrics: Sequence[str] | None = None,
    top: int = 10,
    *,
    p_adjusted: xr.DataArray | None = None,
) -> Any:
    """The `top` latents of each metric for one target, as bars; those not significant pale, ties marked "=".

    Raises NoInputError for a metric or target that the table has not, or where no latent has a value.
    """
    name, column = column_of(table, target)
    p = None if p_adjusted is None else column_of(like(p_adjusted, table), target)[1]
    chosen = [str(metric) for metric in (table["metric"].values if metrics is None else metrics)]
    ranked = {metric: ranking(table, metric, target, top) for metric in chosen}
    longest = max((one.sizes["rank"] for one in ranked.values()), default=0)
    if not longest:
        raise NoInputError(f"no latent has a value for {name!r}; there is nothing to rank.")
    columns = min(4, len(chosen))
    with journal():
        figure = new_figure(
            max(WIDTH * columns / 4, 3.0), math.ceil(len(chosen) / columns) * (0.145 * longest + 0.55) + 0.5
        )
        for ax, (metric, one) in zip(panels(figure, len(chosen), columns), ranked.items(), strict=True):
            _draw_bars(ax, one, None if p is None else p.sel(metric=metric), longest)
            ax.set_title(metric.replace("_", " "), fontsize=9)
        count = int(np.atleast_1d(column["n"].values)[0]) if "n" in column.coords else None
        notes = [f"n = {count:,}"] if count is not None else []
        notes += [f"pale: adjusted p ≥ {ALPHA:g}"] if p is not None else []
        notes += ["=: tied"] if any(bool(one["is_tied"].any()) for one in ranked.values()) else []
        figure.suptitle(f"latents that go most strongly with {name}" + (f"\n({', '.join(notes)})" if notes else ""))
        figure.supylabel("latent", fontsize=9)
    return figure


def _draw_bars(ax: Any, one: xr.Dataset, p: xr.DataArray | None, longest: int) -> None:
    values = one["value"].values
    latents = one[n.LATENT].values
    places = np.arange(values.size)
    sure = np.ones(values.size, bool) if p is None else np.nan_to_num(p.sel({n.LATENT: latents}).values, nan=1) < ALPHA
    ax.barh(places, values, color=[COLORS[0] if yes else "#a9cbe2" for yes in sure], height=0.75)
    ax.set_yticks(places, labels=[text(item) for item in latents])
    ax.set_ylim(longest - 0.4, -0.6)
    ax.axvline(0, color="black", lw=0.5)
    low, high = min(0.0, values.min(initial=0)), max(0.0, values.max(initial=0))
    margin = 0.14 * (high - low or 1)
    ax.set_xlim(low - margin * (low < 0), high + margin * (high > 0 or low == 0))
    ax.tick_params(axis="y", length=0)
    ax.locator_params(axis="x", nbins=4)
    for place, value, tied in zip(places, values, one["is_tied"].values, strict=True):
        if tied:
            left = value < 0
            ax.annotate(
                "=", (value, place), (-2 if left else 2, 0), textcoords="offset points", va="center_baseline",
                ha="right" if left else "left", fontsize=SMALL,
            )  # fmt: skip


def calibration_sheet(p_values: Mapping[str, np.ndarray], *, confidence: float = 0.95) -> Any:
    """Quantiles of p-values under the null against those of the uniform distribution, one curve for each name.

    On the diagonal a test says what it promises; above it p-values are too large (cautious), below too small. Grey:
    the band that `confidence` of the points of a right test lie in (order statistics are Beta distributed), for the
    longest of the lists. Raises NoInputError where there is no p-value.
    """
    from scipy.stats import beta

    lists = {text(name): np.sort(np.ravel(values)) for name, values in p_values.items()}
    lists = {name: values[np.isfinite(values)] for name, values in lists.items()}
    size = max((values.size for values in lists.values()), default=0)
    if not size:
        raise NoInputError("there are no p-values to show.")
    with journal():
        figure = new_figure(3.4, 3.5)
        ax = figure.subplots()
        rank = np.arange(1, size + 1)
        tail = (1 - confidence) / 2
        low, high = (beta.ppf(q, rank, size + 1 - rank) for q in (tail, 1 - tail))
        ax.fill_between(rank / (size + 1), low, high, color="#d9d9d9", lw=0, label=f"{confidence:.0%} if uniform")
        ax.plot([0, 1], [0, 1], color="black", lw=0.6, ls="--")
        for color, (name, values) in zip(_cycle(len(lists)), lists.items(), strict=True):
            share = np.mean(values < ALPHA)
            quantiles = np.arange(1, values.size + 1) / (values.size + 1)
            ax.plot(quantiles, values, color=color, label=f"{name}: {share:.0%} below {ALPHA:g}")
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="expected p (uniform)", ylabel="observed p")
        figure.legend(loc="outside lower center", ncols=1 if max(map(len, lists)) > 12 else 2)
    return figure


def _cycle(count: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(count)]
