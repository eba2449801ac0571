"""Curves and bars: training, the health of latents, explained variance, histograms and profiles of
maps, sweeps.
"""

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
    as_map,
    holoviews,
    label,
    plot,
    title,
)
from vaearr.views.kinds import builder
from vaearr.views.maps import map_plot

# what a panel of the loss curves shows: heading, and variable -> legend
LOSS_PANELS: dict[str, dict[str, str]] = {
    "loss": {"loss": "training", "val_loss": "validation"},
    "reconstruction NLL": {
        "reconstruction_nll": "training",
        "val_reconstruction_nll": "validation",
    },
    "KL divergence": {"kl": "training", "val_kl": "validation"},
}
NATS = "nats per sample"
GREY, BAR_COLOR = "gray", "#6f7a85"


@builder("history", n.EPOCH, "loss")
def loss_curves(history: xr.Dataset, **options: Any) -> Any:
    """Loss, reconstruction NLL and KL over epochs, training and validation, in nats per sample.

    Curves without any finite value are left out. `**options` are those of `hvplot.line`.
    """
    panels = []
    for heading, variables in LOSS_PANELS.items():
        curves = {
            legend: history[name].to_series()
            for name, legend in variables.items()
            if name in history
        }
        table = pd.DataFrame(curves).dropna(axis=1, how="all")
        if table.empty:
            continue
        style: dict[str, Any] = {
            "title": heading,
            "xlabel": "epoch",
            "ylabel": NATS,
            "frame_width": 280,
            "frame_height": 220,
            "legend": "top_right",
        }
        kind = "line" if len(table) > 1 else "scatter"
        panels.append(plot(table, kind, **style | options))
    if not panels:
        raise NoInputError("the history holds no losses; has the run been trained?")
    return holoviews().Layout(panels).cols(3).opts(shared_axes=False)


@builder("probe", "score", "low", "high", "features", "probe")
def probe_plot(found: xr.Dataset) -> Any:
    """Scores of `va.probe` with their intervals, a panel per target.

    Grey: what a guess would have, 0 of numbers and 1 / classes of classes.
    """
    panels = []
    for target in map(str, found["target"].values):
        classes = [
            name
            for name in found.get("class", xr.DataArray([])).values
            if name.startswith(f"{target}: ")
        ]
        table = (
            found[["score", "low", "high"]].sel(target=target).to_dataframe().dropna().reset_index()
        )
        table["of"] = table["features"] + ", " + table["probe"]
        table["below"], table["above"] = (
            table["score"] - table["low"],
            table["high"] - table["score"],
        )
        own: dict[str, Any] = {
            "x": "of",
            "y": "score",
            "xlabel": "",
            "ylabel": "balanced accuracy" if classes else "R²",
        }
        own |= {"title": title(target), "rot": 45, "frame_width": 220, "frame_height": 220}
        points = plot(table, "scatter", **own)
        intervals = plot(table, "errorbars", yerr1="below", yerr2="above", **own)
        panels.append(points * intervals * mark_line(1 / len(classes) if classes else 0.0))
    return holoviews().Layout(panels).cols(3).opts(shared_axes=False)


@builder("run_health", n.LATENT, "kl", "is_active")
def health_view(found: xr.Dataset, **options: Any) -> Any:
    """KL divergence of each latent, active ones blue and unused ones grey.

    Of a linear model without a posterior the share of the variance that each explains, of other
    latents without one the variance of each. `**options` are those of `hvplot.bar`.
    """
    if "explained_variance_ratio" in found and not found["kl"].any():
        return variance_curve(found["explained_variance_ratio"], **options)
    is_known = "aggregate_std" not in found or np.isfinite(found["kl"]).any()
    heights = found["kl"] if is_known else found["aggregate_std"] ** 2
    active = found["is_active"].astype(bool)
    table = pd.DataFrame(
        {"active": heights.where(active, 0.0), "unused": heights.where(~active, 0.0)}
    )
    heading = f"{int(active.sum())} of {active.size} latents active"
    if found.attrs.get("kl_total") is not None:
        heading += f", KL {found.attrs['kl_total']:.4g} nats"
    own = {
        "title": heading,
        "xlabel": "latent dimension",
        "frame_width": 860,
        "frame_height": 200,
        "stacked": True,
    }
    own |= {
        "ylabel": f"KL ({NATS})" if is_known else "variance of the latents",
        "color": [COLORS[0], UNUSED],
    }
    return plot(table, "bar", **own | options)


@builder("statistics", "logvar_mean", "aggregate_std", "min", "max")
def statistics_view(found: xr.Dataset) -> Any:
    """KL of each latent, the aggregate posterior beside the prior, range of the means,
    log-variance.
    """
    size: dict[str, Any] = {"frame_width": 350, "frame_height": 240}
    aggregate = _means(found, "aggregate_", title="aggregate posterior (dashed: prior)", **size)
    panels = [health_view(found, **size), aggregate * mark_line(-1.0) * mark_line(1.0)]
    panels.append(_means(found, title="posterior mean: mean ± std, range (grey)", **size))
    if np.isfinite(found["logvar_mean"]).any():
        panels.append(_means(found, "logvar_", title="posterior log-variance, mean ± std", **size))
    return holoviews().Layout(panels).cols(2).opts(shared_axes=False)


