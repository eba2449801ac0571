"""Borders of the cells around scan points, as lines to draw. Plain arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def edges(coord: np.ndarray) -> np.ndarray:
    """Borders `(n + 1,)` of the cells around `n` ascending or descending coordinates, half-way between neighbours."""
    values = np.asarray(coord, dtype="f8")
    if values.size < 2:
        return np.array([side for value in values for side in (value - 0.5, value + 0.5)])
    middle = (values[1:] + values[:-1]) / 2
    return np.concatenate([[2 * values[0] - middle[0]], middle, [2 * values[-1] - middle[-1]]])


def region_outline(mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Border of the region where `mask` (rows, columns) is true, that of the grid included; see `_lines`."""
    return _lines(np.pad(mask, 1), np.not_equal, x, y)


def label_borders(codes: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Borders between cells of different `codes` (rows, columns), those below 0 left out; see `_lines`."""
    return _lines(np.pad(codes, 1, constant_values=-1), lambda a, b: (a != b) & (a >= 0) & (b >= 0), x, y)


def _lines(padded: np.ndarray, part: Callable[..., np.ndarray], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Lines `(n, 4)` of x0, y0, x1, y1 along the edges of cells, pieces in one line merged.

    padded: cells with one more all around. part: whether there is a border between neighbours. x (columns + 1,), y
    (rows + 1,): where the edges lie, see `edges`.
    """
    edge, start, stop = _runs(part(padded[1:-1, :-1], padded[1:-1, 1:]).T)
    upright = np.stack([x[edge], y[start], x[edge], y[stop]], axis=1)
    edge, start, stop = _runs(part(padded[:-1, 1:-1], padded[1:, 1:-1]))
    return np.concatenate([upright, np.stack([x[start], y[edge], x[stop], y[edge]], axis=1)])


def _runs(border: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of True in each row: row, first index, index after the last."""
    change = np.diff(np.pad(border, ((0, 0), (1, 1))).astype("i1"), axis=1)
    row, start = np.nonzero(change == 1)
    return row, start, np.nonzero(change == -1)[1]
