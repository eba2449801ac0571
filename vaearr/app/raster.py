"""Down-sampling to what a screen can show: block means of maps, points in cells or thinned, sheets of pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST = 40_000  # cells or points that the browser is given at once
TILE = 64  # pixels of a picture in a sheet, along its longer side


@dataclass(frozen=True)
class Raster:
    """A window of a map in blocks: rows `top:bottom` and columns `left:right` of the map, `factor` cells a side."""

    values: np.ndarray
    top: int
    bottom: int
    left: int
    right: int
    factor: int


def raster(
    values: np.ndarray, rows: tuple[float, float], columns: tuple[float, float], *, most: int = MOST, mean: bool = True
) -> Raster:
    """The part of a map `(rows, columns)` that is seen, in at most `most` blocks.

    A block is the mean of its finite cells, NaN where it has none; of codes (`mean=False`) its first cell. The window
    grows to whole blocks, so that blocks stay where they are while a view moves.
    """
    top, bottom = _clipped(rows, values.shape[0])
    left, right = _clipped(columns, values.shape[1])
    factor = 1
    while -(-(bottom - top) // factor) * -(-(right - left) // factor) > most:
        factor += 1
    top, left = top - top % factor, left - left % factor
    bottom = min(values.shape[0], top - (top - bottom) // factor * factor)
    right = min(values.shape[1], left - (left - right) // factor * factor)
    part = np.asarray(values[top:bottom, left:right], np.float32)
    if factor > 1:
        part = block_mean(part, factor) if mean else part[::factor, ::factor]
    return Raster(part, top, bottom, left, right, factor)


def _clipped(window: tuple[float, float], size: int) -> tuple[int, int]:
    low = int(np.clip(np.floor(min(window)), 0, size - 1))
    return low, int(np.clip(np.ceil(max(window)), low + 1, size))


def block_mean(values: np.ndarray, factor: int) -> np.ndarray:
    """Means over blocks of the first two dims, `(H, W, …)`, at the far edges smaller ones; NaN do not count."""
    known = np.isfinite(values)
    sums, counts = np.where(known, values, 0).astype(np.float64), known.astype(np.float64)
    for axis in (0, 1):
        starts = np.arange(0, values.shape[axis], factor)
        sums, counts = (np.add.reduceat(a, starts, axis=axis) for a in (sums, counts))
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / np.where(counts > 0, counts, np.nan), np.float32)


def thinned(inside: np.ndarray, *, most: int = MOST) -> np.ndarray:
    """Positions of at most `most` of the points that are inside, evenly chosen in their order."""
    found = np.flatnonzero(inside)
    return found if len(found) <= most else found[np.linspace(0, len(found) - 1, most).round().astype(int)]


def cells(
    points: np.ndarray, values: np.ndarray, window: tuple[float, float, float, float], shape: tuple[int, int],
    *, mean: bool = True,
) -> np.ndarray:  # fmt: skip
    """Points `(k, 2)` in the cells of a window x0, x1, y0, y1: mean values `(rows, columns)`, NaN without points.

    Of codes (`mean=False`) the most frequent. The first row is at y0.
    """
    x0, x1, y0, y1 = window
    rows, columns = shape
    with np.errstate(invalid="ignore"):
        column = np.floor((points[:, 0] - x0) / (x1 - x0) * columns)
        row = np.floor((points[:, 1] - y0) / (y1 - y0) * rows)
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows) & np.isfinite(values)
    place = row[inside].astype(np.int64) * columns + column[inside].astype(np.int64)
    found = np.full(rows * columns, np.nan, np.float32)
    if mean:
        count = np.bincount(place, minlength=rows * columns)
        sums = np.bincount(place, values[inside], rows * columns)
        found[count > 0] = (sums[count > 0] / count[count > 0]).astype(np.float32)
    elif len(place):
        many = int(np.max(values[inside])) + 1
        both, count = np.unique(place * many + values[inside].astype(np.int64), return_counts=True)
        order = np.argsort(count, kind="stable")  # of a cell's codes the most frequent is written last
        found[both[order] // many] = (both[order] % many).astype(np.float32)
    return found.reshape(shape)


def in_polygon(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Which points `(k, 2)` lie in a polygon `(m, 2)`: a ray to the right crosses its sides an odd number of times."""
    inside = np.zeros(len(points), bool)
    x, y = points.T
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 != y1:
            crosses = (y0 > y) != (y1 > y)
            inside ^= crosses & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    return inside


def sheet(pictures: np.ndarray, *, tile: int = TILE, gap: int = 0, fill: float = np.nan) -> np.ndarray:
    """Pictures `(rows, columns, H, W[, 3])` side by side `(rows * h, columns * w[, 3])`; large ones in block means.

    gap: rows and columns of `fill` after each picture.
    """
    rows, columns, height, width = pictures.shape[:4]
    factor = max(1, -(-max(height, width) // tile))
    if factor > 1:
        pictures = np.stack([np.stack([block_mean(one, factor) for one in row]) for row in pictures])
    if gap:
        around = [(0, 0), (0, 0), (0, gap), (0, gap), *[(0, 0)] * (pictures.ndim - 4)]
        pictures = np.pad(np.asarray(pictures, np.float32), around, constant_values=fill)
    height, width = pictures.shape[2:4]
    return np.moveaxis(pictures, 1, 2).reshape(rows * height, columns * width, *pictures.shape[4:])
