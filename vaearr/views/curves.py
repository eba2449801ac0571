"""Curves and bars: training, the health of latents, explained variance, histograms and profiles of maps, sweeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError, SchemaError
from vaearr.views.common import COLORS, as_map, holoviews, label, title, unit
from vaearr.views.kinds import builder
from vaearr.views.maps import BOKEH, map_plot

# what a panel of the loss curves shows: heading, and variable -> legend
LOSS_PANELS: dict[str, dict[str, str]] = {
    "loss": {"loss": "training", "val_loss": "validation"},
    "reconstruction NLL": {"reconstruction_nll": "training", "val_reconstruction_nll": "validation"},
    "KL divergence": {"kl": "training", "val_kl": "validation"},
}
NATS = "nats per sample"
UNUSED = "#9a9a9a"
GREY, BAR_COLOR = "gray", "#6f7a85"
Profiles = Sequence[xr.DataArray]


def panel(parts: Sequence[Any], **options: Any) -> Any:
    """Curves and bars in one frame."""
    own = {"show_grid": True, "frame_width": 420, "frame_height": 240, "legend_position": "right"}
    return holoviews().Overlay(list(parts)).opts(**own | options, **BOKEH)


def curve(x: Any, y: Any, dims: Sequence[str], name: str = "", color: str = COLORS[0], **options: Any) -> list[Any]:
    """A line (style="-"), points ("o") or both ("-o") with a name in the legend, and bars of a `spread`."""
    hv, y, parts = holoviews(), np.asarray(y, "f8"), []
    style, spread = options.pop("style", "-"), options.pop("spread", None)
    if spread is not None:
        bars = hv.ErrorBars((x, y, spread), dims[0], [dims[1], "spread"])
        parts.append(bars.opts(line_color=color, **BOKEH))
    if "-" in style:
        own = {"color": color, "line_width": 2, "tools": ["hover"], **BOKEH}
        parts.append(hv.Curve((x, y), *dims, label=name).opts(**own | options))
    if "o" in style or len(y) < 3:
        points = hv.Points((x, y), list(dims), label=name)
        parts.append(points.opts(color=color, size=5, line_color=None, **BOKEH))
    return parts


def bars(edges: np.ndarray, heights: np.ndarray, dims: tuple[str, str], **options: Any) -> Any:
    """Bars between edges."""
    own = {"fill_color": COLORS[0], "line_color": "white", "line_width": 0.5, "tools": ["hover"], **BOKEH}
    shown = holoviews().Histogram((edges, heights), kdims=dims[0], vdims=dims[1], label=options.pop("label", ""))
    return shown.opts(**own | options)


@builder("history", n.EPOCH, "loss")
def loss_curves(history: xr.Dataset, **options: Any) -> Any:
    """Loss, reconstruction NLL and KL over epochs, training and validation, in nats per sample.

    Curves without any finite value are left out. `**options` are those of `holoviews.Curve`.
    """
    hv, panels = holoviews(), []
    for heading, variables in LOSS_PANELS.items():
        curves = {
            legend: history[name].load()
            for name, legend in variables.items()
            if name in history and bool(np.isfinite(history[name]).any())
        }
        lines = []
        for color, (legend, values) in zip(COLORS, curves.items(), strict=False):
            lines += curve(values[n.EPOCH].values, values, (n.EPOCH, "value"), legend, color, **options)
        if lines:
            rises = sum(float(values[-1] - values[0]) for values in curves.values()) > 0
            where = "bottom_right" if rises else "top_right"  # where it hides no curve
            own = {"title": title(heading), "xlabel": "epoch", "ylabel": NATS, "legend_position": where}
            panels.append(panel(lines, frame_width=280, frame_height=220, **own))
    if not panels:
        raise NoInputError("the history holds no losses; has the run been trained?")
    return hv.Layout(panels).cols(3).opts(shared_axes=False)


def classes_of(found: xr.Dataset, target: str) -> list[str]:
    """Labels of a target's classes in the table of `va.probe`."""
    every = map(str, found["class"].values if "class" in found.coords else ())
    return [label for label in every if label.startswith(f"{target}: ")]


