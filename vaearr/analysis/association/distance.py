"""Distance correlation of two columns, without a matrix of distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vaearr.analysis.association.columns import Columns, each_pair, order

MIN_UNBIASED = 4  # points that the unbiased estimate needs


@dataclass(frozen=True, eq=False)
class Distances:
    """A standardised column and the sums of its distances."""

    values: np.ndarray  # (n,)
    order: np.ndarray  # (n,)
    row_means: np.ndarray  # (n,) mean distance of each point to all, less `mean`
    mean: float  # of all n x n distances
    variance: float  # squared distance variance


def distances(columns: Columns) -> list[Distances]:
    """Distances of each column, centred and scaled: the unit cancels in the correlation."""
    result = []
    for raw, places in zip(columns.values.T, columns.cached(order).T, strict=True):
        scale = max(float(np.abs(raw - np.median(raw)).mean()), np.finfo(float).tiny)
        values = (raw - raw.mean()) / scale
        ordered = values[places]
        place = np.arange(values.size)
        before = np.cumsum(ordered) - ordered
        after = ordered.sum() - before - ordered
        means = np.empty_like(values)
        sums = place * ordered - before + after - (values.size - 1 - place) * ordered
        means[places] = sums / values.size
        mean = float(means.mean())
        means -= mean
        variance = 2 * values.var() - mean**2 - 2 * np.mean(means**2)
        result.append(Distances(values, np.ascontiguousarray(places), means, mean, float(variance)))
    return result


def distance_correlation(latents: Columns, targets: Columns) -> np.ndarray:
    """Distance correlation `(L, T)` of the V-statistics, in O(n log n)."""
    from vaearr.analysis.association.loops import discordant

    latent_distances = latents.cached(distances)
    target_distances = targets.cached(distances)
    n = latents.n

    def pair(i: int, j: int) -> float:
        x = latent_distances[i]
        y = target_distances[j]
        if x.variance <= 0 or y.variance <= 0:
            return float("nan")
        # sum over i < j of |dx||dy|: all pairs as if concordant, plus twice the discordant ones
        products = n * n * np.mean((x.values - x.values.mean()) * (y.values - y.values.mean()))
        products += 2 * discordant(x.values[x.order], y.values[x.order])[1]
        covariance = 2 * products / n**2 - x.mean * y.mean - 2 * np.mean(x.row_means * y.row_means)
        return float(np.sqrt(min(max(covariance, 0.0) / np.sqrt(x.variance * y.variance), 1.0)))

    return each_pair(latents, targets, pair)


def distance_correlation_unbiased(latents: Columns, targets: Columns) -> np.ndarray:
    """Bias-corrected squared distance correlation `(L, T)`."""
    import dcor

    if latents.n < MIN_UNBIASED:
        return np.full((latents.k, targets.k), np.nan)

    def pair(i: int, j: int) -> float:
        return float(dcor.u_distance_correlation_sqr(latents.values[:, i], targets.values[:, j]))

    return each_pair(latents, targets, pair)
