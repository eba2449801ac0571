"""Rank metrics: average ranks, and Kendall's tau-b by merge sort."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vaearr.analysis.association.columns import Columns, each_pair, order
from vaearr.analysis.association.compiled import compiled

RUN = 16  # shorter runs are sorted by insertion


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


def tau_b(latents: Columns, targets: Columns) -> np.ndarray:
    """Kendall's tau-b `(L, T)`, in O(n log n) per pair."""
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
