"""Clusters of a run in a store: read, compute, write beside the data. The edge of this package."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.targets import columns
from vaearr.analysis.clustering.features import navigation_of, select_features
from vaearr.analysis.clustering.labels import clustered
from vaearr.analysis.clustering.methods import choose
from vaearr.analysis.clustering.tables import CLUSTER, SCORES, cluster_scores, cluster_summary
from vaearr.config import ClusterConfig, resolved, settings_as_keywords
from vaearr.errors import RoiError, UsageError
from vaearr.recipe import Recipe, is_made, nested
from vaearr.run import StoreOrRun, path_of, with_run
from vaearr.store import (
    check_inputs,
    check_run_name,
    has_table,
    open_store,
    open_table,
    run_folder,
    run_names,
    write_results,
)
from vaearr.store.remove import removable

OF_A_SUMMARY = {CLUSTER, "cluster_name", "feature", "units", "count", "share", "mean", "std", "n", *SCORES}


@settings_as_keywords(ClusterConfig)
def cluster_store(
    store: StoreOrRun,
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

    store: a path, a Dataset that was opened from one, or a Run, whose latents and region are used then.

    Returns the label map with its summary and, where there are phases, the scores against them (`ari`, `nmi`, …).
    Raises ExistsError when `config.name` holds anything else, NoInputError for a run or feature that is not there, and
    what `cluster` raises.
    """
    config = resolved(ClusterConfig, config, with_run(store, settings))
    path = path_of(store)
    check_run_name(config.run)
    if config.name in n.RESERVED or config.name in OF_A_SUMMARY or config.name.startswith(n.OF_LATER_RUNS):
        raise UsageError(f"{config.name!r} has a meaning of its own; choose another name with name='…' (--name).")
    usual = ClusterConfig().to_attrs()
    chosen = choose(config.method, {key: value for key, value in config.to_attrs().items() if value != usual[key]})
    has_run = config.run in run_names(path)
    if not has_run and (config.run != n.DEFAULT_RUN or n.LATENTS in config.features):
        run_folder(path, config.run)  # raises, with the names of the runs there are
    ds = open_store(path)
    features = select_features(ds, config)
    roi = ds.get(n.run_name(n.ROI, config.run)) if has_run else ds.get(n.PRESENT)
    parents = {str(name): nested(variable.attrs, n.PROVENANCE) for name, variable in features.data_vars.items()}
    if roi is not None:
        parents[str(roi.name)] = nested(roi.attrs, n.PROVENANCE) or nested(roi.attrs, "config")
    used = [name.split(": ")[0] for name in parents]  # "latents: 3" is of the variable latents
    if any(name not in ds for name in used):
        used.append(n.ELEMENTS)  # whose entries are features by their own names
    recipe = Recipe(config, {"run": config.run, "parents": parents}, check_inputs(path, used))

    labels, replacing = None, []
    if config.name in ds:
        stored = nested(ds[config.name].attrs, n.PROVENANCE)
        if is_made(f"{path} already holds {config.name!r}", stored, recipe, overwrite=overwrite):
            labels = ds[config.name].load()
        else:
            replacing = removable(path, [config.name])
    is_stored = labels is not None
    if labels is None:
        labels = clustered(features, config, chosen, roi).rename(config.name).reset_coords(drop=True)
        labels.attrs[n.PROVENANCE] = recipe.stamp("scikit-learn", "hdbscan")
    table_name, time = f"{n.CLUSTERS}_{config.name}", nested(labels.attrs, n.PROVENANCE)["time"]
    if is_stored and has_run and has_table(path, config.run, table_name):
        summary = open_table(path, config.run, table_name)
        if summary.attrs.get("time") == time:
            return summary.assign({config.name: labels})
    found, scores = _summary(ds, features, labels)
    tables = {}
    table_names = [table_name, f"{table_name}_scores"]
    replacing += [f"{n.RUNS}/{config.run}/{name}" for name in table_names]
    if has_run and found is not None:
        tables[table_name] = found.assign_attrs(time=time)
        if scores is not None:
            tables[table_names[1]] = scores.assign_attrs(time=time)
    variables = None if is_stored else labels.to_dataset()
    if tables or variables is not None:
        write_results(path, variables=variables, run=config.run, tables=tables, replacing=replacing)
    if found is None:
        found = xr.Dataset({"count": (CLUSTER, [])}, {CLUSTER: (CLUSTER, [])}).astype(int)
    return found.assign_attrs(time=time).assign({config.name: labels})


def _summary(ds: xr.Dataset, features: xr.Dataset, labels: xr.DataArray) -> tuple[xr.Dataset | None, xr.Dataset | None]:
    """Summary of the clusters, and their agreement with a map of phases; None where there is none."""
    if not (labels >= 0).any():
        return None, None
    maps = features.assign({item: ds[item] for item in (n.BC, n.ELEMENTS, n.PHASE) if item in ds})
    nav = navigation_of(labels)
    inner = set()
    for item in maps.data_vars:
        inner |= {label for label, _ in columns(maps[item], nav) if label != item}
    summary = cluster_summary(labels, maps.drop_vars([item for item in maps.data_vars if item in inner]))
    scores = None
    if n.PHASE in ds:
        with suppress(RoiError):  # no phase is known where the clusters are
            scores = cluster_scores(labels, ds[n.PHASE].load())
            summary = summary.assign({name: scores[name] for name in SCORES}).assign_attrs(n_scored=scores.attrs["n"])
    return summary, scores
