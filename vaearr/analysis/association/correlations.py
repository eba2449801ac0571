"""Correlations: linear, by ranks, by pairs, and of what a polynomial of the position does not
explain.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np

from vaearr.analysis.association.columns import Columns, each_pair, order
from vaearr.analysis.association.metrics import Kernel, metric
from vaearr.errors import UsageError

LEFT = 1e-10  # of a column's deviation: less is rounding, the column is all trend
LEAST_FREE = 2  # points beyond the trend's terms: residuals of fewer lie on one line, r = +-1 whatever the maps are


def unit(values: np.ndarray) -> np.ndarray:
    """Columns centred and of length 1; NaN for constant ones."""
    constant = np.ptp(values, axis=0) == 0
    centred = values - values.mean(axis=0)
    centred -= centred.mean(axis=0)  # what rounding left of a large offset
    centred /= np.maximum(
        np.abs(centred).max(axis=0), np.finfo(float).tiny
    )  # no under- or overflow in the squares
    norm = np.sqrt(np.einsum("nl,nl->l", centred, centred))
    norm[constant | (norm == 0)] = np.nan
    return np.asarray(centred / norm)


def _correlation(latents: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Correlations `(L, T)` of columns of length 1."""
    return np.clip(latents.T @ targets, -1.0, 1.0)


def _of_values(columns: Columns) -> np.ndarray:
    return unit(columns.values)


@metric(
    signed=True,
    formula="cov(latent, target) / (std(latent) std(target))",
    reference="Pearson, Proc. R. Soc. Lond. 58, 240 (1895), doi:10.1098/rspl.1895.0041",
    higher="closer to a straight line; the sign is its direction",
)
def pearson(latents: Columns, targets: Columns) -> np.ndarray:
    """Linear correlation."""
    return _correlation(latents.made(_of_values), targets.made(_of_values))


def dense_ranks(columns: Columns) -> np.ndarray:
    """Numbers 0, 1, … of the distinct values of each column in ascending order, `(n, k)`."""
    codes = np.empty(columns.values.shape, np.int64, order="F")
    for j, places in enumerate(columns.made(order).T):
        ordered = columns.values[places, j]
        codes[places, j] = np.cumsum(np.r_[False, ordered[1:] != ordered[:-1]])
    return codes


def ranks(columns: Columns) -> np.ndarray:
    """Ranks from 1 of each column, `(n, k)`; equal values share the mean of their places."""
    found = np.empty(columns.values.shape, order="F")
    for j, code in enumerate(columns.made(dense_ranks).T):
        counts = np.bincount(code)
        found[:, j] = (np.cumsum(counts) - (counts - 1) / 2)[code]
    return found


def _of_ranks(columns: Columns) -> np.ndarray:
    return unit(ranks(columns))


@metric(
    signed=True,
    formula="pearson(rank(latent), rank(target)), ties get the average rank",
    reference="Spearman, Am. J. Psychol. 15, 72 (1904), doi:10.2307/1412159",
    higher="closer to monotonic; the sign is its direction",
)
def spearman(latents: Columns, targets: Columns) -> np.ndarray:
    """Rank correlation."""
    return _correlation(latents.made(_of_ranks), targets.made(_of_ranks))


def _n_pairs(sizes: np.ndarray) -> int:
    """Pairs within groups of these sizes."""
    return int((sizes * (sizes - 1) // 2).sum())


@metric(
    signed=True,
    formula="tau-b = (C - D) / sqrt((N - ties(latent)) (N - ties(target))), C and D the concordant and discordant of"
    " N = n(n-1)/2 pairs",
    reference="Kendall, Biometrika 33, 239 (1945), doi:10.1093/biomet/33.3.239; in O(n log n) after Knight, J. Am."
    " Stat. Assoc. 61, 436 (1966)",
    higher="closer to monotonic; the sign is its direction",
)
def kendall(latents: Columns, targets: Columns) -> np.ndarray:
    """Rank correlation by pairs, corrected for ties, in O(n log n) per pair."""
    from vaearr.analysis.association.loops import discordant

    ours, theirs = latents.made(dense_ranks), targets.made(dense_ranks)
    n_pairs = latents.n * (latents.n - 1) // 2

    def pair(i: int, j: int) -> float:
        x, y = ours[:, i], theirs[:, j]
        n_values = int(y.max()) + 1
        both = np.sort(x * n_values + y)  # in the order of x, and of y where x is tied
        n_discordant = discordant(np.zeros(latents.n), (both % n_values).astype("f8"))[0]
        sizes = np.diff(np.flatnonzero(np.r_[True, both[1:] != both[:-1], True]))
        x_tied, y_tied = _n_pairs(np.bincount(x)), _n_pairs(np.bincount(y))
        excess = n_pairs - x_tied - y_tied + _n_pairs(sizes) - 2 * n_discordant
        return float(np.clip(excess / np.sqrt(n_pairs - x_tied) / np.sqrt(n_pairs - y_tied), -1, 1))

    return each_pair(latents, targets, pair)


def residuals(columns: Columns, degree: int) -> np.ndarray:
    """Columns `(n, k)` less their least-squares polynomial of the position; exactly 0 where they
    are all trend.

    NaN where the points are fewer than the polynomial's terms (those that they determine) and
    LEAST_FREE. Raises UsageError for columns without positions.
    """
    if columns.positions is None:
        raise UsageError(
            "the positions of the points are needed to take off a spatial trend; pass them to apply()."
        )
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

    Coordinates are scaled to -1 … 1; directions in which the points do not determine a polynomial
    are left out.
    """
    low, high = positions.values.min(axis=0), positions.values.max(axis=0)
    scaled = (2 * positions.values - low - high) / np.where(high > low, high - low, 1.0)
    terms = [np.ones(positions.n)]
    for total in range(1, degree + 1):
        axes = combinations_with_replacement(range(positions.k), total)
        terms += [np.prod(scaled[:, chosen], axis=1) for chosen in axes]
    basis, sizes, _ = np.linalg.svd(np.column_stack(terms), full_matrices=False)
    return np.asarray(basis[:, sizes > sizes[0] * 1e-12 * len(terms)])


def _of_residuals(columns: Columns, degree: int) -> np.ndarray:
    return unit(columns.made(residuals, degree))


def _partial_metric(degree: int) -> Kernel:
    """Register `partial_pearson` of a degree."""

    def kernel(latents: Columns, targets: Columns) -> np.ndarray:
        """Linear correlation of what a polynomial of the position does not explain."""
        return _correlation(
            latents.made(_of_residuals, degree), targets.made(_of_residuals, degree)
        )

    kernel.__name__ = "partial_pearson" if degree == 1 else f"partial_pearson_{degree}"
    return metric(
        signed=True,
        formula=f"pearson of the residuals after a least-squares polynomial of degree {degree} in the coordinates;"
        " NaN for fewer points than its terms and two",
        reference="trend surfaces: Legendre, Ecology 74, 1659 (1993), doi:10.2307/1939924",
        higher="closer to a straight line once large-scale trends are gone; the sign is its direction",
    )(kernel)


for _degree in (1, 2, 3):
    _partial_metric(_degree)
