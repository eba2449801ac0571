"""What all figures for paper share: the style of a journal, axes for maps, and saving.

Figures are made without pyplot, and the style holds inside `journal()` only: nothing global changes.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr.errors import ExistsError, NoInputError, UsageError
from vaearr.outlines import edges
from vaearr.plots.common import (
    COLORS,
    NAN_COLOR,
    PERCENT,
    SEQUENTIAL,
    as_codes,
    as_map,
    brief,
    is_category,
    label,
    map_dims,
    matplotlib,
    palette,
    robust_limits,
    roi_outline,
    unit,
)

WIDTH = 7.0  # inches: two columns of a journal
DPI = 300
SMALL = 7  # points: the least size of a letter

STYLE: dict[str, Any] = {
    "font.size": 9, "figure.titlesize": 10, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 8,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "font.family": ["sans-serif", "DejaVu Sans"],
    "font.sans-serif": ["Arial", "Helvetica", "Liberation Sans", "DejaVu Sans"],
    "pdf.fonttype": 42, "ps.fonttype": 42, "savefig.dpi": DPI, "figure.dpi": 100,
    "axes.linewidth": 0.6, "lines.linewidth": 1.2, "legend.frameon": False, "image.interpolation": "nearest",
    "text.parse_math": False, "text.usetex": False, "figure.facecolor": "white", "savefig.facecolor": "white",
}  # fmt: skip


@contextmanager
def journal() -> Iterator[None]:
    """The style of a journal inside this context only: 10/9/8 pt, editable text in PDF, colours for all eyes, 300 dpi.

    Sans-serif letters, the first of the listed fonts that is there; a letter that font lacks comes from DejaVu Sans.
    """
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


# what a file holds beside the picture: no time, so that the same figure gives the same bytes
_METADATA: dict[str, dict[str, None]] = {".png": {}, ".pdf": {"CreationDate": None}}


def save_figure(figure: Any, path: str | os.PathLike[str], dpi: int = DPI, *, overwrite: bool = False) -> Path:
    """Save a figure as PNG or PDF, by the ending of `path`, in the style of `journal()`; returns the path.

    Raises UsageError for another ending, NoInputError where the folder is not there, ExistsError where the file is
    there and `overwrite` is not set.
    """
    target = Path(path)
    ending = target.suffix.lower()
    if ending not in _METADATA:
        raise UsageError(f"{target.name!r} ends in {ending!r}; figures are saved as {' or '.join(_METADATA)}.")
    if not target.parent.is_dir():
        raise NoInputError(f"there is no folder {target.parent}; make it first.")
    if target.exists() and not overwrite:
        raise ExistsError(f"{target} is there already; give another name, or overwrite=True.")
    part = target.with_name(f".{target.name}.part")
    try:
        with journal(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a script no font has: an empty box
            figure.savefig(part, format=ending[1:], dpi=dpi, metadata=_METADATA[ending])
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches, without pyplot."""
    matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def colormap(name: str | Sequence[str], bad: str = NAN_COLOR) -> Any:
    """A colour map by name or from a list of colours, with a colour for missing values."""
    from matplotlib.colors import ListedColormap

    mpl = matplotlib()
    colors = mpl.colormaps[name] if isinstance(name, str) else ListedColormap(list(name))
    return colors.with_extremes(bad=bad)


def draw_map(
    axes: Any,
    da: xr.DataArray,
    *,
    roi: xr.DataArray | None = None,
    percent: tuple[float, float] = PERCENT,
    limits: tuple[float, float] | None = None,
    cmap: str | None = None,
    colorbar: bool = True,
    ticks: bool = True,
) -> Any:
    """Draw a map into axes: coordinates with units, rows downwards, equal scales, NaN grey. Returns the mesh.

    Colours run between `limits`, or between the percentiles `percent` of the map.
    """
    codes = as_codes(da) if is_category(da) else None
    values = as_map(da if codes is None else codes[0])
    limits = limits or robust_limits(values.values, percent) if codes is None else (-0.5, len(codes[1]) - 0.5)
    colors = colormap((cmap or SEQUENTIAL) if codes is None else palette(len(codes[1])))
    rows, columns = map_dims(values)
    x, y = edges(values[columns].values), edges(values[rows].values)
    mesh = axes.pcolormesh(
        x, y, np.ma.masked_invalid(values.values), cmap=colors, vmin=limits[0], vmax=limits[1], rasterized=True
    )
    axes.set_facecolor(NAN_COLOR)
    axes.set_title(brief(label(da), 48))
    thin = frame_map(axes, values, ticks=ticks)
    if roi is not None:
        draw_segments(axes, roi_outline(roi))
    if colorbar:
        bar = side_bar(axes, mesh, extend="neither" if codes or thin else "both")
        if codes is not None:
            _names_on_bar(bar, codes[1])
        else:
            bar.ax.locator_params(axis="y", nbins=2 if thin else 6)
    return mesh


def side_bar(axes: Any, mesh: Any, **options: Any) -> Any:
    """A colour bar as high as the map beside it."""
    return axes.figure.colorbar(mesh, cax=axes.inset_axes((1.03, 0, 0.045, 1)), **options)


MOST_NAMES = 24  # that a colour bar or a legend can hold


def _names_on_bar(bar: Any, names: list[str]) -> None:
    step = math.ceil(len(names) / MOST_NAMES)
    bar.set_ticks(list(range(0, len(names), step)), labels=[brief(name, 16) for name in names[::step]])
    bar.ax.tick_params(length=0)


def frame_map(axes: Any, values: xr.DataArray, *, ticks: bool = True) -> bool:
    """Limits, equal scales and names of the axes of a map (as `as_map` returns it); whether it is a mere line."""
    rows, columns = map_dims(values)
    x, y = edges(values[columns].values), edges(values[rows].values)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[-1], y[0]))
    ratio = (x[-1] - x[0]) / (y[-1] - y[0])
    thin = 1 in (values.sizes[rows], values.sizes[columns]) or not 1 / 8 <= ratio <= 8
    axes.set_aspect("auto" if thin else "equal")
    if ticks:
        axes.set(xlabel=label(values[columns], columns), ylabel=label(values[rows], rows))
        for axis, dim in ((axes.xaxis, columns), (axes.yaxis, rows)):
            if values.sizes[dim] == 1:
                axis.set_ticks([float(values[dim][0])])
    else:
        axes.set(xticks=[], yticks=[])
    return thin


def draw_segments(axes: Any, segments: np.ndarray, *, color: str = "black", rim: str | None = "white",
                  width: float = 0.6) -> None:  # fmt: skip
    """Draw line segments `(n, 4)` of x0, y0, x1, y1 over a map, with a rim so that they are seen on any colour."""
    from matplotlib.collections import LineCollection

    lines = list(np.asarray(segments, dtype="f8").reshape(-1, 2, 2))
    for paint, thickness in ((rim, 2 * width), (color, width)):
        if paint is not None:
            axes.add_collection(
                LineCollection(lines, colors=paint, linewidths=thickness, capstyle="projecting"), autolim=False
            )


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


def panels(figure: Any, count: int, columns: int) -> list[Any]:
    """Axes for `count` panels; unused ones are removed."""
    columns = min(columns, count)
    axes = figure.subplots(math.ceil(count / columns), columns, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.remove()
    return list(axes[:count])


def height_ratio(da: xr.DataArray) -> float:
    """Height over width of a map on paper."""
    values = as_map(da)
    rows, columns = map_dims(values)
    y, x = edges(values[rows].values), edges(values[columns].values)
    return float(np.clip((y[-1] - y[0]) / (x[-1] - x[0]), 0.3, 3.0))
