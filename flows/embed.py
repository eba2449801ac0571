"""Patterns -> principal components or non-negative factors, beside the latents."""

from pathlib import Path

from prefect import flow, get_run_logger, task

import flows  # noqa: F401  (telemetry off)
from flows.encode import is_io_trouble
from vaearr.config import EmbedConfig


@task(name="embed", retries=2, retry_delay_seconds=5, retry_condition_fn=is_io_trouble)
def embed_task(store: Path, config: EmbedConfig) -> None:
    """Write the scores; a retry goes on where the last attempt stopped."""
    from vaearr.embedding import embed_store

    embed_store(store, config, say=get_run_logger().info)


@flow(name="embed")
def embed_flow(store: Path, config: EmbedConfig = EmbedConfig()) -> str:  # noqa: B008  (frozen)
    """Decompose a store's patterns; returns the store's path."""
    embed_task(store, config)
    return str(store)
