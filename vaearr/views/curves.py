"""Curves and bars: training, health of latents, explained variance, histograms, profiles, sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError, SchemaError
from vaearr.views.common import (
    COLORS,
    UNUSED,
    Options,
    as_map,
    holoviews,
    in_columns,
    label,
    plot,
    title,
)
from vaearr.views.kinds import builder
from vaearr.views.maps import map_plot

NATS = "nats per sample"
BAR_COLOR = "#6f7a85"
MAX_TICKS = 12


@builder("history", n.EPOCH, "loss")
def loss_curves(history: xr.Dataset, **options: Any) -> Any:
    """Plot the loss and each of its terms over epochs, for training and validation.

    Curves without any finite value are omitted. `**options` are those of `hvplot.line`. Raises
    NoInputError if the history holds no losses.
    """
    headings = {"loss": "loss"}
    for name, variable in history.data_vars.items():
        weight = variable.attrs.get("weight")
        if weight and not str(name).startswith("val_"):
            headings[str(name)] = f"{str(name).replace('_', ' ')} (weight {weight:.4g})"
    panels: list[Any] = []
    for term, heading in headings.items():
        columns = history[[name for name in (term, f"val_{term}") if name in history]]
        names = {term: "training", f"val_{term}": "validation"}
        table = columns.to_dataframe().rename(columns=names).dropna(axis=1, how="all")
        if table.empty:
            continue
        style: Options = {
            "title": heading,
            "xlabel": "epoch",
            "ylabel": history[term].attrs.get("units", NATS),
            "frame_width": 280,
            "frame_height": 220,
            "legend": False if panels else "top_right",  # the others have the same colours
        }
        kind = "line" if len(table) > 1 else "scatter"
        panels.append(plot(table, kind, **style | options))
    if not panels:
        raise NoInputError("the history holds no losses; has the run been trained?")
    return in_columns(panels, 2 if len(panels) == 4 else 3)


@builder("probe", "score", "low", "high", "features", "probe")
def probe_plot(scores: xr.Dataset) -> Any:
    """Plot the scores of `va.probe` with their intervals, a panel for each target.

    The dashed line is the score of a guess: 0 for numbers, 1 / number of classes for classes.
    """
    class_names = list(map(str, scores["class"].values)) if "class" in scores else []
    panels = []
    for target in map(str, scores["target"].values):
        n_classes = sum(name.startswith(f"{target}: ") for name in class_names)
        table = scores[["score", "low", "high"]].sel(target=target).to_dataframe()
        table = table.dropna().reset_index()
        table["name"] = table["features"] + ", " + table["probe"]
        table["below"] = table["score"] - table["low"]
        table["above"] = table["high"] - table["score"]
        style: Options = {
            "x": "name",
            "y": "score",
            "xlabel": "",
            "ylabel": "balanced accuracy" if n_classes else "R²",
            "title": title(target),
            "rot": 45,
            "frame_width": 220,
            "frame_height": 220,
        }
        points = plot(table, "scatter", **style)
        intervals = plot(table, "errorbars", yerr1="below", yerr2="above", **style)
        panels.append(points * intervals * mark_line(1 / n_classes if n_classes else 0.0))
    return in_columns(panels, 3)


@builder("run_health", n.LATENT, "kl", "is_active")
def health_view(health: xr.Dataset, **options: Any) -> Any:
    """Plot the KL divergence of each latent, active ones blue and unused ones grey.

    Without a posterior the explained share of the variance is shown for a linear model, else the
    variance of each latent. `**options` are those of `hvplot.bar`.
    """
    if "explained_variance_ratio" in health and not health["kl"].any():
        return variance_curve(health["explained_variance_ratio"], **options)
    heights, name = health["kl"], f"KL ({NATS})"
    if "aggregate_std" in health and not np.isfinite(heights).any():
        heights, name = health["aggregate_std"] ** 2, "variance of the latents"
    active = health["is_active"].astype(bool)
    columns = {"active": heights.where(active, 0.0), "unused": heights.where(~active, 0.0)}
    heading = f"{int(active.sum())} of {active.size} latents active"
    if health.attrs.get("kl_total") is not None:
        heading += f", KL {health.attrs['kl_total']:.4g} nats"
    style: Options = {
        "title": heading,
        "xlabel": "latent dimension",
        "ylabel": name,
        "color": [COLORS[0], UNUSED],
        "frame_width": 860,
        "frame_height": 200,
        "stacked": True,
    }
    return plot(pd.DataFrame(columns), "bar", **style | options)


@builder("statistics", "logvar_mean", "aggregate_std", "min", "max")
def statistics_view(statistics: xr.Dataset) -> Any:
    """Plot KL, aggregate posterior and prior, posterior means and log-variance of each latent."""
    aggregate = _means(statistics, "aggregate_", "aggregate posterior (dashed: prior)")
    panels = [
        health_view(statistics, **PANEL),
        aggregate * mark_line(-1.0) * mark_line(1.0),
        _means(statistics, "", "posterior mean: mean ± std, range (grey)"),
    ]
    if np.isfinite(statistics["logvar_mean"]).any():
        panels.append(_means(statistics, "logvar_", "posterior log-variance, mean ± std"))
    return in_columns(panels, 2)


PANEL: Options = {"frame_width": 350, "frame_height": 240}


def _means(statistics: xr.Dataset, prefix: str, heading: str) -> Any:
    """The mean of each latent with its standard deviation, minimum and maximum in grey."""
    names = [name for name in ("mean", "std", "min", "max") if f"{prefix}{name}" in statistics]
    table = pd.DataFrame({name: statistics[f"{prefix}{name}"] for name in names})
    style = PANEL | {
        "title": heading,
        "xlabel": "latent dimension",
        "ylabel": "latent",
        "xticks": _ticks(table.index.values),
    }
    panel = plot(table, "scatter", y="mean", **style)
    panel *= plot(table, "errorbars", y="mean", yerr1="std", **style)
    for name in names[2:]:
        panel *= plot(table, "scatter", y=name, color=UNUSED, **style)
    return panel


def _ticks(numbers: np.ndarray) -> list[int]:
    """Whole numbers on an axis of latents or components, at most `MAX_TICKS`."""
    step = 1 + len(numbers) // MAX_TICKS
    return [int(number) for number in numbers[::step]]


def mark_line(position: float, color: str = UNUSED, *, vertical: bool = False) -> Any:
    """A dashed line across a frame."""
    hv = holoviews()
    line = hv.VLine(position) if vertical else hv.HLine(position)
    return line.opts(color=color, line_dash="dashed", line_width=1.6)


@builder("runs", "run", "explained_variance", "n_active")
def runs_view(comparison: xr.Dataset) -> Any:
    """Plot the numbers of `va.compare`: a point for each run, targets side by side."""
    panels = []
    for name, values in comparison.data_vars.items():
        style: Options = {
            "x": str(values.dims[-1]),
            "y": str(name),
            "by": "run",
            "title": title(values.attrs.get("long_name", str(name))),
            "xlabel": "",
            "ylabel": "",
            "rot": 45,
            "frame_width": 120 + 30 * values.shape[-1],
        }
        if values.ndim == 1:
            style["legend"] = False
        table = values.to_dataframe().dropna().reset_index()
        panels.append(plot(table, "scatter", **style))
    return in_columns(panels, 2)


@builder("variance", "array", "explained_variance_ratio")
def variance_curve(ratio: xr.DataArray, **options: Any) -> Any:
    """Plot the share of the variance that each component explains, and the cumulative share.

    `**options` are those of hvplot. Raises SchemaError for dims other than `(component,)`.
    """
    if ratio.ndim != 1 or not ratio.size:
        raise SchemaError(
            f"{ratio.name!r} has sizes {dict(ratio.sizes)}; expected a value for each component."
        )
    total = np.cumsum(ratio.values)
    numbers = np.arange(1, ratio.size + 1)
    table = pd.DataFrame({"share": ratio.values, "total": total}, numbers)
    style: Options = {
        "title": title(f"{ratio.size} components explain {total[-1]:.1%}"),
        "xlabel": "component",
        "ylabel": "share of the variance",
        "xticks": _ticks(numbers),
        "ylim": (0, 1.03),
        "legend": "top_left",
    } | options
    bars = plot(table, "bar", y="share", label="of each", **style)
    style["color"] = COLORS[1]
    return bars * plot(table, "line", y="total", label="cumulative", **style)


@builder("contrast")
def contrast_view(
    da: xr.DataArray,
    histogram: xr.Dataset,
    profiles: Sequence[xr.DataArray] = (),
    *,
    roi: xr.DataArray | None = None,
    **options: Any,
) -> Any:
    """Show a grey map with profile lines, its histogram, and its profiles along x and along y.

    `histogram` and `profiles` are made by `vaearr.analysis.side_maps`; `**options` as of a map.
    """
    hv = holoviews()
    grey_map = map_plot(da, roi=roi, **{"cmap": "gray"} | options)
    curves: dict[str, list[Any]] = {}
    for i, profile in enumerate(profiles):
        along = str(profile.dims[0])
        across = n.Y if along == n.X else n.X
        position = profile.attrs[across][0]
        color = COLORS[i % len(COLORS)]
        grey_map = grey_map * mark_line(position, color, vertical=along == n.Y)
        style: Options = {
            "title": title(f"profiles of {label(da)}"),
            "xlabel": label(as_map(da)[along]),
            "ylabel": label(da),
            "label": f"{across} = {position:g}",
            "color": color,
        }
        table = pd.DataFrame({"value": profile.values}, profile[along].values)
        curves.setdefault(along, []).append(plot(table, **style))
    panels = [grey_map, histogram_plot(histogram), *map(hv.Overlay, curves.values())]
    return in_columns(panels, 2)


@builder("histogram", "bin", "count")
def histogram_plot(histogram: xr.Dataset, **options: Any) -> Any:
    """Plot the histogram of `side_maps.histogram`. `**options` are those of `hvplot.bar`."""
    attrs = histogram.attrs
    width = float(attrs["width"])
    style: Options = {
        "title": f"n = {attrs['n']:,} ({attrs['n_missing']:,} missing), bins of {width:g}",
        "xlabel": label(histogram["bin"], "value"),
        "ylabel": "scan points",
        "color": BAR_COLOR,
    }
    middles = histogram["bin"].values + width / 2
    table = pd.DataFrame({"scan points": histogram["count"].values}, middles)
    return plot(table, "bar", **style | options)


@builder("sweep", "elbo", "elbo_se")
def elbo_view(table: xr.Dataset) -> Any:
    """Plot the held-out ELBO of a sweep with its standard error over latent dimensions.

    A line for each region and beta; `table` has `region`, `beta`, `latent_dim`, `elbo` and
    `elbo_se`, one entry for each run.
    """
    rows = table.to_dataframe()
    rows["name"] = [f"{row.region}, beta {row.beta:g}" for row in rows.itertuples()]
    style = {
        "x": "latent_dim",
        "y": "elbo",
        "by": "name",
        "xlabel": "latent dimensions",
        "ylabel": f"held-out ELBO ({NATS})",
    }
    return plot(rows, "line", **style) * plot(rows, "errorbars", yerr1="elbo_se", **style)
