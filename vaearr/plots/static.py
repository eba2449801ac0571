"""The same views as matplotlib figures for paper: real axes, 9 pt, 300 dpi, no pyplot and no global state.

Every function returns a `matplotlib.figure.Figure`; save it with `figure.savefig(path)` inside `journal_style()`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError
from vaearr.plots.common import (
    COLORS,
    NAN_COLOR,
    PERCENT,
    SEQUENTIAL,
    as_codes,
    as_map,
    edges,
    is_category,
    label,
    map_dims,
    matplotlib,
    palette,
    robust_limits,
    roi_outline,
    text,
    unit,
)
from vaearr.plots.curves import NATS, heat_values, loss_panels, reconstruction_parts, sample_title
from vaearr.plots.maps import latent_map, latent_names, side_map_list
from vaearr.plots.scatter import scatter_points

WIDTH = 7.0  # inches: two columns of a journal

STYLE: dict[str, Any] = {
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "font.family": "sans-serif",
    "font.sans-serif": ["Arial", "Helvetica", "Liberation Sans", "DejaVu Sans"],
    "pdf.fonttype": 42, "ps.fonttype": 42, "savefig.dpi": 300, "figure.dpi": 100,
    "axes.linewidth": 0.6, "lines.linewidth": 1.2, "legend.frameon": False, "image.interpolation": "nearest",
    "text.parse_math": False, "text.usetex": False, "figure.facecolor": "white", "savefig.facecolor": "white",
}  # fmt: skip


@contextmanager
def journal_style() -> Iterator[None]:
    """The style of the figures, inside this context only."""
    from cycler import cycler

    with matplotlib().rc_context({**STYLE, "axes.prop_cycle": cycler(color=COLORS)}):
        import logging

        logger = logging.getLogger("matplotlib.font_manager")  # tells of every font of the list that is not there
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _figure(width: float, height: float) -> Any:
    matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _colormap(name: str | Sequence[str]) -> Any:
    from matplotlib.colors import ListedColormap

    mpl = matplotlib()
    colors = mpl.colormaps[name] if isinstance(name, str) else ListedColormap(list(name))
    return colors.with_extremes(bad=NAN_COLOR)


def draw_map(
    axes: Any,
    da: xr.DataArray,
    *,
    roi: xr.DataArray | None = None,
    percent: tuple[float, float] = PERCENT,
    colorbar: bool = True,
    ticks: bool = True,
) -> Any:
    """Draw a map into axes: coordinates with units, rows downwards, equal scales, NaN grey. Returns the mesh."""
    codes = as_codes(da) if is_category(da) else None
    values = as_map(da if codes is None else codes[0])
    rows, columns = map_dims(values)
    x, y = edges(values[columns].values), edges(values[rows].values)
    limits = robust_limits(values.values, percent) if codes is None else (-0.5, len(codes[1]) - 0.5)
    cmap = _colormap(SEQUENTIAL if codes is None else palette(len(codes[1])))
    mesh = axes.pcolormesh(
        x, y, np.ma.masked_invalid(values.values), cmap=cmap, vmin=limits[0], vmax=limits[1], rasterized=True
    )
    axes.set_facecolor(NAN_COLOR)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[-1], y[0]), title=label(da))
    ratio = (x[-1] - x[0]) / (y[-1] - y[0])
    thin = 1 in values.shape or not 1 / 8 <= ratio <= 8
    axes.set_aspect("auto" if thin else "equal")
    if ticks:
        axes.set(xlabel=label(values[columns], columns), ylabel=label(values[rows], rows))
        for axis, dim in ((axes.xaxis, columns), (axes.yaxis, rows)):
            if values.sizes[dim] == 1:
                axis.set_ticks([float(values[dim][0])])
    else:
        axes.set(xticks=[], yticks=[])
    if roi is not None:
        _draw_outline(axes, roi)
    if colorbar:
        bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02, extend="neither" if codes or thin else "both")
        if codes is not None:
            bar.set_ticks(list(range(len(codes[1]))), labels=codes[1])
            bar.ax.tick_params(length=0)
        else:
            bar.set_label(unit(da.attrs))
            bar.ax.locator_params(axis="y", nbins=2 if thin else 6)
    return mesh


def _draw_outline(axes: Any, roi: xr.DataArray) -> None:
    from matplotlib.collections import LineCollection

    segments = roi_outline(roi).reshape(-1, 2, 2)
    for color, width in (("white", 1.2), ("black", 0.6)):
        axes.add_collection(LineCollection(list(segments), colors=color, linewidths=width, capstyle="projecting"))


def scale_bar(axes: Any, length_axis: xr.DataArray) -> None:
    """A bar of a round length, about a quarter of the width, in the lower left corner."""
    from matplotlib.patches import Rectangle

    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    width, height = right - left, top - bottom
    target = abs(width) / 4
    power = 10.0 ** math.floor(math.log10(target))
    length = max(step * power for step in (1, 2, 5) if step * power <= target)
    corner = (left + 0.05 * width, bottom + 0.05 * height)
    axes.add_patch(Rectangle(corner, math.copysign(length, width), 0.03 * height, color="white", ec="black", lw=0.4))
    axes.text(
        corner[0], bottom + 0.1 * height, f"{length:g} {unit(length_axis.attrs) or 'steps'}", color="white", fontsize=6,
        va="bottom", bbox={"facecolor": "black", "alpha": 0.45, "pad": 1, "lw": 0},
    )  # fmt: skip


def _grid(figure: Any, count: int, columns: int) -> list[Any]:
    """Axes for `count` panels; unused ones are removed."""
    columns = min(columns, count)
    axes = figure.subplots(math.ceil(count / columns), columns, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.remove()
    return list(axes[:count])


def _ratio(da: xr.DataArray) -> float:
    """Height over width of a map on paper."""
    values = as_map(da)
    rows, columns = map_dims(values)
    y, x = edges(values[rows].values), edges(values[columns].values)
    return float(np.clip((y[-1] - y[0]) / (x[-1] - x[0]), 0.3, 3.0))


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
    maps = [latent_map(ds, run, latent) for latent in wanted]
    columns = min(columns, max(len(maps), 1))
    panel = WIDTH / columns
    with journal_style():
        figure = _figure(WIDTH, math.ceil(len(maps) / columns) * (panel * _ratio(maps[0]) + 0.22) + 0.45)
        axes = _grid(figure, len(maps), columns)
        for ax, latent, da in zip(axes, wanted, maps, strict=True):
            mesh = draw_map(ax, da, colorbar=False, ticks=False)
            low, high = mesh.get_clim()
            ax.set_title(f"{latent}: {low:.2g} … {high:.2g}", fontsize=7, pad=2)
        scale_bar(axes[0], as_map(maps[0])[map_dims(maps[0])[1]])
        figure.suptitle("Latent (posterior mean): number, 1 % … 99 % percentile = colour range", fontsize=9)
    return figure


def side_sheet(ds: xr.Dataset, *, roi: xr.DataArray | None = None, columns: int = 3) -> Any:
    """Band contrast, elements and phase on one sheet, the region of interest outlined."""
    maps = side_map_list(ds)
    if not maps:
        raise NoInputError("the Dataset holds no band contrast, elements or phases to show.")
    columns = min(columns, len(maps))
    with journal_style():
        height = math.ceil(len(maps) / columns) * (WIDTH / columns * 0.72 * _ratio(maps[0]) + 0.55)
        figure = _figure(WIDTH, height)
        for ax, da in zip(_grid(figure, len(maps), columns), maps, strict=True):
            draw_map(ax, da, roi=roi)
    return figure


def latent_target(
    ds: xr.Dataset, run: str = n.DEFAULT_RUN, latent: int = 0, target: str = n.BC, *, roi: xr.DataArray | None = None
) -> Any:
    """Map of a latent beside the density of latent against target (all points, none hidden behind others)."""
    points = scatter_points(ds, run, latent, target, roi=roi)
    one = latent_map(ds, run, latent)
    with journal_style():
        figure = _figure(WIDTH, 2.9)
        left, right = figure.subplots(1, 2, width_ratios=[1.2, 1])
        draw_map(left, one, roi=roi)
        shown = right.hexbin(
            points["latent"].values,
            points["up"].values,
            gridsize=45,
            bins="log",
            mincnt=1,
            cmap="cividis",
            linewidths=0,
        )
        figure.colorbar(shown, ax=right, label="scan points", pad=0.02, format="%g")
        right.set(xlabel=f"latent {latent}", ylabel=text(points.attrs["label"]))
        right.set_title(f"r with {text(target)} = {points.attrs['r']:.2f}, n = {points.sizes['point']:,}")
    return figure


def loss_sheet(history: xr.Dataset) -> Any:
    """Loss, reconstruction NLL and KL over epochs, training and validation."""
    panels = loss_panels(history)
    with journal_style():
        figure = _figure(WIDTH, 2.2)
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
    with journal_style():
        figure = _figure(WIDTH, 2.2)
        ax = figure.subplots()
        colors = np.where(active, COLORS[0], "#9a9a9a").tolist()
        ax.bar(health[n.LATENT].values, health["kl"].values, color=colors)
        ax.set(
            xlabel="latent", ylabel="KL (nats per sample)", title=f"{int(active.sum())} of {active.size} latents active"
        )
        ax.set_xlim(-0.7, active.size - 0.3)
    return figure


def reconstruction_sheet(samples: xr.Dataset) -> Any:
    """Original (as the network sees it), reconstruction and residual of each sample; one colour scale per sample."""
    count = samples.sizes[n.SAMPLE]
    if not count:
        raise NoInputError("there are no samples to reconstruct.")
    with journal_style():
        figure = _figure(max(WIDTH * count / 8, 2.6), 3.2)
        axes = figure.subplots(3, count, squeeze=False)
        for position in range(count):
            parts, low, high = reconstruction_parts(samples, position)
            for ax, (name, image) in zip(axes[:, position], parts, strict=True):
                half = (high - low) / 2
                residual = name == "residual"
                limits = (-half, half) if residual else (low, high)
                ax.imshow(image, cmap="RdBu_r" if residual else "gray", vmin=limits[0], vmax=limits[1])
                ax.set(xticks=[], yticks=[])
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
    with journal_style():
        figure = _figure(WIDTH, WIDTH / 8 * len(rows))
        axes = figure.subplots(len(rows), sheets.sizes[n.SAMPLE], squeeze=False)
        for line, (name, row) in zip(axes, rows, strict=True):
            low, high = np.quantile(row.values, (0.005, 0.995))
            for ax, sample in zip(line, row.values, strict=True):
                ax.imshow(sample.reshape(-1, *sample.shape[-2:])[0], cmap="gray", vmin=low, vmax=high)
                ax.set(xticks=[], yticks=[])
            line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=7)
    return figure


def association_sheet(table: xr.DataArray, metric: str | None = None) -> Any:
    """Heat map of latents and targets, signed metrics centred at 0."""
    metric, values, limits, cmap = heat_values(table, metric)
    targets = [text(name) for name in values["target"].values]
    with journal_style():
        figure = _figure(WIDTH, 1.1 + 0.19 * len(targets))
        ax = figure.subplots()
        mesh = ax.pcolormesh(
            np.ma.masked_invalid(values.values), cmap=_colormap(cmap), vmin=limits[0], vmax=limits[1],
            edgecolors="white", linewidth=0.2,
        )  # fmt: skip
        ax.set_facecolor(NAN_COLOR)
        step = max(1, math.ceil(values.sizes[n.LATENT] / 32))
        ax.set_xticks(np.arange(0, values.sizes[n.LATENT], step) + 0.5, labels=values[n.LATENT].values[::step].tolist())
        ax.set_yticks(np.arange(len(targets)) + 0.5, labels=targets)
        ax.tick_params(length=0)
        ax.invert_yaxis()
        ax.set(xlabel="latent", title=f"{metric} of latent and side map")
        figure.colorbar(mesh, ax=ax, label=metric, pad=0.01)
    return figure
