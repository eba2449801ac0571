"""Maps of cluster numbers from features, and the borders between clusters."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.clustering.features import feature_table, scaled
from vaearr.analysis.clustering.methods import Method, choose, fit
from vaearr.config import ClusterConfig, refuse_unknown
from vaearr.config.keywords import ClusterArraySettings
from vaearr.errors import SchemaError, UsageError
from vaearr.recipe import as_json
from vaearr.schema.grid import edges, label_borders, to_grid, to_samples

PLAIN_INFO = ("k", "k_at_bound", "n_fitted", "approximation", "scores")


def cluster(
    features: xr.Dataset | xr.DataArray,
    /,
    method: str | Any | None = None,
    *,
    roi: xr.DataArray | None = None,
    config: ClusterConfig | None = None,
    **settings: Unpack[ClusterArraySettings],
) -> xr.DataArray:
    """Group scan points into clusters by their features.

    Each feature is scaled first, so the clusters do not depend on its unit (except for
    scale="none").

    Parameters
    ----------
    features
        A DataArray or a Dataset of variables over the navigation dims and at most one further dim:
        latents, pca, elements, BC, any map, such as `ds[["latents", "BC"]]`. Lazy ones are read in
        one pass. A map of codes counts as one 0/1 feature per code.
    method
        "gmm" [1]_, "kmeans" [2]_, "dbscan" [3]_, "hdbscan" [4]_, the name of a method of another
        package (`package.module:Name`), an estimator like those of scikit-learn, such as
        `AgglomerativeClustering(5)`, or a function `points (n, f) -> labels (n,)`. Default: that of
        `config`.
    roi
        Boolean map, True = used. Points where a feature is not finite are left out in any case.
        Default: all points.
    config
        Settings, without those that only a store needs: run, features, name.
    **settings
        Single settings, which replace those of `config`, as in `cluster(latents, "gmm", k=4)`.

    Returns
    -------
    xarray.DataArray
        int32 over the navigation dims: 0, 1, … by decreasing size; NOISE = -1 in no cluster;
        NOT_CLUSTERED = -2 outside the ROI or a feature missing. Attributes: `flag_values` and
        `flag_meanings`, `features`, `scale` and `scaling` (center and scale of each), `config`,
        `parameters` (as used), `k`, `k_at_bound`, `scores` and `criterion`, `n`, `n_noise`,
        `n_not_clustered`, `n_fitted`, `approximation` (empty = exact), `sizes`, `warnings`.

    Raises
    ------
    UsageError
        For an unknown method or setting, a setting that the method does not use, and a `config`
        with settings that only a store needs.
    SchemaError
        For features that do not fit together.
    RoiError, DataError
        If too few points or values are left to form clusters.

    References
    ----------
    .. [1] Dempster, Laird & Rubin, J. R. Stat. Soc. B 39, 1 (1977).
    .. [2] Lloyd, IEEE Trans. Inf. Theory 28, 129 (1982), doi:10.1109/TIT.1982.1056489.
    .. [3] Ester, Kriegel, Sander & Xu, KDD-96, 226 (1996).
    .. [4] Campello, Moulavi & Sander, PAKDD 2013, 160, doi:10.1007/978-3-642-37456-2_14.

    Examples
    --------
    >>> import vaearr as va
    >>> from vaearr.testing import synthetic_scan
    >>> ds = synthetic_scan(nx=16, ny=12)
    >>> labels = va.cluster(ds.elements, "kmeans", k=2)
    >>> labels.dims, labels.attrs["k"]
    (('y', 'x'), 2)
    """
    refuse_unknown(cluster, ClusterArraySettings, settings)
    config = config or ClusterConfig()
    for setting in ("run", "features", "name"):
        if getattr(config, setting) != getattr(ClusterConfig(), setting):
            raise UsageError(
                f"config sets {setting!r}, but va.cluster takes arrays and stores nothing; use "
                "run.cluster, or leave it out."
            )
    name = method
    if not isinstance(method, str | None):
        name = getattr(method, "__name__", type(method).__name__)
    config = config.replace(method=name, **settings)
    chosen = choose(config.method if name is method else method, {**settings})
    return clustered(features, config, chosen, roi)


def clustered(
    features: xr.Dataset | xr.DataArray,
    config: ClusterConfig,
    method: Method,
    roi: xr.DataArray | None,
) -> xr.DataArray:
    """Cluster map of features by a method with these settings, see `cluster`."""
    table, inside = feature_table(features, roi=roi, latents=config.latents)
    values, scaling = scaled(table, config.scale)
    labels, info = fit(values, config, method)
    sizes = np.bincount(labels[labels >= 0]).tolist()
    parameters = {key: value for key, value in config.to_attrs().items() if key in method.uses}
    parameters |= {key: info[key] for key in info if key not in (*PLAIN_INFO, "warnings")}
    if "k" in method.uses:
        parameters["k"] = info["k"]
    names = ["not_clustered", "noise", *(f"cluster_{number}" for number in range(len(sizes)))]
    attrs = n.ATTRS[n.CLUSTERS] | {
        "flag_values": [n.NOT_CLUSTERED, n.NOISE, *range(len(sizes))],
        "flag_meanings": " ".join(names),
        **scaling,
        "method": config.method,
        "reference": method.reference,
        "config": config.to_attrs(),
        "parameters": parameters,
        "seed": config.seed,
        "n": len(labels),
        "n_noise": int((labels == n.NOISE).sum()),
        "n_not_clustered": int(inside.size - len(labels)),
        "sizes": sizes,
        **{key: as_json(info[key]) for key in PLAIN_INFO},
        "warnings": scaling["warnings"] + info["warnings"],
    }
    points = to_samples(inside, inside)
    samples = xr.DataArray(labels.astype(np.int32), points.coords, n.SAMPLE, n.CLUSTERS, attrs)
    return to_grid(samples, inside, fill=n.NOT_CLUSTERED)


def whole_numbers(labels: xr.DataArray) -> np.ndarray:
    """A map of whole numbers as int64; NaN becomes NOT_CLUSTERED. Raises SchemaError for others."""
    values = labels.values
    is_number = values.dtype.kind in "biuf"
    if not is_number or not np.array_equal(np.round(values), values, equal_nan=True):
        raise SchemaError(
            f"{labels.name!r} holds fractions or no numbers; expected whole numbers, -1 for none."
        )
    return np.where(np.isfinite(values), values, n.NOT_CLUSTERED).astype(np.int64)


def boundary_segments(labels: xr.DataArray) -> np.ndarray:
    """Find the borders between cells of different labels.

    Parameters
    ----------
    labels
        Map of whole numbers over y and x. Points without a label make no border.

    Returns
    -------
    numpy.ndarray
        Segments `(n, 4)` of x0, y0, x1, y1 in coordinate units, along the edges of the scan points'
        cells, half-way to the next point; pieces in one line are merged. x is the last dim, also of
        a map over (x, y).

    Raises
    ------
    UsageError
        For a map that is not over two dims.
    """
    if labels.ndim != 2:
        raise UsageError(
            f"borders belong to a map of two dimensions; {labels.name!r} has {labels.dims}."
        )
    if labels.dims == (n.X, n.Y):
        labels = labels.transpose()
    y, x = (edges(labels[dim].values) for dim in labels.dims)
    return label_borders(whole_numbers(labels), x, y)
