"""Borders of the cells around scan points, as lines to draw. Plain arrays."""

from __future__ import annotations

import numpy as np


def edges(coord: np.ndarray) -> np.ndarray:
    """Borders `(n + 1,)` of the cells around `n` ascending or descending coordinates, half-way between neighbours."""
    values = np.asarray(coord, dtype="f8")
    if values.size < 2:
        return np.array([side for value in values for side in (value - 0.5, value + 0.5)])
    middle = (values[1:] + values[:-1]) / 2
    return np.concatenate([[2 * values[0] - middle[0]], middle, [2 * values[-1] - middle[-1]]])


def region_outline(mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Border of the region where `mask` (rows, columns) is true, that of the grid included; see `segments`."""
    padded = np.pad(mask, 1)
    upright = padded[1:-1, 1:] != padded[1:-1, :-1]
    level = padded[1:, 1:-1] != padded[:-1, 1:-1]
    return segments(upright, level, x, y)


def label_borders(codes: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Borders between cells of different `codes` (rows, columns), those below 0 left out; see `segments`."""
    padded = np.pad(codes, 1, constant_values=-1)
    left, right = padded[1:-1, :-1], padded[1:-1, 1:]
    above, below = padded[:-1, 1:-1], padded[1:, 1:-1]
    upright = (left != right) & (left >= 0) & (right >= 0)
    level = (above != below) & (above >= 0) & (below >= 0)
    return segments(upright, level, x, y)


def segments(upright: np.ndarray, level: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Lines `(n, 4)` of x0, y0, x1, y1 along the edges of cells, pieces in one line merged.

    upright (rows, columns + 1), level (rows + 1, columns): whether there is a border at the left and upper edge of each
    cell, and at the last edges. x (columns + 1,), y (rows + 1,): where these edges lie, see `edges`.
    """
    edge, start, stop = _runs(upright.T)
    lines = [np.stack([x[edge], y[start], x[edge], y[stop]], axis=1)]
    edge, start, stop = _runs(level)
    lines.append(np.stack([x[start], y[edge], x[stop], y[edge]], axis=1))
    return np.concatenate(lines)


def _runs(border: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of True in each row: row, first index, index after the last."""
    change = np.diff(np.pad(border, ((0, 0), (1, 1))).astype("i1"), axis=1)
    row, start = np.nonzero(change == 1)
    return row, start, np.nonzero(change == -1)[1]
