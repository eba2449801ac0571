"""Curves and bars: training, latent health, explained variance, histograms and profiles of maps, sweeps."""

from __future__ import annotations

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
GREY, BAR_COLOR, KNEE_COLOR = "gray", "#6f7a85", COLORS[5]
Profiles = xr.DataArray | Sequence[xr.DataArray]


@builder("history", n.EPOCH, "loss")
def loss_curves(history: xr.Dataset, **options: Any) -> Any:
    """Loss, reconstruction NLL and KL over epochs, training and validation, in nats per sample.

    Curves without any finite value are left out. `**options` are those of `holoviews.Curve`.
    """
    hv = holoviews()
    panels = []
    for heading, variables in LOSS_PANELS.items():
        curves = {
            legend: history[name].load()
            for name, legend in variables.items()
            if name in history and bool(np.isfinite(history[name]).any())
        }
        lines = []
        for position, (legend, values) in enumerate(curves.items()):
            data = (values[n.EPOCH].values, values.values.astype("f8"))
            style = {"color": COLORS[position], **BOKEH}
            line = hv.Curve(data, n.EPOCH, "value", label=legend)
            lines.append(line.opts(**{"line_width": 2, "tools": ["hover"]} | style | options))
            if values.size < 3:
                lines.append(hv.Scatter(data, n.EPOCH, "value", label=legend).opts(size=7, line_color=None, **style))
        if not lines:
            continue
        rises = sum(float(values[-1] - values[0]) for values in curves.values()) > 0
        panels.append(
            hv.Overlay(lines).opts(
                title=title(heading), xlabel="epoch", ylabel=NATS, frame_width=280, frame_height=220, show_grid=True,
                legend_position="bottom_right" if rises else "top_right", **BOKEH,  # where it hides no curve
            )
        )  # fmt: skip
    if not panels:
        raise NoInputError("the history holds no losses; has the run been trained?")
    return hv.Layout(panels).cols(3).opts(shared_axes=False)


def bars(edges: np.ndarray, heights: np.ndarray, dims: tuple[str, str], **options: Any) -> Any:
    """Bars between edges."""
    own = {"fill_color": COLORS[0], "line_color": "white", "tools": ["hover"], **BOKEH}
    shown = holoviews().Histogram((edges, heights), kdims=dims[0], vdims=dims[1], label=options.pop("label", ""))
    return shown.opts(**own | options)


def activity_bars(edges: np.ndarray, heights: np.ndarray, active: np.ndarray, dims: tuple[str, str]) -> Any:
    """Bars between edges, active latents in blue and unused ones in grey."""
    return holoviews().Overlay([
        bars(edges, np.where(which, heights, np.nan), dims, fill_color=color, label=name)
        for which, color, name in ((active, COLORS[0], "active"), (~active, UNUSED, "unused"))
        if which.any()
    ])  # fmt: skip


@builder("run_health", n.LATENT, "kl", "is_active")
def health_bars(health: xr.Dataset, **options: Any) -> Any:
    """KL divergence of each latent of a training, active latents in blue and unused ones in grey.

    `**options` are those of the HoloViews overlay.
    """
    active, kl = health["is_active"].values.astype(bool), health["kl"].values
    edges = np.append(health[n.LATENT].values, health[n.LATENT].values[-1] + 1) - 0.5
    dims = ("latent", f"KL ({NATS})")
    own = {
        "title": f"KL divergence of each latent: {int(active.sum())} of {active.size} active", "frame_width": 860,
        "frame_height": 200, "xlabel": "latent", "ylabel": dims[1], "legend_position": "top_right",
        "xlim": (float(edges[0]), float(edges[-1])), "xticks": 12, **BOKEH,
    }  # fmt: skip
    return activity_bars(edges, kl, active, dims).opts(**own | options)


