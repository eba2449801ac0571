"""Many pictures in one frame: rows of pictures with captions above and next to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vaearr.views.common import NAN_COLOR, Options, holoviews, robust_limits, title

Limits = tuple[float, float]
LIMITS = (0.5, 99.5)  # percentiles between which grey runs
COLUMNS = 8  # pictures side by side
SHEET_WIDTH = 860  # pixels of a sheet on the screen
MAX_PICTURE_WIDTH = 170  # pixels
LINE_HEIGHT = 16  # pixels of a line of words
GAP = 5  # pixels between pictures
FRAME_COLOR = "#d55e00"  # around marked pictures


def in_rows(items: Sequence[Any] | np.ndarray, columns: int = COLUMNS) -> list[Any]:
    """Cut a sequence into rows of equal length, at most `columns` long."""
    n_rows = max(1, math.ceil(len(items) / columns))
    length = math.ceil(len(items) / n_rows)
    return [items[start : start + length] for start in range(0, len(items), length)]


def scaled(image: np.ndarray, limits: Limits) -> np.ndarray:
    """Values between the limits as 0 to 1."""
    low, high = limits
    return np.asarray(np.clip((image - low) / (high - low), 0, 1))


def in_own_limits(image: np.ndarray, symmetric: bool = False) -> np.ndarray:
    """A picture from 0 to 1, spanning its 0.5 % to its 99.5 % percentile; 0.5 is 0 if symmetric."""
    return scaled(image, robust_limits(image, LIMITS, symmetric))


def picture_width(n_columns: int) -> float:
    """Width in pixels of each of so many pictures next to each other."""
    return min(SHEET_WIDTH / n_columns - GAP, MAX_PICTURE_WIDTH)


def sheet(
    rows: Sequence[Any] | np.ndarray,
    heading: str = "",
    *,
    limits: Limits | None = None,
    words: Sequence[str] = (),
    names: Sequence[str] = (),
    columns: Sequence[str] = (),
    cmap: str | Sequence[str] = "gray",
    marked: np.ndarray | None = None,
    side: float | None = None,
    **options: Any,
) -> Any:
    """Plot rows of pictures in one frame, as a HoloViews overlay.

    Parameters
    ----------
    rows
        Pictures `(H, W)`, or `(H, W, 3)` of colours, all of one shape. NaN is grey.
    heading
        Title of the sheet.
    limits
        Colour limits of all pictures, which a colour bar shows. Default: their 0.5 % and 99.5 %
        percentiles.
    words
        Above each picture, in the order of the pictures.
    names, columns
        Of the rows, to their left, and of the columns, below.
    cmap
        Colour map of pictures without colours.
    marked
        For each picture, in the order of the pictures, whether it is framed.
    side
        Width of a picture in pixels.
    **options
        Options of `holoviews.Image` (of `holoviews.RGB` for colours).
    """
    hv = holoviews()
    if limits is None:
        limits = robust_limits(np.concatenate([np.ravel(row) for row in rows]), LIMITS)
    low, high = limits
    height, width, *channels = rows[0][0].shape
    n_columns = max(map(len, rows))
    side = side or picture_width(n_columns)
    unit = width / side  # pixels of a picture in one pixel of the screen
    gap = math.ceil(GAP * unit)
    n_lines = max((text.count("\n") + 1 for text in words if text), default=0)
    top = math.ceil(LINE_HEIGHT * n_lines * unit)
    bottom = top + height
    cell_height = bottom + gap
    cell_width = width + gap
    shape = (len(rows), cell_height, n_columns, cell_width, *channels)
    cells = np.full(shape, 2 * high - low, "f4")  # above the limits, which is white
    brightest = high - 1e-4 * (high - low)
    labels = []
    remaining_words = iter(words)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            cells[i, top:bottom, j, :width] = np.minimum(image, brightest)
            x = j * cell_width + width / 2
            y = i * cell_height + top / 2
            labels.append((x, y, next(remaining_words, "")))
    canvas = cells.reshape(len(rows) * cell_height, n_columns * cell_width, *channels)
    middles = np.arange(len(rows)) * cell_height + top + height / 2
    centres = np.arange(n_columns) * cell_width + width / 2
    style: Options = {
        "title": title(heading),
        "xlabel": "",
        "ylabel": "",
        "xaxis": bool(columns),
        "yaxis": bool(names),
        "xticks": list(zip(centres.tolist(), columns, strict=False)) or None,
        "yticks": list(zip(middles.tolist(), names, strict=False)) or None,
        "invert_yaxis": True,
        "data_aspect": 1,
        "frame_width": round((side + GAP) * n_columns),
        "show_frame": False,
    }
    axes = ["across", "down"]
    coordinates = [np.arange(size) + 0.5 for size in (canvas.shape[1], canvas.shape[0])]
    if channels:
        colors = np.nan_to_num(scaled(canvas, limits), nan=1.0)
        pictures = hv.RGB((*coordinates, *np.moveaxis(colors, -1, 0)), axes)
    else:
        pictures = hv.Image((*coordinates, canvas), axes, "value")
        style |= {"clim": limits, "colorbar": True, "clabel": "", "tools": ["hover"]}
        style["cmap"] = cmap
        style["clipping_colors"] = {"NaN": NAN_COLOR, "max": "white"}
    pictures = pictures.opts(**style | options)
    if marked is not None and marked.any():
        n_row, n_column = np.divmod(np.flatnonzero(marked), n_columns)
        corner = np.stack([n_column * cell_width, n_row * cell_height + top], axis=1)
        pictures = pictures * _frames(corner, np.array([width, height]), axes)
    if not words:
        return pictures
    captions = hv.Labels(labels, axes, "word")
    return pictures * captions.opts(text_color="black", text_font_size="8pt")


def _frames(corner: np.ndarray, size: np.ndarray, axes: list[str]) -> Any:
    """Frames around pictures with these upper left corners `(k, 2)`."""
    opposite = corner + size
    right = np.stack([opposite[:, 0], corner[:, 1]], axis=1)
    below = np.stack([corner[:, 0], opposite[:, 1]], axis=1)
    ways = [(corner, right), (right, opposite), (opposite, below), (below, corner)]
    sides = np.concatenate([np.hstack(way) for way in ways])
    segments = holoviews().Segments(sides, [*axes, "to_across", "to_down"])
    return segments.opts(color=FRAME_COLOR, line_width=2)
