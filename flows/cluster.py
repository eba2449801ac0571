"""Latents and maps -> cluster map."""

from pathlib import Path

from prefect import flow, get_run_logger, task

import flows  # noqa: F401  (telemetry off)
from vaearr.config import ClusterConfig


@task(name="cluster")
def cluster_task(store: Path, config: ClusterConfig) -> dict[str, int]:
    """Cluster, write the label map, return the number of scan points of each cluster."""
    from vaearr.clustering import cluster_lines, cluster_store

    found = cluster_store(store, config)
    for line in cluster_lines(found, config.name):
        get_run_logger().info(line)
    return {str(name): int(count) for name, count in zip(found["cluster"].values, found["count"].values, strict=True)}


@flow(name="cluster")
def cluster_flow(store: Path, config: ClusterConfig = ClusterConfig()) -> dict[str, int]:  # noqa: B008  (frozen)
    """Group scan points by their latents and maps; the labels become a map of the store."""
    return cluster_task(store, config)
