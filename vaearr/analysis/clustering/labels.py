"""Features -> a labelled map of cluster numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.clustering.features import (
    FeatureTable,
    feature_table,
    feature_warnings,
    scaled,
    scaling,
    select_features,
    table_attrs,
)
from vaearr.analysis.clustering.methods import Method, check_settings, choose
from vaearr.analysis.clustering.points import plain
from vaearr.config import ClusterConfig
from vaearr.errors import UsageError
from vaearr.schema.grid import to_grid

PLAIN_INFO = ("k", "k_at_bound", "n_fitted", "approximation", "stability_is")
SKIP = (*PLAIN_INFO, "scores", "stability", "warnings")


def cluster(
    features: xr.Dataset | xr.DataArray,
    /,
    method: str | None = None,
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
        Registered in METHODS: gmm, kmeans, dbscan, hdbscan; default: that of `config`.
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
    wanted = (config or ClusterConfig()).replace(method=method, **settings)
    chosen = choose(wanted.method)
    check_settings(chosen, settings)
    if isinstance(features, xr.Dataset) and n.PATTERNS in features:
        features = select_features(features, wanted)
    elif "features" in settings:
        raise UsageError("features names variables of a whole Dataset with patterns; select them in what you pass.")
    table = feature_table(features, roi=roi, latents=wanted.latents)
    by = scaling(table, wanted.scale)
    labels, info = chosen.kernel(scaled(table, by), wanted)
    return label_map(
        labels, table, attrs=table_attrs(by, wanted.scale) | _about(labels, info, table, by, wanted, chosen)
    )


def label_map(labels: np.ndarray, table: FeatureTable, *, attrs: dict[str, Any]) -> xr.DataArray:
    """Labels `(n,)` of a feature table's points on their grid, with names for their numbers."""
    n_clusters = int(labels.max(initial=-1)) + 1
    words = ["not_clustered", "noise", *(f"cluster_{number}" for number in range(n_clusters))]
    flags = {
        "flag_values": [n.NOT_CLUSTERED, n.NOISE, *range(n_clusters)],
        "flag_meanings": " ".join(words),
    }
    grid = to_grid(labels.astype(np.int32), table.inside, fill=n.NOT_CLUSTERED)
    return grid.rename(n.CLUSTERS).assign_attrs(n.ATTRS[n.CLUSTERS] | flags | attrs)


def _about(
    labels: np.ndarray,
    info: dict[str, Any],
    table: FeatureTable,
    by: dict[str, dict[str, float]],
    config: ClusterConfig,
    chosen: Method,
) -> dict[str, Any]:
    """How the labels came about, as plain JSON."""
    settings = {key: value for key, value in config.to_attrs().items() if key in chosen.uses}
    used = {key: value for key, value in info.items() if key not in SKIP}
    if "k" in chosen.uses:
        used["k"] = info["k"]
    return {
        "method": chosen.name,
        "reference": chosen.reference,
        "config": config.to_attrs(),
        "parameters": settings | used,
        "seed": config.seed,
        "n": len(labels),
        "n_noise": int((labels == n.NOISE).sum()),
        "n_not_clustered": int(table.inside.size - len(labels)),
        "sizes": np.bincount(labels[labels >= 0]).tolist(),
        "scores": {
            str(k): value for k, value in zip(info["scores"], plain(list(info["scores"].values())), strict=True)
        },
        "stability": plain(info["stability"]),
        "warnings": feature_warnings(table, by, config.scale) + info["warnings"],
        **{key: info[key] for key in PLAIN_INFO},
    }