@builder("probe", "score", "low", "high", "features", "probe")
def probe_plot(found: xr.Dataset) -> Any:
    """Scores of `va.probe` with their intervals, a panel per target, a colour per kind of probe.

    Grey: what a guess would have, 0 of numbers and 1 / classes of classes.
    """
    hv, panels = holoviews(), []
    for target in found["target"].values:
        one, parts = found.sel(target=target), []
        classes = classes_of(found, target)
        parts.append(hv.HLine(1 / len(classes) if classes else 0.0).opts(color=UNUSED, line_width=1, **BOKEH))
        known = [str(m) for m in one["probe"].values if np.isfinite(one["score"].sel(probe=m)).any()]
        names = [str(name) for name in one["features"].values]
        for color, (i, method) in zip(COLORS, enumerate(known), strict=False):
            own, place = one.sel(probe=method), np.arange(len(names)) + 0.15 * (i - (len(known) - 1) / 2)
            score = own["score"].values
            ends = np.stack([score - own["low"].values, own["high"].values - score])
            bars = hv.ErrorBars((place, score, *ends), "features", ["score", "below", "above"])
            points = hv.Points((place, score), ["features", "score"], label=method)
            parts += [bars.opts(line_color=color, **BOKEH), points.opts(color=color, size=8, **BOKEH)]
        ticks = {"xticks": list(enumerate(names)), "xlim": (-0.5, len(names) - 0.5), "xlabel": ""}
        size = {"frame_width": 220, "frame_height": 220, "title": title(str(target))}
        panels.append(panel(parts, ylabel="balanced accuracy" if classes else "R²", **ticks, **size))
    return hv.Layout(panels).cols(3).opts(shared_axes=False)


@builder("run_health", n.LATENT, "kl", "is_active")
@builder("statistics", "logvar_mean", "aggregate_std", "min", "max")
def health_view(found: xr.Dataset, **options: Any) -> Any:
    """KL divergence of each latent, active ones blue and unused ones grey: of a training, of statistics.

    Of `statistics` also the aggregate posterior, the range of the means and the log-variance. `**options` are of the
    overlays.
    """
    dims, active, a = found[n.LATENT].values, found["is_active"].values.astype(bool), found.attrs
    known = "aggregate_std" not in found or np.isfinite(found["kl"].values).any()
    heights = found["kl"].values if known else found["aggregate_std"].values ** 2
    what = f"KL ({NATS})" if known else "variance of the latents"
    total = f", KL {a['kl_total']:.4g} nats" if known and a.get("kl_total") is not None else ""
    edges, place = np.append(dims, dims[-1] + 1) - 0.5, ("latent", what)
    alone = "logvar_mean" not in found
    ticks = [(i, str(i)) for i in dims[:: math.ceil(len(dims) / 12)].tolist()]
    size: dict[str, Any] = {"xlabel": "latent dimension", "xticks": ticks, "xlim": (float(edges[0]), float(edges[-1]))}
    size |= {"frame_width": 860, "frame_height": 200} if alone else {"frame_width": 350, "frame_height": 240}
    size |= options
    shown = [
        panel(
            [
                bars(edges, np.where(which, heights, np.nan), place, fill_color=color, label=name)
                for which, color, name in ((active, COLORS[0], "active"), (~active, UNUSED, "unused"))
                if which.any()
            ],
            title=f"{int(active.sum())} of {active.size} latents active{total}",
            ylabel=what, legend_position="top_right", **size,
        )
    ]  # fmt: skip
    if "logvar_mean" in found:
        shown += [
            _means(found, "aggregate_mean", "aggregate_std", title="aggregate posterior (dashed: prior)", **size),
            _means(found, "mean", "std", "min", "max", title="posterior mean: mean ± std, range (grey)", **size),
        ]
        if np.isfinite(found["logvar_mean"].values).any():
            words = {"title": "posterior log-variance, mean ± std", "ylabel": "log-variance"}
            shown.append(_means(found, "logvar_mean", "logvar_std", **size | words))
    if alone:
        return shown[0]
    return holoviews().Layout(shown).cols(2).opts(shared_axes=False, **BOKEH)


def _means(found: xr.Dataset, middle: str, spread: str, *ends: str, **options: Any) -> Any:
    """A value of each latent with its spread, and its ends; the prior's where it is of the aggregate posterior."""
    place, dims = found[n.LATENT].values, ("latent", "value")
    parts = curve(place, found[middle], dims, style="o", spread=found[spread].values)
    for end in ends:
        parts += curve(place, found[end], dims, color=UNUSED, style="o")
    for edge in (-1.0, 1.0) if middle == "aggregate_mean" else ():
        parts.append(mark_line(edge, UNUSED))
    return panel(parts, **{"ylabel": "latent"} | options)


def mark_line(place: float, color: str, *, upright: bool = False) -> Any:
    """A dashed line across a frame."""
    line = holoviews().VLine(place) if upright else holoviews().HLine(place)
    return line.opts(color=color, line_dash="dashed", line_width=1.6, **BOKEH)


@builder("runs", "run", "explained_variance", "n_active")
def runs_view(found: xr.Dataset) -> Any:
    """Numbers of `va.compare`: a point for each run, those of targets side by side."""
    panels = []
    for name, values in found.data_vars.items():
        names = [str(label) for label in values[values.dims[-1]].values]
        places, parts = np.arange(len(names)), []
        for color, run in zip(COLORS, found["run"].values, strict=False):
            shown = values.where(found["run"] == run) if values.ndim == 1 else values.sel(run=run)
            parts += curve(places, shown, ("of", str(name)), str(run), color, style="o")
        ticks = {
            "xticks": list(enumerate(names)),
            "xlim": (-0.5, len(names) - 0.5),
            "xlabel": "",
            "xrotation": 45,
            "ylim": (0, None),
        }
        panels.append(
            panel(parts, title=title(str(name).replace("_", " ")), frame_width=120 + 30 * len(names), **ticks)
        )
    return holoviews().Layout(panels).cols(2).opts(shared_axes=False)


