"""Gaussian mixtures and k-means on plain arrays, with the number of clusters chosen where none is given."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vaearr.analysis.clustering.points import (
    by_size,
    candidates,
    mean_by_cluster,
    reproducible,
    silhouette,
    silhouette_widths,
    subsample,
)
from vaearr.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

Criterion = Literal["bic", "aic", "silhouette"]
Covariance = Literal["full", "tied", "diag", "spherical"]
CRITERIA, COVARIANCES = ("bic", "aic", "silhouette"), ("full", "tied", "diag", "spherical")

# Added to the variances, as a share of the features' mean variance. A component cannot become narrower than 1 % of the
# spread, and so not shrink onto single levels of an 8-bit map, where its likelihood would have no bound.
REGULARISATION = 1e-4
STARTS, SHORT, LONG, TOLERANCE = 3, 10, 300, 1e-3
KMEANS_STARTS = 4


def gmm(
    values: np.ndarray,
    *,
    k: int | None = None,
    k_range: tuple[int, int] = (2, 12),
    criterion: Criterion = "bic",
    covariance: Covariance = "full",
    seed: int = 0,
    max_points: int | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Gaussian mixture by expectation maximisation: labels `(n,)` of the likeliest component, and how it came out.

    Each k starts three times from k-means (k-means++), runs ten steps, and goes on from the likeliest (Biernacki,
    Celeux & Govaert, Comput. Stat. Data Anal. 41, 561 (2003), doi:10.1016/S0167-9473(02)00163-6). k is the one with
    the least BIC (Schwarz 1978) or AIC (Akaike 1974), or the greatest mean silhouette. Cluster 0 is the largest.
    Deterministic by seed, whatever the number of cores.

    Parameters
    ----------
    values
        `(n, features)`, finite, already scaled.
    k, k_range
        Number of components, or the first and the last that are tried.
    max_points
        k is chosen, and the start of the fit found, on a seeded sub-sample of so many points; the final fit is
        continued on all of them. None: all.

    Returns
    -------
    labels, info
        info: `k` (components chosen), `k_at_bound` (k is the last of the range, or its first while one fewer would be
        better), `scores` {k: criterion}, `n_clusters` (components that hold a point), `stability` (mean posterior
        probability of each cluster's points), `n_fitted`, `converged`, `regularisation`, `warnings`.

    Raises UsageError for k above the number of different points or an unknown criterion or covariance.
    """
    _check(criterion, CRITERIA, "criterion")
    _check(covariance, COVARIANCES, "covariance")
    values = np.ascontiguousarray(values, np.float64)
    least = 2 if criterion == "silhouette" and k is None else 1
    chosen = subsample(len(values), max_points, seed)
    part = values[chosen]
    floor = REGULARISATION * (float(part.var(axis=0).mean()) or 1.0)

    def fit(number: int) -> GaussianMixture:
        return _mixture(part, number, covariance, floor, seed)

    with reproducible():
        numbers = candidates(part, k, k_range, least=least)
        models = dict(zip(numbers, _side_by_side(fit, numbers), strict=True))
        scores = {number: _score(model, part, criterion, seed) for number, model in models.items()}
        best = _best(scores, largest=criterion == "silhouette")
        at_bound = k is None and (best == numbers[-1] or _fewer_is_better(best, numbers, scores, criterion, fit, part))
        model = models[best]
        if len(part) < len(values):  # the start is found, the rest of the way is walked with all points
            model.set_params(warm_start=True, max_iter=LONG).fit(values)
        posterior = model.predict_proba(values)
    labels, old = by_size(posterior.argmax(axis=1), values)
    sureness = mean_by_cluster(posterior.max(axis=1), labels, len(old))
    warnings = (bound_warnings(best, numbers, k) if at_bound else []) + _doubts(model, len(old))
    return labels, {
        "k": best,
        "k_at_bound": at_bound,
        "scores": scores,
        "criterion": criterion,
        "n_clusters": len(old),
        "n_fitted": len(part),
        "converged": bool(model.converged_),
        "regularisation": floor,
        "stability": sureness.tolist(),
        "stability_is": "mean posterior probability",
        "approximation": approximation(len(part), len(values), "the fit was then continued on all points"),
        "warnings": warnings,
    }


def _doubts(model: GaussianMixture, n_clusters: int) -> list[str]:
    size, found = model.n_components, []
    if n_clusters < size:
        found.append(f"{size - n_clusters} of {size} components hold no point: they are no cluster.")
    if not model.converged_:
        found.append(f"the mixture of {size} components had not converged after {LONG} steps.")
    return found


