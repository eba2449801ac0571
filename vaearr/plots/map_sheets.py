"""Maps on paper: one with overlays, many small ones, elements as red, green and blue."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from vaearr.errors import NoInputError, did_you_mean
from vaearr.outlines import edges
from vaearr.plots.common import NAN_COLOR, as_map, label, map_dims, roi_outline, text
from vaearr.plots.maps import extra_dim, rgb_legend, rgb_parts
from vaearr.plots.overlays import KAM_CAP, as_segments, draw_kam, draw_outliers, draw_windows
from vaearr.plots.paper import (
    SMALL,
    WIDTH,
    draw_map,
    draw_segments,
    frame_map,
    height_ratio,
    journal,
    new_figure,
    panels,
    scale_bar,
)


def map_sheet(
    da: xr.DataArray,
    *,
    roi: xr.DataArray | None = None,
    segments: np.ndarray | None = None,
    kam: xr.DataArray | None = None,
    kam_cap: float = KAM_CAP,
    outliers: xr.DataArray | None = None,
    windows: np.ndarray | None = None,
    window_names: Sequence[str] = (),
    **options: Any,
) -> Any:
    """One map with what is laid over it.

    Parameters
    ----------
    segments
        Boundaries, `(n, 4)` of x0, y0, x1, y1.
    kam
        Kernel average misorientation, transparent at 0 and black from its percentile `kam_cap` upwards.
    outliers
        Boolean map; its points are circled.
    windows, window_names
        Frames, `(n, 4)` of x0, y0, x1, y1, and their names.
    **options
        As of `draw_map`: `percent`, `limits`, `cmap`.
    """
    with journal():
        figure = new_figure(4.6, float(np.clip(3.3 * height_ratio(da), 1.4, 7)) + (0.6 if kam is None else 1.2))
        axes = figure.subplots()
        draw_map(axes, da, **options)
        if kam is not None:
            draw_kam(axes, kam, cap=kam_cap)
        if roi is not None:
            draw_segments(axes, roi_outline(roi))
        if segments is not None:
            draw_segments(axes, as_segments(segments))
        if outliers is not None:
            draw_outliers(axes, outliers)
        if windows is not None:
            draw_windows(axes, windows, window_names)
    return figure


def map_grid(maps: Mapping[str, xr.DataArray], heading: str, *, columns: int = 8) -> Any:
    """Small maps on one sheet, each from its 1 % to its 99 % percentile, which stand above it after its name."""
    columns = min(columns, len(maps))
    first = next(iter(maps.values()))
    with journal():
        lines = math.ceil(len(maps) / columns)
        width = max(WIDTH / 8 * columns, 2.6)
        figure = new_figure(width, lines * ((width / columns - 0.1) * height_ratio(first) + 0.2) + 0.32)
        axes = panels(figure, len(maps), columns)
        for ax, (name, da) in zip(axes, maps.items(), strict=True):
            mesh = draw_map(ax, da, colorbar=False, ticks=False)
            low, high = mesh.get_clim()
            ax.set_title(f"{name}: {low:.2g} … {high:.2g}", fontsize=SMALL, pad=2)
        scale_bar(axes[0], as_map(first)[map_dims(first)[1]])
        figure.suptitle(heading, fontsize=9, wrap=True)
    return figure


def score_sheet(scores: xr.DataArray, entries: Sequence[Any] | None = None, *, columns: int = 8) -> Any:
    """Maps of a variable over one further dim (PCA or NMF scores, elements, latents), all entries or those named.

    Raises SchemaError unless there is one further dim, NoInputError for an entry that is not there.
    """
    dim = extra_dim(scores)
    known = scores[dim].values.tolist() if dim in scores.coords else list(range(scores.sizes[dim]))
    wanted = known if entries is None else list(entries)
    if not wanted:
        raise NoInputError(f"no entry of {dim!r} is named for the sheet.")
    for entry in wanted:
        if entry not in known:
            raise NoInputError(f"{dim!r} has no entry {entry!r}.{did_you_mean(str(entry), [str(e) for e in known])}")
    maps = {text(entry): scores.isel({dim: known.index(entry)}, drop=True) for entry in wanted}
    return map_grid(maps, f"{label(scores)}: number, 1 % … 99 % percentile = colour range", columns=columns)


def rgb_sheet(
    rgb: xr.DataArray,
    elements: Sequence[str] | None = None,
    *,
    roi: xr.DataArray | None = None,
    segments: np.ndarray | None = None,
) -> Any:
    """Elements as red, green and blue, `(y, x, channel)` between 0 and 1; NaN grey; which element is which below.

    Raises SchemaError for another shape or values outside 0 to 1.
    """
    from matplotlib.patches import Patch

    grid, values = rgb_parts(rgb)
    names = rgb_legend(rgb, elements)
    rows, columns = map_dims(grid)
    with journal():
        figure = new_figure(4.2, float(np.clip(3.4 * height_ratio(grid), 1.4, 7)) + 0.8)
        axes = figure.subplots()
        alpha = np.isfinite(values).all(axis=-1)
        shown = np.concatenate([np.nan_to_num(values), alpha[..., None]], axis=-1)
        axes.pcolormesh(edges(grid[columns].values), edges(grid[rows].values), shown, rasterized=True)
        axes.set_facecolor(NAN_COLOR)
        frame_map(axes, grid)
        if roi is not None:
            draw_segments(axes, roi_outline(roi))
        if segments is not None:
            draw_segments(axes, as_segments(segments))
        axes.set_title(label(rgb, "elements"))
        handles = [Patch(facecolor=color, label=name) for name, color in names]
        if not alpha.all():
            handles.append(Patch(facecolor=NAN_COLOR, label="missing"))
        figure.legend(
            handles=handles, loc="outside lower center", ncols=len(handles), handlelength=1.1, handleheight=1.1
        )
    return figure
