"""Taking variables and runs out of a store, when a user asks for it."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.store.commit import METADATA, remove_if_empty, staging_root, sync_path, unlist, writer
from vaearr.store.copies import shown
from vaearr.store.read import check_store
from vaearr.store.sending import sending


def remove(path: str | Path, *, variables: Iterable[str] = (), runs: Iterable[str] = ()) -> list[str]:
    """Take derived variables, and runs with their maps and latents, out of a store; returns what was removed.

    First the listing loses them, in one atomic step, then their folders go: after a kill in between a reader finds
    none of them, and the same call again finishes. Names that are not there are passed over. Raises UsageError for
    what the source brought (patterns, side maps and coordinates), which cannot be made again from the store.
    """
    store = check_store(path)
    variables, runs = list(variables), list(runs)
    for name in (*variables, *runs):
        if not all(map(n.is_valid_name, name.split("/"))):
            raise UsageError(f"{name!r} is no variable, table or run of a store.")
    of_runs = [n.run_name(name, run) for run in runs for name in n.OF_A_RUN]
    keys = [*dict.fromkeys([*variables, *of_runs]), *(f"{n.RUNS}/{run}" for run in runs)]
    with writer(store):
        there = [key for key in keys if (store / key / METADATA).exists()]
        if kept := _kept(store, there):
            raise UsageError(
                f"{shown(store)}: {', '.join(kept)} came with the source and cannot be removed; ingest anew."
            )
        with sending(store) as send:
            if there:
                _take_away(store, there)
            send(keys)
    return there


def _take_away(store: Path, there: list[str]) -> None:
    unlist(store, there)
    trash = staging_root(store) / f"replaced-{uuid.uuid4().hex[:8]}"
    trash.mkdir(parents=True)
    for key in there:
        (store / key).rename(trash / key.replace("/", "-"))
        sync_path((store / key).parent)
    shutil.rmtree(trash)
    remove_if_empty(staging_root(store))


def _kept(store: Path, keys: list[str]) -> list[str]:
    """Those that the program did not make: no part of a run, no provenance, and not beside one that has it."""
    others = [key for key in keys if not (key.startswith((f"{n.RUNS}/", *n.OF_LATER_RUNS)) or key in n.OF_A_RUN)]
    made = [key for key in others if key not in n.RESERVED and n.PROVENANCE in _attributes(store, key)]
    beside = tuple(f"{key}_" for key in made)
    return [key for key in others if key not in made and not key.startswith(beside)]


def _attributes(store: Path, key: str) -> dict[str, object]:
    return dict(json.loads((store / key / METADATA).read_bytes()).get("attributes", {}))
