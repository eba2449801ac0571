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
LINE_HEIGHT = 20  # pixels of a line of words, which are readable on paper as well
GAP = 5  # pixels between pictures
FRAME_COLOR = "#d55e00"  # around marked pictures
AXES = ["across", "down"]


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
    if limits is None:
        limits = robust_limits(np.concatenate([np.ravel(row) for row in rows]), LIMITS)
    height, width = rows[0][0].shape[:2]
    n_columns = max(map(len, rows))
    side = side or picture_width(n_columns)
    unit = width / side  # pixels of a picture in one pixel of the screen
    n_lines = max((text.count("\n") + 1 for text in words if text), default=0)
    top = math.ceil(LINE_HEIGHT * n_lines * unit)
    cells = _cells(rows, limits, top, math.ceil(GAP * unit))
    lefts = np.arange(n_columns) * cells.shape[3]
    tops = np.arange(len(rows)) * cells.shape[1] + top
    positions = [(i, j) for i, row in enumerate(rows) for j in range(len(row))]
    row, column = np.transpose(positions)
    corners = np.stack([lefts[column], tops[row]], axis=1)
    style: Options = {
        "title": title(heading),
        "xlabel": "",
        "ylabel": "",
        "xaxis": bool(columns),
        "yaxis": bool(names),
        "xticks": list(zip(lefts + width / 2, columns, strict=False)) or None,
        "yticks": list(zip(tops + height / 2, names, strict=False)) or None,
        "invert_yaxis": True,
        "data_aspect": 1,
        "frame_width": round((side + GAP) * n_columns),
        "show_frame": False,
    }
    pictures = _canvas(cells, limits, cmap).opts(**style | options)
    if marked is not None and marked.any():
        pictures = pictures * _frames(corners[marked], np.array([width, height]))
    if words:
        x, y = corners[: len(words)].T
        labels = (x + width / 2, y - top / 2, words)
        captions = holoviews().Labels(labels, AXES, "word")
        pictures = pictures * captions.opts(text_color="black", text_font_size="8pt")
    return pictures


def _cells(rows: Sequence[Any] | np.ndarray, limits: Limits, top: int, gap: int) -> np.ndarray:
    """Pictures in cells `(row, y, column, x[, channel])` with white above, below and to the right.

    `top` rows above a picture and `gap` rows and columns after it are white.
    """
    low, high = limits
    height, width, *channels = rows[0][0].shape
    shape = (len(rows), top + height + gap, max(map(len, rows)), width + gap, *channels)
    cells = np.full(shape, 2 * high - low, "f4")  # above the limits, which is white
    brightest = high - 1e-4 * (high - low)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            cells[i, top : top + height, j, :width] = np.minimum(image, brightest)
    return cells


def _canvas(cells: np.ndarray, limits: Limits, cmap: str | Sequence[str]) -> Any:
    """Cells as one HoloViews Image, as RGB if they have channels."""
    hv = holoviews()
    n_rows, cell_height, n_columns, cell_width, *channels = cells.shape
    canvas = cells.reshape(n_rows * cell_height, n_columns * cell_width, *channels)
    coordinates = [np.arange(size) + 0.5 for size in (canvas.shape[1], canvas.shape[0])]
    if channels:
        colors = np.nan_to_num(scaled(canvas, limits), nan=1.0)
        return hv.RGB((*coordinates, *np.moveaxis(colors, -1, 0)), AXES)
    style: Options = {"clim": limits, "colorbar": True, "clabel": "", "tools": ["hover"]}
    style["cmap"] = cmap
    style["clipping_colors"] = {"NaN": NAN_COLOR, "max": "white"}
    return hv.Image((*coordinates, canvas), AXES, "value").opts(**style)


def _frames(corners: np.ndarray, size: np.ndarray) -> Any:
    """Frames around pictures with these upper left corners `(k, 2)`."""
    opposite = corners + size
    right = np.stack([opposite[:, 0], corners[:, 1]], axis=1)
    below = np.stack([corners[:, 0], opposite[:, 1]], axis=1)
    ways = [(corners, right), (right, opposite), (opposite, below), (below, corners)]
    sides = np.concatenate([np.hstack(way) for way in ways])
    segments = holoviews().Segments(sides, [*AXES, "to_across", "to_down"])
    return segments.opts(color=FRAME_COLOR, line_width=2)
