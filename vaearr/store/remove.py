"""Remove variables, tables and runs from a store, or replace them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vaearr import names as n
from vaearr.errors import NoInputError, UsageError
from vaearr.store.commit import edit_store, existing_keys, publish
from vaearr.store.listing import listed_in
from vaearr.store.read import check_store, run_names

TRAINING_PARTS = (n.MODEL, n.HISTORY, n.HEALTH, n.SHEETS, n.SCANS)  # removed only with the run


def remove(path: str | Path, name: str) -> list[str]:
    """Remove a derived variable, a table (`runs/vae/probe`) or a run (`runs/vae`) from a store.

    Everything that one command wrote is removed together, in one atomic step.

    Parameters
    ----------
    path
        The store.
    name
        Name of the variable, table or run.

    Returns
    -------
    list of str
        The removed keys.

    Raises
    ------
    NoInputError
        If the store has no such name.
    UsageError
        If the name came with the source (patterns, side maps and coordinates).
    """
    store = check_store(path)
    with edit_store(store):
        keys = removable(store, [name])
        if not keys:
            raise NoInputError(f"{store} has no {name!r}; 'vaearr info {store}' lists its content.")
        publish(store, {}, replacing=keys)
    return keys


def removable(store: Path, names: Iterable[str]) -> list[str]:
    """Return the keys that are removed, or replaced, together with some names; see `remove`.

    Names that do not exist are ignored.
    """
    keys: list[str] = []
    for name in names:
        if not all(map(n.is_valid_name, name.split("/"))):
            raise UsageError(f"{name!r} is no variable, table or run of a store.")
        if existing_keys(store, [name]):
            keys += written_together(store, name)
    return existing_keys(store, list(dict.fromkeys(keys)))


def written_together(store: Path, name: str) -> list[str]:
    """Return the names that one command wrote together with a name.

    Messages name the first one; `remove` removes all of them with it.
    """
    root, *parts = name.split("/")
    if root == n.RUNS and parts:
        run, *table = parts
        if table and table[0] not in TRAINING_PARTS:
            return [f"{n.RUNS}/{run}/{table[0]}"]
        return _trained(run)
    for run in run_names(store):
        encoded = _of_run(n.ENCODED, run)
        if name in encoded:
            return encoded
        if name in _of_run([n.ROI, n.SPLIT], run):
            return _trained(run)
    return _derived(store, name)


def _derived(store: Path, name: str) -> list[str]:
    """Return the result of an analysis that a variable belongs to, with all its variables."""
    derived, coordinates = _derived_and_coordinates(store)
    owner = name
    if name in coordinates:
        owners = [key for key in derived if name.startswith(f"{key}_")]
        owner = max(owners, key=len, default=name)
    if owner not in derived:
        raise UsageError(
            f"{store}: {name} came with the source and cannot be removed; ingest anew."
        )
    return [owner, *(key for key in coordinates if key.startswith(f"{owner}_"))]


def _derived_and_coordinates(store: Path) -> tuple[list[str], list[str]]:
    """Return the results of analyses, and the coordinates of dims, which begin with their name."""
    derived = []
    coordinates = []
    for key, metadata in listed_in(store).items():
        if "/" in key:
            continue
        is_reserved = key in n.RESERVED and key != n.RECONSTRUCTION
        if n.PROVENANCE in metadata.get("attributes", {}) and not is_reserved:
            derived.append(key)
        elif metadata.get("dimension_names") == [key]:
            coordinates.append(key)
    return derived, coordinates


def _trained(run: str) -> list[str]:
    return [f"{n.RUNS}/{run}", *_of_run(n.OF_A_RUN, run)]


def _of_run(variables: Iterable[str], run: str) -> list[str]:
    return [n.run_name(variable, run) for variable in variables]
