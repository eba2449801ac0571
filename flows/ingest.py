"""File -> store."""

from pathlib import Path

from prefect import flow, get_run_logger, task

import flows  # noqa: F401  (telemetry off)
from vaearr.config import IngestConfig


@task(name="ingest")
def ingest_task(source: Path, store: Path, config: IngestConfig) -> None:
    """Read the source and its side maps into a new store."""
    from vaearr.ingestion import ingest

    ingest(source, store, config=config, say=get_run_logger().info)


@flow(name="ingest")
def ingest_flow(source: Path, store: Path, config: IngestConfig = IngestConfig()) -> str:  # noqa: B008  (frozen)
    """Turn a scan file and its side maps into a store; returns the store's path."""
    ingest_task(source, store, config)
    return str(store)
