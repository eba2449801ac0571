"""Many pictures in one frame: rows of pictures with words above, below and next to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vaearr.views.common import NAN_COLOR, holoviews, title

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


def _painted(image: np.ndarray, limits: Limits) -> np.ndarray:
    """Values between the limits, a little above the lower one; missing ones below it, for a colour of their own."""
    low, high = limits
    values = np.clip(np.asarray(image, dtype="f8"), low + 1e-4 * (high - low), high)
    return np.where(np.isfinite(values), values, low - (high - low))


def n_lines(words: Sequence[Sequence[str]]) -> int:
    """The most lines that any of the words has."""
    return max((text.count("\n") + 1 for row in words for text in row if text), default=0)


def sheet(
    rows: Sequence[Any] | np.ndarray,
    limits: Limits | Sequence[Sequence[Limits]],
    heading: str = "",
    *,
    names: Sequence[str] = (),
    above: Sequence[Sequence[str]] = (),
    below: Sequence[Sequence[str]] = (),
    cmap: str | Sequence[str] = "gray",
    nan_color: str = NAN_COLOR,
    gap: int = GAP,
    **options: Any,
) -> Any:
    """Rows of pictures in one frame, as a HoloViews overlay.

    Parameters
    ----------
    rows
        Pictures `(H, W)`, or `(H, W, 3)` of colours, all of one shape.
    limits
        Colour limits of all pictures, which a colour bar shows, or those of each.
    names
        Of the rows, to their left.
    above, below
        Words of each picture, in rows like the pictures.
    gap
        Pixels on the screen between pictures.
    **options
        Options of `holoviews.Image` (of `holoviews.RGB` for colours).
    """
    hv = holoviews()
    height, width = rows[0][0].shape[:2]
    n_columns = max(len(row) for row in rows)
    side = min(SHEET_WIDTH / n_columns - gap, MAX_PICTURE_WIDTH)
    unit = width / side  # pixels of a picture in one pixel of the screen
    between = math.ceil(gap * unit) if gap else 0
    top = math.ceil(LINE_HEIGHT * n_lines(above) * unit)
    bottom = math.ceil(LINE_HEIGHT * n_lines(below) * unit)
    cell_height, cell_width = height + top + bottom + between, width + between
    common: Any = limits if isinstance(limits[0], float | int | np.number) else None
    is_color = rows[0][0].ndim == 3
    canvas = np.full((len(rows) * cell_height, n_columns * cell_width, *rows[0][0].shape[2:]), np.nan, "f4")
    labels: list[tuple[float, float, str]] = []
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            span = common or limits[i][j]  # type: ignore[index]
            values = scaled(image, span) if is_color else _painted(image, span)
            if not is_color and common is None:
                values = (values - span[0]) / (span[1] - span[0])
            y, x = i * cell_height + top, j * cell_width
            canvas[y : y + height, x : x + width] = values
            if above:
                labels.append((x + width / 2, y - top / 2, above[i][j]))
            if below:
                labels.append((x + width / 2, y + height + bottom / 2, below[i][j]))
    x_pixels, y_pixels = np.arange(canvas.shape[1]) + 0.5, np.arange(canvas.shape[0]) + 0.5
    own: dict[str, Any] = {"title": title(heading), "xaxis": None, "xlabel": "", "ylabel": "", "invert_yaxis": True}
    own |= {"data_aspect": 1, "frame_width": round((side + gap) * n_columns), "show_frame": False}
    own |= {"xlim": (0, canvas.shape[1]), "ylim": (0, canvas.shape[0])}
    if names:
        own["yticks"] = [(i * cell_height + top + height / 2, name) for i, name in enumerate(names)]
    else:
        own["yaxis"] = None
    if is_color:
        canvas = np.where(np.isfinite(canvas), np.clip(canvas, 0, 1), 1.0)
        channels = np.moveaxis(canvas, -1, 0)
        pictures = hv.RGB((x_pixels, y_pixels, *channels), ["across", "down"])
    else:
        pictures = hv.Image((x_pixels, y_pixels, canvas), ["across", "down"], "value")
        own |= {"cmap": cmap, "clim": common or (0.0, 1.0), "colorbar": common is not None, "clabel": ""}
        own |= {"clipping_colors": {"NaN": "white", "min": nan_color}, "tools": ["hover"] if common else []}
    pictures = pictures.opts(**own | options, backend="bokeh")
    if not labels:
        return pictures
    words = hv.Labels(labels, ["across", "down"], "word").opts(
        text_color="black", text_font_size="8pt", backend="bokeh"
    )
    return pictures * words
