"""The command that tells a healthy store from a damaged one, and the little repairs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vaearr.cli.common import Store, app, bar, say
from vaearr.errors import DataError, UsageError


@app.command()
def verify(
    store: Store,
    as_json: Annotated[bool, typer.Option("--json", help="findings for programs")] = False,
    remove: Annotated[
        str | None, typer.Option(help="take a variable that can be made again, a table or runs/NAME out of the store")
    ] = None,
    seal: Annotated[bool, typer.Option("--seal", help="add checksums to variables that have none")] = False,
    relist: Annotated[
        bool, typer.Option("--relist", help="list the variables anew, put the store's attributes back")
    ] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="list what killed commands left and is older than a day; --yes removes it")
    ] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="--clean: also work that a command could go on with")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="--clean: remove it")] = False,
) -> None:
    """Check every file of a store; exit code 65 where it is damaged.

    One line for each finding says which variable and chunk it is and what to do.
    """
    if sum((remove is not None, seal, relist, clean)) > 1:
        raise UsageError("--remove, --seal, --relist and --clean are things to do one at a time; give one of them.")
    if (unfinished or yes) and not clean:
        raise UsageError("--yes and --unfinished are for --clean; add it.")
    from vaearr import verifying

    if remove is not None:
        say(f"taken out of {store}: {', '.join(verifying.take_out(store, remove))}")
    elif seal:
        say(f"checksums added to {len(verifying.seal_store(store))} variables of {store}")
    elif relist:
        verifying.relist(store)
        say(f"the variables of {store} are listed anew")
    elif clean:
        _clean(store, unfinished=unfinished, yes=yes)
    else:
        _verify(store, as_json=as_json)


def _verify(store: Store, *, as_json: bool) -> None:
    from vaearr.store import stored_bytes
    from vaearr.verifying import in_words, verify_store

    total = max(stored_bytes(store), 1)
    done = 0
    with bar("verifying") as progress:

        def on_file(size: int) -> None:
            nonlocal done
            done = min(done + size, total)
            progress(done, total)

        result = verify_store(store, on_file=on_file)
    if as_json:
        typer.echo(json.dumps(result.record(), indent=2))
    else:
        for line in in_words(result):
            typer.echo(line)
    if not result.is_healthy:
        raise typer.Exit(DataError.exit_code)


def _clean(store: Store, *, unfinished: bool, yes: bool) -> None:
    from vaearr.store import check_store
    from vaearr.store.leftovers import clean, removable

    path = check_store(store)
    found = clean(path, unfinished=unfinished) if yes else removable(path, unfinished=unfinished)
    for left in found:
        typer.echo(f"{left.path}: {left.what}")
    if yes:
        say(f"{len(found)} removed")
    else:
        say(f"{len(found)} to remove; 'vaearr verify {store} --clean{' --unfinished' * unfinished} --yes' removes them")
