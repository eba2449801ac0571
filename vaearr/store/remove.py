"""Taking variables and runs out of a store, when a user asks for it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.store.commit import edit_store, existing_keys, publish, replace_store
from vaearr.store.listing import listed_in
from vaearr.store.read import check_store


def remove(path: str | Path, *, variables: Iterable[str] = (), runs: Iterable[str] = ()) -> list[str]:
    """Take derived variables, and runs with their maps and latents, out of a store.

    A reader finds all or none of them. Names that the store does not have are passed over.

    Returns
    -------
    list of str
        What was removed.

    Raises
    ------
    UsageError
        For what the source brought (patterns, side maps and coordinates), which cannot be created
        again from the store.
    """
    store = check_store(path)
    with edit_store(store):
        keys = removable(store, variables=variables, runs=runs)
        if keys:
            publish(store, {}, replacing=keys)
    return keys


def removable(store: Path, *, variables: Iterable[str] = (), runs: Iterable[str] = ()) -> list[str]:
    """The keys that `remove` takes out, also for a publication that replaces them.

    Raises UsageError as `remove` does.
    """
    variables, runs = list(variables), list(runs)
    for name in (*variables, *runs):
        if not all(map(n.is_valid_name, name.split("/"))):
            raise UsageError(f"{name!r} is no variable, table or run of a store.")
    wanted = list(variables)
    for run in runs:
        wanted += [n.run_name(name, run) for name in n.OF_A_RUN]
        wanted.append(f"{n.RUNS}/{run}")
    keys = existing_keys(store, list(dict.fromkeys(wanted)))
    of_a_run = (f"{n.RUNS}/", *n.OF_LATER_RUNS)
    others = [key for key in keys if not key.startswith(of_a_run) and key not in n.OF_A_RUN]
    metadata = listed_in(store) if others else {}
    derived = []  # has a recipe, or belongs to a variable that has one
    for key in others:
        attributes = metadata.get(key, {}).get("attributes", {})
        if key not in n.RESERVED - {n.RECONSTRUCTION} and n.PROVENANCE in attributes:
            derived.append(key)
    beginnings = tuple(f"{key}_" for key in derived)
    kept = [key for key in others if key not in derived and not key.startswith(beginnings)]
    if kept:
        raise UsageError(f"{store}: {', '.join(kept)} came with the source and cannot be removed; ingest anew.")
    return keys


@contextmanager
def replacing(store: Path) -> Iterator[Path]:
    """A path next to a store for a new one, which takes its place at the end."""
    stem = store.name.removesuffix(".zarr")
    new = store.with_name(f"{stem}-{uuid.uuid4().hex[:8]}.zarr")
    yield new
    replace_store(store, new)
