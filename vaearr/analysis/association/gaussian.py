"""Gaussian kernels of a column as short vectors: sums over all pairs of points without a matrix of
pairs.

On an interval the kernel exp(-d^2 / 2) equals, to the last digits of a double, a cosine series
whose period is the interval and a margin of REACH. Each point becomes the vector of its weighted
cosines and sines, and the kernel of two points is the product of their vectors. Where values lie
far outside the rest (heavy tails), intervals without points are shortened, which changes no kernel
that is not zero, and points outside the densest stretch are summed directly over their neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vaearr.analysis.association.columns import Columns, order

REACH = 8.6  # exp(-REACH^2 / 2) = 9e-17
STRETCH = 64.0  # longest interval that the series is made for
BLOCK = 128  # points of one matrix product: so small that BLAS does not start threads inside a task
CHUNK = 64 * BLOCK  # points whose vectors are held at once
OUTSIDE_AT_ONCE = 64  # points outside the series whose neighbours are held at once


@dataclass(frozen=True, eq=False)
class Kernel:
    """The Gaussian kernel of a column of n points."""

    place: (
        np.ndarray
    )  # (n,) values in units of the kernel's width, long gaps shortened, 0 = middle of the series
    outside: np.ndarray  # (n,) points that the series leaves out
    frequency: float
    weights: np.ndarray  # (waves + 1,) square roots of the series' coefficients

    @property
    def length(self) -> int:
        """Length of a point's vector."""
        return 2 * self.weights.size - 1

    def vectors(self, start: int) -> np.ndarray:
        """Vectors `(block, length, BLOCK)` of CHUNK points from `start`; zero outside the series
        and past the end.
        """
        from vaearr.analysis.association.loops import cosines

        place = self.place[start : start + CHUNK]
        waves = np.zeros((math.ceil(place.size / BLOCK), self.length, BLOCK))
        cosines(self.frequency * place, self.weights, waves)
        outside = np.flatnonzero(self.outside[start : start + CHUNK])
        waves[outside // BLOCK, :, outside % BLOCK] = 0
        return waves


def vector_sum(vectors: np.ndarray) -> np.ndarray:
    """Sum `(length,)` of the vectors of points; along the contiguous axis first, where numpy sums
    pairwise.
    """
    return np.asarray(vectors.sum(axis=2).sum(axis=0))


def kernels(columns: Columns) -> list[Kernel | None]:
    """The kernel of each column, None for a constant one."""
    found: list[Kernel | None] = []
    for values, places in zip(columns.values.T, columns.cached(order).T, strict=True):
        is_constant = values[places[0]] == values[places[-1]]
        found.append(None if is_constant else _kernel(values, places))
    return found


def row_sums(columns: Columns, i: int) -> np.ndarray:
    """Sum of the kernel of each point with all points, `(n,)`, of a column that is not constant."""
    kernel = columns.cached(kernels)[i]
    assert kernel is not None
    starts = range(0, columns.n, CHUNK)
    total = sum(vector_sum(kernel.vectors(start)) for start in starts)
    sums = np.concatenate([(total @ kernel.vectors(start)).ravel() for start in starts])[
        : columns.n
    ]
    for points, neighbours, values in _outside_pairs(kernel.place[:, None], kernel.outside):
        sums += np.bincount(points, values, columns.n)
        values[kernel.outside[neighbours]] = 0  # these are summed in their own turn
        sums += np.bincount(neighbours, values, columns.n)
    return np.asarray(sums)


def outside_products(ours: Kernel, theirs: Kernel) -> float:
    """Sum of both kernels' product over the pairs with a point that one of the series leaves out."""
    outside = ours.outside | theirs.outside
    total = 0.0
    for _, neighbours, values in _outside_pairs(
        np.column_stack([ours.place, theirs.place]), outside
    ):
        total += float(np.sum(np.where(outside[neighbours], 1, 2) * values))
    return total


def _outside_pairs(
    places: np.ndarray, outside: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Each point of `places` (n, d) that is outside with each near it: first points, second points,
    kernels.
    """
    from scipy.spatial import KDTree

    points = np.flatnonzero(outside)
    if not points.size:
        return
    tree = KDTree(places)
    for start in range(0, points.size, OUTSIDE_AT_ONCE):
        some = points[start : start + OUTSIDE_AT_ONCE]
        near = KDTree(places[some]).sparse_distance_matrix(tree, REACH, output_type="ndarray")
        yield some[near["i"]], near["j"], np.exp(-(near["v"] ** 2) / 2)


def median_distance(ordered: np.ndarray) -> float:
    """Median of the positive distances between values given in ascending order, exact, in O(n)
    memory.

    Bisects, counting pairs, until few distances are left between the bounds.
    """
    from vaearr.analysis.association.loops import distances_between, mean_around, pairs_within

    n = ordered.size
    below, within = pairs_within(ordered, 0.0), n * (n - 1) // 2
    lower, upper = (
        (below + within + 1) // 2,
        (below + within) // 2 + 1,
    )  # ranks from 1; the same one if odd
    low, high = 0.0, ordered[-1] - ordered[0]
    while within - below > 4 * n:
        middle = low + (high - low) / 2
        if middle in (low, high):  # all distances that are left are equal
            return float(high)
        count = pairs_within(ordered, middle)
        if count >= upper:
            high, within = middle, count
        elif count < lower:
            low, below = middle, count
        else:
            return float(mean_around(ordered, middle))
    middle_places = [lower - below - 1, upper - below - 1]
    distances = np.partition(distances_between(ordered, low, high, within - below), middle_places)
    return float(distances[middle_places].mean())


def _kernel(values: np.ndarray, places: np.ndarray) -> Kernel:
    from vaearr.analysis.association.loops import densest

    ordered = values[places]
    sigma = median_distance(ordered)
    scaled = (ordered - np.median(ordered)) / math.hypot(sigma, math.sqrt(0.5e-12))
    excess = np.maximum(np.diff(scaled) - REACH, 0)
    shift = np.r_[0.0, np.cumsum(excess)]
    scaled -= shift - shift[values.size // 2]  # none where most points are: digits are kept there
    first, last = densest(scaled, STRETCH)
    period = scaled[last] - scaled[first] + REACH
    frequency = 2 * math.pi / period
    wave = np.arange(math.ceil(REACH / frequency) + 1)
    strength = np.exp(-((wave * frequency) ** 2) / 2) * math.sqrt(2 * math.pi) / period
    strength[1:] *= 2
    outside = np.ones(values.size, bool)
    outside[places[first : last + 1]] = False
    place = np.empty(values.size)
    place[places] = scaled - (scaled[first] + scaled[last]) / 2
    return Kernel(place, outside, frequency, np.sqrt(strength))
