"""Contents of clusters, and their agreement with a reference: phases, grains, another clustering."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.points import navigation_of
from vaearr.analysis.association.targets import is_map
from vaearr.analysis.clustering.features import FEATURE, columns_of, variables_of
from vaearr.analysis.clustering.labels import whole_numbers
from vaearr.errors import DataError, RoiError, UsageError
from vaearr.schema import categories
from vaearr.schema.grid import checked_map

CLUSTER, REFERENCE = "cluster", "reference"
NOT_DESCRIBED = (n.ROI, n.SPLIT, n.PRESENT, n.LATENTS_STD)
SCORES = {
    "ari": "adjusted Rand index",
    "nmi": "normalised mutual information (arithmetic mean)",
    "homogeneity": "homogeneity: each cluster holds one class",
    "completeness": "completeness: each class lies in one cluster",
    "v_measure": "V-measure, harmonic mean of homogeneity and completeness",
    "majority_accuracy": "share of points in their cluster's most frequent class (purity)",
    "hungarian_accuracy": "share of points in the class that their cluster is matched with, one to one",
}


def cluster_summary(labels: xr.DataArray, ds: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Describe each cluster: size, mean and spread of features and maps in their units.

    Parameters
    ----------
    labels
        A cluster map, as from `cluster`.
    ds
        Maps over the same navigation dims, with at most one further dim; of a Dataset with
        `patterns`, all of its maps but the ROI, the split and the labels themselves. A map of codes
        gives the share of each code.

    Returns
    -------
    xarray.Dataset
        Over `cluster` (0, 1, …, with coordinate `cluster_name`): `count`, `share` (of all points
        with a cluster or noise). Over `cluster` and `feature` (with coordinate `units`): `mean`,
        `std` (without correction for the mean) and `n`, the number of values that are not missing.
        Attributes: `n`, `n_noise`, `n_not_clustered`.

    Raises
    ------
    SchemaError
        For maps of another grid.
    DataError
        For labels without a cluster.
    UsageError
        If there is no map.
    """
    nav = navigation_of(labels)
    columns = columns_of(_described(ds, str(labels.name), nav), nav)
    codes = whole_numbers(checked_map(columns, labels, nav, boolean=False))
    n_clusters = int(codes.max(initial=-1)) + 1
    if n_clusters == 0:
        raise DataError("the labels hold no cluster: every point is noise or outside.")
    inside = codes >= 0
    values = columns.values[:, inside].T.astype("f8")
    frame = pd.DataFrame(np.where(np.isfinite(values), values, np.nan))
    cluster_of_point = pd.CategoricalIndex(codes[inside], range(n_clusters))
    groups = frame.groupby(cluster_of_point, observed=False)
    count = np.bincount(codes[inside], minlength=n_clusters)
    n_used = int((codes >= n.NOISE).sum())
    of_feature = (CLUSTER, FEATURE)
    units = {"units": "those of the feature"}
    return xr.Dataset(
        {
            "count": n.named(CLUSTER, count, "scan points"),
            "share": n.named(CLUSTER, count / n_used, "share of the clustered and noise points"),
            "mean": (of_feature, groups.mean(), {"long_name": "mean", **units}),
            "std": (of_feature, groups.std(ddof=0), {"long_name": "standard deviation", **units}),
            "n": (of_feature, groups.count(), {"long_name": "points that are not missing"}),
        },
        coords={
            CLUSTER: np.arange(n_clusters),
            "cluster_name": (CLUSTER, [f"cluster_{i}" for i in range(n_clusters)]),
            FEATURE: columns[FEATURE].values.tolist(),
            "units": (FEATURE, columns["units"].values.tolist()),
        },
        attrs={
            "n": n_used,
            "n_noise": int((codes == n.NOISE).sum()),
            "n_not_clustered": int((codes < n.NOISE).sum()),
            "labels": str(labels.name),
        },
    )


