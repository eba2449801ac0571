"""Run -> report page."""

from pathlib import Path

from prefect import flow, task

import flows  # noqa: F401  (telemetry off)
from vaearr.config import ReportConfig


@task(name="report")
def report_task(store: Path, config: ReportConfig) -> str:
    """Write the page and the PNGs."""
    from vaearr.reporting import report

    return str(report(store, config=config))


@flow(name="report")
def report_flow(store: Path, config: ReportConfig = ReportConfig()) -> str:  # noqa: B008  (frozen)
    """Write the report of a run; returns the page's path."""
    return report_task(store, config)
