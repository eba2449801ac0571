"""The clustering methods by name: plain arrays and settings in, labels and how they came out back.

A kernel gets finite float64 features `(n, f)`, already scaled, and the settings; it returns a
cluster number for each point, below 0 for noise, and what is to be told of it (see `fit`, which
does what all methods share). A further method is one function under `@method(...)`, also in a
package of your own, where it is an entry point of `vaearr.clusterings`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from vaearr import names as n
from vaearr.config import ClusterConfig
from vaearr.config.parts import part
from vaearr.errors import DataError, UsageError

Kernel = Callable[[np.ndarray, ClusterConfig], tuple[np.ndarray, dict[str, Any]]]

ALWAYS = ("run", "name", "features", "latents", "method", "scale", "max_points", "seed")
SILHOUETTE_POINTS = (
    4000  # silhouettes need every pair of distances; this many points tell their mean to about 0.01
)
MUCH_NOISE = 0.5  # share of the points from which on a user is told

# Added to the variances, as a share of the features' mean variance. A component cannot become
# narrower than 1 % of the spread, and so not shrink onto single levels of an 8-bit map, where its
# likelihood would have no bound.
REGULARISATION = 1e-4
STARTS, SHORT, LONG = 3, 10, 300  # of a mixture: starts, steps of each, steps of the best
KMEANS_STARTS = 4
NEIGHBOURS, QUANTILE = 8, 0.98  # of DBSCAN's radius


@dataclass(frozen=True, kw_only=True)
class Method:
    """A registered method: the kernel, the settings that it reads beside the common ones, and where
    it is from.
    """

    kernel: Kernel
    uses: tuple[str, ...]
    reference: str


METHODS: dict[str, Method] = {}


def method(*, uses: tuple[str, ...], reference: str) -> Callable[[Kernel], Kernel]:
    """Register the decorated kernel under its own name."""

    def register(kernel: Kernel) -> Kernel:
        METHODS[kernel.__name__] = Method(kernel=kernel, uses=uses, reference=reference)
        return kernel

    return register


def choose(name: str | Any, given: dict[str, Any]) -> Method:
    """A method by its name, see `vaearr.config.parts.part`, or as such: a kernel, or what has
    fit_predict.

    Raises UsageError for an unknown one, or a given setting that it does not read.
    """
    found = name
    if isinstance(name, str):
        found = part("clustering", name, METHODS, called="clustering method", trust=[name])
    chosen = found if isinstance(found, Method) else _of_others(found)
    for key, value in given.items():
        if value is not None and key not in (*ALWAYS, *chosen.uses):
            uses = (
                f"it uses {', '.join(chosen.uses)}" if chosen.uses else "it has settings of its own"
            )
            raise UsageError(
                f"method {getattr(name, '__name__', name)!r} does not use {key!r}; {uses}."
            )
    return chosen


def _of_others(found: Any) -> Method:
    """A decorated kernel, a plain function of points that gives labels, or an estimator (class or
    object).
    """
    for known in METHODS.values():
        if found is known.kernel:
            return known
    if not hasattr(found, "fit_predict") and not callable(found):
        raise UsageError(
            f"{found!r} is no clustering method: neither a function of points nor has it "
            f"fit_predict."
        )

    def kernel(values: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, dict[str, Any]]:
        from sklearn.base import clone

        if hasattr(found, "fit_predict"):
            labels = (found() if isinstance(found, type) else clone(found)).fit_predict(values)
        else:
            labels = found(values)
        return np.asarray(labels), {}

    reference = " ".join((found.__doc__ or repr(found)).split())[:200]
    return Method(kernel=kernel, uses=(), reference=reference)


def fit(
    values: np.ndarray, config: ClusterConfig, chosen: Method | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Labels `(n,)` of points `(n, f)`, clusters numbered by falling size, NOISE = -1, and how they
    came out.

    Deterministic by seed, whatever the number of cores. Of more than `max_points` points, a method
    is fitted on a seeded sub-sample and says what becomes of the others.

    The info holds `k`, `k_at_bound` (k is the last of the range), `scores` {k: criterion},
    `n_fitted`, `approximation` (a sentence; empty = exact), `warnings`, and whatever else the
    kernel tells. Raises UsageError or DataError for what cannot be asked of the points.
    """
    values = np.ascontiguousarray(values, np.float64)
    with reproducible():
        raw, info = (chosen or METHODS[config.method]).kernel(values, config)
    labels, k = by_size(raw, values)
    then = info.pop(
        "then", None
    )  # of a method that does not say what it does with many points: it took all
    fitted = len(values) if then is None else min(len(values), config.max_points)
    approximation = (
        ""
        if fitted == len(values)
        else f"found on {fitted} of {len(values)} points, seeded; {then}"
    )
    usual = {"k": k, "k_at_bound": False, "scores": {}, "warnings": []}
    return labels, usual | {"n_fitted": fitted, "approximation": approximation} | info


