"""What can be laid over any map: boundaries, misorientation, outliers, windows; for the screen and for paper.

The functions for the screen return HoloViews objects to multiply a map with, those for paper draw into its axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import SchemaError, UsageError
from vaearr.outlines import edges
from vaearr.plots.common import as_map, holoviews, is_regular, label, map_dims, paintable, robust_limits, text

KAM_COLOR = "#000000"
KAM_CAP = 95.0  # percentile at which the overlay is opaque: single bad points would fade all others
OUTLIER_COLOR = "#D55E00"
WINDOW_COLOR = "#ffffff"
_STEPS = 64


def as_segments(segments: np.ndarray) -> np.ndarray:
    """Segments as float `(n, 4)`. Raises SchemaError for another shape or values that are not finite."""
    found = np.asarray(segments, dtype="f8")
    if found.ndim != 2 or found.shape[1] != 4 or not np.isfinite(found).all():
        raise SchemaError(f"segments have shape {found.shape}; expected (n, 4), finite, of x0, y0, x1, y1.")
    return found


def boundary_overlay(segments: np.ndarray, *, dims: tuple[str, str] = (n.Y, n.X), **kwargs: Any) -> Any:
    """Boundaries `(n, 4)` of x0, y0, x1, y1 to lay over a map with `*`: black with a white rim.

    `dims` names rows and columns of the map; `**kwargs` are options of `holoviews.Segments` for the inner line.
    """
    hv = holoviews()
    x0, y0, x1, y1 = as_segments(segments).T
    rows, columns = dims
    lines = hv.Segments((x0, y0, x1, y1), [columns, rows, f"{columns}1", f"{rows}1"])
    rim = lines.opts(color="white", line_width=2.6, backend="bokeh", clone=True)
    return rim * lines.opts(**{"color": "black", "line_width": 1.1, "backend": "bokeh", "clone": True} | kwargs)


def fading(color: str) -> np.ndarray:
    """A colour from transparent to opaque: RGBA `(steps, 4)`."""
    from matplotlib.colors import to_rgb

    return np.column_stack([np.tile(to_rgb(color), (_STEPS, 1)), np.linspace(0, 1, _STEPS)])


def kam_overlay(kam: xr.DataArray, *, cap: float = KAM_CAP, color: str = KAM_COLOR, **kwargs: Any) -> Any:
    """Kernel average misorientation over a map: transparent at 0, opaque from the percentile `cap` upwards.

    `**kwargs` are options of `holoviews.Image` (`holoviews.QuadMesh` where coordinates are not evenly spaced).
    """
    hv = holoviews()
    values, top = kam_values(kam, cap)
    rows, columns = map_dims(values)
    paint = ["#" + "".join(f"{round(part * 255):02x}" for part in step) for step in fading(color)]
    shown, paint = paintable(values.values, paint, "#00000000")
    x, y = values[columns].values, values[rows].values
    if all(is_regular(coord) and coord.size > 1 for coord in (x, y)):  # an image has no seams between its cells
        mesh = hv.Image((x, y, shown), [columns, rows], "misorientation")
    else:
        mesh = hv.QuadMesh((edges(x), edges(y), shown), [columns, rows], "misorientation")
    options = {"cmap": paint, "clim": (0.0, top), "clipping_colors": {"NaN": "transparent"}, "backend": "bokeh"}
    return mesh.opts(**options | {"colorbar": False} | kwargs)


def kam_values(kam: xr.DataArray, cap: float) -> tuple[xr.DataArray, float]:
    """The map, and the value at which the overlay is opaque."""
    if not 0 < cap <= 100:
        raise UsageError(f"the cap is a percentile above 0 and up to 100, not {cap}.")
    values = as_map(kam)
    return values, robust_limits(values.values, (0.0, cap))[1]


def outlier_overlay(outliers: xr.DataArray, **kwargs: Any) -> Any:
    """Scan points of a boolean map as open circles. `**kwargs` are options of `holoviews.Points`."""
    hv = holoviews()
    rows, columns = map_dims(outliers)
    x, y = _marked(outliers)
    options = {"marker": "circle", "size": 6, "color": None, "line_color": OUTLIER_COLOR, "line_width": 1.5}
    return hv.Points((x, y), [columns, rows]).opts(**options | {"backend": "bokeh"} | kwargs)


def _marked(outliers: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    if outliers.dtype != bool:
        raise SchemaError(f"{outliers.name!r} holds {outliers.dtype} values; outliers are marked by a boolean map.")
    grid = as_map(outliers)
    rows, columns = map_dims(grid)
    row, column = np.nonzero(grid.values > 0)
    return grid[columns].values[column], grid[rows].values[row]


def window_overlay(
    boxes: np.ndarray, names: Sequence[str] = (), *, dims: tuple[str, str] = (n.Y, n.X), **kwargs: Any
) -> Any:
    """Windows `(n, 4)` of x0, y0, x1, y1 as frames with names. `**kwargs` are options of `holoviews.Rectangles`."""
    hv = holoviews()
    found, called = _boxes(boxes, names)
    rows, columns = dims
    kdims = [columns, rows, f"{columns}1", f"{rows}1"]
    frames = hv.Rectangles([tuple(box) for box in found], kdims)
    rim = frames.opts(fill_alpha=0, line_color="black", line_width=3.2, backend="bokeh", clone=True)
    options = {"fill_alpha": 0, "line_color": WINDOW_COLOR, "line_width": 1.6, "backend": "bokeh", "clone": True}
    shown = rim * frames.opts(**options | kwargs)
    if not called:
        return shown
    words = hv.Labels((found[:, 2], found[:, 1], called), [columns, rows], "window").opts(
        text_color="white", text_font_size="9pt", text_align="left", text_baseline="bottom",
        background_fill_color="black",
        background_fill_alpha=0.55, backend="bokeh",
    )  # fmt: skip
    return shown * words


def _boxes(boxes: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    found = as_segments(boxes)
    if names and len(names) != len(found):
        raise UsageError(f"there are {len(found)} windows and {len(names)} names: give one for each window, or none.")
    return found, [text(name) for name in names]


def draw_kam(axes: Any, kam: xr.DataArray, *, cap: float = KAM_CAP, color: str = KAM_COLOR, bar: bool = True) -> Any:
    """Draw misorientation over a map, as `kam_overlay` does, with a colour bar if `bar`. Returns the mesh."""
    from matplotlib.colors import ListedColormap

    values, top = kam_values(kam, cap)
    rows, columns = map_dims(values)
    mesh = axes.pcolormesh(
        edges(values[columns].values), edges(values[rows].values), np.ma.masked_invalid(values.values), vmin=0,
        vmax=top,
        cmap=ListedColormap(fading(color)).with_extremes(bad=(0, 0, 0, 0)), rasterized=True,
    )  # fmt: skip
    if bar:
        shown = axes.figure.colorbar(
            mesh, ax=axes, location="bottom", extend="max", label=label(kam), shrink=0.6, aspect=30
        )
        shown.ax.locator_params(axis="x", nbins=6)
    return mesh


def draw_outliers(axes: Any, outliers: xr.DataArray, *, color: str = OUTLIER_COLOR) -> None:
    """Draw the scan points of a boolean map as open circles."""
    x, y = _marked(outliers)
    axes.scatter(x, y, s=8, facecolors="none", edgecolors=color, linewidths=0.6)


def draw_windows(axes: Any, boxes: np.ndarray, names: Sequence[str] = ()) -> None:
    """Draw windows `(n, 4)` of x0, y0, x1, y1 as frames with their names beside them, inside the map."""
    from matplotlib.patches import Rectangle

    found, called = _boxes(boxes, names)
    middle = sum(axes.get_xlim()) / 2
    for i, (x0, y0, x1, y1) in enumerate(found):
        for color, width in (("black", 2.0), (WINDOW_COLOR, 1.0)):
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=color, lw=width))
        if called:
            left = max(x0, x1) < middle
            axes.annotate(
                called[i], (max(x0, x1) if left else min(x0, x1), (y0 + y1) / 2), (3 if left else -3, 0),
                textcoords="offset points", fontsize=7, color="white", ha="left" if left else "right", va="center",
                bbox={"facecolor": "black", "alpha": 0.55, "pad": 1, "lw": 0},
            )  # fmt: skip


def window_of(x: float, y: float, step: float, side: int = 3) -> np.ndarray:
    """Corners x0, y0, x1, y1 of the window of `side` times `side` scan points around one."""
    half = side * step / 2
    if not math.isfinite(half) or half <= 0:
        raise UsageError(f"a window of {side} points with a step of {step} has no size.")
    return np.array([x - half, y - half, x + half, y + half])
