"""Latents and maps -> cluster map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vaearr.config import ClusterConfig

from .running import kept_flow, place, step, tell
from .showing import picture, store_key, table


@step("cluster")
def cluster_step(store: Path, config: ClusterConfig, overwrite: bool = False) -> list[dict[str, Any]]:
    """Cluster, write the label map, return the number and share of scan points of each cluster.

    Clusters made before with the same settings from the same data are taken as they are.
    """
    from vaearr.clustering import cluster_lines, cluster_store

    found = cluster_store(store, config, overwrite=overwrite, say=tell)
    for line in cluster_lines(found, config.name):
        tell(line)
    counts = {str(name): int(count) for name, count in zip(found["cluster"].values, found["count"].values, strict=True)}
    total = max(sum(counts.values()), 1)
    rows = [{"cluster": name, "points": count, "share": count / total} for name, count in counts.items()]
    table(store_key("cluster", store, config.name), rows, f"clusters {config.name!r} of {store.name}")
    labels = found[config.name]
    if labels.ndim == 2:
        from vaearr.views import view

        key = store_key("cluster-map", store, config.name)
        picture(store, key, lambda: view(labels, kind="classes"), f"map of {config.name!r}")
    return rows


@kept_flow(name="cluster")
def cluster_flow(
    store: Path,
    config: ClusterConfig = ClusterConfig(),  # noqa: B008  (frozen)
    overwrite: bool = False,
) -> dict[str, Any]:
    """Group scan points by their latents and maps; the labels become a map of the store. Returns it, and their sizes.

    Args:
        store: zarr store with an encoded run
        config: by which variables, and how
        overwrite: replace clusters of this name that were made otherwise
    """
    return {"store": place(store), "variable": config.name, "table": cluster_step(store, config, overwrite)}
