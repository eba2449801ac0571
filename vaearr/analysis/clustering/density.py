"""Clusters as regions of high density, on plain arrays: DBSCAN and HDBSCAN; what lies between is noise."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from vaearr import names as n
from vaearr.analysis.clustering.mixture import approximation
from vaearr.analysis.clustering.points import by_size, reproducible, silhouette_widths, subsample, without_clusters
from vaearr.errors import DataError, UsageError, did_you_mean

Rule = Literal["quantile", "elbow"]
QUANTILE = 0.98
NEIGHBOURS = 8
MUCH_NOISE = 0.5  # share of the points from which on a user is told
PAIRS = 4_000_000  # neighbour pairs in memory at a time
BLOCK = 20_000  # points labelled at a time


def k_distance(values: np.ndarray, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Distance of each point to its k-th neighbour, itself not counted: `(n,)`, in the order of the points.

    Sorted, it is the k-distance curve of Ester, Kriegel, Sander & Xu, KDD-96, 226 (1996). Raises UsageError for fewer
    points than neighbours.
    """
    from sklearn.neighbors import NearestNeighbors

    if not 1 <= neighbours < len(values):
        raise UsageError(f"{len(values)} points have no {neighbours} neighbours each; give a smaller min_samples.")
    tree = NearestNeighbors(n_neighbors=neighbours).fit(values)
    return np.asarray(tree.kneighbors()[0][:, -1])


def eps_from_curve(distances: np.ndarray, rule: Rule = "quantile") -> float:
    """A radius from the k-distances of the points.

    `quantile`: the 0.98 quantile, so that 98 % of the points are core points. `elbow`: where the sorted curve lies
    furthest below the line from its first to its last point (Satopaa et al., ICDCSW 2011, doi:10.1109/ICDCSW.2011.20).
    """
    if rule not in ("quantile", "elbow"):
        raise UsageError(f"no rule for eps is named {rule!r}.{did_you_mean(rule, ['quantile', 'elbow'])}")
    curve = np.sort(distances)
    if rule == "quantile":
        return float(np.quantile(curve, QUANTILE))
    span = curve[-1] - curve[0]
    if span == 0:
        return float(curve[-1])
    return float(curve[np.argmax(np.linspace(0, 1, len(curve)) - (curve - curve[0]) / span)])