@builder("variance", "array", "explained_variance_ratio")
def variance_curve(ratio: xr.DataArray, **options: Any) -> Any:
    """Share of the total variance that each component explains, `(component,)`, and the sum of the shares so far.

    `**options` are those of the HoloViews overlay. Raises SchemaError for other dims.
    """
    values, dims = np.asarray(ratio.values, dtype="f8"), ("component", "share")
    if values.ndim != 1 or not values.size:
        raise SchemaError(f"{ratio.name!r} has sizes {dict(ratio.sizes)}; expected a value for each component.")
    count, total = np.arange(1, values.size + 1), np.cumsum(values)
    parts = [bars(np.append(count - 0.4, count[-1] + 0.6), values, dims, label="of each")]
    parts += curve(count, total, dims, "sum so far", COLORS[1], style="-o")
    own = {"title": title(f"{total.size} components: {total[-1]:.1%}"), "xlabel": "component", "xticks": 10}
    return panel(parts, **own | {"ylabel": "share of the variance", "ylim": (0, 1.03)} | options)


@builder("contrast")
def contrast_view(
    da: xr.DataArray, histogram: xr.Dataset, profiles: Profiles = (), *, roi: xr.DataArray | None = None, **options: Any
) -> Any:
    """Grey map with the rows and columns of the profiles in colour, beside it the histogram, then the profiles along
    x, and along y.

    `histogram` and `profiles` are made by `vaearr.analysis.side_maps`; `**options` as of a map.
    """
    hv = holoviews()
    lines: dict[str, list[Any]] = {}
    shown = [map_plot(da, roi=roi, **{"cmap": GREY} | options)]
    for i, one in enumerate(profiles):
        along = str(one.dims[0])
        across = {n.X: n.Y, n.Y: n.X}.get(along, "")
        if one.ndim != 1 or not across:
            raise SchemaError(f"{one.name!r} has dims {one.dims}; a profile runs along {n.X!r} or {n.Y!r} only.")
        row, color = float(np.squeeze(one.attrs[across])), COLORS[i % len(COLORS)]
        drawn = curve(one[along].values, one.values, (along, "value"), f"{across} = {row:g}", color)
        lines.setdefault(along, []).extend(drawn)
        shown[0] = shown[0] * mark_line(row, color, upright=along == n.Y)
    shown.append(histogram_plot(histogram))
    for along, curves in lines.items():
        words = {"xlabel": label(as_map(da)[along]), "ylabel": label(da), "title": title(f"profiles of {label(da)}")}
        shown.append(panel(curves, **words))
    return hv.Layout(shown).cols(2).opts(shared_axes=False, **BOKEH)


@builder("histogram", "bin", "count", "@width")
def histogram_plot(histogram: xr.Dataset, **options: Any) -> Any:
    """How many scan points have which value, of `side_maps.histogram`. `**options` are of `holoviews.Histogram`."""
    left, width = np.asarray(histogram["bin"].values, dtype="f8"), float(histogram.attrs["width"])
    missing = int(histogram.attrs.get("n_missing", 0))
    heading = f"n = {int(histogram['count'].sum()):,}" + (f" ({missing:,} missing)" if missing else "")
    heading += f", bins of {width:g} {unit(histogram['bin'].attrs)}".rstrip()
    own = {
        "title": title(heading), "xlabel": label(histogram["bin"], "value"), "ylabel": "scan points",
        "frame_width": 420, "frame_height": 240, "fill_color": BAR_COLOR, "line_width": 0.5,
    }  # fmt: skip
    edges = np.append(left, left[-1] + width)
    return bars(edges, histogram["count"].values, ("value", "scan points"), **own | options)


@builder("sweep", "elbo", "elbo_se")
def elbo_view(table: xr.Dataset) -> Any:
    """Held-out ELBO of a sweep with its standard error over latent dimensions, a line for each region and beta.

    `table` has `region`, `beta`, `latent_dim`, `elbo` and `elbo_se`, one entry for each run.
    """
    names, parts = ("latent dimensions", "held-out ELBO (nats per sample)"), []
    groups = table.to_dataframe().groupby(["region", "beta"], sort=False)
    for i, ((region, beta), rows) in enumerate(groups):
        color = COLORS[i % len(COLORS)]
        spread = rows["elbo_se"].to_numpy()
        parts += curve(rows["latent_dim"].values, rows["elbo"], names, f"{region}, beta {beta:g}", color, spread=spread)
    return panel(parts, xlabel=names[0], ylabel=names[1])
