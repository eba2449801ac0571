"""Spatial trends: what is left of maps once a polynomial of the position is taken off."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np

from vaearr.analysis.association.columns import Columns
from vaearr.errors import UsageError

LEFT = 1e-10  # of a column's deviation: less is rounding, the column is all trend
LEAST_FREE = 2  # points beyond the trend's terms: residuals of fewer lie on one line, r = +-1 whatever the maps are


def residuals(columns: Columns, degree: int) -> np.ndarray:
    """Columns `(n, k)` less their least-squares polynomial of the position; exactly 0 where they are all trend.

    NaN where the points are fewer than the polynomial's terms (those that they determine) and LEAST_FREE. Raises
    UsageError for columns without positions.
    """
    if columns.positions is None:
        raise UsageError("the positions of the points are needed to take off a spatial trend; pass them to apply().")
    basis = columns.positions.made(polynomials, degree)
    if columns.n < basis.shape[1] + LEAST_FREE:
        return np.full_like(columns.values, np.nan)
    centred = columns.values - columns.values.mean(axis=0)
    left = centred - basis @ (basis.T @ centred)
    left -= basis @ (basis.T @ left)
    is_trend = np.abs(left).max(axis=0) <= LEFT * np.abs(centred).max(axis=0)
    return np.where(is_trend, 0.0, left)


def polynomials(positions: Columns, degree: int) -> np.ndarray:
    """Orthonormal basis `(n, rank)` of the polynomials of positions `(n, d)` up to a total degree.

    Coordinates are scaled to -1 … 1; directions in which the points do not determine a polynomial are left out.
    """
    low, high = positions.values.min(axis=0), positions.values.max(axis=0)
    scaled = (2 * positions.values - low - high) / np.where(high > low, high - low, 1.0)
    terms = [np.ones(positions.n)]
    for total in range(1, degree + 1):
        axes = combinations_with_replacement(range(positions.k), total)
        terms += [np.prod(scaled[:, chosen], axis=1) for chosen in axes]
    basis, sizes, _ = np.linalg.svd(np.column_stack(terms), full_matrices=False)
    return np.asarray(basis[:, sizes > sizes[0] * 1e-12 * len(terms)])
