"""Correlations: linear, by ranks, by pairs, and of what a polynomial of the position does not explain."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from vaearr.analysis.association.columns import Columns, compiled, each_pair, order
from vaearr.analysis.association.metrics import Kernel, metric
from vaearr.errors import UsageError

RUN = 16  # shorter runs are sorted by insertion
LEFT = 1e-10  # of a column's deviation: less is rounding, the column is all trend
LEAST_FREE = 2  # points beyond the trend's terms: residuals of fewer lie on one line, r = +-1 whatever the maps are


def unit(values: np.ndarray) -> np.ndarray:
    """Columns centred and of length 1; NaN for constant ones."""
    constant = np.ptp(values, axis=0) == 0
    centred = values - values.mean(axis=0)
    centred -= centred.mean(axis=0)  # what rounding left of a large offset
    centred /= np.maximum(np.abs(centred).max(axis=0), np.finfo(float).tiny)  # no under- or overflow in the squares
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


@dataclass(frozen=True, eq=False)
class Codes:
    """A column as numbers 0, 1, … of its distinct values in ascending order."""

    code: np.ndarray  # (n,)
    start: np.ndarray  # (distinct,) place of the first point of each code when sorted
    order: np.ndarray  # (n,)
    n_tied_pairs: int


def codes(columns: Columns) -> list[Codes]:
    """Codes of each column."""
    found = []
    for values, places in zip(columns.values.T, columns.made(order).T, strict=True):
        ordered = values[places]
        start = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        sizes = np.diff(np.r_[start, values.size])
        code = np.empty(values.size, np.int64)
        code[places] = np.repeat(np.arange(start.size), sizes)
        found.append(Codes(code, start, np.ascontiguousarray(places), int((sizes * (sizes - 1) // 2).sum())))
    return found


def average_ranks(columns: Columns) -> np.ndarray:
    """Ranks from 1 of each column, `(n, k)`; equal values share the mean of their places."""
    ranks = np.empty(columns.values.shape, order="F")
    for j, item in enumerate(columns.made(codes)):
        end = np.r_[item.start[1:], columns.n]
        ranks[:, j] = ((item.start + end + 1) / 2)[item.code]
    return ranks


def _of_ranks(columns: Columns) -> np.ndarray:
    return unit(columns.made(average_ranks))


@metric(
    signed=True,
    formula="pearson(rank(latent), rank(target)), ties get the average rank",
    reference="Spearman, Am. J. Psychol. 15, 72 (1904), doi:10.2307/1412159",
    higher="closer to monotonic; the sign is its direction",
    prepare=lambda columns: columns.made(_of_ranks),
)
def spearman(latents: Columns, targets: Columns) -> np.ndarray:
    """Rank correlation."""
    return _correlation(latents.made(_of_ranks), targets.made(_of_ranks))


@metric(
    signed=True,
    formula="tau-b = (C - D) / sqrt((N - ties(latent)) (N - ties(target))), C and D the concordant and discordant of"
    " N = n(n-1)/2 pairs",
    reference="Kendall, Biometrika 33, 239 (1945), doi:10.1093/biomet/33.3.239",
    higher="closer to monotonic; the sign is its direction",
    prepare=lambda columns: columns.made(codes),
)
def kendall(latents: Columns, targets: Columns) -> np.ndarray:
    """Rank correlation by pairs, corrected for ties, in O(n log n) per pair."""
    ours, theirs = latents.made(codes), targets.made(codes)
    n_pairs = latents.n * (latents.n - 1) // 2

    def pair(i: int, j: int) -> float:
        x, y = ours[i], theirs[j]
        discordant, tied = _discordant(x.code, x.start, y.code, y.order)
        excess = n_pairs - x.n_tied_pairs - y.n_tied_pairs + tied - 2 * discordant
        tau = excess / np.sqrt(n_pairs - x.n_tied_pairs) / np.sqrt(n_pairs - y.n_tied_pairs)
        return float(np.clip(tau, -1, 1))

    return each_pair(latents, targets, pair)


@compiled
def _discordant(x_code: np.ndarray, x_start: np.ndarray, y_code: np.ndarray, y_order: np.ndarray) -> tuple[int, int]:
    """Pairs that x and y order differently (Knight, J. Am. Stat. Assoc. 61, 436 (1966)), and pairs tied in both."""
    n = x_code.size
    a, b = np.empty(n, np.int64), np.empty(n, np.int64)
    free = x_start.copy()
    for i in y_order:  # a: y in the order of x, and of y where x is tied
        a[free[x_code[i]]] = y_code[i]
        free[x_code[i]] += 1
    tied = 0
    for group in range(x_start.size):
        same = 0
        for i in range(x_start[group] + 1, free[group]):
            same = same + 1 if a[i] == a[i - 1] else 0
            tied += same
    swaps = 0
    for low in range(0, n, RUN):
        for i in range(low + 1, min(low + RUN, n)):
            value = a[i]
            j = i
            while j > low and a[j - 1] > value:
                a[j] = a[j - 1]
                j -= 1
            a[j] = value
            swaps += i - j
    width = RUN
    while width < n:
        for low in range(0, n, 2 * width):
            middle, high = min(low + width, n), min(low + 2 * width, n)
            i, j = low, middle
            for place in range(low, high):
                if j == high or (i < middle and a[i] <= a[j]):
                    b[place] = a[i]
                    i += 1
                else:
                    b[place] = a[j]
                    swaps += middle - i
                    j += 1
        a, b = b, a
        width *= 2
    return swaps, tied


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


def _of_residuals(columns: Columns, degree: int) -> np.ndarray:
    return unit(columns.made(residuals, degree))


def _partial_metric(degree: int) -> Kernel:
    """Register `partial_pearson` of a degree."""

    def kernel(latents: Columns, targets: Columns) -> np.ndarray:
        """Linear correlation of what a polynomial of the position does not explain."""
        return _correlation(latents.made(_of_residuals, degree), targets.made(_of_residuals, degree))

    kernel.__name__ = "partial_pearson" if degree == 1 else f"partial_pearson_{degree}"
    return metric(
        signed=True,
        formula=f"pearson of the residuals after a least-squares polynomial of degree {degree} in the coordinates;"
        " NaN for fewer points than its terms and two",
        reference="trend surfaces: Legendre, Ecology 74, 1659 (1993), doi:10.2307/1939924",
        higher="closer to a straight line once large-scale trends are gone; the sign is its direction",
        prepare=lambda columns: columns.made(_of_residuals, degree),
    )(kernel)


for _degree in (1, 2, 3):
    _partial_metric(_degree)