def kmeans(
    values: np.ndarray,
    *,
    k: int | None = None,
    k_range: tuple[int, int] = (2, 12),
    seed: int = 0,
    max_points: int | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """k-means (Lloyd, IEEE Trans. Inf. Theory 28, 129 (1982)) from the best of four k-means++ starts.

    Without k, the one with the greatest mean silhouette on a sub-sample: k-means has no likelihood, so no BIC. As
    `gmm` otherwise; `stability` is the mean silhouette width of each cluster.
    """
    values = np.ascontiguousarray(values, np.float64)
    part = values[subsample(len(values), max_points, seed)]

    def fit(number: int) -> KMeans:
        return _kmeans(part, number, seed)

    with reproducible():
        numbers = candidates(part, k, k_range, least=2)
        models = dict(zip(numbers, _side_by_side(fit, numbers), strict=True))
        scores = {number: silhouette(part, model.labels_, seed) for number, model in models.items()}
        best = _best(scores, largest=True)
        model = models[best]
        if len(part) < len(values):
            model = model.set_params(init=model.cluster_centers_, n_init=1).fit(values)
        labels, old = by_size(model.labels_, values)
        widths = silhouette_widths(values, labels, len(old), seed)
    at_bound = k is None and best == numbers[-1]
    return labels, {
        "k": best,
        "k_at_bound": at_bound,
        "scores": scores,
        "criterion": "silhouette",
        "n_clusters": len(old),
        "n_fitted": len(part),
        "inertia": float(model.inertia_),
        "stability": widths,
        "stability_is": "mean silhouette width",
        "approximation": approximation(len(part), len(values), "the centres were then moved on with all points"),
        "warnings": bound_warnings(best, numbers, k) if at_bound else [],
    }


def bound_warnings(best: int, numbers: Sequence[int], k: int | None) -> list[str]:
    """What a user should know about a chosen k at the end of the range."""
    if k is None and best == numbers[-1]:
        return [f"k = {best} is the largest that was tried: more clusters may fit better. Raise k_max."]
    return [f"k = {best} is the smallest that was tried and {best - 1} fits better. Lower k_min."]


def approximation(n_fitted: int, n_points: int, then: str) -> str:
    """How a result on a sub-sample stands for all points, in words; empty when it is exact."""
    return "" if n_fitted == n_points else f"found on {n_fitted} of {n_points} points, seeded; {then}"


def _check(value: str, known: Sequence[str], what: str) -> None:
    if value not in known:
        raise UsageError(f"no {what} is named {value!r}.{did_you_mean(value, list(known))}")


def _side_by_side(fit: Callable[[int], Any], numbers: Sequence[int]) -> list[Any]:
    """One fit per number, in threads; each works alone, so the results do not depend on how many there are."""
    from threadpoolctl import threadpool_limits

    def alone(number: int) -> Any:
        with threadpool_limits(1, user_api="openmp"):  # OpenMP's number of threads is set thread by thread
            return fit(number)

    with ThreadPoolExecutor(max(1, min(len(numbers), os.cpu_count() or 1))) as pool:
        return list(pool.map(alone, numbers[::-1]))[::-1]  # the longest first


def _mixture(values: np.ndarray, k: int, covariance: Covariance, floor: float, seed: int) -> GaussianMixture:
    from sklearn.mixture import GaussianMixture

    trials = []
    for start in range(STARTS if k > 1 else 1):
        model = GaussianMixture(
            k, covariance_type=covariance, reg_covar=floor, max_iter=SHORT, tol=TOLERANCE, random_state=seed + start
        )
        trials.append(model.fit(values))
    best: GaussianMixture = max(trials, key=lambda trial: trial.lower_bound_)
    return best if best.converged_ else best.set_params(warm_start=True, max_iter=LONG).fit(values)


def _kmeans(values: np.ndarray, k: int, seed: int) -> KMeans:
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=KMEANS_STARTS, random_state=seed, algorithm="lloyd").fit(values)


def _score(model: GaussianMixture, values: np.ndarray, criterion: Criterion, seed: int) -> float:
    if criterion == "silhouette":
        return silhouette(values, model.predict(values), seed)
    return float(model.bic(values) if criterion == "bic" else model.aic(values))


def _best(scores: dict[int, float], *, largest: bool) -> int:
    """The number with the best score; the fewest of equals, the first where there is no score at all."""
    known = {number: score for number, score in scores.items() if np.isfinite(score)}
    if not known:
        return next(iter(scores))
    wanted = max(known.values()) if largest else min(known.values())
    return next(number for number, score in known.items() if score == wanted)


def _fewer_is_better(
    best: int,
    numbers: Sequence[int],
    scores: dict[int, float],
    criterion: Criterion,
    fit: Callable[[int], GaussianMixture],
    values: np.ndarray,
) -> bool:
    if best != numbers[0] or best == 1 or criterion == "silhouette":  # one cluster has no silhouette
        return False
    return _score(fit(best - 1), values, criterion, 0) < scores[best]
