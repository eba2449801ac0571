"""Taking variables and runs out of a store, when a user asks for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.store.commit import listed, withdraw, writer
from vaearr.store.copies import shown
from vaearr.store.read import check_store
from vaearr.store.seals import METADATA


def remove(path: str | Path, *, variables: Iterable[str] = (), runs: Iterable[str] = ()) -> list[str]:
    """Take derived variables, and runs with their maps and latents, out of a store; returns what was removed.

    A reader finds all or none of them; what is killed in between, the next command that writes completes. Names that
    are not there are passed over. Raises UsageError for what the source brought (patterns, side maps and coordinates),
    which cannot be made again from the store.
    """
    store = check_store(path)
    variables, runs = list(variables), list(runs)
    for name in (*variables, *runs):
        if not all(map(n.is_valid_name, name.split("/"))):
            raise UsageError(f"{name!r} is no variable, table or run of a store.")
    of_runs = [n.run_name(name, run) for run in runs for name in n.OF_A_RUN]
    keys = [*dict.fromkeys([*variables, *of_runs]), *(f"{n.RUNS}/{run}" for run in runs)]
    with writer(store):
        known = listed(json.loads((store / METADATA).read_bytes()))
        there = [key for key in keys if key in known or os.path.lexists(store / key)]
        if kept := _kept(there, known):
            raise UsageError(
                f"{shown(store)}: {', '.join(kept)} came with the source and cannot be removed; ingest anew."
            )
        if there:
            withdraw(store, there)
    return there


def _kept(keys: list[str], known: Mapping[str, Any]) -> list[str]:
    """Those that the program did not make: no part of a run, no provenance, and not beside one that has it."""
    others = [key for key in keys if not (key.startswith((f"{n.RUNS}/", *n.OF_LATER_RUNS)) or key in n.OF_A_RUN)]
    made = [key for key in others if key not in n.RESERVED and n.PROVENANCE in known.get(key, {}).get("attributes", {})]
    beside = tuple(f"{key}_" for key in made)
    return [key for key in others if key not in made and not key.startswith(beside)]
