"""Commands that tell what the latents mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaearr.cli.common import ChosenRun, Sets, Settings, Store, app, say, settings_from


@app.command()
def associate(
    store: Store,
    run: ChosenRun = None,
    target: Annotated[list[str] | None, typer.Option(help="variable to compare with; repeatable; default: all")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="registered metric; repeatable")] = None,
    top: Annotated[int, typer.Option(help="dimensions to list per target")] = 3,
    config: Settings = None,
    sets: Sets = None,
) -> None:
    """Compare latent dimensions with band contrast, elements and phases."""
    from vaearr.association import associate_store, top_lines
    from vaearr.config import AssociateConfig

    settings = settings_from(AssociateConfig, config, sets).replace(
        run=run, targets=target or None, metrics=metric or None
    )
    table = associate_store(store, settings)
    for line in top_lines(table, top=top):
        typer.echo(line)


@app.command()
def report(
    store: Store,
    run: ChosenRun = None,
    out: Annotated[Path | None, typer.Option(help="folder of the report; default: beside the store")] = None,
    config: Settings = None,
    sets: Sets = None,
) -> None:
    """Write one self-contained HTML page about a run, and PNGs of its main views."""
    from vaearr.config import ReportConfig
    from vaearr.reporting import report as run_report

    settings = settings_from(ReportConfig, config, sets).replace(run=run, out=out)
    page = run_report(store, config=settings)
    say(f"the report is {page}")
