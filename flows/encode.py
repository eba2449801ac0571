"""Trained run -> latents in the store."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task

import flows  # noqa: F401  (telemetry off)
from vaearr.config import EncodeConfig


def is_io_trouble(task: Any, run: Any, state: Any) -> bool:
    """Only trouble with reading or writing is worth another attempt; what vaearr itself refuses stays refused."""
    from vaearr.errors import VaearrError

    try:
        state.result()
    except OSError as error:
        return not isinstance(error, VaearrError)
    except Exception:
        return False
    return False


@task(name="encode", retries=2, retry_delay_seconds=5, retry_condition_fn=is_io_trouble)
def encode_task(store: Path, config: EncodeConfig) -> None:
    """Write the latents; a retry goes on where the last attempt stopped."""
    from vaearr.latents import encode

    encode(store, config=config, say=get_run_logger().info)


@flow(name="encode")
def encode_flow(store: Path, config: EncodeConfig = EncodeConfig()) -> str:  # noqa: B008  (frozen)
    """Write a run's latents into the store; returns the store's path."""
    encode_task(store, config)
    return str(store)
