"""Loops over points, compiled by numba without the interpreter's lock, so that threads run in
parallel. Importing this module loads numba.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def n_within(ordered: np.ndarray, order: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """How many values, itself included, lie within the radius of each one."""
    counts = np.empty(ordered.size, np.int64)
    for rank in range(ordered.size):
        point = order[rank]
        last = _farthest(ordered, rank, radius[point], ordered.size)
        first = _farthest(ordered, rank, radius[point], -1)
        counts[point] = last - first + 1
    return counts


@numba.njit(nogil=True, cache=True)
def _farthest(ordered: np.ndarray, rank: int, radius: float, outside: int) -> int:
    """Rank of the farthest value within the radius of that at `rank`, towards `outside`."""
    inside = rank
    while abs(outside - inside) > 1:
        middle = (inside + outside) >> 1
        if abs(ordered[middle] - ordered[rank]) <= radius:
            inside = middle
        else:
            outside = middle
    return inside


@numba.njit(nogil=True, cache=True)
def neighbour_distance(
    x: np.ndarray,
    x_sorted: np.ndarray,
    x_rank: np.ndarray,
    y: np.ndarray,
    y_order: np.ndarray,
    k: int,
    size: int,
) -> np.ndarray:
    """Chebyshev distance (the larger coordinate difference) of each point to its k-th neighbour.

    The plane is cut into strips with `size` points, ascending in x, each sorted by y. A search
    starts at the point and ends, in a strip and from strip to strip, where points are farther than
    the k-th nearest so far.
    """
    n = x.size
    n_strips = (n + size - 1) // size
    free = np.arange(n_strips) * size
    index = np.empty(n, np.int64)
    for i in y_order:
        strip = x_rank[i] // size
        index[free[strip]] = i
        free[strip] += 1
    strip_x, strip_y = x[index], y[index]
    best, distance = np.empty(k), np.empty(n)
    for slot in range(n):
        home = slot // size
        px, py = strip_x[slot], strip_y[slot]
        best[:] = np.inf
        low, high = home * size, min((home + 1) * size, n)
        _search(strip_x, strip_y, low, slot - 1, slot + 1, high, px, py, best)
        for step in (-1, 1):
            strip = home + step
            while 0 <= strip < n_strips:
                low, high = strip * size, min((strip + 1) * size, n)
                nearest = high - 1 if step < 0 else low
                if abs(x_sorted[nearest] - px) >= best[-1]:
                    break
                middle = low + np.searchsorted(strip_y[low:high], py)
                _search(strip_x, strip_y, low, middle - 1, middle, high, px, py, best)
                strip += step
        distance[index[slot]] = best[-1]
    return distance


@numba.njit(nogil=True, cache=True)
def _search(
    x: np.ndarray,
    y: np.ndarray,
    low: int,
    down: int,
    up: int,
    high: int,
    px: float,
    py: float,
    best: np.ndarray,
) -> None:
    """Insert the nearer points of a strip into `best`, ascending, from `py` on to both sides."""
    k = best.size
    while True:
        below = py - y[down] if down >= low else np.inf
        above = y[up] - py if up < high else np.inf
        if below < above:
            distance, dx = below, abs(x[down] - px)
            down -= 1
        else:
            if above == np.inf:
                return
            distance, dx = above, abs(x[up] - px)
            up += 1
        if distance >= best[k - 1]:
            return
        distance = max(distance, dx)
        if distance < best[k - 1]:
            rank = k - 1
            while rank > 0 and best[rank - 1] > distance:
                best[rank] = best[rank - 1]
                rank -= 1
            best[rank] = distance


@numba.njit(nogil=True, cache=True)
def discordant_products(x: np.ndarray, y: np.ndarray) -> float:
    """Sum of (x_j - x_i)(y_i - y_j) over the pairs i < j with y_i > y_j, for ascending x.

    A merge sort of y that carries x: `larger` values of the left half come before a value of the
    right half.
    """
    n = x.size
    sorted_x = np.empty(n)
    sorted_y = np.empty(n)
    total = 0.0
    width = 1
    while width < n:
        for low in range(0, n, 2 * width):
            middle = min(low + width, n)
            high = min(low + 2 * width, n)
            left = middle - 1
            right = high - 1
            n_larger, sum_x, sum_y, sum_xy = 0.0, 0.0, 0.0, 0.0
            for slot in range(high - 1, low - 1, -1):  # from the largest y down
                if right < middle or (left >= low and y[left] > y[right]):
                    sorted_x[slot], sorted_y[slot] = x[left], y[left]
                    n_larger += 1
                    sum_x += x[left]
                    sum_y += y[left]
                    sum_xy += x[left] * y[left]
                    left -= 1
                else:
                    sorted_x[slot], sorted_y[slot] = x[right], y[right]
                    total += x[right] * (sum_y - n_larger * y[right])
                    total += y[right] * sum_x - sum_xy
                    right -= 1
        x, sorted_x = sorted_x, x
        y, sorted_y = sorted_y, y
        width *= 2
    return total
