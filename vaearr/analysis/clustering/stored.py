"""Clusters of a run in a store: read, compute, write beside the data. The edge of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.targets import columns
from vaearr.analysis.clustering.features import navigation_of, select_features
from vaearr.analysis.clustering.labels import cluster
from vaearr.analysis.clustering.methods import choose
from vaearr.analysis.clustering.tables import CLUSTER, cluster_scores, cluster_summary
from vaearr.config import ClusterConfig, resolved, settings_as_keywords
from vaearr.errors import RoiError, UsageError
from vaearr.recipe import Recipe, nested
from vaearr.store import (
    check_run_name,
    check_store,
    has_table,
    open_store,
    open_table,
    recover,
    run_folder,
    run_names,
    write_table,
)
from vaearr.store.once import made_once

OF_A_SUMMARY = {CLUSTER, "cluster_name", "feature", "units", "count", "share", "mean", "std", "n", "stability"}


@settings_as_keywords(ClusterConfig)
def cluster_store(
    store: str | Path,
    config: ClusterConfig | None = None,
    *,
    overwrite: bool = False,
    **settings: Any,
) -> xr.Dataset:
    """Cluster the scan points of a store by the named features, over the run's ROI, and write the label map into it.

    The map is the variable `config.name`, with provenance. If the run is in the store, its tables
    `clusters_<name>` (summary) and, where there is a map of phases, `clusters_<name>_scores` (agreement with the
    phases) are kept in `/runs/<run>`. Clusters made before with the same settings from the same data are returned as
    they are; `overwrite` replaces others. Without the run (possible where no feature is of one), all measured points
    are used.

    Returns the label map with its summary. Raises ExistsError when `config.name` holds anything else, NoInputError for
    a run or feature that is not there, and what `cluster` raises.
    """
    config = resolved(ClusterConfig, config, settings)
    path = check_store(store)
    recover(path)
    check_run_name(config.run)
    if config.name in n.RESERVED or config.name in OF_A_SUMMARY or config.name.startswith(n.OF_LATER_RUNS):
        raise UsageError(f"{config.name!r} has a meaning of its own; choose another name with name='…' (--name).")
    usual = ClusterConfig().to_attrs()
    choose(config.method, {key: value for key, value in config.to_attrs().items() if value != usual[key]})
    has_run = config.run in run_names(path)
    if not has_run and (config.run != n.DEFAULT_RUN or n.LATENTS in config.features):
        run_folder(path, config.run)  # raises, with the names of the runs there are
    ds = open_store(path)
    features = select_features(ds, config)
    roi = ds.get(n.run_name(n.ROI, config.run)) if has_run else ds.get(n.PRESENT)
    parents = {str(name): nested(variable.attrs, n.PROVENANCE) for name, variable in features.data_vars.items()}
    if roi is not None:
        parents[str(roi.name)] = nested(roi.attrs, n.PROVENANCE) or nested(roi.attrs, "config")
    recipe = Recipe(config, {"run": config.run, "parents": parents})

    def make() -> xr.Dataset:
        return cluster(features, roi=roi, config=config).rename(config.name).to_dataset()

    made = made_once(path, ds, [config.name], recipe, make, "scikit-learn", "hdbscan", overwrite=overwrite)
    labels = made[config.name].load()
    return _summary(path, ds, features, labels, config, has_run=has_run).assign({config.name: labels})


def _summary(
    path: Path, ds: xr.Dataset, features: xr.Dataset, labels: xr.DataArray, config: ClusterConfig, *, has_run: bool
) -> xr.Dataset:
    """The summary of the clusters; it and the scores are written, where they are not there yet."""
    name, time = f"{n.CLUSTERS}_{config.name}", nested(labels.attrs, n.PROVENANCE)["time"]
    if has_run and has_table(path, config.run, name):
        summary = open_table(path, config.run, name)
        if summary.attrs.get("time") == time:
            return summary
    if not (labels >= 0).any():
        return xr.Dataset({"count": (CLUSTER, [])}, {CLUSTER: (CLUSTER, [])}, {"time": time}).astype(int)  # noise only
    maps = features.assign({item: ds[item] for item in (n.BC, n.ELEMENTS, n.PHASE) if item in ds})
    nav = navigation_of(labels)
    inner = {label for item in maps.data_vars for label, part in columns(maps[item], nav) if label != item}
    summary = cluster_summary(labels, maps.drop_vars([item for item in maps.data_vars if item in inner]))
    summary = summary.assign_attrs(time=time)
    if has_run:
        if n.PHASE in ds:
            try:
                scores = cluster_scores(labels, ds[n.PHASE].load()).assign_attrs(time=time)
                write_table(path, config.run, f"{name}_scores", scores, replace=True)
            except RoiError:
                pass  # no phase is known where the clusters are
        write_table(path, config.run, name, summary, replace=True)
    return summary