def _means(found: xr.Dataset, before: str = "", **options: Any) -> Any:
    """The mean of each latent with its standard deviation, and its ends, where they are known, in
    grey.
    """
    columns = {
        name: found[f"{before}{name}"]
        for name in ("mean", "std", "min", "max")
        if f"{before}{name}" in found
    }
    table = pd.DataFrame(columns)
    own = {"xlabel": "latent dimension", "ylabel": "latent"} | options
    shown = plot(table, "scatter", y="mean", **own) * plot(
        table, "errorbars", y="mean", yerr1="std", **own
    )
    for end in {"min", "max"} & set(table):
        shown = shown * plot(table, "scatter", y=end, **own | {"color": UNUSED})
    return shown


def mark_line(place: float, color: str = UNUSED, *, upright: bool = False) -> Any:
    """A dashed line across a frame."""
    line = holoviews().VLine(place) if upright else holoviews().HLine(place)
    return line.opts(color=color, line_dash="dashed", line_width=1.6)


@builder("runs", "run", "explained_variance", "n_active")
def runs_view(found: xr.Dataset) -> Any:
    """Numbers of `va.compare`: a point for each run, those of targets side by side."""
    panels = []
    for name, values in found.data_vars.items():
        own: dict[str, Any] = {
            "x": str(values.dims[-1]),
            "y": str(name),
            "by": "run",
            "xlabel": "",
            "rot": 45,
        }
        own |= {"title": title(values.attrs.get("long_name", str(name))), "ylabel": ""}
        own |= {"legend": False} if values.ndim == 1 else {}
        own |= {"frame_width": 120 + 30 * values.shape[-1]}
        panels.append(plot(values.to_dataframe().dropna().reset_index(), "scatter", **own))
    return holoviews().Layout(panels).cols(2).opts(shared_axes=False)


@builder("variance", "array", "explained_variance_ratio")
def variance_curve(ratio: xr.DataArray, **options: Any) -> Any:
    """Share of the total variance that each component explains, `(component,)`, and the sum of the
    shares so far.

    `**options` are those of hvplot. Raises SchemaError for other dims.
    """
    if ratio.ndim != 1 or not ratio.size:
        raise SchemaError(
            f"{ratio.name!r} has sizes {dict(ratio.sizes)}; expected a value for each component."
        )
    table = pd.DataFrame(
        {"share": ratio.values, "sum": np.cumsum(ratio.values)}, np.arange(1, ratio.size + 1)
    )
    own = {
        "title": title(f"{ratio.size} components: {table['sum'].iloc[-1]:.1%}"),
        "xlabel": "component",
    }
    own |= {"ylabel": "share of the variance", "ylim": (0, 1.03)} | options
    bars = plot(table, "bar", y="share", label="of each", **own)
    return bars * plot(table, "line", y="sum", label="sum so far", **own | {"color": COLORS[1]})


@builder("contrast")
def contrast_view(
    da: xr.DataArray,
    histogram: xr.Dataset,
    profiles: Sequence[xr.DataArray] = (),
    *,
    roi: xr.DataArray | None = None,
    **options: Any,
) -> Any:
    """Grey map with the rows and columns of the profiles in colour, beside it the histogram, then
    the profiles along x, and along y.

    `histogram` and `profiles` are made by `vaearr.analysis.side_maps`; `**options` as of a map.
    """
    shown = map_plot(da, roi=roi, **{"cmap": GREY} | options)
    curves: dict[str, list[Any]] = {}
    for i, profile in enumerate(profiles):
        along = str(profile.dims[0])
        across = n.Y if along == n.X else n.X
        place, color = profile.attrs[across][0], COLORS[i % len(COLORS)]
        shown = shown * mark_line(place, color, upright=along == n.Y)
        own = {
            "title": title(f"profiles of {label(da)}"),
            "xlabel": label(as_map(da)[along]),
            "ylabel": label(da),
        }
        table = pd.DataFrame({"value": profile.values}, profile[along].values)
        curves.setdefault(along, []).append(
            plot(table, label=f"{across} = {place:g}", **own | {"color": color})
        )
    hv = holoviews()
    panels = [shown, histogram_plot(histogram), *(hv.Overlay(lines) for lines in curves.values())]
    return hv.Layout(panels).cols(2).opts(shared_axes=False)


@builder("histogram", "bin", "count")
def histogram_plot(histogram: xr.Dataset, **options: Any) -> Any:
    """How many scan points have which value, of `side_maps.histogram`. `**options` are those of
    `hvplot.bar`.
    """
    width = float(histogram.attrs["width"])
    heading = f"n = {histogram.attrs['n']:,} ({histogram.attrs['n_missing']:,} missing), bins of {width:g}"
    own = {
        "title": title(heading),
        "xlabel": label(histogram["bin"], "value"),
        "ylabel": "scan points",
    }
    table = pd.DataFrame(
        {"scan points": histogram["count"].values}, histogram["bin"].values + width / 2
    )
    return plot(table, "bar", **own | {"color": BAR_COLOR} | options)


@builder("sweep", "elbo", "elbo_se")
def elbo_view(table: xr.Dataset) -> Any:
    """Held-out ELBO of a sweep with its standard error over latent dimensions, a line for each
    region and beta.

    `table` has `region`, `beta`, `latent_dim`, `elbo` and `elbo_se`, one entry for each run.
    """
    rows = table.to_dataframe()
    rows["of"] = rows["region"].astype(str) + ", beta " + rows["beta"].map("{:g}".format)
    own = {"x": "latent_dim", "y": "elbo", "by": "of", "xlabel": "latent dimensions"}
    own |= {"ylabel": "held-out ELBO (nats per sample)"}
    return plot(rows, "line", **own) * plot(rows, "errorbars", yerr1="elbo_se", **own)
