"""Clusters of a run in a store: read, compute, write beside the data. The edge of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from vaearr import names as n
from vaearr.analysis.clustering.features import entries, navigation_of, select_features
from vaearr.analysis.clustering.labels import cluster
from vaearr.analysis.clustering.methods import check_settings, choose
from vaearr.analysis.clustering.scores import CLUSTER, cluster_scores
from vaearr.analysis.clustering.summary import cluster_summary
from vaearr.config import ClusterConfig, resolved, settings_as_keywords
from vaearr.errors import RoiError, UsageError
from vaearr.recipe import Recipe, is_made, nested

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
    from vaearr.store import (
        add_variables,
        check_run_name,
        check_store,
        open_store,
        recover,
        run_folder,
        run_names,
    )
    from vaearr.store.remove import removable

    config = resolved(ClusterConfig, config, settings)
    path = check_store(store)
    recover(path)
    check_run_name(config.run)
    if config.name in n.RESERVED or config.name in OF_A_SUMMARY or config.name.startswith(n.OF_LATER_RUNS):
        raise UsageError(f"{config.name!r} has a meaning of its own; choose another name with name='…' (--name).")
    usual = ClusterConfig().to_attrs()
    check_settings(choose(config.method), {k: v for k, v in config.to_attrs().items() if v != usual[k]})
    has_run = config.run in run_names(path)
    if not has_run and (config.run != n.DEFAULT_RUN or n.LATENTS in config.features):
        run_folder(path, config.run)  # raises, with the names of the runs there are
    ds = open_store(path)
    features = select_features(ds, config)
    roi = ds.get(n.run_name(n.ROI, config.run)) if has_run else ds.get(n.PRESENT)
    recipe = _recipe(features, roi, config)
    existing, labels = ds.get(config.name), None
    if existing is not None:
        there = f"{path} already holds {config.name!r}"
        made = nested(existing.attrs, n.PROVENANCE)
        if is_made(there, made, recipe, overwrite=overwrite):
            labels = existing.load()
    if labels is None:
        labels = cluster(features, roi=roi, config=config).rename(config.name)
        stamp = recipe.stamp("scikit-learn", "hdbscan")
        labels = labels.assign_attrs({n.PROVENANCE: stamp}).reset_coords(drop=True)
        replacing = [] if existing is None else removable(path, variables=[config.name])
        add_variables(path, labels.to_dataset(), replacing=replacing)
    summary = _tables(path, ds, features, labels, config, has_run=has_run)
    return summary.assign({config.name: labels})


def _recipe(features: xr.Dataset, roi: xr.DataArray | None, config: ClusterConfig) -> Recipe:
    """What decides the labels: settings, and where features and ROI come from."""
    parents = {str(name): nested(variable.attrs, n.PROVENANCE) for name, variable in features.data_vars.items()}
    if roi is not None:
        parents[str(roi.name)] = nested(roi.attrs, n.PROVENANCE) or nested(roi.attrs, "config")
    return Recipe(config, {"run": config.run, "parents": parents})


def _tables(
    path: Path, ds: xr.Dataset, features: xr.Dataset, labels: xr.DataArray, config: ClusterConfig, *, has_run: bool
) -> xr.Dataset:
    """The summary of the clusters; it and the scores are written, where they are not there yet."""
    from vaearr.store import has_table, open_table, write_table

    name = f"{n.CLUSTERS}_{config.name}"
    time = nested(labels.attrs, n.PROVENANCE)["time"]
    if has_run and has_table(path, config.run, name):
        summary = open_table(path, config.run, name)
        if summary.attrs.get("time") == time:
            return summary
    if not (labels >= 0).any():
        return xr.Dataset({"count": (CLUSTER, [])}, {CLUSTER: (CLUSTER, [])}, {"time": time}).astype(int)  # noise only
    maps = features.assign({item: ds[item] for item in (n.BC, n.ELEMENTS, n.PHASE) if item in ds})
    nav = navigation_of(labels)
    inner = {label for item in maps.data_vars for label in entries(str(item), maps[item], nav)}
    summary = cluster_summary(labels, maps.drop_vars([item for item in maps.data_vars if item in inner]))
    summary = summary.assign_attrs(time=time)
    if has_run:
        if n.PHASE in ds:
            _write_scores(path, ds, labels, config, time)
        write_table(path, config.run, name, summary, replace=True)
    return summary


def _write_scores(path: Path, ds: xr.Dataset, labels: xr.DataArray, config: ClusterConfig, time: str) -> None:
    from vaearr.store import write_table

    try:
        scores = cluster_scores(labels, ds[n.PHASE].load())
    except RoiError:
        return  # no phase is known where the clusters are
    write_table(path, config.run, f"{n.CLUSTERS}_{config.name}_scores", scores.assign_attrs(time=time), replace=True)
