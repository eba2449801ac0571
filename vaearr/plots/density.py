"""A latent against a target as density, so that no point hides another: for the screen and for paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.association import associate
from vaearr.errors import NoInputError, RoiError
from vaearr.plots.common import COLORS, as_map, holoviews, label, number, text, title
from vaearr.plots.maps import same_grid
from vaearr.plots.paper import WIDTH, journal, new_figure, panels

DENSE = 1500  # points from which on a density is shown instead of the points
MOST_BINS = 60
QUANTILES = (10.0, 50.0, 90.0)
PER_BIN = 50  # least number of points that quantiles are taken of
LINE = COLORS[5]
DENSITY = "cividis"


@dataclass(frozen=True)
class Pair:
    """Two maps point by point, where both are finite."""

    x: np.ndarray
    y: np.ndarray
    xlabel: str
    ylabel: str
    r: float

    @property
    def title(self) -> str:
        """Pearson's r and the number of points."""
        return f"r = {number(self.r)}, n = {self.x.size:,}"


def pair_of(latent: xr.DataArray, target: xr.DataArray, roi: xr.DataArray | None = None) -> Pair:
    """Latent and target at the points that have both, in the ROI.

    Raises SchemaError where the maps differ in grid, RoiError where no point is left.
    """
    same_grid(latent, target, *([] if roi is None else [roi]))
    one, other = as_map(latent), as_map(target)
    keep = np.isfinite(one.values) & np.isfinite(other.values)
    if roi is not None:
        keep &= as_map(roi).values > 0
    if not keep.any():
        raise RoiError(f"no scan point holds both {latent.name!r} and {target.name!r}; choose another map or region.")
    r = associate(one.expand_dims(n.LATENT, -1), other.where(keep), "pearson")
    return Pair(one.values[keep], other.values[keep], label(latent), label(target), float(r.squeeze()))


def bin_edges(values: np.ndarray, most: int = MOST_BINS) -> np.ndarray:
    """Edges of equal bins over finite values; of whole numbers each bin holds equally many."""
    low, high = float(values.min()), float(values.max())
    if (values == np.rint(values)).all():
        width = max(1, math.ceil((high - low + 1) / most))
        return np.arange(low - 0.5, high + 0.5 + width, width)
    if low == high:
        return np.array([low - 0.5, low + 0.5])
    return np.linspace(low, high, most + 1)


def counts_of(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts `(y, x)` (NaN = none) and the edges in x and y."""
    x, y = x.astype("f8"), y.astype("f8")
    most = int(np.clip(x.size**0.5 * 0.6, 16, MOST_BINS))
    across, up = bin_edges(x, most), bin_edges(y, most)
    count = np.histogram2d(y, x, bins=(up, across))[0]
    return np.where(count > 0, count, np.nan), across, up


def running_quantiles(
    x: np.ndarray, y: np.ndarray, percent: Sequence[float] = QUANTILES
) -> tuple[np.ndarray, np.ndarray]:
    """Median x `(bin,)` and quantiles of y `(quantile, bin)` in bins of equally many points; empty if they are few."""
    count = min(12, x.size // PER_BIN)
    if count < 2:
        return np.zeros(0), np.zeros((len(percent), 0))
    parts = np.array_split(np.argsort(x, kind="stable"), count)
    return np.array([np.median(x[part]) for part in parts]), np.stack([np.percentile(y[p], percent) for p in parts], 1)


def density_plot(latent: xr.DataArray, target: xr.DataArray, *, roi: xr.DataArray | None = None, **kwargs: Any) -> Any:
    """A latent against a target: number of scan points on a logarithmic colour scale, or the points if they are few.

    The lines are the 10, 50 and 90 % quantiles of the target in bins of the latent with equally many points. The title
    gives Pearson's r over all n points. `**kwargs` are options of the HoloViews overlay.
    """
    hv = holoviews()
    pair = pair_of(latent, target, roi)
    dims = [text(latent.name or "latent"), text(target.name or "target")]
    if pair.x.size >= DENSE:
        count, across, up = counts_of(pair.x, pair.y)
        body = hv.QuadMesh((across, up, count), dims, "scan points").opts(
            cmap=DENSITY, logz=True, clim=(1, max(2.0, float(np.nanmax(count)))), colorbar=True, clabel="scan points",
            clipping_colors={"NaN": "white"}, tools=["hover"], line_color=None, backend="bokeh",
        )  # fmt: skip
    else:
        body = hv.Points((pair.x, pair.y), dims).opts(size=4, alpha=0.5, color=COLORS[0], backend="bokeh")
    middle, levels = running_quantiles(pair.x, pair.y)
    lines = [
        hv.Curve((middle, level), dims[0], dims[1]).opts(
            color=LINE, line_width=2.2 if p == 50 else 1.2, line_dash="solid" if p == 50 else "dashed", backend="bokeh"
        )
        for p, level in zip(QUANTILES, levels, strict=True)
        if middle.size
    ]
    options = {
        "title": title(pair.title), "xlabel": pair.xlabel, "ylabel": pair.ylabel, "frame_width": 340,
        "frame_height": 300, "backend": "bokeh",
    }  # fmt: skip
    return hv.Overlay([body, *lines]).opts(**options | kwargs)


def draw_density(ax: Any, x: np.ndarray, y: np.ndarray, most: float | None = None) -> Any:
    """Draw a density (or few points) with quantile lines into axes. Returns the mesh, None where there is none."""
    from matplotlib.colors import LogNorm

    mesh = None
    if x.size >= DENSE:
        count, across, up = counts_of(x, y)
        norm = LogNorm(1, max(2.0, most or float(np.nanmax(count))))
        mesh = ax.pcolormesh(across, up, np.ma.masked_invalid(count), norm=norm, cmap=DENSITY, rasterized=True)
    else:
        ax.scatter(x, y, s=4, alpha=0.5, linewidths=0, rasterized=True)
    middle, levels = running_quantiles(x, y)
    for percent, level in zip(QUANTILES, levels, strict=True):
        if middle.size:
            ax.plot(middle, level, color=LINE, lw=1.4 if percent == 50 else 0.8, ls="-" if percent == 50 else "--")
    return mesh


def density_sheet(
    latents: Sequence[xr.DataArray], target: xr.DataArray, *, roi: xr.DataArray | None = None, columns: int = 3
) -> Any:
    """Several latents, each against the same target, as densities on one colour scale; r and n above each.

    Lines as in `density_plot`. Raises NoInputError where no latent is given.
    """
    if not latents:
        raise NoInputError("no latent is given for the sheet.")
    pairs = [pair_of(latent, target, roi) for latent in latents]
    columns = min(columns, len(pairs))
    dense = [pair for pair in pairs if pair.x.size >= DENSE]
    most = max((float(np.nanmax(counts_of(pair.x, pair.y)[0])) for pair in dense), default=None)
    with journal():
        lines = math.ceil(len(pairs) / columns)
        figure = new_figure(max(3.5, WIDTH * columns / 3), 0.5 + lines * 2.1)
        axes = panels(figure, len(pairs), columns)
        mesh = None
        for position, (ax, pair) in enumerate(zip(axes, pairs, strict=True)):
            mesh = draw_density(ax, pair.x, pair.y, most) or mesh
            ax.set(xlabel=pair.xlabel, ylabel=pair.ylabel if position % columns == 0 else "")
            ax.set_title(pair.title, fontsize=9)
        if mesh is not None:
            figure.colorbar(mesh, ax=axes, label="scan points", pad=0.02, format="%g", shrink=0.9 if lines > 1 else 1)
    return figure
