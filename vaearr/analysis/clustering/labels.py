"""Features -> maps of cluster numbers; how far a point lies from its cluster; borders to draw over any map."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.clustering.features import feature_table, scaled, select_features
from vaearr.analysis.clustering.methods import choose, fit, reproducible
from vaearr.config import ClusterConfig
from vaearr.errors import RoiError, SchemaError, UsageError
from vaearr.recipe import as_json
from vaearr.schema.grid import edges, label_borders, laid_over, to_grid

PLAIN_INFO = ("k", "k_at_bound", "n_fitted", "approximation", "stability_is", "stability", "scores")
REGULARISATION = 1e-6  # added to the variances of the standardised features


def cluster(
    features: xr.Dataset | xr.DataArray,
    /,
    method: str | Any | None = None,
    *,
    roi: xr.DataArray | None = None,
    config: ClusterConfig | None = None,
    **settings: Any,
) -> xr.DataArray:
    """Which scan points belong together: a map of cluster numbers over the navigation dims.

    Parameters
    ----------
    features
        A DataArray or a Dataset of variables over the navigation dims and at most one further dim: latents, pca,
        elements, BC, any map. Of a Dataset with `patterns`, the variables that `config.features` names. Lazy ones are
        read in one pass. A map of codes counts as one 0/1 feature per code.
    method
        gmm, kmeans, dbscan, hdbscan, one of your own package (`package.module:Name`), an estimator of scikit-learn's
        form such as `AgglomerativeClustering(5)`, or a function `points (n, f) -> labels (n,)`; default: that of
        `config`.
    roi
        Boolean map, True = used. Points where a feature is not finite are left out in any case.
    config, settings
        See ClusterConfig; settings replace single ones of `config`, as in `cluster(latents, "gmm", k=4)`.

    Returns
    -------
    xr.DataArray
        int32: 0, 1, … by falling size; NOISE = -1 in no cluster; NOT_CLUSTERED = -2 outside the ROI or a feature
        missing. Each feature is scaled first, so the numbers do not change with its unit (but for scale="none").
        Attributes: `flag_values` and `flag_meanings`, `features`, `scale` and `scaling` (center and scale of each),
        `config`, `parameters` (as used), `k`, `k_at_bound`, `scores` and `criterion`, `n`, `n_noise`,
        `n_not_clustered`, `n_fitted`, `approximation` (empty = exact), `sizes`, `stability` of each cluster and
        `stability_is` (what that number means), `warnings` (sentences).

    Raises UsageError for settings that cannot be meant, SchemaError for features that do not fit together, RoiError
    and DataError where too little is left to tell clusters apart.
    """
    named = method if isinstance(method, str | None) else getattr(method, "__name__", type(method).__name__)
    wanted = (config or ClusterConfig()).replace(method=named, **settings)
    chosen = choose(wanted.method if named is method else method, settings)
    if isinstance(features, xr.Dataset) and n.PATTERNS in features:
        features = select_features(features, wanted)
    elif "features" in settings:
        raise UsageError("features names variables of a whole Dataset with patterns; select them in what you pass.")
    table, inside = feature_table(features, roi=roi, latents=wanted.latents)
    values, about = scaled(table, wanted.scale)
    labels, info = fit(values, wanted, chosen)
    sizes = np.bincount(labels[labels >= 0]).tolist()
    used = {key: value for key, value in wanted.to_attrs().items() if key in chosen.uses}
    used |= {key: value for key, value in info.items() if key not in (*PLAIN_INFO, "warnings")}
    if "k" in chosen.uses:
        used["k"] = info["k"]
    attrs = n.ATTRS[n.CLUSTERS] | {
        "flag_values": [n.NOT_CLUSTERED, n.NOISE, *range(len(sizes))],
        "flag_meanings": " ".join(["not_clustered", "noise", *(f"cluster_{number}" for number in range(len(sizes)))]),
        **about,
        "method": wanted.method,
        "reference": chosen.reference,
        "config": wanted.to_attrs(),
        "parameters": used,
        "seed": wanted.seed,
        "n": len(labels),
        "n_noise": int((labels == n.NOISE).sum()),
        "n_not_clustered": int(inside.size - len(labels)),
        "sizes": sizes,
        **{key: as_json(info[key]) for key in PLAIN_INFO},
        "warnings": about["warnings"] + info["warnings"],
    }
    return to_grid(labels.astype(np.int32), inside, fill=n.NOT_CLUSTERED).rename(n.CLUSTERS).assign_attrs(attrs)


def whole_numbers(labels: xr.DataArray) -> np.ndarray:
    """A map of whole numbers as int64; NaN becomes NOT_CLUSTERED. Raises SchemaError for fractions or other types."""
    values = labels.values
    if values.dtype.kind not in "biuf" or not np.array_equal(rounded := np.round(values), values, equal_nan=True):
        raise SchemaError(f"{labels.name!r} holds fractions or no numbers; expected whole numbers, -1 for none.")
    return np.where(np.isfinite(values), rounded, n.NOT_CLUSTERED).astype(np.int64)


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
    from scipy.spatial.distance import cdist
    from scipy.stats import chi2

    if not 0 < quantile < 1:
        raise UsageError(f"quantile is {quantile}; it lies between 0 and 1, such as 0.95.")
    table, inside = feature_table(features, roi=roi)
    values, about = scaled(table, "standard")
    codes = np.zeros(len(values), np.int64)
    if labels is not None:
        codes = whole_numbers(laid_over(inside, labels, inside.dims, boolean=False))[inside.values]
    size = values.shape[1]
    groups = [codes == code for code in np.unique(codes[codes >= 0])]
    distance, noise = np.full(len(values), np.nan), codes == n.NOISE
    with reproducible():
        for member in groups:
            if member.sum() > size:
                spread = np.cov(values[member], rowvar=False).reshape(size, size) + REGULARISATION * np.eye(size)
                inverse, mean = np.linalg.inv(spread), values[member].mean(axis=0)[None]
                distance[member] = cdist(values[member], mean, "mahalanobis", VI=inverse)[:, 0]
                distance[noise] = np.fmin(distance[noise], cdist(values[noise], mean, "mahalanobis", VI=inverse)[:, 0])
    if not np.isfinite(distance).any():
        raise RoiError(f"no cluster has more points than the {size} features; use fewer features or clusters.")
    threshold = float(np.sqrt(chi2.ppf(quantile, size)))
    outside = distance > threshold
    warnings = about["warnings"]
    if small := [int(codes[member][0]) for member in groups if member.sum() <= size]:
        warnings.append(f"clusters {small} have no more points than features: no distance there.")
    attrs = about | {
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
        "distance": to_grid(distance, inside).assign_attrs(named),
        "is_outlier": to_grid(outside, inside, fill=0).assign_attrs(flagged),
    }
    return xr.Dataset(maps, attrs=attrs)


def boundary_segments(labels: xr.DataArray) -> np.ndarray:
    """Borders between cells of different labels: segments `(n, 4)` of x0, y0, x1, y1 in coordinate units.

    They run along the edges of the scan points' cells, half-way to the next point; pieces in one line are merged.
    Points without a label make no border. For a map over y and x; x is the last dim (for dims (x, y) too).
    """
    if labels.ndim != 2:
        raise UsageError(f"segments are drawn on a map of two dimensions, {labels.name!r} has {labels.dims}.")
    if labels.dims == (n.X, n.Y):
        labels = labels.transpose()
    y, x = (edges(labels[dim].values) for dim in labels.dims)
    return label_borders(whole_numbers(labels), x, y)
