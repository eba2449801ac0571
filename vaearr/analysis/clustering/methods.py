"""The clustering methods by name.

A kernel takes finite float64 features `(n, f)`, already scaled, and the settings; it returns a
cluster number for each point, below 0 for noise, and a description (see `fit`, which does what all
methods share). A further method is one function under `@method(...)`, also in a package of your
own, where it is an entry point of `vaearr.clusterings`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from vaearr import names as n
from vaearr.config import ClusterConfig
from vaearr.config.parts import part
from vaearr.errors import DataError, UsageError

Kernel = Callable[[np.ndarray, ClusterConfig], tuple[np.ndarray, dict[str, Any]]]

# settings that do not depend on the method
COMMON = ("run", "name", "features", "latents", "method", "scale", "max_points", "seed")
SILHOUETTE_POINTS = 4000  # its time grows with their square; the mean is known to about 0.01
MUCH_NOISE = 0.5  # share of the points from which on it is reported

# Added to the variances, as a share of the features' mean variance. A component cannot become
# narrower than 1 % of the spread, and so not shrink onto single levels of an 8-bit map, where its
# likelihood would have no bound.
REGULARISATION = 1e-4
STARTS, SHORT, LONG = 3, 10, 300  # of a mixture: starts, steps of each, steps of the best
KMEANS_STARTS = 4
NEIGHBOURS, QUANTILE = 8, 0.98  # of DBSCAN's radius


@dataclass(frozen=True, kw_only=True)
class Method:
    """A clustering method."""

    kernel: Kernel
    uses: tuple[str, ...]  # settings that it reads besides the common ones
    reference: str
    then: str = ""  # how points beyond `max_points` get labels; empty: all points are fitted


METHODS: dict[str, Method] = {}


def method(*, uses: tuple[str, ...], reference: str, then: str = "") -> Callable[[Kernel], Kernel]:
    """Register the decorated kernel under its name.

    Parameters
    ----------
    uses
        Settings of `ClusterConfig` that it reads besides the common ones.
    reference
        Where the method is published.
    then
        How points beyond `max_points` get labels, if it fits only so many.

    Returns
    -------
    Callable
        The decorator.
    """

    def register(kernel: Kernel) -> Kernel:
        METHODS[kernel.__name__] = Method(kernel=kernel, uses=uses, reference=reference, then=then)
        return kernel

    return register


def choose(name: str | Any, settings: dict[str, Any]) -> Method:
    """A method by its name, see `vaearr.config.parts.part`, or as such: a kernel, or an estimator.

    Raises UsageError for an unknown one, or a setting that it does not read.
    """
    third_party = name
    if isinstance(name, str):
        third_party = part("clustering", name, METHODS, called="clustering method", trust=[name])
    chosen = _as_method(third_party)
    uses = "it has settings of its own"
    if chosen.uses:
        uses = f"it uses {', '.join(chosen.uses)}"
    for key, value in settings.items():
        if value is not None and key not in (*COMMON, *chosen.uses):
            raise UsageError(
                f"method {getattr(name, '__name__', name)!r} does not use {key!r}; {uses}."
            )
    return chosen


def _as_method(given: Any) -> Method:
    """A method, its kernel, a function of points that returns labels, or an estimator."""
    if isinstance(given, Method):
        return given
    for registered in METHODS.values():
        if given is registered.kernel:
            return registered
    if not hasattr(given, "fit_predict") and not callable(given):
        raise UsageError(
            f"{given!r} is no clustering method: neither a function of points nor has it "
            "fit_predict."
        )

    def kernel(values: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, dict[str, Any]]:
        from sklearn.base import clone

        if not hasattr(given, "fit_predict"):
            return np.asarray(given(values)), {}
        estimator = given() if isinstance(given, type) else clone(given)
        return np.asarray(estimator.fit_predict(values)), {}

    reference = " ".join((given.__doc__ or repr(given)).split())[:200]
    return Method(kernel=kernel, uses=(), reference=reference)


def fit(
    values: np.ndarray, config: ClusterConfig, chosen: Method
) -> tuple[np.ndarray, dict[str, Any]]:
    """Labels `(n,)` of points `(n, f)`, clusters numbered by falling size, NOISE = -1, and info.

    Deterministic by seed, whatever the number of cores. Of more than `max_points` points, most
    methods are fitted on a seeded sub-sample.

    The info holds `k`, `k_at_bound` (k is the last of the range), `scores` {k: criterion},
    `n_fitted`, `approximation` (a sentence; empty = exact), `warnings`, and further entries of the
    kernel. Raises UsageError or DataError if the settings do not suit the points.
    """
    values = np.ascontiguousarray(values, np.float64)
    with reproducible():
        raw, info = chosen.kernel(values, config)
    labels, k = by_size(raw, values)
    n_fitted = len(values)
    approximation = ""
    if chosen.then and n_fitted > config.max_points:
        n_fitted = config.max_points
        approximation = f"found on {n_fitted} of {len(values)} points, seeded; {chosen.then}"
    usual = {
        "k": k,
        "k_at_bound": False,
        "scores": {},
        "warnings": [],
        "n_fitted": n_fitted,
        "approximation": approximation,
    }
    return labels, usual | info


@contextmanager
def reproducible() -> Iterator[None]:
    """Use one thread for BLAS and OpenMP, so that sums do not depend on the number of cores.

    Convergence warnings are off: results report it in their own warnings.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def subsample(n_points: int, max_points: int, seed: int) -> np.ndarray:
    """Sorted indices of a seeded random choice without replacement; all if there are few enough."""
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


