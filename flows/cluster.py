"""Latents and maps -> cluster map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.running import replacing, step, tell
from flows.showing import picture, store_key, table
from vaearr.config import ClusterConfig


@step("cluster")
def cluster_step(store: Path, config: ClusterConfig, overwrite: bool = False) -> dict[str, int]:
    """Cluster, write the label map, return the number of scan points of each cluster.

    Clusters made before with the same settings from the same data are taken as they are.
    """
    from vaearr.clustering import cluster_lines, cluster_store
    from vaearr.store.remove import remove

    found = replacing(
        lambda: cluster_store(store, config), lambda: remove(store, variables=[config.name]), overwrite=overwrite
    )
    for line in cluster_lines(found, config.name):
        tell(line)
    counts = {str(name): int(count) for name, count in zip(found["cluster"].values, found["count"].values, strict=True)}
    total = max(sum(counts.values()), 1)
    rows = [{"cluster": name, "points": count, "share": count / total} for name, count in counts.items()]
    table(store_key("cluster", store, config.name), rows, f"clusters {config.name!r} of {store.name}")
    picture(store_key("cluster-map", store, config.name), lambda: _map(found[config.name]), f"map of {config.name!r}")
    return counts


def _map(labels: Any) -> Any:
    from vaearr.errors import NoInputError
    from vaearr.plots.static import map_sheet

    if labels.ndim != 2:
        raise NoInputError("only clusters over the rows and columns of a scan have a map to show.")
    return map_sheet(labels)


@flow(name="cluster")
def cluster_flow(
    store: Path,
    config: ClusterConfig = ClusterConfig(),  # noqa: B008  (frozen)
    overwrite: bool = False,
) -> dict[str, int]:
    """Group scan points by their latents and maps; the labels become a map of the store.

    Args:
        store: zarr store with an encoded run
        config: by which variables, and how
        overwrite: replace clusters of this name that were made otherwise
    """
    return cluster_step(store, config, overwrite)
