"""How well cluster labels agree with a reference: phases, grains, another clustering."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import RoiError, SchemaError
from vaearr.schema import categories

CLUSTER, REFERENCE = "cluster", "reference"
SCORES = {
    "ari": "adjusted Rand index",
    "nmi": "normalised mutual information (arithmetic mean)",
    "ami": "adjusted mutual information",
    "homogeneity": "homogeneity: each cluster holds one class",
    "completeness": "completeness: each class lies in one cluster",
    "v_measure": "V-measure, harmonic mean of homogeneity and completeness",
    "majority_accuracy": "share of points in their cluster's most frequent class (purity)",
    "hungarian_accuracy": "share of points in the class that their cluster is matched with, one to one",
}
REFERENCES = (
    "ari: Hubert & Arabie, J. Classif. 2, 193 (1985); nmi, ami: Vinh, Epps & Bailey, J. Mach. Learn. Res. 11, 2837 "
    "(2010); homogeneity, completeness, v_measure: Rosenberg & Hirschberg, EMNLP-CoNLL 2007, 410; hungarian_accuracy: "
    "Kuhn, Nav. Res. Logist. Q. 2, 83 (1955)"
)


def cluster_scores(labels: xr.DataArray, reference: xr.DataArray, *, count_noise: bool = False) -> xr.Dataset:
    """Agreement of two maps of numbers, over the points where both have one (0 or more).

    Higher is better, 1 is agreement; 0 is chance for ari and ami, while the others, the majority accuracy above all,
    rise with the number of clusters whatever these mean.

    Parameters
    ----------
    labels, reference
        Whole numbers over the same dims, below 0 (or NaN) where there is none; named by `flag_values` and
        `flag_meanings` where they have them.
    count_noise
        Take the points labelled NOISE as one more cluster, instead of leaving them out.

    Returns
    -------
    xr.Dataset
        `ari`, `nmi`, `ami`, `homogeneity`, `completeness`, `v_measure`, `majority_accuracy`, `hungarian_accuracy`,
        `confusion (cluster, reference)` in points, with coordinates `cluster_name` and `reference_name`. Attributes:
        `n` points compared; of those with a reference, `n_noise` labelled noise; `n_without_reference` points with a
        cluster but no reference; `count_noise`.

    Raises SchemaError for maps that do not lie on one grid or hold fractions, RoiError where no point is left.
    """
    from scipy.optimize import linear_sum_assignment

    ours, theirs = _codes(labels, reference)
    is_noise = ours == n.NOISE
    counted = (ours >= 0) | (is_noise if count_noise else False)
    both = counted & (theirs >= 0)
    if not both.any():
        raise RoiError(
            f"no scan point has both a cluster and a reference: {int(counted.sum())} have a cluster, "
            f"{int((theirs >= 0).sum())} a reference."
        )
    rows, columns = _rows(labels, ours, counted & is_noise), categories(reference)
    columns |= {int(code): str(int(code)) for code in np.unique(theirs[both]) if int(code) not in columns}
    table = np.zeros((len(rows), len(columns)), np.int64)
    np.add.at(table, (_place(ours[both], list(rows)), _place(theirs[both], list(columns))), 1)
    total = table.sum()
    matched = linear_sum_assignment(table, maximize=True)
    values = _agreement(theirs[both], ours[both]) | {
        "majority_accuracy": float(table.max(axis=1).sum() / total),
        "hungarian_accuracy": float(table[matched].sum() / total),
    }
    return xr.Dataset(
        {name: ((), values[name], {"long_name": text, "units": "1"}) for name, text in SCORES.items()}
        | {"confusion": ((CLUSTER, REFERENCE), table, {"long_name": "scan points", "units": "1"})},
        coords={
            CLUSTER: list(rows),
            "cluster_name": (CLUSTER, list(rows.values())),
            REFERENCE: list(columns),
            "reference_name": (REFERENCE, list(columns.values())),
        },
        attrs={
            "n": int(total),
            "n_noise": int((is_noise & (theirs >= 0)).sum()),
            "n_without_reference": int((counted & (theirs < 0)).sum()),
            "count_noise": count_noise,
            "labels": str(labels.name),
            "reference": str(reference.name),
            "references": REFERENCES,
        },
    )


def _agreement(theirs: np.ndarray, ours: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    homogeneity, completeness, v_measure = metrics.homogeneity_completeness_v_measure(theirs, ours)
    return {
        "ari": float(metrics.adjusted_rand_score(theirs, ours)),
        "nmi": float(metrics.normalized_mutual_info_score(theirs, ours)),
        "ami": float(metrics.adjusted_mutual_info_score(theirs, ours)),
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
        "v_measure": float(v_measure),
    }


def _codes(labels: xr.DataArray, reference: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    if set(labels.dims) != set(reference.dims):
        raise SchemaError(
            f"the labels lie over {labels.dims}, the reference over {reference.dims}; pass maps of one grid."
        )
    try:
        labels, reference = xr.align(labels, reference, join="exact", copy=False)
    except ValueError as error:
        raise SchemaError(f"labels and reference do not lie on the same grid: {error}") from None
    return whole_numbers(labels), whole_numbers(reference.transpose(*labels.dims))


def whole_numbers(labels: xr.DataArray) -> np.ndarray:
    """A map of whole numbers as int64; NaN becomes NOT_CLUSTERED. Raises SchemaError for fractions or other types."""
    values = labels.values
    if values.dtype.kind not in "biuf":
        raise SchemaError(f"{labels.name!r} has dtype {values.dtype}; expected a map of whole numbers.")
    known = np.isfinite(values)
    if not np.array_equal(values[known], np.round(values[known])):
        raise SchemaError(f"{labels.name!r} holds fractions; expected a map of whole numbers, -1 for none.")
    out = np.full(values.shape, n.NOT_CLUSTERED, np.int64)
    out[known] = values[known].astype(np.int64)
    return out


def _rows(labels: xr.DataArray, ours: np.ndarray, noise: np.ndarray) -> dict[int, str]:
    """Cluster -> name, noise first where it counts; empty clusters of `flag_values` keep their row."""
    rows = {n.NOISE: "noise"} if noise.any() else {}
    rows |= categories(labels)
    return rows | {int(code): str(int(code)) for code in np.unique(ours[ours >= 0]) if int(code) not in rows}


def _place(codes: np.ndarray, known: list[int]) -> np.ndarray:
    order = np.argsort(known)
    return np.asarray(order[np.searchsorted(np.asarray(known)[order], codes)])
