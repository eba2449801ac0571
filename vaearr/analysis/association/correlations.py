"""Columns whose products are correlations: of values, of ranks, of what a spatial trend leaves.

Each function turns values `(n, k)` at positions `(n, d)` into columns of mean 0 and length 1, NaN
where a column is constant. The product of two such columns is their correlation.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np

ROUNDING = 1e-10  # smallest residual, as a share of the column's largest deviation
MIN_FREE = 2  # points more than the trend has terms: with fewer, residuals correlate by 1 or -1


def unit_values(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The values themselves, for Pearson's correlation."""
    del positions
    return unit(values)


def unit_ranks(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Ranks, for Spearman's correlation; equal values share their mean rank."""
    from scipy.stats import rankdata

    del positions
    return unit(rankdata(values, axis=0))


def unit_residuals(values: np.ndarray, positions: np.ndarray, degree: int) -> np.ndarray:
    """What a least-squares polynomial of the position leaves, for partial correlations.

    NaN for fewer points than the number of the polynomial's terms plus MIN_FREE.
    """
    basis = polynomials(positions, degree)
    if len(values) < basis.shape[1] + MIN_FREE:
        return np.full_like(values, np.nan)
    centred = values - values.mean(axis=0)
    residuals = centred - basis @ (basis.T @ centred)
    residuals -= basis @ (basis.T @ residuals)
    largest_deviation = np.abs(centred).max(axis=0)
    largest_residual = np.abs(residuals).max(axis=0)
    is_trend = largest_residual <= ROUNDING * largest_deviation
    return unit(np.where(is_trend, 0.0, residuals))


def unit(values: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and length 1; NaN for constant ones."""
    constant = np.ptp(values, axis=0) == 0
    centred = values - values.mean(axis=0)
    centred -= centred.mean(axis=0)  # rounding of a large offset
    largest = np.abs(centred).max(axis=0)
    centred /= np.maximum(largest, np.finfo(float).tiny)  # squares neither under- nor overflow
    norm = np.linalg.norm(centred, axis=0)
    norm[constant | (norm == 0)] = np.nan
    return np.asarray(centred / norm)


def polynomials(positions: np.ndarray, degree: int) -> np.ndarray:
    """Orthonormal basis `(n, rank)` of the polynomials of positions `(n, d)` up to a total degree.

    Coordinates are scaled to -1 … 1. Directions that the points do not determine are left out.
    """
    low = positions.min(axis=0)
    high = positions.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    scaled = (2 * positions - low - high) / span
    terms = [np.ones(len(positions))]
    for total in range(1, degree + 1):
        all_axes = combinations_with_replacement(range(positions.shape[1]), total)
        terms += [np.prod(scaled[:, axes], axis=1) for axes in all_axes]
    basis, sizes, _ = np.linalg.svd(np.column_stack(terms), full_matrices=False)
    return np.asarray(basis[:, sizes > sizes[0] * 1e-12 * len(terms)])
