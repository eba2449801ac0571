"""How far apart two sets of features are as distributions: Fréchet distance and kernel distance. Plain arrays."""

from __future__ import annotations

import itertools
import math

import numpy as np

from vaearr.errors import DataError, UsageError

GROUPS = 20  # that samples are left out by, for the standard error
ROWS_AT_ONCE = 2048


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Fréchet distance of the Gaussians with the moments of two sets of features, `(n, d), (m, d)`; down is better.

    |mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), the squared distance of Dowson & Landau 1982, on
    features as in Heusel et al. 2017 (FID). In float64, with covariances over n - 1. S = R^T R of the centred
    features makes the trace of the root the sum of the singular values of R_a R_b^T: nothing is squared or inverted,
    so it holds for n < d too. Few samples bias it upward; `kernel_distance` is not biased.

    Raises UsageError for arrays of other shapes, DataError for values that are not finite or fewer than 2 rows.
    """
    a, b = _checked(features_a, features_b, 2)
    apart = a.mean(0) - b.mean(0)
    first, second = _root(a), _root(b)
    shared = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    value = apart @ apart + (first**2).sum() + (second**2).sum() - 2 * shared
    return max(float(value), 0.0)


def kernel_distance(
    features_a: np.ndarray, features_b: np.ndarray, *, each: int = 1, is_paired: bool = False
) -> tuple[float, float]:
    """Squared maximum mean discrepancy of two sets of features, `(n, d), (m, d)`, and its standard error.

    The kernel is (x.y / d + 1)^3 and the estimate unbiased for any n and m, so that it may be below 0 where the sets
    are alike: Binkowski et al. 2018 (KID). each: rows in a row that come from one sample, such as its slices.
    is_paired: sample i of one set was made from sample i of the other. Pairs of rows of one sample, and of such a pair,
    are left out: the expectation is over independent samples. The error is a jackknife that leaves out groups of
    samples, at most a twentieth at a time; NaN below 3 samples.

    Raises UsageError for arrays of other shapes, DataError for values that are not finite or fewer than 2 samples.
    """
    a, b = _checked(features_a, features_b, 2 * each)
    n_a, n_b = len(a) // each, len(b) // each
    if n_a * each != len(a) or n_b * each != len(b) or (is_paired and n_a != n_b):
        raise UsageError(f"{len(a)} and {len(b)} rows do not go up in {'pairs of ' * is_paired}samples of {each} rows.")
    n_groups = min(n_a, n_b, max(GROUPS, -(-max(len(a), len(b)) // ROWS_AT_ONCE)))
    groups_a, groups_b = _groups(a, each, n_groups), _groups(b, each, n_groups)
    within = [_sums(groups, groups, each, leave_own=True) for groups in (groups_a, groups_b)]
    tables = (*within[0], *within[1], *_sums(groups_a, groups_b, each, leave_own=is_paired))
    value = _discrepancy(tables, np.ones(n_groups, bool))
    if min(n_a, n_b) < 3:
        return value, math.nan
    without = np.array([_discrepancy(tables, np.arange(n_groups) != g) for g in range(n_groups)])
    return value, float(np.sqrt((n_groups - 1) / n_groups * ((without - without.mean()) ** 2).sum()))


def _discrepancy(tables: tuple[np.ndarray, ...], kept: np.ndarray) -> float:
    """From sums and counts of kernel values between groups, of a with a, b with b and a with b."""
    chosen = np.ix_(kept, kept)
    aa, n_aa, bb, n_bb, ab, n_ab = (float(table[chosen].sum()) for table in tables)
    return aa / n_aa + bb / n_bb - 2 * ab / n_ab


def _sums(
    first: list[np.ndarray], second: list[np.ndarray], each: int, *, leave_own: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the kernel values between each two groups; leave_own: without those of a sample's own rows."""
    sums, counts = np.zeros((2, len(first), len(second)))
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            if first is second and j < i:
                sums[i, j], counts[i, j] = sums[j, i], counts[j, i]
                continue
            values = (a @ b.T / a.shape[1] + 1) ** 3
            counts[i, j] = values.size
            sums[i, j] = values.sum()
            if leave_own and i == j:
                sums[i, j] -= sum(values[k : k + each, k : k + each].sum() for k in range(0, len(a), each))
                counts[i, j] -= len(a) * each
    return sums, counts


def _groups(rows: np.ndarray, each: int, n_groups: int) -> list[np.ndarray]:
    """Rows in groups of whole samples."""
    bounds = np.linspace(0, len(rows) // each, n_groups + 1).astype(int) * each
    return [rows[low:high] for low, high in itertools.pairwise(bounds)]


def _root(rows: np.ndarray) -> np.ndarray:
    """R, `(min(n, d), d)`, with R^T R the covariance of the rows."""
    centred = (rows - rows.mean(0)) / math.sqrt(len(rows) - 1)
    return centred if len(rows) <= rows.shape[1] else np.asarray(np.linalg.qr(centred, mode="r"))


def _checked(a: np.ndarray, b: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or not first.shape[1]:
        raise UsageError(f"features have shapes {first.shape} and {second.shape}; expected (n, d) and (m, d).")
    if min(len(first), len(second)) < least:
        raise DataError(f"there are {len(first)} and {len(second)} rows of features; distances take {least} or more.")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise DataError("features hold values that are not finite; leave those samples out.")
    return first, second
