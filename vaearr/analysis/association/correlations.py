"""Correlations: linear, by ranks, by pairs, and of what a polynomial of the position leaves."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np

from vaearr.analysis.association.columns import Columns, each_pair, order
from vaearr.errors import UsageError

ROUNDING = 1e-10  # smallest residual, as a share of the column's largest deviation
MIN_FREE = 2  # points beyond the trend's terms: residuals of fewer lie on one line, r = +-1


def pearson(latents: Columns, targets: Columns) -> np.ndarray:
    """Linear correlation `(L, T)`."""
    return _correlation(latents.cached(_unit_values), targets.cached(_unit_values))


def spearman(latents: Columns, targets: Columns) -> np.ndarray:
    """Rank correlation `(L, T)`."""
    return _correlation(latents.cached(_unit_ranks), targets.cached(_unit_ranks))


def partial_pearson(latents: Columns, targets: Columns, *, degree: int) -> np.ndarray:
    """Linear correlation `(L, T)` of what a polynomial of the position does not explain."""
    return _correlation(
        latents.cached(_unit_residuals, degree), targets.cached(_unit_residuals, degree)
    )


def _correlation(latents: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.clip(latents.T @ targets, -1.0, 1.0)


def _unit_values(columns: Columns) -> np.ndarray:
    return _unit(columns.values)


def _unit_ranks(columns: Columns) -> np.ndarray:
    return _unit(ranks(columns))


def _unit_residuals(columns: Columns, degree: int) -> np.ndarray:
    return _unit(_residuals(columns, degree))


def _unit(values: np.ndarray) -> np.ndarray:
    """Columns centred and of length 1; NaN for constant ones."""
    constant = np.ptp(values, axis=0) == 0
    centred = values - values.mean(axis=0)
    centred -= centred.mean(axis=0)  # rounding of a large offset
    largest = np.abs(centred).max(axis=0)
    centred /= np.maximum(largest, np.finfo(float).tiny)  # squares neither under- nor overflow
    norm = np.sqrt(np.einsum("nl,nl->l", centred, centred))
    norm[constant | (norm == 0)] = np.nan
    return np.asarray(centred / norm)


def kendall(latents: Columns, targets: Columns) -> np.ndarray:
    """Rank correlation by pairs `(L, T)`, corrected for ties, in O(n log n) per pair."""
    from vaearr.analysis.association.loops import discordant

    latent_ranks = latents.cached(dense_ranks)
    target_ranks = targets.cached(dense_ranks)
    n_pairs = latents.n * (latents.n - 1) // 2

    def pair(i: int, j: int) -> float:
        x = latent_ranks[:, i]
        y = target_ranks[:, j]
        n_values = int(y.max()) + 1
        sorted_pairs = np.sort(x * n_values + y)  # in the order of x, then of y
        y_sorted = (sorted_pairs % n_values).astype("f8")
        n_discordant = discordant(np.zeros(latents.n), y_sorted)[0]
        is_new = np.r_[True, sorted_pairs[1:] != sorted_pairs[:-1], True]
        both_tied = _n_pairs(np.diff(np.flatnonzero(is_new)))
        x_tied = _n_pairs(np.bincount(x))
        y_tied = _n_pairs(np.bincount(y))
        excess = n_pairs - x_tied - y_tied + both_tied - 2 * n_discordant
        return float(np.clip(excess / np.sqrt(n_pairs - x_tied) / np.sqrt(n_pairs - y_tied), -1, 1))

    return each_pair(latents, targets, pair)


def _n_pairs(sizes: np.ndarray) -> int:
    """Pairs within groups of these sizes."""
    return int((sizes * (sizes - 1) // 2).sum())


def dense_ranks(columns: Columns) -> np.ndarray:
    """Numbers 0, 1, … of the distinct values of each column in ascending order, `(n, k)`."""
    codes = np.empty(columns.values.shape, np.int64, order="F")
    for j, places in enumerate(columns.cached(order).T):
        ordered = columns.values[places, j]
        codes[places, j] = np.cumsum(np.r_[False, ordered[1:] != ordered[:-1]])
    return codes


def ranks(columns: Columns) -> np.ndarray:
    """Ranks from 1 of each column, `(n, k)`; equal values share their mean rank."""
    mean_ranks = np.empty(columns.values.shape, order="F")
    for j, code in enumerate(columns.cached(dense_ranks).T):
        counts = np.bincount(code)
        mean_ranks[:, j] = (np.cumsum(counts) - (counts - 1) / 2)[code]
    return mean_ranks


def _residuals(columns: Columns, degree: int) -> np.ndarray:
    """Columns `(n, k)` less their least-squares polynomial of the position.

    Exactly 0 where a column is all trend; NaN for fewer points than the polynomial's terms and
    MIN_FREE.
    """
    if columns.positions is None:
        raise UsageError(
            "the positions of the points are needed to remove a spatial trend; pass them to apply()."
        )
    basis = columns.positions.cached(polynomials, degree)
    if columns.n < basis.shape[1] + MIN_FREE:
        return np.full_like(columns.values, np.nan)
    centred = columns.values - columns.values.mean(axis=0)
    residuals = centred - basis @ (basis.T @ centred)
    residuals -= basis @ (basis.T @ residuals)
    is_trend = np.abs(residuals).max(axis=0) <= ROUNDING * np.abs(centred).max(axis=0)
    return np.where(is_trend, 0.0, residuals)


def polynomials(positions: Columns, degree: int) -> np.ndarray:
    """Orthonormal basis `(n, rank)` of the polynomials of positions `(n, d)` up to a total degree.

    Coordinates are scaled to -1 … 1. Directions that the points do not determine are left out.
    """
    low = positions.values.min(axis=0)
    high = positions.values.max(axis=0)
    scaled = (2 * positions.values - low - high) / np.where(high > low, high - low, 1.0)
    terms = [np.ones(positions.n)]
    for total in range(1, degree + 1):
        all_axes = combinations_with_replacement(range(positions.k), total)
        terms += [np.prod(scaled[:, axes], axis=1) for axes in all_axes]
    basis, sizes, _ = np.linalg.svd(np.column_stack(terms), full_matrices=False)
    return np.asarray(basis[:, sizes > sizes[0] * 1e-12 * len(terms)])