@contextmanager
def reproducible() -> Iterator[None]:
    """One thread for BLAS and OpenMP, so that sums do not depend on the number of cores, and no
    convergence warnings.

    What did not converge is told in the result's own warnings. Both are put back at the end.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def subsample(n_points: int, max_points: int, seed: int) -> np.ndarray:
    """Sorted indices of a seeded random choice without replacement; all of them where there are few
    enough.
    """
    if n_points <= max_points:
        return np.arange(n_points)
    return np.sort(np.random.default_rng(seed).choice(n_points, max_points, replace=False))


def by_size(labels: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Clusters renumbered by size, the largest first, and their number.

    Equal sizes are ordered by the mean of the first feature, then of the next. Numbers without a
    point are left out; labels below 0 stay as they are.
    """
    inside = labels >= 0
    _, position, counts = np.unique(labels[inside], return_inverse=True, return_counts=True)
    means = [np.bincount(position, column[inside]) / counts for column in values.T]
    order = np.lexsort((*means[::-1], -counts))
    renumbered = labels.astype(np.int64)
    renumbered[inside] = np.argsort(order)[position]
    return renumbered, len(order)


def mean_silhouette(values: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Mean silhouette width of a seeded sub-sample of the points; NaN of one cluster, or as many as
    points.

    Rousseeuw, J. Comput. Appl. Math. 20, 53 (1987), doi:10.1016/0377-0427(87)90125-7.
    """
    from sklearn.metrics import silhouette_score

    chosen = subsample(len(values), SILHOUETTE_POINTS, seed)
    n_clusters = len(np.unique(labels[chosen]))
    if not 2 <= n_clusters < len(chosen):
        return float("nan")
    return float(silhouette_score(values[chosen], labels[chosen]))


# ---- mixtures and k-means, with the number of clusters chosen where none is given


@method(
    uses=("k", "k_min", "k_max", "criterion", "covariance"),
    reference="Dempster, Laird & Rubin, J. R. Stat. Soc. B 39, 1 (1977)",
)
def gmm(values: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, dict[str, Any]]:
    """Gaussian mixture by expectation maximisation, each point to its likeliest component.

    Each k starts three times from k-means (k-means++), runs ten steps, and goes on from the
    likeliest (Biernacki, Celeux & Govaert, Comput. Stat. Data Anal. 41, 561 (2003),
    doi:10.1016/S0167-9473(02)00163-6). k is the one with the least BIC (Schwarz 1978) or AIC
    (Akaike 1974), the greatest mean silhouette, or (hybrid) the least mean of its ranks by these
    three.
    """
    import pandas as pd
    from sklearn.mixture import GaussianMixture

    part = values[subsample(len(values), config.max_points, config.seed)]
    floor = REGULARISATION * (float(part.var(axis=0).mean()) or 1.0)

    def mixture(k: int) -> GaussianMixture:
        trials = [
            GaussianMixture(
                k,
                covariance_type=config.covariance,
                reg_covar=floor,
                max_iter=SHORT,
                random_state=config.seed + start,
            ).fit(part)
            for start in range(STARTS if k > 1 else 1)
        ]
        best = max(trials, key=lambda trial: trial.lower_bound_)
        return (
            best if best.converged_ else best.set_params(warm_start=True, max_iter=LONG).fit(part)
        )

    def scores(models: list[GaussianMixture], criterion: str) -> list[float]:
        if criterion == "silhouette":
            return [mean_silhouette(part, model.predict(part), config.seed) for model in models]
        if criterion == "hybrid":
            table = pd.DataFrame(
                {name: scores(models, name) for name in ("bic", "aic", "silhouette")}
            )
            table["silhouette"] *= -1
            return list(table.rank(na_option="bottom").mean(axis=1))
        return [float(getattr(model, criterion)(part)) for model in models]

    largest = config.criterion == "silhouette"
    least = 2 if config.criterion in ("silhouette", "hybrid") else 1
    model, info = _best_number(
        part,
        config,
        mixture,
        lambda models: scores(models, config.criterion),
        largest=largest,
        least=least,
    )
    labels = model.predict(values)
    if empty := info["k"] - len(np.unique(labels)):
        info["warnings"].append(
            f"{empty} of {info['k']} components hold no point: they are no cluster."
        )
    if not model.converged_:
        info["warnings"].append(
            f"the mixture of {info['k']} components had not converged after {LONG} steps."
        )
    return labels, info | {
        "criterion": config.criterion,
        "regularisation": floor,
        "then": "the others belong to their likeliest component",
    }


@method(uses=("k", "k_min", "k_max"), reference="Lloyd, IEEE Trans. Inf. Theory 28, 129 (1982)")
def kmeans(values: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, dict[str, Any]]:
    """k-means from the best of four k-means++ starts, k by the greatest mean silhouette: it has no
    likelihood.
    """
    from sklearn.cluster import KMeans

    part = values[subsample(len(values), config.max_points, config.seed)]

    def fitted(k: int) -> KMeans:
        return KMeans(k, n_init=KMEANS_STARTS, random_state=config.seed).fit(part)

    def scores(models: list[KMeans]) -> list[float]:
        return [mean_silhouette(part, model.labels_, config.seed) for model in models]

    model, info = _best_number(part, config, fitted, scores, largest=True, least=2)
    if len(part) < len(values):
        model = model.set_params(init=model.cluster_centers_, n_init=1, copy_x=False).fit(values)
    then = "the centres were then moved on with all points"
    return model.labels_, info | {"criterion": "silhouette", "then": then}


def _best_number(
    part: np.ndarray,
    config: ClusterConfig,
    fitted: Callable[[int], Any],
    scores: Callable[[list[Any]], list[float]],
    *,
    largest: bool,
    least: int,
) -> tuple[Any, dict[str, Any]]:
    """The model whose number of clusters has the best score (the fewest of equals), and what is
    told of the choice.

    One fit per number, in threads; each works alone, so the results do not depend on how many there
    are. Warns where the best number is the last that was tried. Raises UsageError for more clusters
    than there are different points.
    """
    from threadpoolctl import threadpool_limits

    low, high = (config.k, config.k) if config.k else (config.k_min, config.k_max)
    if config.k is None and low < least:
        raise UsageError(f"k from {low} to {high} cannot be tried; give {least} <= k_min.")
    if (distinct := len(np.unique(part, axis=0))) < high:
        raise UsageError(
            f"k up to {high} needs at least {high} different points; {len(part)} points with "
            f"{distinct} different "
            "values are there. Ask for fewer clusters or widen the region of interest."
        )

    def alone(number: int) -> Any:
        with threadpool_limits(
            1, user_api="openmp"
        ):  # OpenMP's number of threads is set thread by thread
            return fitted(number)

    numbers = range(low, high + 1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        models = list(pool.map(alone, numbers))
    table = dict(zip(numbers, scores(models), strict=True))
    known = {number: score for number, score in table.items() if np.isfinite(score)}
    best = (max if largest else min)(known, key=lambda number: known[number], default=low)
    at_bound = config.k is None and best == high
    notes = (
        [f"k = {best} is the largest that was tried: more clusters may fit better. Raise k_max."]
        if at_bound
        else []
    )
    return models[best - low], {
        "k": best,
        "k_at_bound": at_bound,
        "scores": table,
        "warnings": notes,
    }


# ---- regions of high density; what lies between them is noise


@method(
    uses=("eps", "eps_rule", "min_samples"),
    reference="Ester, Kriegel, Sander & Xu, KDD-96, 226 (1996)",
)
def dbscan(values: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, dict[str, Any]]:
    """DBSCAN; a point that is no core point, or was not fitted, joins its nearest core point within
    eps, else noise.

    (The original takes the first core point it meets, which depends on the order of the points.) A
    core point has at least `min_samples` others within eps, which without a given one comes from
    the distances to the `min_samples`-th
    neighbours: their 0.98 quantile, so that 98 % of the points are core points, or the elbow of the
    sorted curve, where it lies furthest below the line from its first to its last point (Satopaa et
    al., ICDCSW 2011, doi:10.1109/ICDCSW.2011.20).
    """
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import NearestNeighbors

    part = values[subsample(len(values), config.max_points, config.seed)]
    neighbours = config.min_samples or NEIGHBOURS
    if neighbours >= len(part):
        raise UsageError(
            f"{len(part)} points have no {neighbours} neighbours each; give a smaller min_samples."
        )
    curve = np.sort(NearestNeighbors(n_neighbors=neighbours).fit(part).kneighbors()[0][:, -1])
    span = (curve[-1] - curve[0]) or 1.0
    elbow = np.argmax(np.linspace(0, 1, len(curve)) - (curve - curve[0]) / span)
    rules = {"quantile": float(np.quantile(curve, QUANTILE)), "elbow": float(curve[elbow])}
    eps = config.eps or rules[config.eps_rule]
    if eps <= 0:
        raise DataError(
            f"the distance to the {neighbours}th neighbour is 0 for nearly all points, since "
            f"many are equal: give eps, "
            "a larger min_samples, or cluster by more features."
        )
    model = DBSCAN(eps=eps, min_samples=neighbours + 1).fit(part)  # which counts the point itself
    core = model.core_sample_indices_
    labels = np.full(len(values), n.NOISE)
    if len(core):
        distance, nearest = NearestNeighbors(n_neighbors=1).fit(part[core]).kneighbors(values)
        labels = np.where(distance[:, 0] <= eps, model.labels_[core][nearest[:, 0]], n.NOISE)
    return labels, {
        "eps": eps,
        "eps_elbow": rules["elbow"],
        "min_samples": neighbours,
        "then": "the others belong to their nearest core point within eps",
        "warnings": _few(labels, "a larger eps or smaller min_samples"),
    }


@method(
    uses=("min_cluster_size", "min_samples"),
    reference="Campello, Moulavi & Sander, PAKDD 2013, 160, doi:10.1007/978-3-642-37456-2_14",
)
def hdbscan(values: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, dict[str, Any]]:
    """HDBSCAN, the clusters that live over the most densities (excess of mass).

    Points that were not fitted are placed by the library's `approximate_predict`.
    """
    import hdbscan as library

    chosen = subsample(len(values), config.max_points, config.seed)
    part = values[chosen]
    size, neighbours = config.min_cluster_size, config.min_samples or config.min_cluster_size
    if len(part) <= max(size, neighbours):
        raise UsageError(
            f"{len(part)} points are too few for min_cluster_size={size} and "
            f"min_samples={config.min_samples}; "
            "give smaller ones or widen the region of interest."
        )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of a library for others: divisions by the distance 0 of equal points
        model = library.HDBSCAN(
            min_cluster_size=size,
            min_samples=config.min_samples,
            algorithm="boruvka_kdtree",
            approx_min_span_tree=False,  # the approximate tree gives other clusters
            core_dist_n_jobs=1,
            prediction_data=len(part) < len(values),
        ).fit(part)
        labels = np.full(len(values), n.NOISE)
        labels[chosen] = model.labels_
        if len(part) < len(values) and model.labels_.max() >= 0:
            rest = np.setdiff1d(np.arange(len(values)), chosen)
            labels[rest] = library.approximate_predict(model, values[rest])[0]
    return labels, {
        "min_cluster_size": size,
        "min_samples": neighbours,
        "then": "min_cluster_size counts those, the others are placed by approximate_predict",
        "warnings": _few(labels, "a smaller min_cluster_size or min_samples"),
    }


def _few(labels: np.ndarray, advice: str) -> list[str]:
    """What a user should know where most points are noise."""
    share = float((labels == n.NOISE).mean())
    if share == 1:
        return [f"no cluster was found, all points are noise: try {advice}."]
    if share > MUCH_NOISE:
        return [f"{share:.0%} of the points are noise: try {advice}, or a mixture, which has none."]
    return []
