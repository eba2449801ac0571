"""Trained run -> latents in the store."""

from pathlib import Path

from prefect import flow, get_run_logger, task

import flows  # noqa: F401  (telemetry off)
from vaearr.config import EncodeConfig


@task(name="encode", retries=2, retry_delay_seconds=5, retry_condition_fn=lambda task, run, state: _is_io(state))
def encode_task(store: Path, config: EncodeConfig) -> None:
    """Write the latents; a retry goes on where the last attempt stopped."""
    from vaearr.latents import encode

    encode(store, config=config, say=get_run_logger().info)


def _is_io(state: object) -> bool:
    """Only trouble with reading or writing is worth another attempt."""
    from vaearr.errors import VaearrError

    error = getattr(state, "data", None)
    error = getattr(error, "exception", error)
    return isinstance(error, OSError) and not isinstance(error, VaearrError)


@flow(name="encode")
def encode_flow(store: Path, config: EncodeConfig = EncodeConfig()) -> str:  # noqa: B008  (frozen)
    """Write a run's latents into the store; returns the store's path."""
    encode_task(store, config)
    return str(store)
