"""Clusters of a store's points by the latents of a run and by maps."""

from __future__ import annotations

from contextlib import suppress

import xarray as xr

from vaearr import names as n
from vaearr.analysis.association.targets import columns
from vaearr.analysis.clustering.features import navigation_of, select_features
from vaearr.analysis.clustering.labels import clustered
from vaearr.analysis.clustering.methods import choose
from vaearr.analysis.clustering.tables import CLUSTER, SCORES, cluster_scores, cluster_summary
from vaearr.config import ClusterConfig
from vaearr.errors import RoiError
from vaearr.run import Run
from vaearr.run.step import check_name, is_stored, publish, step_recipe
from vaearr.store import has_table, open_store

OF_A_SUMMARY = {
    CLUSTER,
    "cluster_name",
    "feature",
    "units",
    "count",
    "share",
    "mean",
    "std",
    "n",
    *SCORES,
}


def cluster_run(run: Run, config: ClusterConfig, *, overwrite: bool) -> xr.Dataset:
    """Cluster points over the run's region, see `Run.cluster`."""
    check_name(config.name, n.RESERVED | OF_A_SUMMARY)
    usual = ClusterConfig().to_attrs()
    chosen = choose(
        config.method,
        {key: value for key, value in config.to_attrs().items() if value != usual[key]},
    )
    ds = open_store(run.path)
    features = select_features(ds, config)
    roi = ds.get(n.run_name(n.ROI, run.name))
    used = [*map(str, features.data_vars), n.run_name(n.ROI, run.name)]
    recipe = step_recipe(run, config, used, {"run": run.name})
    table_name = f"{n.CLUSTERS}_{config.name}"
    if is_stored(run, recipe, variables=[config.name], overwrite=overwrite):
        is_known = has_table(run.path, run.name, table_name)
        summary = run.table(table_name) if is_known else _no_clusters()
        return summary.assign({config.name: run.ds[config.name].load()})
    labels = clustered(features, config, chosen, roi).rename(config.name).reset_coords(drop=True)
    stamp = {n.PROVENANCE: recipe.stamp("scikit-learn", "hdbscan")}
    labels = labels.assign_attrs(stamp)
    tables = {}
    if (labels >= 0).any():
        summary, scores = _summary(ds, features, labels)
        tables[table_name] = summary.assign_attrs(stamp)
        if scores is not None:
            tables[f"{table_name}_scores"] = scores.assign_attrs(stamp)
    publish(run, variables=labels.to_dataset(), tables=tables)
    return tables.get(table_name, _no_clusters()).assign({config.name: labels})


def _no_clusters() -> xr.Dataset:
    return xr.Dataset({"count": (CLUSTER, [])}, {CLUSTER: (CLUSTER, [])}).astype(int)


def _summary(
    ds: xr.Dataset, features: xr.Dataset, labels: xr.DataArray
) -> tuple[xr.Dataset, xr.Dataset | None]:
    """Summary of the clusters, and their agreement with a map of phases; None where there is none."""
    maps = features.assign({item: ds[item] for item in (n.BC, n.ELEMENTS, n.PHASE) if item in ds})
    nav = navigation_of(labels)
    inner = set()
    for item in maps.data_vars:
        inner |= {label for label, _ in columns(maps[item], nav) if label != item}
    summary = cluster_summary(
        labels, maps.drop_vars([item for item in maps.data_vars if item in inner])
    )
    if n.PHASE not in ds:
        return summary, None
    scores = None
    with suppress(RoiError):  # no phase is known where the clusters are
        scores = cluster_scores(labels, ds[n.PHASE].load())
        summary = summary.assign({name: scores[name] for name in SCORES}).assign_attrs(
            n_scored=scores.attrs["n"]
        )
    return summary, scores
