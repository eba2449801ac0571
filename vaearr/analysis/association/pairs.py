"""Metrics of two columns of numbers, by the libraries that have them. Constant columns are left out
by the caller.
"""

from __future__ import annotations

import numpy as np

N_NEIGHBOURS = 7  # of mutual information
MIN_UNBIASED = 4  # points that the unbiased distance correlation needs


def kendall(x: np.ndarray, y: np.ndarray) -> float:
    """Kendall's tau-b."""
    from scipy.stats import kendalltau

    return float(kendalltau(x, y).statistic)


def mutual_information(x: np.ndarray, y: np.ndarray) -> float:
    """Mutual information in nats; NaN for so few points that one does not have 7 neighbours."""
    from sklearn.feature_selection import mutual_info_regression

    if len(x) <= N_NEIGHBOURS:
        return np.nan
    columns = x[:, None]
    return float(mutual_info_regression(columns, y, n_neighbors=N_NEIGHBOURS, random_state=0)[0])


def distance_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Distance correlation of the V-statistics, in O(n log n)."""
    import dcor

    return float(dcor.distance_correlation(_scaled(x), _scaled(y), method="mergesort"))


def _scaled(values: np.ndarray) -> np.ndarray:
    """Values of mean 0 and mean deviation 1: the unit cancels in the correlation."""
    centred = values - values.mean()
    return np.asarray(centred / max(np.abs(centred).mean(), np.finfo(float).tiny))


def distance_correlation_unbiased(x: np.ndarray, y: np.ndarray) -> float:
    """Bias-corrected squared distance correlation; NaN for fewer than four points."""
    import dcor

    if len(x) < MIN_UNBIASED:
        return np.nan
    return float(dcor.u_distance_correlation_sqr(x, y))
