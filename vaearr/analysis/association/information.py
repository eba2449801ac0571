"""Mutual information by nearest neighbours, with the numbers of scikit-learn at a fraction of its
time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vaearr.analysis.association.columns import Columns, each_pair

NEIGHBOURS, SEED = 7, 0
NOISE = 1e-10  # of the mean absolute value: makes equal values differ


@dataclass(frozen=True, eq=False)
class Noisy:
    """A column scaled to deviation 1, with a little noise, and its order."""

    values: np.ndarray  # (n,)
    order: np.ndarray  # (n,)
    place: np.ndarray  # (n,) inverse of `order`
    sorted: np.ndarray  # (n,)
    n_distinct: int  # values, before the noise


def noisy(columns: Columns, role: int) -> list[Noisy]:
    """The columns as scikit-learn sees them one at a time: role 0, a latent, gets the first n
    draws; 1 the next.
    """
    from sklearn.preprocessing import scale

    noise = np.random.RandomState(SEED).standard_normal(size=(2, columns.n))[role]
    found = []
    for raw in columns.values.T:
        scaled = scale(raw.copy(), with_mean=False)
        values = scaled + NOISE * np.maximum(1, np.mean(np.abs(scaled))) * noise
        order = np.argsort(values)
        place = np.empty(values.size, np.int64)
        place[order] = np.arange(values.size)
        n_distinct = 1 + int(np.count_nonzero(np.diff(scaled[order])))
        found.append(Noisy(values, order, place, values[order], n_distinct))
    return found


def mutual_information(latents: Columns, targets: Columns) -> np.ndarray:
    """Mutual information by nearest neighbours, `(L, T)` in nats; NaN for so few points that one
    has no 7.
    """
    from scipy.special import digamma

    from vaearr.analysis.association.loops import n_within

    n = latents.n
    if n <= NEIGHBOURS:
        return np.full((latents.k, targets.k), np.nan)
    ours, theirs = latents.cached(noisy, 0), targets.cached(noisy, 1)
    table = digamma(np.arange(n + 1.0))

    def pair(i: int, j: int) -> float:
        x, y = ours[i], theirs[j]
        radius = np.nextafter(_distance_to_neighbour(x, y), 0)
        near_x, near_y = n_within(x.sorted, x.order, radius), n_within(y.sorted, y.order, radius)
        value = digamma(n) + digamma(NEIGHBOURS) - np.mean(table[near_x]) - np.mean(table[near_y])
        return max(0.0, float(value))

    return each_pair(latents, targets, pair)


def _distance_to_neighbour(x: Noisy, y: Noisy) -> np.ndarray:
    from vaearr.analysis.association.loops import neighbour_distance

    if x.n_distinct < y.n_distinct:
        x, y = y, x
    size = int(
        min(np.sqrt(x.values.size * NEIGHBOURS) / 2, 2 * NEIGHBOURS * y.n_distinct)
    )  # no value depends on it
    return neighbour_distance(
        x.values, x.sorted, x.place, y.values, y.order, NEIGHBOURS, max(size, NEIGHBOURS)
    )
