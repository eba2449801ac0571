"""Gaussian kernels of a column as short vectors: sums over all pairs of points without a matrix of pairs.

On an interval the kernel exp(-d^2 / 2) equals, to the last digits of a double, a cosine series whose period is the
interval and a margin of REACH. Each point becomes the vector of its weighted cosines and sines, and the kernel of two
points is the product of their vectors. Columns with few distinct values get the eigenvectors of their small kernel
matrix instead. Where values lie far outside the rest (heavy tails), intervals without points are shortened, which
changes no kernel that is not zero, and points outside the densest stretch are summed directly over their neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vaearr.analysis.association.columns import Columns, compiled, order

REACH = 8.6  # exp(-REACH^2 / 2) = 9e-17
STRETCH = 64.0  # longest interval that the series is made for
BLOCK = 128  # points of one matrix product: so small that BLAS does not start threads inside a task
CHUNK = 64 * BLOCK  # points whose vectors are held at once


@dataclass(frozen=True, eq=False)
class Kernel:
    """The Gaussian kernel of a column of n points."""

    sigma: float  # median of the positive distances between points
    place: np.ndarray  # (n,) values in units of the kernel's width, long gaps shortened, 0 = middle of the series
    order: np.ndarray  # (n,)
    outside: np.ndarray | None  # (n,) points that the series leaves out; None = none
    frequency: float
    weights: np.ndarray  # (waves + 1,) square roots of the series' coefficients
    table: np.ndarray | None  # (distinct values, rank) vectors of each distinct value, instead of the series
    code: np.ndarray  # (n,) number of the distinct value

    @property
    def length(self) -> int:
        """Length of a point's vector."""
        return 2 * self.weights.size - 1 if self.table is None else int(self.table.shape[1])

    def vectors(self, start: int) -> np.ndarray:
        """Vectors `(block, length, BLOCK)` of CHUNK points from `start`; zero outside the series and past the end."""
        place = self.place[start : start + CHUNK]
        n_blocks = -(-place.size // BLOCK)
        if self.table is not None:
            rows = np.zeros((n_blocks * BLOCK, self.length))
            rows[: place.size] = self.table[self.code[start : start + CHUNK]]
            return np.ascontiguousarray(rows.reshape(n_blocks, BLOCK, -1).transpose(0, 2, 1))
        waves = np.zeros((n_blocks, self.length, BLOCK))
        _fill(self.frequency * place, self.weights, waves)
        if self.outside is not None:
            where = np.flatnonzero(self.outside[start : start + CHUNK])
            waves[where // BLOCK, :, where % BLOCK] = 0
        return waves


def vector_sum(vectors: np.ndarray) -> np.ndarray:
    """Sum `(length,)` of the vectors of points; along the contiguous axis first, where numpy sums pairwise."""
    return np.asarray(vectors.sum(axis=2).sum(axis=0))


def kernels(columns: Columns) -> list[Kernel | None]:
    """The kernel of each column, None for a constant one."""
    return [
        None if values[places[0]] == values[places[-1]] else _kernel(values, places)
        for values, places in zip(columns.values.T, columns.made(order).T, strict=True)
    ]


def row_sums(columns: Columns, i: int) -> np.ndarray:
    """Sum of the kernel of each point with all points, `(n,)`."""
    kernel = columns.made(kernels)[i]
    if kernel is None:
        return np.full(columns.n, float(columns.n))
    total = np.zeros(kernel.length)
    for start in range(0, columns.n, CHUNK):
        total += vector_sum(kernel.vectors(start))
    sums = np.concatenate([(total @ kernel.vectors(start)).ravel() for start in range(0, columns.n, CHUNK)])
    sums = sums[: columns.n]
    if kernel.outside is not None:
        _add_outside(kernel.place, kernel.order, kernel.outside, REACH, sums)
    return sums


def outside_products(ours: Kernel, theirs: Kernel) -> float:
    """Sum of both kernels' product over the pairs with a point that one of the series leaves out."""
    masks = [mask for mask in (ours.outside, theirs.outside) if mask is not None]
    if not masks:
        return 0.0
    outside = np.logical_or.reduce(masks)
    return float(_outside_products(ours.place, ours.order, theirs.place, theirs.order, outside, REACH))


def median_distance(ordered: np.ndarray) -> float:
    """Median of the positive distances between values given in ascending order, exact, in O(n) memory.

    Bisects over the floating-point numbers, counting pairs, until few distances are left between the bounds.
    """
    n = ordered.size
    zero = _pairs_within(ordered, 0.0)
    positive = n * (n - 1) // 2 - zero
    middle = zero + np.array([(positive + 1) // 2, positive // 2 + 1])  # ranks from 1; the same one if odd
    low, high = 0, int(np.float64(ordered[-1] - ordered[0]).view(np.int64))
    below, within = zero, n * (n - 1) // 2
    while within - below > 4 * n and high - low > 1:
        half = (low + high) // 2
        count = _pairs_within(ordered, float(np.int64(half).view(np.float64)))
        if count >= middle[0]:
            high, within = half, count
        else:
            low, below = half, count
    top = float(np.int64(high).view(np.float64))
    if high - low <= 1:
        first = top
    else:
        some = _distances_between(ordered, float(np.int64(low).view(np.float64)), top, within - below)
        some.sort()
        first = float(some[middle[0] - below - 1])
        if middle[1] <= within:
            return (first + float(some[middle[1] - below - 1])) / 2
    second = first if middle[1] <= within else _next_distance(ordered, top)
    return (first + second) / 2


def _kernel(values: np.ndarray, places: np.ndarray) -> Kernel:
    ordered = values[places]
    is_first = np.r_[True, ordered[1:] != ordered[:-1]]  # of the points with this value
    code = np.empty(values.size, np.int64)
    code[places] = np.cumsum(is_first) - 1
    sigma = median_distance(ordered)
    scaled = (ordered - np.median(ordered)) / math.hypot(sigma, math.sqrt(0.5e-12))
    excess = np.maximum(np.diff(scaled) - REACH, 0)
    shift = np.r_[0.0, np.cumsum(excess)]
    scaled -= shift - shift[values.size // 2]  # none where most points are: digits are kept there
    first, last = _densest(scaled, STRETCH)
    span = scaled[last] - scaled[first]
    period = span + REACH
    frequency = 2 * math.pi / period
    wave = np.arange(math.ceil(REACH / frequency) + 1)
    strength = np.exp(-((wave * frequency) ** 2) / 2) * math.sqrt(2 * math.pi) / period
    strength[1:] *= 2
    outside = np.empty(values.size, bool)
    outside[places] = (np.arange(values.size) < first) | (np.arange(values.size) > last)
    place = np.empty(values.size)
    place[places] = scaled - (scaled[first] + scaled[last]) / 2
    table = _table(scaled[is_first]) if is_first.sum() < 2 * wave.size else None
    left_out = outside if table is None and outside.any() else None
    places = np.ascontiguousarray(places)
    return Kernel(sigma, place, places, left_out, frequency, np.sqrt(strength), table, code)


def _table(distinct: np.ndarray) -> np.ndarray:
    """Vectors whose products are the kernel of few values."""
    strength, axes = np.linalg.eigh(np.exp(-(np.subtract.outer(distinct, distinct) ** 2) / 2))
    kept = strength > 1e-17 * strength[-1]
    return np.asarray(axes[:, kept] * np.sqrt(strength[kept]))


@compiled
def _fill(angle: np.ndarray, weights: np.ndarray, waves: np.ndarray) -> None:
    """Weighted cosines and sines of the multiples of each angle, into `waves` (block, length, BLOCK)."""
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


@compiled
def _pairs_within(ordered: np.ndarray, distance: float) -> int:
    """Pairs of values that lie no farther apart than `distance`."""
    count, j = 0, 0
    for i in range(ordered.size):
        while ordered[i] - ordered[j] > distance:
            j += 1
        count += i - j
    return count


@compiled
def _distances_between(ordered: np.ndarray, low: float, high: float, count: int) -> np.ndarray:
    """The distances above `low` up to `high`, in any order."""
    found = np.empty(count)
    place, first, last = 0, 0, 0
    for i in range(ordered.size):
        while ordered[i] - ordered[first] > high:
            first += 1
        while ordered[i] - ordered[last] > low:
            last += 1
        for j in range(first, last):
            found[place] = ordered[i] - ordered[j]
            place += 1
    return found


@compiled
def _next_distance(ordered: np.ndarray, distance: float) -> float:
    """The smallest distance above `distance`."""
    least, j = np.inf, 0
    for i in range(ordered.size):
        while ordered[i] - ordered[j] > distance:
            j += 1
        if j > 0:
            least = min(least, ordered[i] - ordered[j - 1])
    return least


@compiled
def _densest(ordered: np.ndarray, length: float) -> tuple[int, int]:
    """First and last place of the interval of at most this length that holds the most values."""
    first, last, j = 0, 0, 0
    for i in range(ordered.size):
        while ordered[i] - ordered[j] > length:
            j += 1
        if i - j > last - first:
            first, last = j, i
    return first, last


@compiled
def _add_outside(place: np.ndarray, order: np.ndarray, outside: np.ndarray, reach: float, sums: np.ndarray) -> None:
    """Add to `sums` the kernels of pairs with a point outside the series."""
    ordered = place[order]
    for p in range(order.size):
        i = order[p]
        if not outside[i]:
            continue
        q = np.searchsorted(ordered, ordered[p] - reach)
        while q < order.size and ordered[q] - ordered[p] <= reach:
            j = order[q]
            value = np.exp(-((ordered[q] - ordered[p]) ** 2) / 2)
            sums[i] += value
            if not outside[j]:
                sums[j] += value
            q += 1


@compiled
def _outside_products(
    x: np.ndarray, x_order: np.ndarray, y: np.ndarray, y_order: np.ndarray, outside: np.ndarray, reach: float
) -> float:
    """As `outside_products`: each such point against those near it in x or in y, whichever are fewer."""
    x_sorted, y_sorted = x[x_order], y[y_order]
    total = 0.0
    for i in np.flatnonzero(outside):
        x_low, x_high = np.searchsorted(x_sorted, x[i] - reach), np.searchsorted(x_sorted, x[i] + reach)
        y_low, y_high = np.searchsorted(y_sorted, y[i] - reach), np.searchsorted(y_sorted, y[i] + reach)
        near = x_order[x_low:x_high] if x_high - x_low <= y_high - y_low else y_order[y_low:y_high]
        part = 0.0
        for j in near:
            value = np.exp(-((x[j] - x[i]) ** 2 + (y[j] - y[i]) ** 2) / 2)
            part += value if outside[j] else 2 * value
        total += part
    return total
