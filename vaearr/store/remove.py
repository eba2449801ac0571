"""Taking variables, tables and runs out of a store, alone or in favour of new ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vaearr import names as n
from vaearr.errors import NoInputError, UsageError
from vaearr.store.commit import edit_store, existing_keys, publish
from vaearr.store.listing import listed_in
from vaearr.store.read import check_store, run_names

OF_ENCODE = [name for name in n.OF_A_RUN if name not in (n.ROI, n.SPLIT)]
OF_TRAINING = (
    n.MODEL,
    n.HISTORY,
    n.HEALTH,
    n.SHEETS,
    n.SCANS,
)  # of a run; other tables are added later


def remove(path: str | Path, name: str) -> list[str]:
    """Take a derived variable, a table (`runs/vae/probe`) or a run (`runs/vae`) out of a store.

    All that one command wrote goes together: a reader finds all or none of it.

    Returns
    -------
    list of str
        What was removed.

    Raises
    ------
    NoInputError
        For an unknown name.
    UsageError
        For what the source brought (patterns, side maps and coordinates).
    """
    store = check_store(path)
    with edit_store(store):
        keys = removable(store, [name])
        if not keys:
            raise NoInputError(f"{store} has no {name!r}; 'vaearr info {store}' lists what it has.")
        publish(store, {}, replacing=keys)
    return keys


def removable(store: Path, names: Iterable[str]) -> list[str]:
    """The keys that are removed with some names, also for a publication that replaces them; see
    `remove`.

    Names that the store does not have are passed over.
    """
    keys: list[str] = []
    for name in names:
        if not all(map(n.is_valid_name, name.split("/"))):
            raise UsageError(f"{name!r} is no variable, table or run of a store.")
        if existing_keys(store, [name]):
            keys += written_together(store, name)
    return existing_keys(store, list(dict.fromkeys(keys)))


def written_together(store: Path, name: str) -> list[str]:
    """Names that one command wrote, the one that `remove` takes first."""
    root, *parts = name.split("/")
    if root == n.RUNS and parts:
        run, *table = parts
        if table and table[0] not in OF_TRAINING:
            return [f"{n.RUNS}/{run}/{table[0]}"]
        return [f"{n.RUNS}/{run}", *(n.run_name(variable, run) for variable in n.OF_A_RUN)]
    listed = listed_in(store)
    for run in run_names(store):
        if name in (n.run_name(n.ROI, run), n.run_name(n.SPLIT, run)):
            return written_together(store, f"{n.RUNS}/{run}")
        of_encode = [n.run_name(variable, run) for variable in (n.LATENTS, *OF_ENCODE)]
        if name in of_encode:
            return of_encode
    variables = [key for key in listed if "/" not in key]
    derived = {key for key in variables if n.PROVENANCE in listed[key].get("attributes", {})}
    derived -= n.RESERVED - {n.RECONSTRUCTION}
    owners = [key for key in derived if f"{name}_".startswith(f"{key}_")]
    if not owners:
        raise UsageError(
            f"{store}: {name} came with the source and cannot be removed; ingest anew."
        )
    owner = max(owners, key=len)
    return [
        owner,
        *(key for key in variables if key.startswith(f"{owner}_") and key not in derived),
    ]
