"""Run -> report page."""

from __future__ import annotations

from pathlib import Path

from vaearr.config import ReportConfig

from .running import kept_flow, place, step, tell
from .showing import link, store_key, text


@step("report")
def report_step(store: Path, config: ReportConfig) -> dict[str, str]:
    """Write the page and the PNGs, unless they are there and the store has not changed since."""
    from vaearr.reporting import report
    from vaearr.reporting.write import is_current, report_folder
    from vaearr.store import check_store

    if is_current(check_store(store), config):
        page = report_folder(check_store(store), config) / "index.html"
        tell(f"the report is there already, and the store has not changed since: {page}")
    else:
        page = report(store, config=config)
        tell(f"report: {page}")
    text(store_key("report", store, config.run), link(page), f"report of run {config.run} of {store.name}")
    return {"store": place(store), "run": config.run, "page": str(page)}


@kept_flow(name="report")
def report_flow(store: Path, config: ReportConfig = ReportConfig()) -> dict[str, str]:  # noqa: B008  (frozen)
    """Write the report of a run; returns where it is.

    Args:
        store: zarr store with an encoded run
        config: which run, where the report goes
    """
    return report_step(store, config)
