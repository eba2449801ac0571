"""What the clustering methods share: seeded sub-samples, one thread, cluster numbers, silhouettes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from vaearr import names as n
from vaearr.errors import UsageError

SILHOUETTE_POINTS = 4000  # silhouettes need every pair of distances; this many points tell their mean to about 0.01


@contextmanager
def reproducible() -> Iterator[None]:
    """One thread for BLAS and OpenMP, so that sums do not depend on the number of cores, and no convergence warnings.

    What did not converge is told in the result's own warnings. Both are put back at the end.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def subsample(n_points: int, max_points: int | None, seed: int) -> np.ndarray:
    """Sorted indices of a seeded random choice without replacement; all of them where there are few enough."""
    if max_points is None or n_points <= max_points:
        return np.arange(n_points)
    return np.sort(np.random.default_rng(seed).choice(n_points, max_points, replace=False))


def by_size(labels: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clusters renumbered by size, the largest first, and the old number of each new one.

    Equal sizes are ordered by the mean of the first feature, then of the next. Numbers without a point are left out;
    labels below 0 stay as they are.
    """
    old, position, counts = np.unique(labels[labels >= 0], return_inverse=True, return_counts=True)
    sums = np.zeros((len(old), values.shape[1]))
    np.add.at(sums, position, values[labels >= 0])
    means = sums / np.maximum(counts, 1)[:, None]
    order = np.lexsort((*means.T[::-1], -counts)) if len(old) else np.zeros(0, np.int64)
    new = np.empty(len(old), np.int64)
    new[order] = np.arange(len(old))
    renumbered = labels.astype(np.int64)
    renumbered[labels >= 0] = new[position]
    return renumbered, old[order]


def candidates(values: np.ndarray, k: int | None, k_range: tuple[int, int], *, least: int) -> list[int]:
    """The numbers of clusters to try. Raises UsageError for more clusters than there are different points."""
    low, high = (k, k) if k is not None else k_range
    what = f"k = {k}" if k is not None else f"k from {low} to {high}"
    if low < (1 if k is not None else least) or high < low:
        raise UsageError(f"{what} cannot be tried; give 1 <= k, or {least} <= k_min <= k_max.")
    distinct = len(np.unique(values[: 4 * high], axis=0))
    if distinct < high:
        distinct = len(np.unique(values, axis=0))
    if distinct < high:
        raise UsageError(
            f"{what} needs at least {high} different points; {len(values)} points with {distinct} different values "
            "are there. Ask for fewer clusters or widen the region of interest."
        )
    return list(range(low, high + 1))


def silhouette(values: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Mean silhouette width over a seeded sub-sample of the points; NaN where that holds fewer than two clusters.

    Rousseeuw, J. Comput. Appl. Math. 20, 53 (1987), doi:10.1016/0377-0427(87)90125-7.
    """
    from sklearn.metrics import silhouette_score

    chosen = subsample(len(values), SILHOUETTE_POINTS, seed)
    n_clusters = len(np.unique(labels[chosen]))
    if not 2 <= n_clusters < len(chosen):
        return float("nan")
    return float(silhouette_score(values[chosen], labels[chosen]))


def silhouette_widths(values: np.ndarray, labels: np.ndarray, n_clusters: int, seed: int) -> list[float]:
    """Mean silhouette width of each cluster 0 … n_clusters - 1, over as many seeded points of each; noise left out.

    A cluster's mean distances are estimated from its own points, so equal shares do not bias them. NaN for an empty
    cluster, and for all where there are fewer than two.
    """
    from sklearn.metrics import silhouette_samples

    rng = np.random.default_rng(seed)
    share = -(-SILHOUETTE_POINTS // max(n_clusters, 1))
    parts = []
    for number in range(n_clusters):
        members = np.flatnonzero(labels == number)
        parts.append(np.sort(rng.permutation(members)[:share]))
    chosen = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    own = labels[chosen]
    if not 2 <= len(np.unique(own)) < len(chosen):
        return [float("nan")] * n_clusters
    widths = silhouette_samples(values[chosen], own)
    return [
        float(widths[own == number].mean()) if (own == number).any() else float("nan") for number in range(n_clusters)
    ]


def plain(numbers: Sequence[float] | np.ndarray) -> list[float | None]:
    """Numbers for JSON, which knows no NaN and no infinity: None there."""
    return [float(value) if np.isfinite(value) else None for value in numbers]


def mean_by_cluster(values: np.ndarray, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """Mean of one value per point `(n,)` over each cluster; NaN for an empty one."""
    inside = labels >= 0
    count = np.bincount(labels[inside], minlength=n_clusters)
    total = np.bincount(labels[inside], weights=values[inside], minlength=n_clusters)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def without_clusters(n_points: int) -> np.ndarray:
    """Labels of points that are all noise."""
    return np.full(n_points, n.NOISE, np.int64)
