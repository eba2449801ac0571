"""What is in the clusters, and how well they agree with a reference: phases, grains, another
clustering.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.clustering.features import (
    FEATURE,
    columns_of,
    is_usable,
    navigation_of,
    variables_of,
)
from vaearr.analysis.clustering.labels import whole_numbers
from vaearr.errors import DataError, RoiError, UsageError
from vaearr.schema import categories
from vaearr.schema.grid import laid_over

CLUSTER, REFERENCE = "cluster", "reference"
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
    """Each cluster in numbers: `count`, `share`, and `mean` and `std` of every feature or map in
    its own units.

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
    xr.Dataset
        Over dim `cluster` (0, 1, …, with coordinate `cluster_name`) and `feature` (with coordinate
        `units`). `share` is of all points with a cluster or noise; `std` has no correction for the
        mean; missing values are left out, and `n (cluster, feature)` counts the others. Attributes:
        `n`, `n_noise`, `n_not_clustered`.

    Raises SchemaError for maps of another grid, DataError for labels without a cluster.
    """
    import pandas as pd

    nav, maps = navigation_of(labels), variables_of(ds)
    if n.PATTERNS in maps:
        own = (n.ROI, n.SPLIT, n.PRESENT, n.LATENTS_STD)
        others = [
            name
            for name in maps
            if name not in own and not name.startswith(tuple(f"{item}_" for item in own))
        ]
        maps = {
            name: maps[name]
            for name in others
            if name != labels.name and is_usable(maps[name], nav)
        }
    if not maps:
        raise UsageError(
            "there is no map to describe the clusters by; pass maps such as ds[['BC', 'elements']]."
        )
    columns = columns_of(maps, nav)
    codes = whole_numbers(laid_over(columns, labels, nav, boolean=False))
    n_clusters = int(codes.max(initial=-1)) + 1
    if n_clusters == 0:
        raise DataError("the labels hold no cluster: every point is noise or outside.")
    inside = codes >= 0
    count = np.bincount(codes[inside], minlength=n_clusters)
    known = pd.DataFrame(columns.values[:, inside].T.astype("f8")).replace(
        [np.inf, -np.inf], np.nan
    )
    groups = known.groupby(codes[inside])
    mean, std, number = (
        part.reindex(range(n_clusters))
        for part in (groups.mean(), groups.std(ddof=0), groups.count())
    )
    n_used = int((codes >= n.NOISE).sum())
    of_feature, units = (CLUSTER, FEATURE), {"units": "those of the feature"}
    return xr.Dataset(
        {
            "count": (CLUSTER, count, {"long_name": "scan points", "units": "1"}),
            "share": (
                CLUSTER,
                count / n_used,
                {"long_name": "share of the clustered and noise points", "units": "1"},
            ),
            "mean": (of_feature, mean.to_numpy(), {"long_name": "mean", **units}),
            "std": (of_feature, std.to_numpy(), {"long_name": "standard deviation", **units}),
            "n": (
                of_feature,
                number.fillna(0).to_numpy(np.int64),
                {"long_name": "points that are not missing"},
            ),
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


def cluster_scores(labels: xr.DataArray, reference: xr.DataArray) -> xr.Dataset:
    """Agreement of two maps of numbers, over the points where both have one (0 or more).

    Higher is better, 1 is agreement; 0 is chance for ari, while the others, the majority accuracy
    above all, rise with the number of clusters whatever these mean. ari: Hubert & Arabie, J.
    Classif. 2, 193 (1985); nmi: Vinh, Epps & Bailey, J. Mach. Learn. Res. 11, 2837 (2010);
    homogeneity, completeness, v_measure: Rosenberg & Hirschberg, EMNLP-CoNLL 2007, 410;
    hungarian_accuracy: Kuhn, Nav. Res. Logist. Q. 2, 83 (1955).

    Parameters
    ----------
    labels, reference
        Whole numbers over the same dims, below 0 (or NaN) where there is none; named by
        `flag_values` and `flag_meanings` where they have them.

    Returns
    -------
    xr.Dataset
        `ari`, `nmi`, `homogeneity`, `completeness`, `v_measure`, `majority_accuracy`,
        `hungarian_accuracy`, `confusion (cluster, reference)` in points, with coordinates
        `cluster_name` and `reference_name`. Attributes: `n` points compared; of those with a
        reference, `n_noise` labelled noise.

    Raises SchemaError for maps that do not lie on one grid or hold fractions, RoiError where no
    point is left.
    """
    import pandas as pd
    from scipy.optimize import linear_sum_assignment
    from sklearn import metrics

    ours = whole_numbers(labels)
    theirs = whole_numbers(laid_over(labels, reference, labels.dims, boolean=False))
    both = (ours >= 0) & (theirs >= 0)
    if not both.any():
        raise RoiError(
            f"no scan point has both a cluster and a reference: {int((ours >= 0).sum())} have a "
            f"cluster, "
            f"{int((theirs >= 0).sum())} a reference."
        )
    rows, columns = _named(labels, ours), _named(reference, theirs[both])
    found = pd.crosstab(ours[both], theirs[both])
    table = found.reindex(index=list(rows), columns=list(columns), fill_value=0).to_numpy(np.int64)
    homogeneity, completeness, v_measure = metrics.homogeneity_completeness_v_measure(
        theirs[both], ours[both]
    )
    values = {
        "ari": metrics.adjusted_rand_score(theirs[both], ours[both]),
        "nmi": metrics.normalized_mutual_info_score(theirs[both], ours[both]),
        "homogeneity": homogeneity,
        "completeness": completeness,
        "v_measure": v_measure,
        "majority_accuracy": table.max(axis=1).sum() / table.sum(),
        "hungarian_accuracy": table[linear_sum_assignment(table, maximize=True)].sum()
        / table.sum(),
    }
    return xr.Dataset(
        {
            name: ((), float(values[name]), {"long_name": text, "units": "1"})
            for name, text in SCORES.items()
        }
        | {"confusion": ((CLUSTER, REFERENCE), table, {"long_name": "scan points", "units": "1"})},
        coords={
            CLUSTER: list(rows),
            "cluster_name": (CLUSTER, list(rows.values())),
            REFERENCE: list(columns),
            "reference_name": (REFERENCE, list(columns.values())),
        },
        attrs={
            "n": int(table.sum()),
            "n_noise": int(((ours == n.NOISE) & (theirs >= 0)).sum()),
            "labels": str(labels.name),
            "reference": str(reference.name),
        },
    )


def _named(labels: xr.DataArray, codes: np.ndarray) -> dict[int, str]:
    """Code -> name; those of `flag_values` that do not occur keep their place."""
    rows = categories(labels)
    return rows | {
        int(code): str(int(code)) for code in np.unique(codes[codes >= 0]) if int(code) not in rows
    }
