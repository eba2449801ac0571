"""The same views as matplotlib figures for paper: real axes, letters of 7 to 10 pt, 300 dpi, no global state.

Every function returns a `matplotlib.figure.Figure`; save it with `vaearr.plots.paper.save_figure`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError
from vaearr.plots.association_sheets import association_sheet, calibration_sheet, metric_sheet, ranking_sheet
from vaearr.plots.cluster_sheets import cluster_sheet, comparison_sheet, confusion_sheet
from vaearr.plots.common import COLORS, text
from vaearr.plots.components import component_sheet, variance_sheet
from vaearr.plots.contrast import contrast_sheet
from vaearr.plots.curves import NATS, loss_panels, reconstruction_parts, sample_title
from vaearr.plots.decoded import (
    interpolation_strip,
    pictures,
    reconstruction_strip,
    sample_sheet,
    show_picture,
    statistics_sheet,
)
from vaearr.plots.density import density_sheet, draw_density
from vaearr.plots.exploration import manifold_sheet, prototype_sheet, traversal_sheet
from vaearr.plots.exploration_binary import binary_strip
from vaearr.plots.exploration_health import latent_health_sheet, table_sheet, unusual_sheet
from vaearr.plots.exploration_scatter import embedding_sheet, path_sheet, vector_sheet
from vaearr.plots.exploration_spread import activation_sheet, histogram_sheet, latent_pca_sheet, pair_sheet
from vaearr.plots.map_sheets import map_grid, map_sheet, rgb_sheet, score_sheet
from vaearr.plots.maps import latent_map, latent_names, side_map_list
from vaearr.plots.paper import WIDTH, draw_map, height_ratio, journal, new_figure, panels, save_figure, scale_bar
from vaearr.plots.scatter import scatter_points

__all__ = [
    "activation_sheet",
    "association_sheet",
    "binary_strip",
    "calibration_sheet",
    "cluster_sheet",
    "comparison_sheet",
    "component_sheet",
    "confusion_sheet",
    "contrast_sheet",
    "density_sheet",
    "draw_map",
    "embedding_sheet",
    "health_sheet",
    "histogram_sheet",
    "interpolation_strip",
    "journal",
    "latent_health_sheet",
    "latent_pca_sheet",
    "latent_sheet",
    "latent_target",
    "loss_sheet",
    "manifold_sheet",
    "map_sheet",
    "metric_sheet",
    "pair_sheet",
    "path_sheet",
    "progress_sheet",
    "prototype_sheet",
    "ranking_sheet",
    "reconstruction_sheet",
    "reconstruction_strip",
    "rgb_sheet",
    "sample_sheet",
    "save_figure",
    "scale_bar",
    "score_sheet",
    "side_sheet",
    "statistics_sheet",
    "table_sheet",
    "traversal_sheet",
    "unusual_sheet",
    "variance_sheet",
    "vector_sheet",
]

journal_style = journal
PHASE_BINS = 24
_figure = new_figure


def latent_sheet(
    ds: xr.Dataset, run: str = n.DEFAULT_RUN, latents: Sequence[int] | None = None, *, columns: int = 8
) -> Any:
    """All latent maps (or those named) on one sheet; each runs from its 1 % to its 99 % percentile, given above it."""
    every = latent_names(ds, run)
    dim = n.run_name(n.LATENT, run)
    known = every[dim].values.tolist() if dim in every.coords else list(range(every.sizes[dim]))
    wanted = list(known if latents is None else latents)
    if not wanted:
        raise NoInputError("no latent is named for the sheet.")
    maps = {str(latent): latent_map(ds, run, latent) for latent in wanted}
    return map_grid(maps, "latent (posterior mean): number, 1 % … 99 % percentile = colour range", columns=columns)


def side_sheet(ds: xr.Dataset, *, roi: xr.DataArray | None = None, columns: int = 3) -> Any:
    """Band contrast, elements and phase on one sheet, the region of interest outlined."""
    maps = side_map_list(ds)
    if not maps:
        raise NoInputError("the Dataset holds no band contrast, elements or phases to show.")
    columns = min(columns, len(maps))
    with journal():
        height = math.ceil(len(maps) / columns) * (WIDTH / columns * 0.6 * height_ratio(maps[0]) + 0.6)
        figure = new_figure(WIDTH, height)
        for ax, da in zip(panels(figure, len(maps), columns), maps, strict=True):
            draw_map(ax, da, roi=roi)
    return figure


def latent_target(
    ds: xr.Dataset, run: str = n.DEFAULT_RUN, latent: int = 0, target: str = n.BC, *, roi: xr.DataArray | None = None
) -> Any:
    """Map of a latent beside the density of latent against target (all points, none hidden behind others).

    The lines are the 10, 50 and 90 % quantiles of the target, in bins of the latent that hold equally many points. For
    a phase, beside the map: how the latent is spread over its points and over those of other phases.
    """
    points = scatter_points(ds, run, latent, target, roi=roi)
    one = latent_map(ds, run, latent)
    with journal():
        figure = new_figure(WIDTH, 2.9)
        left, right = figure.subplots(1, 2, width_ratios=[1.2, 1])
        draw_map(left, one, roi=roi)
        values = points["latent"].values
        if "group" in points:
            within, borders = points["group"].values > 0, np.histogram_bin_edges(values, PHASE_BINS)
            for part, name, color in (
                (values[within], text(target), COLORS[1]),
                (values[~within], "other phases", COLORS[0]),
            ):
                share = np.full(part.size, 1 / max(part.size, 1))
                right.hist(part, borders, weights=share, histtype="step", lw=1.3, color=color, label=name)
            right.set(xlabel=f"latent {latent}", ylabel="share of the scan points")
            right.legend()
        else:
            shown = draw_density(right, values, points["up"].values)
            if shown is not None:
                figure.colorbar(shown, ax=right, label="scan points", pad=0.02, format="%g")
            right.set(xlabel=f"latent {latent}", ylabel=text(points.attrs["label"]))
        about = f"{text(target)}: r = {points.attrs['r']:.2f}, n = {points.sizes['point']:,}"
        right.set_title(about, fontsize=9, wrap=True)
    return figure


def loss_sheet(history: xr.Dataset) -> Any:
    """Loss, reconstruction NLL and KL over epochs, training and validation."""
    panels = loss_panels(history)
    with journal():
        figure = new_figure(WIDTH, 2.2)
        for ax, (heading, curves) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for legend, values in curves.items():
                ax.plot(values[n.EPOCH], values, label=legend, marker="o" if values.size < 3 else None)
            ax.set(title=heading, xlabel="epoch", ylabel=NATS)
            ax.grid(alpha=0.25, lw=0.4)
            ax.legend()
    return figure


def health_sheet(health: xr.Dataset) -> Any:
    """KL divergence of each latent; unused latents grey."""
    active = health["is_active"].values.astype(bool)
    with journal():
        figure = new_figure(WIDTH, 2.2)
        ax = figure.subplots()
        colors = np.where(active, COLORS[0], "#9a9a9a").tolist()
        ax.bar(health[n.LATENT].values, health["kl"].values, color=colors)
        ax.set(
            xlabel="latent", ylabel="KL (nats per sample)", title=f"{int(active.sum())} of {active.size} latents active"
        )
        ax.set_xlim(-0.7, active.size - 0.3)
        ax.xaxis.get_major_locator().set_params(integer=True)
    return figure


def reconstruction_sheet(samples: xr.Dataset) -> Any:
    """Original (as the network sees it), reconstruction and residual of each sample; one colour scale per sample."""
    count = samples.sizes[n.SAMPLE]
    if not count:
        raise NoInputError("there are no samples to reconstruct.")
    with journal():
        width = max(WIDTH * count / 8, 2.6)
        rows, columns = reconstruction_parts(samples, 0)[0][0][1].shape[:2]
        figure = new_figure(width, 3 * (width / count - 0.05) * rows / columns + 0.5)
        axes = figure.subplots(3, count, squeeze=False)
        for position in range(count):
            parts, low, high = reconstruction_parts(samples, position)
            for ax, (name, image) in zip(axes[:, position], parts, strict=True):
                half = (high - low) / 2
                residual = name == "residual"
                limits = (-half, half) if residual else (low, high)
                show_picture(ax, image, limits, diverging=residual)
                if position == 0:
                    ax.set_ylabel(name)
            axes[0, position].set_title(sample_title(samples, position).replace(", ", "\n"), fontsize=7)
    return figure


def progress_sheet(sheets: xr.Dataset, *, most: int = 8) -> Any:
    """Samples decoded as training went on: inputs on top, below them reconstructions and prior draws by epoch.

    At most `most` epochs, spread over the training; one grey scale per row.
    """
    picked = np.unique(np.linspace(0, sheets.sizes[n.EPOCH] - 1, most).round().astype(int))
    shown = sheets.isel({n.EPOCH: picked})
    rows = [("input", shown["input"])]
    for name in ("reconstruction", "prior"):
        rows += [(f"{name}\nepoch {int(part[n.EPOCH])}", part) for part in shown[name]]
    with journal():
        height, width = pictures(sheets["input"]).shape[1:3]
        figure = new_figure(WIDTH, WIDTH / 8 * len(rows) * height / width)
        axes = figure.subplots(len(rows), sheets.sizes[n.SAMPLE], squeeze=False)
        for line, (name, row) in zip(axes, rows, strict=True):
            images = pictures(row)
            low, high = np.quantile(images, (0.005, 0.995))
            for ax, image in zip(line, images, strict=True):
                show_picture(ax, image, (low, high))
            line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=7)
    return figure
