"""What is in the clusters, and whether they come back when the data changes a little."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.clustering.features import (
    columns_of,
    feature_table,
    navigation_of,
    scaled,
    scaling,
    select_features,
)
from vaearr.analysis.clustering.methods import choose
from vaearr.analysis.clustering.points import reproducible
from vaearr.analysis.clustering.scores import CLUSTER, whole_numbers
from vaearr.config import ClusterConfig
from vaearr.errors import DataError, SchemaError, UsageError
from vaearr.recipe import nested

FEATURE = "feature"
SEED_STEP = 1000  # between the seeds of two resamplings


def cluster_summary(
    labels: xr.DataArray, ds: xr.Dataset | xr.DataArray, *, jaccard: xr.DataArray | None = None
) -> xr.Dataset:
    """Each cluster in numbers: `count`, `share`, and `mean` and `std` of every feature or map in its own units.

    Parameters
    ----------
    labels
        A cluster map, as from `cluster`.
    ds
        Maps over the same navigation dims, with at most one further dim; of a Dataset with `patterns`, all of its maps
        but the ROI, the split and the labels themselves. A map of codes gives the share of each code.
    jaccard
        What `cluster_stability` returned, to keep with the rest.

    Returns
    -------
    xr.Dataset
        Over dim `cluster` (0, 1, …, with coordinate `cluster_name`) and `feature` (with coordinate `units`). `share`
        is of all points with a cluster or noise; `std` has no correction for the mean; missing values are left out,
        and `n (cluster, feature)` counts the others. `stability` is the method's own number, whose `long_name` says
        which: mean posterior probability (gmm), persistence (hdbscan), mean silhouette width (kmeans, dbscan); NaN for
        labels from elsewhere. Attributes: `n`, `n_noise`, `n_not_clustered`.

    Raises SchemaError for maps of another grid, DataError for labels without a cluster.
    """
    nav = navigation_of(labels)
    if set(labels.dims) != set(nav):
        raise SchemaError(f"the labels have dims {labels.dims}; expected a map over {nav}.")
    maps = _maps(ds, labels, nav)
    try:
        labels, *_ = xr.align(labels, *maps.values(), join="exact", copy=False)
    except ValueError as error:
        raise SchemaError(f"labels and maps do not lie on the same grid: {error}") from None
    codes = whole_numbers(labels.transpose(*nav))
    n_clusters = int(codes.max(initial=-1)) + 1
    if n_clusters == 0:
        raise DataError("the labels hold no cluster: every point is noise or outside.")
    columns = columns_of(maps, nav)
    n_used = int((codes >= n.NOISE).sum())
    count = np.bincount(codes[codes >= 0], minlength=n_clusters)
    numbers = np.stack([_moments(column.values, codes, n_clusters) for column in columns], axis=-1)
    table = xr.Dataset(
        {
            "count": (CLUSTER, count, {"long_name": "scan points", "units": "1"}),
            "share": (CLUSTER, count / n_used, {"long_name": "share of the clustered and noise points", "units": "1"}),
            "mean": ((CLUSTER, FEATURE), numbers[0], {"long_name": "mean", "units": "those of the feature"}),
            "std": (
                (CLUSTER, FEATURE),
                numbers[1],
                {"long_name": "standard deviation", "units": "those of the feature"},
            ),
            "n": ((CLUSTER, FEATURE), numbers[2].astype(np.int64), {"long_name": "points that are not missing"}),
            "stability": _stability(labels, n_clusters),
        },
        coords={
            CLUSTER: np.arange(n_clusters),
            "cluster_name": (CLUSTER, [f"cluster_{number}" for number in range(n_clusters)]),
            FEATURE: [column.label for column in columns],
            "units": (FEATURE, [column.units for column in columns]),
        },
        attrs={
            "n": n_used,
            "n_noise": int((codes == n.NOISE).sum()),
            "n_not_clustered": int((codes < n.NOISE).sum()),
            "labels": str(labels.name),
        },
    )
    return table if jaccard is None else table.assign(jaccard=jaccard)


def _maps(ds: xr.Dataset | xr.DataArray, labels: xr.DataArray, nav: tuple[str, ...]) -> dict[str, xr.DataArray]:
    if isinstance(ds, xr.DataArray):
        return {str(ds.name) if ds.name is not None else FEATURE: ds}
    own = (n.ROI, n.SPLIT, n.PRESENT, n.LATENTS_STD)
    found = {}
    for name, variable in ds.data_vars.items():
        text = str(name)
        is_own = any(text == item or text.startswith(f"{item}_") for item in own) or text == labels.name
        fits = set(nav) <= set(map(str, variable.dims)) and variable.ndim <= len(nav) + 1
        if n.PATTERNS not in ds and not fits:
            raise SchemaError(f"{text!r} has dims {variable.dims}; expected {nav} and at most one more.")
        if fits and not is_own and variable.dtype.kind in "biuf":
            found[text] = variable
    if not found:
        raise UsageError("there is no map to describe the clusters by; pass maps such as ds[['BC', 'elements']].")
    return found


def _moments(values: np.ndarray, codes: np.ndarray, n_clusters: int) -> np.ndarray:
    """Mean, standard deviation and number of the finite values in each cluster: `(3, n_clusters)`."""
    used = (codes >= 0) & np.isfinite(values)
    own, inside = values[used], codes[used]
    count = np.bincount(inside, minlength=n_clusters)
    empty = np.full(n_clusters, np.nan)
    mean = np.divide(np.bincount(inside, own, n_clusters), count, out=empty.copy(), where=count > 0)
    squares = np.bincount(inside, (own - mean[inside]) ** 2, n_clusters)
    return np.stack([mean, np.sqrt(np.divide(squares, count, out=empty.copy(), where=count > 0)), count])


def _stability(labels: xr.DataArray, n_clusters: int) -> xr.DataArray:
    given = nested(labels.attrs, "stability") or [None] * n_clusters
    if len(given) != n_clusters:
        raise SchemaError(f"the labels' attribute 'stability' has {len(given)} entries for {n_clusters} clusters.")
    values = np.array([np.nan if value is None else value for value in given], np.float64)
    attrs = {"long_name": labels.attrs.get("stability_is", "not known"), "units": "1"}
    return xr.DataArray(values, dims=CLUSTER, attrs=attrs)


def cluster_stability(
    features: xr.Dataset | xr.DataArray, labels: xr.DataArray, *, n_resamples: int = 10, seed: int = 0
) -> xr.DataArray:
    """How well each cluster is found again in random halves of the points: `(cluster,)`, 0 to 1.

    For each half the method is fitted anew, with the number of clusters as found (HDBSCAN: half the smallest size);
    a cluster scores the largest Jaccard index of its points in the half with any new cluster; the mean over the
    halves is returned. Below 0.6 a cluster is not to be trusted, above 0.75 it is stable (Hennig, Comput. Stat. Data
    Anal. 52, 258 (2007), doi:10.1016/j.csda.2006.11.025, with subsets instead of bootstraps). NaN for a cluster that no
    half holds. As costly as `n_resamples` clusterings.

    features: what the labels were made from, by `cluster`, whose settings are read from the labels' attributes. Raises
    UsageError for labels without them.
    """
    if n_resamples < 1:
        raise UsageError(f"n_resamples is {n_resamples}; it must be at least 1.")
    if "config" not in labels.attrs or "method" not in labels.attrs:
        raise UsageError("the labels do not say how they were made; pass what va.cluster returned.")
    config = ClusterConfig.from_attrs(nested(labels.attrs, "config"))
    if isinstance(features, xr.Dataset) and n.PATTERNS in features:
        features = select_features(features, config)
    nav = navigation_of(features)
    labels = labels.transpose(*nav)
    table = feature_table(features, roi=labels >= n.NOISE, latents=config.latents)
    codes = whole_numbers(labels)[table.inside.values]
    values = scaled(table, scaling(table, config.scale))
    n_clusters = int(codes.max(initial=-1)) + 1
    k = n_clusters if config.method in ("gmm", "kmeans") else None
    again = config.replace(k=k, k_min=1, min_cluster_size=max(2, config.min_cluster_size // 2))
    rng = np.random.default_rng(seed)
    found = np.full((n_resamples, n_clusters), np.nan)
    with reproducible():
        for i in range(n_resamples):
            half = np.sort(rng.choice(len(values), len(values) // 2, replace=False))
            new, _ = choose(config.method).kernel(values[half], again.replace(seed=seed + SEED_STEP * i))
            found[i] = _best_jaccard(codes[half], new, n_clusters)
    known = np.isfinite(found)
    mean = np.divide(
        np.where(known, found, 0).sum(axis=0),
        known.sum(axis=0),
        out=np.full(n_clusters, np.nan),
        where=known.any(axis=0),
    )
    attrs = {
        "long_name": "mean Jaccard index over random halves",
        "units": "1",
        "n_resamples": n_resamples,
        "seed": seed,
    }
    return xr.DataArray(mean, {CLUSTER: np.arange(n_clusters)}, (CLUSTER,), name="jaccard", attrs=attrs)


def _best_jaccard(old: np.ndarray, new: np.ndarray, n_clusters: int) -> np.ndarray:
    """Largest Jaccard index of each old cluster with any new one; NaN for an old cluster without a point."""
    n_new = int(new.max(initial=-1)) + 1
    both = np.zeros((n_clusters, max(n_new, 1)))
    shared = (old >= 0) & (new >= 0)
    np.add.at(both, (old[shared], new[shared]), 1)
    size_old = np.bincount(old[old >= 0], minlength=n_clusters)
    size_new = np.bincount(new[new >= 0], minlength=both.shape[1])
    union = size_old[:, None] + size_new[None] - both
    index = np.divide(both, union, out=np.zeros_like(both), where=union > 0).max(axis=1)
    return np.where(size_old > 0, index, np.nan)
