"""Loops over points as machine code, without the interpreter's lock: threads run side by side.

Importing this module loads numba, so metrics import it when they are first used. The machine code
is kept next to the byte code for the next process, or in the user's cache folder; where neither can
be written it is made again each time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile the function at its first call."""
    try:
        return cast(F, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:  # no folder to keep it in
        return cast(F, numba.njit(nogil=True)(function))


@compiled
def discordant(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Number of pairs i < j with y_i > y_j, and their sum of (x_j - x_i)(y_i - y_j), x ascending.

    A merge sort of y that carries x.
    """
    n = x.size
    p, q = np.empty(n), np.empty(n)
    n_pairs, total = 0.0, 0.0
    width = 1
    while width < n:
        for low in range(0, n, 2 * width):
            middle, high = min(low + width, n), min(low + 2 * width, n)
            i, j = middle - 1, high - 1
            count, sum_x, sum_y, sum_xy, part = 0.0, 0.0, 0.0, 0.0, 0.0
            for place in range(high - 1, low - 1, -1):  # from the largest y down
                if j < middle or (i >= low and y[i] > y[j]):
                    p[place], q[place] = x[i], y[i]
                    count += 1
                    sum_x += x[i]
                    sum_y += y[i]
                    sum_xy += x[i] * y[i]
                    i -= 1
                else:
                    p[place], q[place] = x[j], y[j]
                    n_pairs += count
                    part += x[j] * (sum_y - count * y[j]) + (y[j] * sum_x - sum_xy)
                    j -= 1
            total += part
        x, p = p, x
        y, q = q, y
        width *= 2
    return n_pairs, total


@compiled
def n_within(ordered: np.ndarray, order: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """How many values, its own included, lie within the radius of each one."""
    counts = np.empty(ordered.size, np.int64)
    for place in range(ordered.size):
        point = order[place]
        last = _farthest(ordered, place, radius[point], ordered.size)
        first = _farthest(ordered, place, radius[point], -1)
        counts[point] = last - first + 1
    return counts


@compiled
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


@compiled
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


@compiled
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


@compiled
def mean_around(ordered: np.ndarray, distance: float) -> float:
    """Mean of the largest distance up to `distance` and the smallest above it."""
    largest, smallest, j = 0.0, np.inf, 0
    for i in range(ordered.size):
        while ordered[i] - ordered[j] > distance:
            j += 1
        largest = max(largest, ordered[i] - ordered[j])
        if j > 0:
            smallest = min(smallest, ordered[i] - ordered[j - 1])
    return (largest + smallest) / 2


@compiled
def distances_between(ordered: np.ndarray, low: float, high: float, count: int) -> np.ndarray:
    """The distances above `low` up to `high`, in any order."""
    distances = np.empty(count)
    place, first, last = 0, 0, 0
    for i in range(ordered.size):
        while ordered[i] - ordered[first] > high:
            first += 1
        while ordered[i] - ordered[last] > low:
            last += 1
        for j in range(first, last):
            distances[place] = ordered[i] - ordered[j]
            place += 1
    return distances


@compiled
def pairs_within(ordered: np.ndarray, distance: float) -> int:
    """Pairs of values that lie no farther apart than `distance`."""
    count, j = 0, 0
    for i in range(ordered.size):
        while ordered[i] - ordered[j] > distance:
            j += 1
        count += i - j
    return count


@compiled
def densest(ordered: np.ndarray, length: float) -> tuple[int, int]:
    """First and last place of the interval of at most this length that holds the most values."""
    first, last, j = 0, 0, 0
    for i in range(ordered.size):
        while ordered[i] - ordered[j] > length:
            j += 1
        if i - j > last - first:
            first, last = j, i
    return first, last


@compiled
def cosines(angle: np.ndarray, weights: np.ndarray, waves: np.ndarray) -> None:
    """Weighted cosines and sines of the multiples of each angle, into `waves` (block, length,
    BLOCK).
    """
    size = waves.shape[2]
    for block in range(waves.shape[0]):
        out = waves[block]
        part = angle[block * size : (block + 1) * size]
        cosine, sine = np.cos(part), np.sin(part)
        real, imaginary = cosine.copy(), sine.copy()
        out[0, : part.size] = weights[0]
        for k in range(1, weights.size):
            for i in range(part.size):
                out[2 * k - 1, i] = real[i] * weights[k]
                out[2 * k, i] = imaginary[i] * weights[k]
                turned = real[i] * cosine[i] - imaginary[i] * sine[i]
                imaginary[i] = real[i] * sine[i] + imaginary[i] * cosine[i]
                real[i] = turned
