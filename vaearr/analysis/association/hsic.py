"""Hilbert-Schmidt independence criterion of two columns with Gaussian kernels, exact, without a
matrix of pairs.

On an interval the kernel exp(-d^2 / 2) equals, to the last digits of a double, a Fourier series
whose period is the interval and a margin of REACH. Sums over all pairs of points then follow from
the sums of exp(i (k x + l y)) over the points, which are a non-uniform Fourier transform. Gaps
longer than REACH are shortened to it: across them the kernel is zero before and after.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

REACH = 8.6  # exp(-REACH^2 / 2) = 9e-17
MAX_WAVES = 1000  # of a series; columns with longer tails are summed pair by pair
CHUNK_VALUES = 2**20  # kernels of pairs held at once
ROUNDING = 1e-13  # of a kernel's values; smaller differences after centring are noise


@dataclass(frozen=True, eq=False)
class Kernel:
    """The Gaussian kernel of a column of n points."""

    positions: np.ndarray  # (n,) in kernel widths, long gaps shortened
    frequency: float
    weights: np.ndarray  # (2 waves + 1,) square roots of the series' coefficients, from -waves on

    @property
    def n_waves(self) -> int:
        """Number of waves above 0."""
        return len(self.weights) // 2

    @cached_property
    def trace(self) -> float:
        """tr(KHKH), of the column with itself."""
        return kernel_sums(self, self).centred


class Sums(NamedTuple):
    """Sums over kernel matrices K and L."""

    centred: float  # tr(KHLH)
    products: float  # sum of K_ij L_ij
    rows: float  # sum of k_i l_i, k_i and l_i the sums of row i
    first: float  # sum of K_ij
    second: float  # sum of L_ij


def hsic(x: Kernel, y: Kernel) -> float:
    """Biased HSIC."""
    return kernel_sums(x, y).centred / (len(x.positions) - 1) ** 2


def hsic_normalised(x: Kernel, y: Kernel) -> float:
    """HSIC over the geometric mean of both columns' HSIC with themselves, 0 to 1.

    NaN where all distances of a column are so much smaller than the kernel's least width, 1e-6,
    that its kernel is 1.
    """
    if min(x.trace, y.trace) <= (ROUNDING * len(x.positions)) ** 2:
        return np.nan
    return min(kernel_sums(x, y).centred / math.sqrt(x.trace * y.trace), 1.0)


def hsic_unbiased(x: Kernel, y: Kernel) -> float:
    """Unbiased HSIC, near 0 and also below it for independent columns; NaN below four points."""
    n = len(x.positions)
    if n < 4:
        return np.nan
    sums = kernel_sums(x, y)
    products = sums.products - n  # without the diagonals, which are 1
    rows = sums.rows - sums.first - sums.second + n
    means = (sums.first - n) * (sums.second - n) / ((n - 1) * (n - 2))
    return (products + means - 2 / (n - 2) * rows) / (n * (n - 3))


def kernel_sums(first: Kernel, second: Kernel) -> Sums:
    """The sums for two columns."""
    import finufft

    if max(first.n_waves, second.n_waves) > MAX_WAVES:
        return _sums_of_pairs(first.positions, second.positions)
    n = len(first.positions)
    series = finufft.nufft2d1(
        first.frequency * first.positions,
        second.frequency * second.positions,
        np.ones(n, complex),
        (len(first.weights), len(second.weights)),
        eps=1e-14,
        nthreads=1,
    )
    a = first.weights * series[:, second.n_waves]
    b = second.weights * series[first.n_waves]
    cross = first.weights[:, None] * series * second.weights
    return Sums(
        centred=_squared_norm(cross - np.outer(a, b) / n),
        products=_squared_norm(cross),
        rows=float((a.conj() @ cross @ b.conj()).real),
        first=_squared_norm(a),
        second=_squared_norm(b),
    )


def _squared_norm(values: np.ndarray) -> float:
    return float(np.sum(np.abs(values) ** 2))


def _sums_of_pairs(x: np.ndarray, y: np.ndarray) -> Sums:
    """The sums in O(n^2) time."""
    n = len(x)
    x_rows = np.empty(n)
    y_rows = np.empty(n)
    products = 0.0
    step = max(1, CHUNK_VALUES // n)
    for start in range(0, n, step):
        points = slice(start, start + step)
        k = np.exp(-((x[points, None] - x) ** 2) / 2)
        l = np.exp(-((y[points, None] - y) ** 2) / 2)  # noqa: E741
        x_rows[points] = k.sum(axis=1)
        y_rows[points] = l.sum(axis=1)
        products += float(np.sum(k * l))
    first = float(x_rows.sum())
    second = float(y_rows.sum())
    rows = float(x_rows @ y_rows)
    return Sums(products - 2 * rows / n + first * second / n**2, products, rows, first, second)


def kernel(values: np.ndarray) -> Kernel:
    """The kernel of a column `(n,)` that is not constant."""
    order = np.argsort(values)
    ordered = values[order]
    width = math.hypot(median_distance(ordered), math.sqrt(0.5e-12))
    scaled = (ordered - np.median(ordered)) / width
    gaps = np.maximum(np.diff(scaled) - REACH, 0)
    shift = np.r_[0.0, np.cumsum(gaps)]
    # no shift at the median: where most points are, no digits are lost
    scaled -= shift - shift[values.size // 2]
    period = scaled[-1] - scaled[0] + REACH
    frequency = 2 * math.pi / period
    n_waves = math.ceil(REACH / frequency)
    waves = np.arange(-n_waves, n_waves + 1)
    coefficients = np.exp(-((waves * frequency) ** 2) / 2) * math.sqrt(2 * math.pi) / period
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
