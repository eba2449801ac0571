"""The command that opens the explorer in the browser."""

from __future__ import annotations

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
) -> None:
    """Explore a run in the browser: click a map, move the latents, see what is decoded. Nothing is written."""
    from vaearr.app.serve import explore as serve_page

    serve_page(store, run, port=port, host=host, show=show, say=tell)
