"""Loops over points, compiled by numba without the interpreter's lock, so that threads run in
parallel. Importing this module loads numba.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def n_within(ordered: np.ndarray, order: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """How many values, its own included, lie within the radius of each one."""
    counts = np.empty(ordered.size, np.int64)
    for place in range(ordered.size):
        point = order[place]
        last = _farthest(ordered, place, radius[point], ordered.size)
        first = _farthest(ordered, place, radius[point], -1)
        counts[point] = last - first + 1
    return counts


@numba.njit(nogil=True, cache=True)
def _farthest(ordered: np.ndarray, place: int, radius: float, outside: int) -> int:
    """Place of the farthest value within the radius of the one at `place`, on the side of
    `outside`.
    """
    inside = place
    while abs(outside - inside) > 1:
        middle = (inside + outside) >> 1
        if abs(ordered[middle] - ordered[place]) <= radius:
            inside = middle
        else:
            outside = middle
    return inside


@numba.njit(nogil=True, cache=True)
def neighbour_distance(
    x: np.ndarray,
    x_sorted: np.ndarray,
    x_place: np.ndarray,
    y: np.ndarray,
    y_order: np.ndarray,
    k: int,
    size: int,
) -> np.ndarray:
    """Largest-coordinate distance of each point to its k-th neighbour.

    The plane is cut into strips with `size` points, ascending in x, each sorted by y. A search
    starts at the point, and leaves a strip, or goes to no further one, where points are farther
    than the k-th so far.
    """
    n = x.size
    n_strips = (n + size - 1) // size
    free = np.arange(n_strips) * size
    index = np.empty(n, np.int64)
    for i in y_order:
        strip = x_place[i] // size
        index[free[strip]] = i
        free[strip] += 1
    strip_x, strip_y = x[index], y[index]
    best, distance = np.empty(k), np.empty(n)
    for slot in range(n):
        own = slot // size
        px, py = strip_x[slot], strip_y[slot]
        best[:] = np.inf
        low, high = own * size, min((own + 1) * size, n)
        _search(strip_x, strip_y, low, slot - 1, slot + 1, high, px, py, best)
        for step in (-1, 1):
            strip = own + step
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
    """Put nearer points of one strip into `best`, ascending in distance, going away from `py` on
    both sides.
    """
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
            place = k - 1
            while place > 0 and best[place - 1] > distance:
                best[place] = best[place - 1]
                place -= 1
            best[place] = distance