# ---- mixtures and k-means, with the number of clusters chosen if none is given


@method(
    uses=("k", "k_min", "k_max", "criterion", "covariance"),
    reference="Dempster, Laird & Rubin, J. R. Stat. Soc. B 39, 1 (1977)",
    then="the others belong to their likeliest component",
)
def gmm(values: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, dict[str, Any]]:
    """Gaussian mixture by expectation maximisation, each point to its likeliest component.

    k is the one with the least BIC (Schwarz 1978) or AIC (Akaike 1974), the greatest mean
    silhouette, or (hybrid) the least mean of its ranks by these three.
    """
    points = values[subsample(len(values), config.max_points, config.seed)]
    floor = REGULARISATION * (float(points.var(axis=0).mean()) or 1.0)
    model, info = _best_k(
        points,
        config,
        partial(_mixture, points, config, floor),
        partial(_mixture_scores, points, config.seed, config.criterion),
        largest=config.criterion == "silhouette",
        least=2 if config.criterion in ("silhouette", "hybrid") else 1,
    )
    labels = model.predict(values)
    k = info["k"]
    n_empty = k - len(np.unique(labels))
    if n_empty:
        info["warnings"].append(f"{n_empty} of {k} components hold no point: they are no cluster.")
    if not model.converged_:
        info["warnings"].append(
            f"the mixture of {k} components had not converged after {LONG} steps."
        )
    return labels, info | {"criterion": config.criterion, "regularisation": floor}


def _mixture(points: np.ndarray, config: ClusterConfig, floor: float, k: int) -> Any:
    """A mixture of k components, from the likeliest of several short fits.

    These start from k-means (Biernacki, Celeux & Govaert, Comput. Stat. Data Anal. 41, 561 (2003),
    doi:10.1016/S0167-9473(02)00163-6).
    """
    from sklearn.mixture import GaussianMixture

    trials = []
    for start in range(STARTS if k > 1 else 1):
        mixture = GaussianMixture(
            k,
            covariance_type=config.covariance,
            reg_covar=floor,
            max_iter=SHORT,
            random_state=config.seed + start,
        )
        trials.append(mixture.fit(points))
    best = max(trials, key=lambda trial: trial.lower_bound_)
    if best.converged_:
        return best
    return best.set_params(warm_start=True, max_iter=LONG).fit(points)


def _mixture_scores(
    points: np.ndarray, seed: int, criterion: str, models: list[Any]
) -> list[float]:
    if criterion == "silhouette":
        return [mean_silhouette(points, model.predict(points), seed) for model in models]
    if criterion == "hybrid":
        table = pd.DataFrame()
        for name in ("bic", "aic", "silhouette"):
            table[name] = _mixture_scores(points, seed, name, models)
        table["silhouette"] *= -1
        return table.rank(na_option="bottom").mean(axis=1).tolist()
    return [float(getattr(model, criterion)(points)) for model in models]


