"""Hilbert-Schmidt independence criterion of two columns with Gaussian kernels, exact, without a
matrix of pairs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vaearr.analysis.association.columns import Columns
from vaearr.analysis.association.gaussian import (
    CHUNK,
    Kernel,
    kernels,
    outside_products,
    row_sums,
    vector_sum,
)

ROUNDING = (
    1e-13  # of a kernel's values; what is left of smaller differences after centring is noise
)


class Sums(NamedTuple):
    """Sums over kernel matrices K and L, each `(L, T)`; NaN where a column is constant."""

    centred: np.ndarray  # tr(KHLH)
    products: np.ndarray  # sum of K_ij L_ij
    rows: np.ndarray  # sum of k_i l_i, k_i and l_i the sums of row i
    ours: np.ndarray  # sum of K_ij
    theirs: np.ndarray  # sum of L_ij


def hsic(latents: Columns, targets: Columns) -> np.ndarray:
    """Biased HSIC `(L, T)`."""
    return sums(latents, targets).centred / (latents.n - 1) ** 2


def hsic_normalised(latents: Columns, targets: Columns) -> np.ndarray:
    """HSIC over the geometric mean of both columns' HSIC with themselves, `(L, T)`, 0 to 1.

    NaN where all distances of a column are so much smaller than the kernel's least width, 1e-6,
    that its kernel is 1.
    """
    own = np.outer(latents.cached(self_traces), targets.cached(self_traces))
    return np.minimum(sums(latents, targets).centred / np.sqrt(own), 1.0)


def hsic_unbiased(latents: Columns, targets: Columns) -> np.ndarray:
    """Unbiased HSIC `(L, T)`, near 0 and also below it for independent columns; NaN for fewer than
    four points.
    """
    n = latents.n
    if n < 4:
        return np.full((latents.k, targets.k), np.nan)
    found = sums(latents, targets)
    products = found.products - n  # without the diagonals, which are 1
    rows = found.rows - found.ours - found.theirs + n
    means = (found.ours - n) * (found.theirs - n) / ((n - 1) * (n - 2))
    return (products + means - 2 / (n - 2) * rows) / (n * (n - 3))


def self_traces(columns: Columns) -> np.ndarray:
    """tr(KHKH) of each column, `(k,)`; NaN where its kernel is 1 throughout, to rounding."""
    traces = np.full(columns.k, np.nan)
    for i in _varying(columns):
        traces[i] = _sums(columns, columns, [i], [i]).centred[i, i]
    return np.where(traces > (ROUNDING * columns.n) ** 2, traces, np.nan)


def sums(latents: Columns, targets: Columns) -> Sums:
    """The sums of each pair of columns."""
    return _sums(latents, targets, _varying(latents), _varying(targets))


def _varying(columns: Columns) -> list[int]:
    return [i for i, kernel in enumerate(columns.cached(kernels)) if kernel is not None]


def _sums(latents: Columns, targets: Columns, ours: list[int], theirs: list[int]) -> Sums:
    found = Sums(*np.full((len(Sums._fields), latents.k, targets.k), np.nan))
    n = latents.n
    our_kernels: Any = [latents.cached(kernels)[i] for i in ours]
    their_kernels: Any = [targets.cached(kernels)[j] for j in theirs]
    crosses, left, right = _cross(our_kernels, their_kernels, n)
    for i, k, row, a in zip(ours, our_kernels, crosses, left, strict=True):
        for j, l, cross, b in zip(theirs, their_kernels, row, right, strict=True):  # noqa: E741
            products = float(np.sum(cross**2))
            if k.outside.any() or l.outside.any():
                products += outside_products(k, l)
                k_rows, l_rows = latents.cached(row_sums, i), targets.cached(row_sums, j)
                k_sum, l_sum = k_rows.sum(), l_rows.sum()
                centred = products - 2 * _covariance(k_rows, l_rows) - k_sum * l_sum / n**2
                values = (centred, products, k_rows @ l_rows, k_sum, l_sum)
            else:
                centred = float(np.sum((cross - np.outer(a, b) / n) ** 2))
                values = (centred, products, a @ cross @ b, a @ a, b @ b)
            for array, value in zip(found, values, strict=True):
                array[i, j] = value
    return found


def _covariance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean((a - a.mean()) * (b - b.mean())))


Vectors = list[np.ndarray]


def _cross(
    ours: list[Kernel], theirs: list[Kernel], n: int
) -> tuple[list[Vectors], Vectors, Vectors]:
    """Sum over points of the product of both vectors, for each pair of kernels, and the sums of the
    vectors.
    """
    crosses = [[np.zeros((k.length, l.length)) for l in theirs] for k in ours]  # noqa: E741
    left, right = [np.zeros(k.length) for k in ours], [np.zeros(k.length) for k in theirs]
    for start in range(0, n, CHUNK):
        transposed = []
        for kernel, total in zip(theirs, right, strict=True):
            vectors = kernel.vectors(start)
            total += vector_sum(vectors)
            transposed.append(vectors.transpose(0, 2, 1))
        for kernel, total, row in zip(ours, left, crosses, strict=True):
            vectors = kernel.vectors(start)
            total += vector_sum(vectors)
            for cross, other in zip(row, transposed, strict=True):
                cross += np.matmul(vectors, other).sum(axis=0)
    return crosses, left, right
