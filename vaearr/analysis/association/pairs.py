"""Metrics of two columns of numbers, by the libraries that have them. Constant columns are left out
by the caller.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

import numpy as np

N_NEIGHBOURS = 7  # of mutual information
MIN_UNBIASED = 4  # points that the unbiased distance correlation needs


def kendall(x: np.ndarray, y: np.ndarray) -> float:
    """Kendall's tau-b."""
    from scipy.stats import kendalltau

    return float(kendalltau(x, y).statistic)


@dataclass(frozen=True, eq=False)
class Noisy:
    """A column with the noise that scikit-learn adds to a latent, and with that of a target."""

    as_latent: Ordered
    as_target: Ordered
    n_different: int  # values before the noise


@dataclass(frozen=True, eq=False)
class Ordered:
    """A column, its order, the inverse of the order, and its values in that order."""

    values: np.ndarray
    order: np.ndarray
    ranks: np.ndarray
    ascending: np.ndarray


def noisy(values: np.ndarray) -> Noisy:
    """Scale a column to deviation 1, with so little noise that it only makes equal values differ."""
    from sklearn.preprocessing import scale

    scaled = scale(values, with_mean=False)
    noise = np.random.RandomState(0).standard_normal((2, len(values)))
    noise *= 1e-10 * max(1, np.abs(scaled).mean())
    return Noisy(_ordered(scaled + noise[0]), _ordered(scaled + noise[1]), len(np.unique(values)))


def _ordered(values: np.ndarray) -> Ordered:
    order = np.argsort(values)
    return Ordered(values, order, np.argsort(order), values[order])


def mutual_information(latent: Noisy, target: Noisy) -> float:
    """Mutual information in nats; NaN for so few points that one does not have 7 neighbours.

    The numbers of scikit-learn's `mutual_info_regression(x, y, n_neighbors=7, random_state=0)`.
    """
    from scipy.special import digamma

    from vaearr.analysis.association.loops import n_within, neighbour_distance

    x = latent.as_latent
    y = target.as_target
    n = len(x.values)
    if n <= N_NEIGHBOURS:
        return np.nan
    # the search goes along the column with more different values; no result depends on that
    first, second = (x, y) if latent.n_different >= target.n_different else (y, x)
    n_different = min(latent.n_different, target.n_different)
    strip = int(min(np.sqrt(n * N_NEIGHBOURS) / 2, 2 * N_NEIGHBOURS * n_different))
    distance = neighbour_distance(
        first.values,
        first.ascending,
        first.ranks,
        second.values,
        second.order,
        N_NEIGHBOURS,
        max(strip, N_NEIGHBOURS),
    )
    radius = np.nextafter(distance, 0)
    value = digamma(n) + digamma(N_NEIGHBOURS)
    for column in (x, y):
        value -= digamma(n_within(column.ascending, column.order, radius)).mean()
    return max(0.0, float(value))


@dataclass(frozen=True, eq=False)
class Distances:
    """A column of mean 0 and mean deviation 1, and the sums of its distances."""

    values: np.ndarray
    order: np.ndarray
    row_means: np.ndarray  # mean distance of each point to all, less `mean`
    mean: float  # of all n x n distances
    variance: float  # squared distance variance


def distances(values: np.ndarray) -> Distances:
    """Scale a column, which changes no correlation, and average its distances in O(n log n)."""
    centred = values - values.mean()
    scaled = centred / max(float(np.abs(centred).mean()), np.finfo(float).tiny)
    n = len(scaled)
    order = np.argsort(scaled)
    ascending = scaled[order]
    n_before = np.arange(n)
    before = np.cumsum(ascending) - ascending
    after = ascending.sum() - before - ascending
    row_means = np.empty(n)
    row_means[order] = n_before * ascending - before + after - (n - 1 - n_before) * ascending
    row_means /= n
    mean = float(row_means.mean())
    row_means -= mean
    variance = 2 * scaled.var() - mean**2 - 2 * np.mean(row_means**2)
    return Distances(scaled, order, row_means, mean, float(variance))


def distance_correlation(x: Distances, y: Distances) -> float:
    """Distance correlation of the V-statistics, in O(n log n)."""
    from vaearr.analysis.association.loops import discordant_products

    if x.variance <= 0 or y.variance <= 0:
        return np.nan
    n = len(x.values)
    # sum of |dx||dy| over pairs: that of dx dy, plus twice that of pairs of opposite order
    products = n * float(x.values @ y.values)
    products += 2 * discordant_products(x.values[x.order], y.values[x.order])
    covariance = 2 * products / n**2 - x.mean * y.mean - 2 * np.mean(x.row_means * y.row_means)
    ratio = max(covariance, 0.0) / np.sqrt(x.variance * y.variance)
    return float(np.sqrt(min(ratio, 1.0)))


def distance_correlation_unbiased(x: np.ndarray, y: np.ndarray) -> float:
    """Bias-corrected squared distance correlation; NaN for fewer than four points."""
    dcor = load_dcor()
    if len(x) < MIN_UNBIASED:
        return np.nan
    return float(dcor.u_distance_correlation_sqr(x, y))


def load_dcor() -> ModuleType:
    """Import dcor; the number of OpenMP threads of this process, which numba sets, is restored."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return importlib.import_module("dcor")