def mean_silhouette(values: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Mean silhouette width of a seeded sub-sample; NaN for one cluster, or as many as points.

    Rousseeuw, J. Comput. Appl. Math. 20, 53 (1987), doi:10.1016/0377-0427(87)90125-7.
    """
    from sklearn.metrics import silhouette_score

    chosen = subsample(len(values), SILHOUETTE_POINTS, seed)
    n_clusters = len(np.unique(labels[chosen]))
    if not 2 <= n_clusters < len(chosen):
        return float("nan")
    return float(silhouette_score(values[chosen], labels[chosen]))


@method(
    uses=("k", "k_min", "k_max"),
    reference="Lloyd, IEEE Trans. Inf. Theory 28, 129 (1982)",
    then="the centres were then moved on with all points",
)
def kmeans(values: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, dict[str, Any]]:
    """k-means from the best of four k-means++ starts; k has the greatest mean silhouette."""
    from sklearn.cluster import KMeans

    points = values[subsample(len(values), config.max_points, config.seed)]

    def fit_k(k: int) -> KMeans:
        return KMeans(k, n_init=KMEANS_STARTS, random_state=config.seed).fit(points)

    def scores(models: list[KMeans]) -> list[float]:
        return [mean_silhouette(points, model.labels_, config.seed) for model in models]

    model, info = _best_k(points, config, fit_k, scores, largest=True, least=2)
    if len(points) < len(values):
        model = model.set_params(init=model.cluster_centers_, n_init=1, copy_x=False).fit(values)
    return model.labels_, info | {"criterion": "silhouette"}


def _best_k(
    points: np.ndarray,
    config: ClusterConfig,
    fit_k: Callable[[int], Any],
    scores: Callable[[list[Any]], list[float]],
    *,
    largest: bool,
    least: int,
) -> tuple[Any, dict[str, Any]]:
    """The model whose number of clusters has the best score, and info, see `fit`.

    Each number is fitted alone in one thread, so the results do not depend on the number of cores.
    Raises UsageError for more clusters than there are different points.
    """
    low, high = config.k_min, config.k_max
    if config.k is not None:
        low = high = config.k
    elif low < least:
        raise UsageError(f"k from {low} to {high} cannot be tried; give {least} <= k_min.")
    n_distinct = len(np.unique(points, axis=0))
    if n_distinct < high:
        raise UsageError(
            f"k up to {high} needs at least {high} different points; {len(points)} points have "
            f"{n_distinct} different values. Choose fewer clusters or widen the region of interest."
        )
    numbers = range(low, high + 1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        models = list(pool.map(partial(_in_one_thread, fit_k), numbers))
    table = np.array(scores(models))
    best = low
    if not np.isnan(table).all():
        best += int(np.nanargmax(table) if largest else np.nanargmin(table))
    at_bound = config.k is None and best == high
    notes = []
    if at_bound:
        notes = [
            f"k = {best} is the largest that was tried: more clusters may fit better. Raise k_max."
        ]
    info = {
        "k": best,
        "k_at_bound": at_bound,
        "scores": dict(zip(numbers, table.tolist(), strict=True)),
        "warnings": notes,
    }
    return models[best - low], info


def _in_one_thread(function: Callable[[int], Any], k: int) -> Any:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="openmp"):  # OpenMP has a limit for each thread
        return function(k)


# ---- regions of high density; what lies between them is noise


@method(
    uses=("eps", "eps_rule", "min_samples"),
    reference="Ester, Kriegel, Sander & Xu, KDD-96, 226 (1996)",
    then="the others belong to their nearest core point within eps",
)
def dbscan(values: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, dict[str, Any]]:
    """DBSCAN; a point that is no core point, or was not fitted, joins its nearest core point.

    If none lies within eps, it is noise. (The original takes the first core point it meets, which
    depends on the order of the points.) A core point has at least `min_samples` others within eps.
    """
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import NearestNeighbors

    points = values[subsample(len(values), config.max_points, config.seed)]
    n_neighbours = config.min_samples or NEIGHBOURS
    if n_neighbours >= len(points):
        raise UsageError(
            f"{len(points)} points do not have {n_neighbours} neighbours each; give a smaller "
            "min_samples."
        )
    quantile, elbow = _radii(points, n_neighbours)
    eps = config.eps
    if eps is None:
        eps = quantile if config.eps_rule == "quantile" else elbow
    if eps <= 0:
        raise DataError(
            f"the distance to the {n_neighbours}th neighbour is 0 for nearly all points, since "
            "many are equal: give eps, a larger min_samples, or cluster by more features."
        )
    model = DBSCAN(eps=eps, min_samples=n_neighbours + 1).fit(
        points
    )  # which counts the point itself
    core = model.core_sample_indices_
    labels = np.full(len(values), n.NOISE)
    if len(core):
        core_points = NearestNeighbors(n_neighbors=1).fit(points[core])
        distance, nearest = core_points.kneighbors(values)
        label_of_nearest = model.labels_[core][nearest[:, 0]]
        labels = np.where(distance[:, 0] <= eps, label_of_nearest, n.NOISE)
    return labels, {
        "eps": eps,
        "eps_elbow": elbow,
        "min_samples": n_neighbours,
        "warnings": _noise_notes(labels, "a larger eps or smaller min_samples"),
    }


def _radii(points: np.ndarray, n_neighbours: int) -> tuple[float, float]:
    """Two radii from the distances of the points to their n-th neighbour, in ascending order.

    Their 0.98 quantile, so that 98 % of the points are core points; and the elbow of the curve,
    where it lies furthest below the line from its first to its last point (Satopaa et al., ICDCSW
    2011, doi:10.1109/ICDCSW.2011.20).
    """
    from sklearn.neighbors import NearestNeighbors

    distances, _ = NearestNeighbors(n_neighbors=n_neighbours).fit(points).kneighbors()
    curve = np.sort(distances[:, -1])
    rise = (curve[-1] - curve[0]) or 1.0
    line = np.linspace(0, 1, len(curve))
    elbow = np.argmax(line - (curve - curve[0]) / rise)
    return float(np.quantile(curve, QUANTILE)), float(curve[elbow])


@method(
    uses=("min_cluster_size", "min_samples"),
    reference="Campello, Moulavi & Sander, PAKDD 2013, 160, doi:10.1007/978-3-642-37456-2_14",
    then="min_cluster_size counts those, the others are placed by approximate_predict",
)
def hdbscan(values: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, dict[str, Any]]:
    """HDBSCAN, the clusters that persist over the most densities (excess of mass).

    Points that were not fitted are placed by the library's `approximate_predict`.
    """
    import hdbscan as library

    chosen = subsample(len(values), config.max_points, config.seed)
    points = values[chosen]
    size = config.min_cluster_size
    n_neighbours = config.min_samples or size
    if len(points) <= max(size, n_neighbours):
        raise UsageError(
            f"{len(points)} points are too few for min_cluster_size={size} and "
            f"min_samples={config.min_samples}; give smaller ones or widen the region of interest."
        )
    is_sampled = len(points) < len(values)
    labels = np.full(len(values), n.NOISE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of divisions by the distance 0 of equal points
        model = library.HDBSCAN(
            min_cluster_size=size,
            min_samples=config.min_samples,
            algorithm="boruvka_kdtree",
            approx_min_span_tree=False,  # the approximate tree gives other clusters
            core_dist_n_jobs=1,
            prediction_data=is_sampled,
        ).fit(points)
        labels[chosen] = model.labels_
        if is_sampled and model.labels_.max() >= 0:
            others = np.setdiff1d(np.arange(len(values)), chosen)
            labels[others] = library.approximate_predict(model, values[others])[0]
    return labels, {
        "min_cluster_size": size,
        "min_samples": n_neighbours,
        "warnings": _noise_notes(labels, "a smaller min_cluster_size or min_samples"),
    }


def _noise_notes(labels: np.ndarray, advice: str) -> list[str]:
    """A warning if most points are noise."""
    share = float((labels == n.NOISE).mean())
    if share == 1:
        return [f"no cluster was found, all points are noise: try {advice}."]
    if share > MUCH_NOISE:
        return [f"{share:.0%} of the points are noise: try {advice}, or a mixture, which has none."]
    return []
