"""Distance correlation of two columns in O(n log n), without a matrix of distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vaearr.analysis.association.columns import Columns, each_pair, order
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
    """Distances of each column. The unit cancels in the correlation: values are centred and scaled
    first.
    """
    found = []
    for raw, places in zip(columns.values.T, columns.made(order).T, strict=True):
        scale = max(float(np.abs(raw - np.median(raw)).mean()), np.finfo(float).tiny)
        values = (raw - raw.mean()) / scale
        ordered, place = values[places], np.arange(values.size)
        before = np.cumsum(ordered) - ordered
        after = ordered.sum() - before - ordered
        means = np.empty_like(values)
        means[places] = (
            place * ordered - before + after - (values.size - 1 - place) * ordered
        ) / values.size
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
)
def distance_correlation(latents: Columns, targets: Columns) -> np.ndarray:
    """Distance correlation `(L, T)` of the V-statistics."""
    from vaearr.analysis.association.loops import discordant

    ours, theirs = latents.made(distances), targets.made(distances)
    n = latents.n

    def pair(i: int, j: int) -> float:
        x, y = ours[i], theirs[j]
        if x.variance <= 0 or y.variance <= 0:
            return float("nan")
        # sum over i<j of |dx||dy|: as if all pairs were concordant, and twice the discordant ones
        # on top
        products = n * n * np.mean((x.values - x.values.mean()) * (y.values - y.values.mean()))
        products += 2 * discordant(x.values[x.order], y.values[x.order])[1]
        covariance = 2 * products / n**2 - x.mean * y.mean - 2 * np.mean(x.row_means * y.row_means)
        return float(np.sqrt(min(max(covariance, 0.0) / np.sqrt(x.variance * y.variance), 1.0)))

    return each_pair(latents, targets, pair)
