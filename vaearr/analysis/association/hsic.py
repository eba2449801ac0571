"""Hilbert-Schmidt independence criterion of two columns with Gaussian kernels, exact, without a
matrix of pairs.

On an interval the kernel exp(-d^2 / 2) equals, to the last digits of a double, a cosine series
whose period is the interval and a margin of REACH. Each point becomes the vector of its weighted
cosines and sines, and the kernel of two points is the product of their vectors. Intervals without
points are shortened to REACH, which changes no kernel that is not zero.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

REACH = 8.6  # exp(-REACH^2 / 2) = 9e-17
MAX_WAVES = 1000  # of a series; columns with longer tails are summed pair by pair
CHUNK_VALUES = 2**20  # numbers held at once
ROUNDING = 1e-13  # of a kernel's values; smaller differences after centring are noise


class Kernel(NamedTuple):
    """The Gaussian kernel of a column of n points."""

    positions: np.ndarray  # (n,) in kernel widths, long gaps shortened
    frequency: float
    weights: np.ndarray  # (waves + 1,) square roots of the series' coefficients


class Sums(NamedTuple):
    """Sums over kernel matrices K and L."""

    centred: float  # tr(KHLH)
    products: float  # sum of K_ij L_ij
    rows: float  # sum of k_i l_i, k_i and l_i the sums of row i
    first: float  # sum of K_ij
    second: float  # sum of L_ij


def hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Biased HSIC."""
    return kernel_sums(x, y).centred / (len(x) - 1) ** 2


def hsic_normalised(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC over the geometric mean of both columns' HSIC with themselves, 0 to 1.

    NaN where all distances of a column are so much smaller than the kernel's least width, 1e-6,
    that its kernel is 1.
    """
    traces = np.array([kernel_sums(x, x).centred, kernel_sums(y, y).centred])
    if (traces <= (ROUNDING * len(x)) ** 2).any():
        return np.nan
    return min(kernel_sums(x, y).centred / math.sqrt(traces.prod()), 1.0)


def hsic_unbiased(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased HSIC, near 0 and also below it for independent columns; NaN below four points."""
    n = len(x)
    if n < 4:
        return np.nan
    sums = kernel_sums(x, y)
    products = sums.products - n  # without the diagonals, which are 1
    rows = sums.rows - sums.first - sums.second + n
    means = (sums.first - n) * (sums.second - n) / ((n - 1) * (n - 2))
    return (products + means - 2 / (n - 2) * rows) / (n * (n - 3))


def kernel_sums(x: np.ndarray, y: np.ndarray) -> Sums:
    """The sums for two columns `(n,)` that are not constant."""
    first = _kernel(x)
    second = _kernel(y)
    n = len(x)
    longest = max(first.weights.size, second.weights.size)
    if longest > MAX_WAVES:
        return _sums_of_pairs(first.positions, second.positions)
    a = np.zeros(2 * first.weights.size - 1)
    b = np.zeros(2 * second.weights.size - 1)
    cross = np.zeros((a.size, b.size))
    for points in _chunks(n, 2 * longest):
        u = _vectors(first, points)
        v = _vectors(second, points)
        cross += u @ v.T
        a += u.sum(axis=1)
        b += v.sum(axis=1)
    centred = np.sum((cross - np.outer(a, b) / n) ** 2)
    return Sums(*map(float, (centred, np.sum(cross**2), a @ cross @ b, a @ a, b @ b)))


def _chunks(n: int, width: int) -> list[slice]:
    step = max(1, CHUNK_VALUES // width)
    return [slice(start, start + step) for start in range(0, n, step)]


def _vectors(kernel: Kernel, points: slice) -> np.ndarray:
    """Vectors `(2 waves + 1, points)`."""
    waves = np.arange(kernel.weights.size)[:, None]
    angles = kernel.frequency * waves * kernel.positions[points]
    weights = kernel.weights[:, None]
    return np.concatenate([weights * np.cos(angles), weights[1:] * np.sin(angles[1:])])


def _sums_of_pairs(x: np.ndarray, y: np.ndarray) -> Sums:
    """The sums in O(n^2) time."""
    n = len(x)
    x_rows = np.empty(n)
    y_rows = np.empty(n)
    products = 0.0
    for points in _chunks(n, n):
        k = np.exp(-((x[points, None] - x) ** 2) / 2)
        l = np.exp(-((y[points, None] - y) ** 2) / 2)  # noqa: E741
        x_rows[points] = k.sum(axis=1)
        y_rows[points] = l.sum(axis=1)
        products += float(np.sum(k * l))
    first = float(x_rows.sum())
    second = float(y_rows.sum())
    rows = float(x_rows @ y_rows)
    return Sums(products - 2 * rows / n + first * second / n**2, products, rows, first, second)


def _kernel(values: np.ndarray) -> Kernel:
    order = np.argsort(values)
    ordered = values[order]
    width = math.hypot(median_distance(ordered), math.sqrt(0.5e-12))
    scaled = (ordered - np.median(ordered)) / width
    gaps = np.maximum(np.diff(scaled) - REACH, 0)
    shift = np.r_[0.0, np.cumsum(gaps)]
    scaled -= shift - shift[values.size // 2]  # none where most points are: digits are kept there
    period = scaled[-1] - scaled[0] + REACH
    frequency = 2 * math.pi / period
    waves = np.arange(math.ceil(REACH / frequency) + 1)
    coefficients = np.exp(-((waves * frequency) ** 2) / 2) * math.sqrt(2 * math.pi) / period
    coefficients[1:] *= 2
    positions = np.empty(values.size)
    positions[order] = scaled - (scaled[0] + scaled[-1]) / 2
    return Kernel(positions, frequency, np.sqrt(coefficients))


def median_distance(ordered: np.ndarray) -> float:
    """Median of the positive distances between ascending values, in O(n) memory.

    Found by root search in the number of pairs within a distance.
    """
    from scipy.optimize import brentq

    n = ordered.size

    def n_pairs_within(distance: float) -> int:
        ends = np.searchsorted(ordered, ordered + distance, side="right")
        return int(ends.sum()) - n * (n + 1) // 2

    def distance_of(rank: int) -> float:
        largest = 2 * (ordered[-1] - ordered[0])
        excess = lambda distance: n_pairs_within(distance) - rank + 0.5  # noqa: E731
        return float(brentq(excess, 0.0, largest, xtol=1e-300, rtol=1e-13, maxiter=1000))

    n_equal = n_pairs_within(0.0)
    n_positive = n * (n - 1) // 2 - n_equal
    lower = distance_of(n_equal + (n_positive + 1) // 2)
    if n_positive % 2:
        return lower
    return (lower + distance_of(n_equal + n_positive // 2 + 1)) / 2
