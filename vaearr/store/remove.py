"""Taking variables and runs out of a store, when a user asks for it."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.store.commit import lock_path, locked, present, staging_root, withdraw, writer
from vaearr.store.listing import listed_in
from vaearr.store.places import object_url, place
from vaearr.store.read import check_store


def remove(path: str | Path, *, variables: Iterable[str] = (), runs: Iterable[str] = ()) -> list[str]:
    """Take derived variables, and runs with their maps and latents, out of a store; returns what was removed.

    A reader finds all or none of them; what is killed in between, the next command that writes completes. Names that
    are not there are passed over. Raises UsageError for what the source brought (patterns, side maps and coordinates),
    which cannot be made again from the store.
    """
    store = check_store(path)
    with writer(store):
        there = removable(store, variables=variables, runs=runs)
        if there:
            withdraw(store, there)
    return there


def removable(store: Path, *, variables: Iterable[str] = (), runs: Iterable[str] = ()) -> list[str]:
    """The keys that `remove` takes out, also for what is published `instead_of` them. Raises UsageError as it does."""
    variables, runs = list(variables), list(runs)
    for name in (*variables, *runs):
        if not all(map(n.is_valid_name, name.split("/"))):
            raise UsageError(f"{name!r} is no variable, table or run of a store.")
    of_runs = [n.run_name(name, run) for run in runs for name in n.OF_A_RUN]
    keys = [*dict.fromkeys([*variables, *of_runs]), *(f"{n.RUNS}/{run}" for run in runs)]
    there = present(store, keys)
    # what the program made: a part of a run, with a provenance, or beside what has one
    others = [key for key in there if not (key.startswith((f"{n.RUNS}/", *n.OF_LATER_RUNS)) or key in n.OF_A_RUN)]
    known = listed_in(place(store)) if others else {}
    own = n.RESERVED - {n.RECONSTRUCTION}
    made = [key for key in others if key not in own and n.PROVENANCE in known.get(key, {}).get("attributes", {})]
    beside = tuple(f"{key}_" for key in made)
    if kept := [key for key in others if key not in made and not key.startswith(beside)]:
        raise UsageError(f"{store}: {', '.join(kept)} came with the source and cannot be removed; ingest anew.")
    return there


@contextmanager
def replacing(store: Path) -> Iterator[Path]:
    """A path beside a store for a new one, which takes its place at the end, whole; the old one is removed then."""
    if url := object_url(store):
        raise UsageError(f"{url} cannot be replaced in one step; remove it first, or give another URL.")
    stem = store.name.removesuffix(".zarr")
    new, aside = (store.with_name(f"{stem}-{uuid.uuid4().hex[:8]}.zarr") for _ in range(2))
    yield new
    with locked(store):
        store.rename(aside)
        new.rename(store)
    shutil.rmtree(aside)
    shutil.rmtree(staging_root(store), ignore_errors=True)
    lock_path(new).unlink(missing_ok=True)
