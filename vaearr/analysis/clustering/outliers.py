"""How far a scan point lies from its cluster, in the cluster's own spread."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.clustering.features import (
    FeatureTable,
    feature_table,
    feature_warnings,
    scaled,
    scaling,
    table_attrs,
)
from vaearr.analysis.clustering.points import reproducible
from vaearr.analysis.clustering.scores import whole_numbers
from vaearr.errors import RoiError, SchemaError, UsageError
from vaearr.schema.grid import to_grid

REGULARISATION = 1e-6  # added to the variances of the standardised features


def mahalanobis(
    features: xr.Dataset | xr.DataArray,
    labels: xr.DataArray | None = None,
    roi: xr.DataArray | None = None,
    quantile: float = 0.95,
) -> xr.Dataset:
    """Mahalanobis distance of each scan point to the mean of its cluster, with the cluster's covariance.

    Parameters
    ----------
    features
        As for `cluster`. Standardised first; 1e-6 is then added to each variance, so that features that depend on each
        other leave the covariance invertible.
    labels
        Cluster map; without it all points form one cluster. A point of noise gets its distance to the nearest cluster.
    roi
        Boolean map, True = used.
    quantile
        A point is an outlier where its squared distance is above this quantile of the chi-squared distribution with
        as many degrees of freedom as features: the share expected inside if the cluster is Gaussian. Means and
        covariances are the plain ones, which the outliers themselves take part in.

    Returns
    -------
    xr.Dataset
        `distance` (NaN outside, and in clusters with no more points than features, whose covariance says nothing) and
        boolean `is_outlier` (False there). Attributes: `threshold` (of the distance), `quantile`, `n_outliers`, `n`,
        `features`, `scaling`, `regularisation`, `warnings`.

    Raises UsageError for a quantile outside 0 to 1, SchemaError for labels on another grid, RoiError where no cluster
    has enough points.
    """
    from scipy.stats import chi2

    if not 0 < quantile < 1:
        raise UsageError(f"quantile is {quantile}; it lies between 0 and 1, such as 0.95.")
    table = feature_table(features, roi=roi)
    codes = _codes(table, labels)
    by = scaling(table, "standard")
    values = scaled(table, by)
    with reproducible():
        distance, small = _distances(values, codes)
    if not np.isfinite(distance).any():
        raise RoiError(
            f"no cluster has more points than the {values.shape[1]} features; use fewer features or clusters."
        )
    threshold = float(np.sqrt(chi2.ppf(quantile, values.shape[1])))
    with np.errstate(invalid="ignore"):
        outside = distance > threshold
    warnings = feature_warnings(table, by, "none")
    if small:
        warnings.append(f"clusters {small} have no more points than features: no distance there.")
    attrs = table_attrs(by, "standard") | {
        "threshold": threshold,
        "quantile": quantile,
        "n": int(np.isfinite(distance).sum()),
        "n_outliers": int(outside.sum()),
        "regularisation": REGULARISATION,
        "warnings": warnings,
    }
    named = {"long_name": "Mahalanobis distance to the cluster's mean", "units": "1"}
    flagged = {"long_name": f"outlier (beyond the {quantile:g} quantile of its cluster)"}
    maps = {
        "distance": to_grid(distance, table.inside).assign_attrs(named),
        "is_outlier": to_grid(outside, table.inside, fill=0).assign_attrs(flagged),
    }
    return xr.Dataset(maps, attrs=attrs)


def _codes(table: FeatureTable, labels: xr.DataArray | None) -> np.ndarray:
    if labels is None:
        return np.zeros(int(table.inside.sum()), np.int64)
    if set(labels.dims) != set(table.inside.dims):
        raise SchemaError(f"the labels lie over {labels.dims}, the features over {table.inside.dims}.")
    try:
        labels, _ = xr.align(labels, table.inside, join="exact", copy=False)
    except ValueError as error:
        raise SchemaError(f"labels and features do not lie on the same grid: {error}") from None
    return whole_numbers(labels.transpose(*table.inside.dims))[table.inside.values]


def _distances(values: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Distance of each point to its cluster, of noise to the nearest; and the clusters that are too small."""
    distance = np.full(len(values), np.nan)
    noise = codes == n.NOISE
    nearest = np.full(int(noise.sum()), np.inf)
    small = []
    for code in np.unique(codes[codes >= 0]):
        member = codes == code
        if member.sum() <= values.shape[1]:
            small.append(int(code))
            continue
        mean = values[member].mean(axis=0)
        covariance = np.atleast_2d(np.cov(values[member], rowvar=False, ddof=1))
        lower = np.linalg.cholesky(covariance + REGULARISATION * np.eye(len(mean)))
        distance[member] = _whitened_norm(values[member] - mean, lower)
        nearest = np.minimum(nearest, _whitened_norm(values[noise] - mean, lower))
    distance[noise] = np.where(np.isfinite(nearest), nearest, np.nan)
    return distance, small


def _whitened_norm(centred: np.ndarray, lower: np.ndarray) -> np.ndarray:
    from scipy.linalg import solve_triangular

    return np.asarray(np.linalg.norm(solve_triangular(lower, centred.T, lower=True), axis=0))
