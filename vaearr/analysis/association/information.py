"""Mutual information by nearest neighbours, with the numbers of scikit-learn at a fraction of its time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vaearr.analysis.association.columns import Columns, compiled, each_pair
from vaearr.analysis.association.metrics import metric

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
    """The columns as scikit-learn sees them one at a time: role 0, a latent, gets the first n draws; 1 the next."""
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


@metric(
    signed=False,
    formula="psi(n) + psi(k) - <psi(n_latent)> - <psi(n_target)>, k = 7 neighbours in the larger coordinate"
    " difference, n_* the points nearer than the k-th in one coordinate, itself included; both scaled to deviation 1,"
    " with noise of 1e-10 (seed 0); 0 if below; nats",
    reference="Kraskov, Stögbauer, Grassberger, Phys. Rev. E 69, 066138 (2004), doi:10.1103/PhysRevE.69.066138; the"
    " numbers of scikit-learn's mutual_info_regression(latent, target, n_neighbors=7, random_state=0)",
    higher="the target says more about the latent, along any curve",
    prepare=lambda columns: columns.made(noisy, 1),
)
def mutual_information(latents: Columns, targets: Columns) -> np.ndarray:
    """Mutual information by nearest neighbours, `(L, T)` in nats; NaN for so few points that one has no 7."""
    from scipy.special import digamma

    n = latents.n
    if n <= NEIGHBOURS:
        return np.full((latents.k, targets.k), np.nan)
    ours, theirs = latents.made(noisy, 0), targets.made(noisy, 1)
    table = digamma(np.arange(n + 1.0))

    def pair(i: int, j: int) -> float:
        x, y = ours[i], theirs[j]
        radius = np.nextafter(_distance_to_neighbour(x, y), 0)
        near_x, near_y = _n_within(x.sorted, x.order, radius), _n_within(y.sorted, y.order, radius)
        value = digamma(n) + digamma(NEIGHBOURS) - np.mean(table[near_x]) - np.mean(table[near_y])
        return max(0.0, float(value))

    return each_pair(latents, targets, pair)


def _distance_to_neighbour(x: Noisy, y: Noisy) -> np.ndarray:
    if x.n_distinct < y.n_distinct:
        x, y = y, x
    size = int(min(np.sqrt(x.values.size * NEIGHBOURS) / 2, 2 * NEIGHBOURS * y.n_distinct))  # no value depends on it
    return _radius(x.values, x.sorted, x.place, y.values, y.order, NEIGHBOURS, max(size, NEIGHBOURS))


@compiled
def _n_within(ordered: np.ndarray, order: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """How many values, its own included, lie within the radius of each one."""
    n = ordered.size
    found = np.empty(n, np.int64)
    for p in range(n):
        x, r = ordered[p], radius[order[p]]
        inside, outside = p, n
        while outside - inside > 1:
            middle = (inside + outside) >> 1
            if ordered[middle] - x <= r:
                inside = middle
            else:
                outside = middle
        last = inside
        inside, outside = p, -1
        while inside - outside > 1:
            middle = (inside + outside) >> 1
            if x - ordered[middle] <= r:
                inside = middle
            else:
                outside = middle
        found[order[p]] = last - inside + 1
    return found


@compiled
def _radius(
    x: np.ndarray, x_sorted: np.ndarray, x_place: np.ndarray, y: np.ndarray, y_order: np.ndarray, k: int, size: int
) -> np.ndarray:
    """Largest-coordinate distance of each point to its k-th neighbour.

    The plane is cut into strips with `size` points, ascending in x, each sorted by y. A search starts at the
    point, and leaves a strip, or goes to no further one, where points are farther than the k-th so far.
    """
    n = x.size
    n_strips = (n + size - 1) // size
    free = np.arange(n_strips) * size
    index = np.empty(n, np.int64)
    for i in y_order:
        strip = x_place[i] // size
        index[free[strip]] = i
        free[strip] += 1
    strip_x, strip_y = x[index], y[index]
    best, radius = np.empty(k), np.empty(n)
    for slot in range(n):
        own = slot // size
        px, py = strip_x[slot], strip_y[slot]
        best[:] = np.inf
        low, high = own * size, min((own + 1) * size, n)
        _search(strip_x, strip_y, low, slot - 1, slot + 1, high, px, py, best)
        strip = own - 1
        while strip >= 0 and px - x_sorted[(strip + 1) * size - 1] < best[-1]:
            low, high = strip * size, (strip + 1) * size
            middle = low + np.searchsorted(strip_y[low:high], py)
            _search(strip_x, strip_y, low, middle - 1, middle, high, px, py, best)
            strip -= 1
        strip = own + 1
        while strip < n_strips and x_sorted[strip * size] - px < best[-1]:
            low, high = strip * size, min((strip + 1) * size, n)
            middle = low + np.searchsorted(strip_y[low:high], py)
            _search(strip_x, strip_y, low, middle - 1, middle, high, px, py, best)
            strip += 1
        radius[index[slot]] = best[-1]
    return radius


@compiled
def _search(
    x: np.ndarray, y: np.ndarray, low: int, down: int, up: int, high: int, px: float, py: float, best: np.ndarray
) -> None:
    """Put nearer points of one strip into `best`, ascending in distance, going away from `py` on both sides."""
    k = best.size
    while True:
        below = py - y[down] if down >= low else np.inf
        above = y[up] - py if up < high else np.inf
        if below < above:
            distance, dx = below, abs(x[down] - px)
            down -= 1
        else:
            if above == np.inf:
                return
            distance, dx = above, abs(x[up] - px)
            up += 1
        if distance >= best[k - 1]:
            return
        distance = max(distance, dx)
        if distance < best[k - 1]:
            place = k - 1
            while place > 0 and best[place - 1] > distance:
                best[place] = best[place - 1]
                place -= 1
            best[place] = distance
