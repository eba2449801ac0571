"""Commands that run flows by name and serve them to a Prefect server."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Annotated, Any

import typer

from vaearr.cli.common import app, bar, key_values, say
from vaearr.errors import UsageError

SERVING = "vaearr.flows.serving"  # called by name: nothing else in vaearr imports the flows, they call vaearr


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="flow, such as train-vae; an unknown name lists them all")],
    parameters: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", help="NAME=VALUE, a value in JSON or plain; NAME.SETTING=VALUE for a single one"),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="follow a run on a server to its end")] = False,
    here: Annotated[bool, typer.Option("--here", help="run in this process even where a server is configured")] = False,
) -> None:
    """Run a flow: on the Prefect server that is configured (PREFECT_API_URL), else right here without any."""
    given = parameters_of(parameters)
    import_module(SERVING).run(name, given, watch=watch, here=here, say=say, bar=bar)


@app.command()
def serve(
    names: Annotated[list[str] | None, typer.Argument(help="flows to serve; default: all")] = None,
    limit: Annotated[int, typer.Option(help="flow runs at a time")] = 1,
) -> None:
    """Register all flows with the configured Prefect server and run what is asked of them, until stopped."""
    import_module(SERVING).serve(names, limit=limit, say=say)


def parameters_of(items: list[str] | None) -> dict[str, Any]:
    """`NAME=VALUE` and `NAME.SETTING=VALUE` as nested parameters; single settings go over a whole object."""
    found: dict[str, Any] = {}
    given = key_values(items, "-p")
    for key in sorted(given, key=lambda key: key.count(".")):
        *path, last = key.split(".")
        inner = found
        for part in path:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise UsageError(f"-p {key}: {part!r} is set to {inner!r} already, so nothing can be set inside it.")
        inner[last] = _value(given[key])
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