def dbscan(
    values: np.ndarray,
    *,
    eps: float | None = None,
    rule: Rule = "quantile",
    min_samples: int = NEIGHBOURS,
    seed: int = 0,
    max_points: int | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """DBSCAN (Ester et al. 1996): labels `(n,)`, NOISE = -1, and how they came out.

    A core point has at least `min_samples` others within `eps`; core points within eps of each other form a cluster;
    any other point belongs to its nearest core point if that lies within eps, and is noise if not. (The original
    takes the first core point it meets, which depends on the order of the points.)

    Parameters
    ----------
    values
        `(n, features)`, finite, already scaled.
    eps
        Radius; without it by `rule` from the distances to the `min_samples`-th neighbour, see `eps_from_curve`.
    max_points
        Core points are found on a seeded sub-sample of so many points; the others join their nearest core point.

    Returns
    -------
    labels, info
        info: `eps`, `eps_quantile`, `eps_elbow`, `n_core`, `n_clusters`, `stability` (mean silhouette width of each
        cluster), `n_fitted`, `approximation`, `warnings`.
    """
    values = np.ascontiguousarray(values, np.float64)
    chosen = subsample(len(values), max_points, seed)
    part = values[chosen]
    with reproducible():
        distances = k_distance(part, min_samples)
        rules: dict[str, float] = {name: eps_from_curve(distances, name) for name in ("quantile", "elbow")}
        radius = eps if eps is not None else eps_from_curve(distances, rule)
        if radius <= 0:
            raise DataError(
                f"the distance to the {min_samples}th neighbour is 0 for nearly all points, since many are equal: "
                "give eps, a larger min_samples, or cluster by more features."
            )
        is_core = distances <= radius
        labels = without_clusters(len(values))
        if is_core.any():
            core = part[is_core]
            groups = _connected(core, radius)
            is_other = np.ones(len(values), bool)
            is_other[chosen[is_core]] = False
            labels[~is_other] = groups
            labels[is_other] = _nearest(core, groups, values[is_other], radius)
        labels, old = by_size(labels, values)
        widths = silhouette_widths(values, labels, len(old), seed)
    return labels, {
        "k": len(old),
        "k_at_bound": False,
        "scores": {},
        "eps": float(radius),
        "eps_quantile": rules["quantile"],
        "eps_elbow": rules["elbow"],
        "min_samples": min_samples,
        "n_core": int(is_core.sum()),
        "n_clusters": len(old),
        "n_fitted": len(part),
        "stability": widths,
        "stability_is": "mean silhouette width",
        "approximation": approximation(
            len(part), len(values), "the others belong to their nearest core point within eps"
        ),
        "warnings": few_warnings(labels, "a larger eps or smaller min_samples", "a smaller eps"),
    }


def _connected(points: np.ndarray, radius: float) -> np.ndarray:
    """Number of the connected part that each point lies in, where points within the radius are joined.

    Neighbours are listed block by block and parts joined at once, so that memory stays bounded in dense data.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from sklearn.neighbors import NearestNeighbors

    count = len(points)
    tree = NearestNeighbors(radius=radius).fit(points)
    groups = np.arange(count)
    step = max(1, PAIRS // count)
    for start in range(0, count, step):
        near = tree.radius_neighbors(points[start : start + step], return_distance=False)
        rows = np.repeat(groups[start : start + step], [len(item) for item in near])
        columns = groups[np.concatenate(near)]
        apart = rows != columns
        graph = coo_matrix((np.ones(int(apart.sum()), np.int8), (rows[apart], columns[apart])), (count, count))
        groups = connected_components(graph.astype(bool), directed=False)[1][groups]
    return np.asarray(np.unique(groups, return_inverse=True)[1])


def _nearest(core: np.ndarray, groups: np.ndarray, points: np.ndarray, radius: float) -> np.ndarray:
    """Group of the nearest core point within the radius, else NOISE."""
    from sklearn.neighbors import NearestNeighbors

    tree = NearestNeighbors(n_neighbors=1).fit(core)

    def label(block: np.ndarray) -> np.ndarray:
        distance, index = tree.kneighbors(block)
        return np.where(distance[:, 0] <= radius, groups[index[:, 0]], n.NOISE)

    return _blockwise(label, points)


def hdbscan(
    values: np.ndarray,
    *,
    min_cluster_size: int = 20,
    min_samples: int | None = None,
    seed: int = 0,
    max_points: int | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """HDBSCAN: labels `(n,)`, NOISE = -1, and how they came out.

    Campello, Moulavi & Sander, PAKDD 2013, 160, doi:10.1007/978-3-642-37456-2_14; excess of mass.

    Parameters
    ----------
    values
        `(n, features)`, finite, already scaled.
    min_cluster_size
        Smallest cluster, in points that are fitted.
    min_samples
        Neighbours that make a point dense; None: `min_cluster_size`.
    max_points
        Fitted on a seeded sub-sample of so many points. Any other joins the cluster of its nearest fitted point by
        mutual reachability, unless it lies further than any of the cluster's own points did when they left it; it is
        noise then, or where that nearest point is.

    Returns
    -------
    labels, info
        info: `n_clusters`, `stability` (persistence of each cluster, 0 to 1: the share of densities over which it
        lives), `n_fitted`, `approximation`, `warnings`.
    """
    import hdbscan as library

    values = np.ascontiguousarray(values, np.float64)
    chosen = subsample(len(values), max_points, seed)
    part = values[chosen]
    needed = max(min_cluster_size, min_samples or 0) + 1
    if len(part) < needed:
        raise UsageError(
            f"{len(part)} points are too few for min_cluster_size={min_cluster_size} and min_samples={min_samples}; "
            "give smaller ones or widen the region of interest."
        )
    with reproducible(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a library for others: divisions by the distance 0 of equal points
        model = library.HDBSCAN(
            min_cluster_size=min_cluster_size,
            min_samples=min_samples,
            algorithm="boruvka_kdtree",
            approx_min_span_tree=False,  # the approximate tree gives other clusters
            core_dist_n_jobs=1,
        ).fit(part)
        raw = without_clusters(len(values))
        raw[chosen] = model.labels_
        rest = np.ones(len(values), bool)
        rest[chosen] = False
        if rest.any() and model.labels_.max() >= 0:
            raw[rest] = _join(model, part, values[rest], min_samples or min_cluster_size)
    labels, old = by_size(raw, values)
    return labels, {
        "k": len(old),
        "k_at_bound": False,
        "scores": {},
        "min_cluster_size": min_cluster_size,
        "min_samples": min_samples if min_samples is not None else min_cluster_size,
        "n_clusters": len(old),
        "n_fitted": len(part),
        "stability": [float(model.cluster_persistence_[number]) for number in old],
        "stability_is": "persistence",
        "approximation": approximation(
            len(part),
            len(values),
            "min_cluster_size counts those, the others join their nearest point by mutual reachability",
        ),
        "warnings": few_warnings(labels, "a smaller min_cluster_size or min_samples", "a smaller min_cluster_size"),
    }


def _join(model: Any, part: np.ndarray, points: np.ndarray, neighbours: int) -> np.ndarray:
    """Labels of points that were not fitted, see `hdbscan`.

    The mutual reachability of two points is the largest of their distance and the distances to their own
    `neighbours`-th neighbours; 1 / lambda of the condensed tree is the one at which a fitted point left its cluster.
    """
    from sklearn.neighbors import NearestNeighbors

    tree = model.condensed_tree_.to_numpy()
    left = tree[tree["child"] < len(part)]
    inside = model.labels_[left["child"]] >= 0
    widest = np.zeros(int(model.labels_.max()) + 1)
    np.maximum.at(widest, model.labels_[left["child"][inside]], 1 / left["lambda_val"][inside])
    core = k_distance(part, neighbours)
    near = NearestNeighbors(n_neighbors=min(2 * neighbours, len(part))).fit(part)

    def label(block: np.ndarray) -> np.ndarray:
        distance, index = near.kneighbors(block)
        mutual = np.maximum(np.maximum(distance, distance[:, neighbours - 1, None]), core[index])
        best = mutual.argmin(axis=1)  # the nearest of equals: neighbours come sorted
        group = model.labels_[index[np.arange(len(block)), best]]
        fits = (group >= 0) & (mutual.min(axis=1) <= widest[group])
        return np.where(fits, group, n.NOISE)

    return _blockwise(label, points)


def few_warnings(labels: np.ndarray, when_none: str, when_one: str) -> list[str]:
    """What a user should know when hardly anything was told apart."""
    n_clusters = int(labels.max(initial=-1)) + 1
    if n_clusters == 0:
        return [f"no cluster was found, all points are noise: try {when_none}."]
    found = []
    if n_clusters == 1:
        found.append(f"all points that are no noise form one cluster: try {when_one}.")
    if (share := float((labels == n.NOISE).mean())) > MUCH_NOISE:
        found.append(f"{share:.0%} of the points are noise: try {when_none}, or a mixture, which has none.")
    return found


def _blockwise(label: Callable[[np.ndarray], np.ndarray], points: np.ndarray) -> np.ndarray:
    parts = [label(points[start : start + BLOCK]) for start in range(0, len(points), BLOCK)]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)
