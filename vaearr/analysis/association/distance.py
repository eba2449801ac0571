"""Distance correlation of two columns in O(n log n), without a matrix of distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vaearr.analysis.association.columns import Columns, compiled, each_pair, order
from vaearr.analysis.association.metrics import metric


@dataclass(frozen=True, eq=False)
class Distances:
    """A standardised column and the sums of its distances."""

    values: np.ndarray  # (n,)
    order: np.ndarray  # (n,)
    row_means: np.ndarray  # (n,) mean distance of each point to all, less `mean`
    mean: float  # of all n x n distances
    variance: float  # squared distance variance


def distances(columns: Columns) -> list[Distances]:
    """Distances of each column. The unit cancels in the correlation: values are centred and scaled first."""
    found = []
    for raw, places in zip(columns.values.T, columns.made(order).T, strict=True):
        scale = max(float(np.abs(raw - np.median(raw)).mean()), np.finfo(float).tiny)
        values = (raw - raw.mean()) / scale
        ordered, place = values[places], np.arange(values.size)
        before = np.cumsum(ordered) - ordered
        after = ordered.sum() - before - ordered
        means = np.empty_like(values)
        means[places] = (place * ordered - before + after - (values.size - 1 - place) * ordered) / values.size
        mean = float(means.mean())
        means -= mean
        variance = 2 * values.var() - mean**2 - 2 * np.mean(means**2)
        found.append(Distances(values, np.ascontiguousarray(places), means, mean, float(variance)))
    return found


@metric(
    signed=False,
    formula="sqrt(dCov^2 / sqrt(dVar^2(latent) dVar^2(target))), dCov^2 the mean over all n^2 pairs of the product of"
    " the doubly centred distances (V-statistic)",
    reference="Szekely, Rizzo, Bakirov, Ann. Stat. 35, 2769 (2007), doi:10.1214/009053607000000505; in O(n log n) after"
    " Chaudhuri, Hu, Comput. Stat. Data Anal. 135, 15 (2019), doi:10.1016/j.csda.2019.01.016",
    higher="more dependent, along any curve; 0 only if independent, 1 if a straight line",
    prepare=lambda columns: columns.made(distances),
)
def distance_correlation(latents: Columns, targets: Columns) -> np.ndarray:
    """Distance correlation `(L, T)` of the V-statistics."""
    ours, theirs = latents.made(distances), targets.made(distances)
    n = latents.n

    def pair(i: int, j: int) -> float:
        x, y = ours[i], theirs[j]
        if x.variance <= 0 or y.variance <= 0:
            return float("nan")
        # sum over i<j of |dx||dy|: as if all pairs were concordant, and twice the discordant ones on top
        products = n * n * np.mean((x.values - x.values.mean()) * (y.values - y.values.mean()))
        products += 2 * _discordant_products(x.values[x.order], y.values[x.order])
        covariance = 2 * products / n**2 - x.mean * y.mean - 2 * np.mean(x.row_means * y.row_means)
        return float(np.sqrt(min(max(covariance, 0.0) / np.sqrt(x.variance * y.variance), 1.0)))

    return each_pair(latents, targets, pair)


@compiled
def _discordant_products(x: np.ndarray, y: np.ndarray) -> float:
    """Sum of (x_j - x_i)(y_i - y_j) over i < j with y_i > y_j, x ascending: a merge sort of y that carries x."""
    n = x.size
    p, q = np.empty(n), np.empty(n)
    total = 0.0
    width = 1
    while width < n:
        for low in range(0, n, 2 * width):
            middle, high = min(low + width, n), min(low + 2 * width, n)
            i, j = middle - 1, high - 1
            count, sum_x, sum_y, sum_xy, part = 0.0, 0.0, 0.0, 0.0, 0.0
            for place in range(high - 1, low - 1, -1):  # from the largest y down
                if j < middle or (i >= low and y[i] > y[j]):
                    p[place], q[place] = x[i], y[i]
                    count += 1
                    sum_x += x[i]
                    sum_y += y[i]
                    sum_xy += x[i] * y[i]
                    i -= 1
                else:
                    p[place], q[place] = x[j], y[j]
                    part += x[j] * (sum_y - count * y[j]) + (y[j] * sum_x - sum_xy)
                    j -= 1
            total += part
        x, p = p, x
        y, q = q, y
        width *= 2
    return total