@builder("variance", "array", "explained_variance_ratio")
def variance_curve(ratio: xr.DataArray, *, knee: int | None = None, **options: Any) -> Any:
    """Share of the variance that each component explains, and the sum of the shares so far; the knee marked.

    `ratio` is of the total variance, `(component,)`; `knee` (else its attribute) is the number of components before
    it. `**options` are those of the HoloViews overlay.
    """
    hv = holoviews()
    values = np.asarray(ratio.values, dtype="f8")
    knee = ratio.attrs.get("knee") if knee is None else knee
    if values.ndim != 1:
        raise SchemaError(f"{ratio.name!r} has dims {ratio.dims}; expected one value for each component.")
    if not values.size:
        raise NoInputError("there is no component to show.")
    number, total = np.arange(1, values.size + 1), np.cumsum(values)
    parts: list[Any] = [
        bars(np.append(number - 0.4, number[-1] + 0.6), values, ("component", "share"), label="of each"),
        hv.Curve((number, total), "component", "share", label="sum so far").opts(
            color=COLORS[1], line_width=2, **BOKEH
        ),
        hv.Points((number, total), ["component", "share"]).opts(color=COLORS[1], size=4, line_color=None, **BOKEH),
    ]
    if knee is not None:
        parts.append(hv.VLine(knee + 0.5).opts(color=KNEE_COLOR, line_dash="dashed", line_width=1.6, **BOKEH))
    before = f", {knee} before the knee: {total[min(knee, total.size) - 1]:.1%}" if knee else ""
    own = {
        "title": title(f"{total.size} components: {total[-1]:.1%}{before}"), "xlabel": "component",
        "ylabel": "share of the variance", "ylim": (0, 1.03), "frame_width": 460, "frame_height": 240,
        "legend_position": "right", "show_grid": True, "xticks": 10, **BOKEH,
    }  # fmt: skip
    return hv.Overlay(parts).opts(**own | options)


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
    marks = []
    values = as_map(da)
    for i, (along, name, one, rows) in enumerate(_as_profiles(profiles)):
        color = COLORS[i % len(COLORS)]
        place = one[along].values if along in one.coords else np.arange(one.size)
        curve = hv.Curve((place, one.values.astype("f8")), along, "value", label=name)
        lines.setdefault(along, []).append(curve.opts(color=color, **BOKEH))
        for row in rows:
            mark = hv.HLine(row) if along == n.X else hv.VLine(row)
            marks.append(mark.opts(color=color, line_width=1.6, line_dash="dashed", **BOKEH))
    picture = map_plot(da, roi=roi, **{"cmap": GREY} | options)
    shown = [hv.Overlay([picture, *marks]) if marks else picture, histogram_plot(histogram)]
    shown += [
        hv.Overlay(curves).opts(
            xlabel=label(values[along]), ylabel=label(da), title=title(f"profiles of {label(da)}"), frame_width=420,
            frame_height=240, legend_position="right", show_grid=True, **BOKEH,
        )
        for along, curves in lines.items()
    ]  # fmt: skip
    return hv.Layout(shown).cols(2).opts(shared_axes=False, **BOKEH)


@builder("histogram", "bin", "count", "@width")
def histogram_plot(histogram: xr.Dataset, **options: Any) -> Any:
    """How many scan points have which value, of `side_maps.histogram`; raises SchemaError for anything else.

    `**options` are those of `holoviews.Histogram`.
    """
    from vaearr.analysis.side_maps import BIN, COUNT

    if COUNT not in histogram or BIN not in histogram.coords or "width" not in histogram.attrs:
        raise SchemaError(f"expected a histogram with {COUNT!r} over {BIN!r} and the attribute 'width', as made by "
                          f"side_maps.histogram; found {sorted(map(str, histogram.variables))}.")  # fmt: skip
    left, width = np.asarray(histogram[BIN].values, dtype="f8"), float(histogram.attrs["width"])
    missing = int(histogram.attrs.get("n_missing", 0))
    heading = f"n = {int(histogram[COUNT].sum()):,}" + (f" ({missing:,} missing)" if missing else "")
    heading += f", bins of {width:g} {unit(histogram[BIN].attrs)}".rstrip()
    own = {
        "title": title(heading), "xlabel": label(histogram[BIN], "value"), "ylabel": "scan points", "frame_width": 420,
        "frame_height": 240, "fill_color": BAR_COLOR, "line_width": 0.5,
    }  # fmt: skip
    return bars(np.append(left, left[-1] + width), histogram[COUNT].values, ("value", "scan points"), **own | options)


def _as_profiles(profiles: Profiles) -> list[tuple[str, str, xr.DataArray, list[float]]]:
    """Along which dim each profile runs, its name, its values, and the rows or columns that it was taken of."""
    found = []
    for one in [profiles] if isinstance(profiles, xr.DataArray) else profiles:
        along = str(one.dims[0]) if one.ndim == 1 else ""
        across = {n.X: n.Y, n.Y: n.X}.get(along, "")
        if not across:
            raise SchemaError(f"{one.name!r} has dims {one.dims}; a profile runs along {n.X!r} or {n.Y!r} only.")
        places = one.attrs.get(across, one[across].item() if across in one.coords else [])
        rows = [float(value) for value in np.atleast_1d(places)]
        mean = f"mean of {len(rows)} at {across} = {min(rows, default=0):g} … {max(rows, default=0):g}"
        name = f"{across} = {rows[0]:g}" if len(rows) == 1 else mean
        found.append((along, name if rows else "profile", one, rows))
    return found


@builder("sweep", "elbo", "elbo_se")
def elbo_view(table: xr.Dataset) -> Any:
    """Held-out ELBO of a sweep with its standard error over latent dimensions, a line for each region and beta.

    `table` has `region`, `beta`, `latent_dim`, `elbo` and `elbo_se`, one entry for each run.
    """
    hv, shown = holoviews(), []
    rows = [{name: table[name].values[i] for name in table.data_vars} for i in range(next(iter(table.sizes.values())))]
    names = ("latent dimensions", "held-out ELBO (nats per sample)")
    for i, (region, beta) in enumerate(dict.fromkeys((row["region"], row["beta"]) for row in rows)):
        line = [row for row in rows if (row["region"], row["beta"]) == (region, beta)]
        points = [(row["latent_dim"], row["elbo"], row["elbo_se"]) for row in line]
        style = {"color": COLORS[i % len(COLORS)], **BOKEH}
        curve = hv.Curve([point[:2] for point in points], *names, label=f"{region}, beta {beta:g}")
        shown.append(curve.opts(frame_width=420, frame_height=270, tools=["hover"], **style))
        shown.append(
            hv.ErrorBars(points, names[0], [names[1], "standard error"]).opts(line_color=style["color"], **BOKEH)
        )
    return hv.Overlay(shown).opts(legend_position="right", **BOKEH)
