"""Many pictures in one frame: rows of pictures with captions above and next to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vaearr.views.common import NAN_COLOR, holoviews, paintable, title

Limits = tuple[float, float]
COLUMNS = 8  # pictures side by side
SHEET_WIDTH = 860  # pixels of a sheet on the screen
MAX_PICTURE_WIDTH = 170  # pixels
LINE_HEIGHT = 16  # pixels of a line of words
GAP = 5  # pixels between pictures


def in_rows(items: Sequence[Any] | np.ndarray, columns: int = COLUMNS) -> list[Any]:
    """Cut a sequence into rows of equal length, at most `columns` long."""
    n_rows = max(1, math.ceil(len(items) / columns))
    length = math.ceil(len(items) / n_rows)
    return [items[start : start + length] for start in range(0, len(items), length)]


def scaled(image: np.ndarray, limits: Limits) -> np.ndarray:
    """Values between the limits as 0 to 1."""
    low, high = limits
    return np.asarray(np.clip((image - low) / (high - low), 0, 1))


def sheet(
    rows: Sequence[Any] | np.ndarray,
    limits: Limits,
    heading: str = "",
    *,
    words: Sequence[str] = (),
    names: Sequence[str] = (),
    columns: Sequence[str] = (),
    cmap: str | Sequence[str] = "gray",
    **options: Any,
) -> Any:
    """Plot rows of pictures in one frame, as a HoloViews overlay.

    Parameters
    ----------
    rows
        Pictures `(H, W)`, or `(H, W, 3)` of colours, all of one shape.
    limits
        Colour limits of all pictures, which a colour bar shows.
    words
        Above each picture, in the order of the pictures.
    names, columns
        Of the rows, to their left, and of the columns, below.
    **options
        Options of `holoviews.Image` (of `holoviews.RGB` for colours).
    """
    hv, (low, high) = holoviews(), limits
    height, width, *channels = rows[0][0].shape
    n_columns = max(len(row) for row in rows)
    side = min(SHEET_WIDTH / n_columns - GAP, MAX_PICTURE_WIDTH)
    unit = width / side  # pixels of a picture in one pixel of the screen
    n_lines = max((text.count("\n") + 1 for text in words if text), default=0)
    top = math.ceil(LINE_HEIGHT * n_lines * unit)
    cell_height, cell_width = height + top + math.ceil(GAP * unit), width + math.ceil(GAP * unit)
    canvas = np.full((len(rows) * cell_height, n_columns * cell_width, *channels), np.nan, "f4")
    labels: list[tuple[float, float, str]] = []
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            y, x = i * cell_height + top, j * cell_width
            # NaN of a picture is below the limits, NaN between pictures stays NaN
            values = np.clip(image, low + 1e-4 * (high - low), high)
            values = np.where(np.isfinite(image), values, 2 * low - high)
            canvas[y : y + height, x : x + width] = values
            if len(labels) < len(words):
                labels.append((x + width / 2, y - top / 2, words[len(labels)]))
    style: dict[str, Any] = {
        "title": title(heading),
        "xlabel": "",
        "ylabel": "",
        "xlim": (0, canvas.shape[1]),
        "ylim": (0, canvas.shape[0]),
        "xaxis": "bottom" if columns else None,
        "yaxis": "left" if names else None,
        "invert_yaxis": True,
        "data_aspect": 1,
        "frame_width": round((side + GAP) * n_columns),
        "show_frame": False,
    }
    if columns:
        style["xticks"] = [(i * cell_width + width / 2, name) for i, name in enumerate(columns)]
    if names:
        middle = top + height / 2
        style["yticks"] = [(i * cell_height + middle, name) for i, name in enumerate(names)]
    axes = ["across", "down"]
    positions = np.arange(canvas.shape[1]) + 0.5, np.arange(canvas.shape[0]) + 0.5
    if channels:
        colors = np.nan_to_num(scaled(canvas, limits), nan=1.0)
        pictures = hv.RGB((*positions, *np.moveaxis(colors, -1, 0)), axes)
    else:
        pictures = hv.Image((*positions, canvas), axes, "value")
        style |= {"clim": limits, "colorbar": True, "clabel": "", "tools": ["hover"]}
        style["cmap"] = paintable(canvas, cmap, NAN_COLOR)[1]
        style["clipping_colors"] = {"NaN": "white", "min": NAN_COLOR}
    pictures = pictures.opts(**style | options)
    if not labels:
        return pictures
    captions = hv.Labels(labels, axes, "word")
    return pictures * captions.opts(text_color="black", text_font_size="8pt")