def _described(
    ds: xr.Dataset | xr.DataArray, labels: str, nav: tuple[str, ...]
) -> dict[str, xr.DataArray]:
    """The maps of a summary by name."""
    maps = variables_of(ds)
    if n.PATTERNS in maps:
        prefixes = tuple(f"{name}_" for name in NOT_DESCRIBED)
        omitted = {labels, *NOT_DESCRIBED}
        for name in list(maps):
            if name in omitted or name.startswith(prefixes) or not is_map(maps[name], nav):
                del maps[name]
    if not maps:
        raise UsageError(
            "there is no map to describe the clusters by; pass maps such as ds[['BC', 'elements']]."
        )
    return maps


def cluster_scores(labels: xr.DataArray, reference: xr.DataArray) -> xr.Dataset:
    """Measure the agreement of two maps of codes, over the points where both have one.

    Parameters
    ----------
    labels, reference : xarray.DataArray
        Whole numbers over the same dims, below 0 (or NaN) if missing; named by `flag_values` and
        `flag_meanings` if they have them.

    Returns
    -------
    xarray.Dataset
        `ari` [1]_, `nmi` [2]_, `homogeneity`, `completeness`, `v_measure` [3]_,
        `majority_accuracy`, `hungarian_accuracy` [4]_: 1 is agreement; 0 is chance for ari, while
        the others, the majority accuracy above all, rise with the number of clusters whatever these
        mean. `confusion (cluster, reference)` in points, with coordinates `cluster_name` and
        `reference_name`. Attributes: `n` points compared; of those with a reference, `n_noise`
        labelled noise.

    Raises
    ------
    SchemaError
        For maps that do not lie on one grid or hold fractions.
    RoiError
        If no point has both.

    References
    ----------
    .. [1] Hubert & Arabie, J. Classif. 2, 193 (1985).
    .. [2] Vinh, Epps & Bailey, J. Mach. Learn. Res. 11, 2837 (2010).
    .. [3] Rosenberg & Hirschberg, EMNLP-CoNLL 2007, 410.
    .. [4] Kuhn, Nav. Res. Logist. Q. 2, 83 (1955).

    Examples
    --------
    >>> scores = va.cluster_scores(ds.phase, ds.phase)
    >>> float(scores.ari)
    1.0
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn import metrics

    clusters = whole_numbers(labels)
    classes = whole_numbers(checked_map(labels, reference, labels.dims, boolean=False))
    both = (clusters >= 0) & (classes >= 0)
    if not both.any():
        raise RoiError(
            f"no scan point has both a cluster and a reference: {int((clusters >= 0).sum())} have "
            f"a cluster, {int((classes >= 0).sum())} a reference."
        )
    cluster_names = _names(labels, clusters)
    class_names = _names(reference, classes[both])
    pairs = (classes[both], clusters[both])
    confusion = pd.crosstab(pairs[1], pairs[0])
    confusion = confusion.reindex(index=[*cluster_names], columns=[*class_names], fill_value=0)
    table = confusion.to_numpy(np.int64)
    matched = table[linear_sum_assignment(table, maximize=True)]
    values = (
        metrics.adjusted_rand_score(*pairs),
        metrics.normalized_mutual_info_score(*pairs),
        *metrics.homogeneity_completeness_v_measure(*pairs),
        table.max(axis=1).sum() / table.sum(),
        matched.sum() / table.sum(),
    )
    scores = xr.Dataset(
        {"confusion": n.named((CLUSTER, REFERENCE), table, "scan points")},
        coords={
            CLUSTER: list(cluster_names),
            "cluster_name": (CLUSTER, list(cluster_names.values())),
            REFERENCE: list(class_names),
            "reference_name": (REFERENCE, list(class_names.values())),
        },
        attrs={
            "n": int(table.sum()),
            "n_noise": int(((clusters == n.NOISE) & (classes >= 0)).sum()),
            "labels": str(labels.name),
            "reference": str(reference.name),
        },
    )
    for (name, text), value in zip(SCORES.items(), values, strict=True):
        scores[name] = n.named((), float(value), text)
    return scores


def _names(labels: xr.DataArray, codes: np.ndarray) -> dict[int, str]:
    """Code -> name; those of `flag_values` that do not occur keep their place."""
    names = categories(labels)
    for code in np.unique(codes[codes >= 0]).tolist():
        names.setdefault(code, str(code))
    return names
