"""Latents -> association table."""

from pathlib import Path

from prefect import flow, get_run_logger, task

import flows  # noqa: F401  (telemetry off)
from vaearr.config import AssociateConfig


@task(name="associate")
def associate_task(store: Path, config: AssociateConfig) -> list[str]:
    """Compare latents with maps, store the table, return its first ranks in words."""
    from vaearr.association import associate_store, top_lines

    lines = top_lines(associate_store(store, config))
    for line in lines:
        get_run_logger().info(line)
    return lines


@flow(name="associate")
def associate_flow(store: Path, config: AssociateConfig = AssociateConfig()) -> list[str]:  # noqa: B008  (frozen)
    """Compare latent dimensions with band contrast, elements and phases."""
    return associate_task(store, config)
