"""Run -> report page."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.running import step, tell
from flows.showing import store_key, text
from vaearr.config import ReportConfig


@step("report")
def report_step(store: Path, config: ReportConfig) -> str:
    """Write the page and the PNGs, unless they are there and the store has not changed since."""
    from vaearr.completeness import reported
    from vaearr.reporting import report
    from vaearr.reporting.write import report_folder
    from vaearr.store import check_store

    if reported(store, config).state == "same":
        page = report_folder(check_store(store), config) / "index.html"
        tell(f"the report is there already, and the store has not changed since: {page}")
    else:
        page = report(store, config=config)
        tell(f"report: {page}")
    address = page.as_uri()
    words = (
        f"[{address}]({address})\n\nA page on the disk of the machine that ran, `{page}`. Browsers follow no link "
        "from a server's page to a disk: copy the address into their address bar."
    )
    text(store_key("report", store, config.run), words, f"report of run {config.run} of {store.name}")
    return str(page)


@flow(name="report")
def report_flow(store: Path, config: ReportConfig = ReportConfig()) -> str:  # noqa: B008  (frozen)
    """Write the report of a run; returns the page's path.

    Args:
        store: zarr store with an encoded run
        config: which run, where the report goes
    """
    return report_step(store, config)
