"""Store -> trained run."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task

import flows  # noqa: F401  (telemetry off)
from vaearr.config import RoiConfig, TrainConfig
from vaearr.names import DEFAULT_RUN


@task(name="train-vae")
def train_task(store: Path, run: str, roi: RoiConfig | None, config: TrainConfig) -> dict[str, Any]:
    """Train a VAE and publish it as a run of the store."""
    from vaearr.runs import train

    health = train(store, run=run, roi=roi, config=config, say=get_run_logger().info).health.attrs
    return {key: health[key] for key in ("n_active", "explained_variance", "warnings")}


@flow(name="train-vae")
def train_flow(
    store: Path,
    run: str = DEFAULT_RUN,
    roi: RoiConfig | None = None,
    config: TrainConfig = TrainConfig(),  # noqa: B008  (frozen)
) -> dict[str, Any]:
    """Train a VAE on a store's patterns; returns the health of its latents."""
    return train_task(store, run, roi, config)
