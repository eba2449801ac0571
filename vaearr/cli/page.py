"""The command that opens the explorer in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vaearr.cli.common import RunName, Store, app, tell
from vaearr.names import DEFAULT_RUN


@app.command()
def explore(
    store: Store,
    run: RunName = DEFAULT_RUN,
    port: Annotated[int, typer.Option(help="port; 0 takes a free one")] = 0,
    host: Annotated[
        str, typer.Option(help="address to listen at; another than 127.0.0.1 opens the store to the network")
    ] = "127.0.0.1",
    show: Annotated[bool, typer.Option("--show/--no-show", help="open the page in the browser")] = True,
    save: Annotated[
        Path | None, typer.Option(help="serve nothing; write the main views as one .html file that works offline")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="with --save: map with the classes; default: label, phase or clusters")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="with --save: seed of the points that are drawn")] = 0,
    overwrite: Annotated[bool, typer.Option(help="with --save: replace the file")] = False,
) -> None:
    """Explore a run in the browser: click a map, move the latents, see what is decoded. The store stays as it is."""
    if save is not None:
        from vaearr.app.saved import save_page

        written = save_page(store, run, save, by=by, seed=seed, overwrite=overwrite)
        tell(f"written: {written} ({written.stat().st_size / 1e6:.1f} MB)")
        return
    from vaearr.app.serve import explore as serve_page

    serve_page(store, run, port=port, host=host, show=show, say=tell)
