"""How a result becomes visible: staged next to the store, renamed into it, then listed.

The list of variables (`listing`) is replaced in one atomic step after all else, so plain
`xr.open_zarr` sees all variables of a publication or none. What is to be done is written to a
journal first: after a kill the next command that uses the store completes it. A new store is
published in the same way, as the key "".
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from vaearr import names as n
from vaearr.errors import ExistsError, LockedError, WriteError
from vaearr.store.fingerprints import variable_fingerprint
from vaearr.store.folders import (
    move,
    replace_file,
    sync_path,
    sync_tree,
    try_lock,
    write_errors,
)
from vaearr.store.listing import (
    attributes_of,
    is_of,
    listed_in,
    refresh_listing,
    seal,
)
from vaearr.store.paths import METADATA

log = logging.getLogger("vaearr")

NEW, RESULTS, REPLACED = (
    "new",
    "results",
    "replaced",
)  # folders of killed writers that no command resumes


def staging_root(store: Path) -> Path:
    """Hidden sibling of the store, on the same file system, for unfinished work."""
    return store.with_name(f".{store.name}.staging")


@contextmanager
def lock_store(store: Path) -> Iterator[None]:
    """Hold the store's write lock. Raises LockedError, naming the holder, if another process does.

    A hidden file next to the store is locked; while it is, another one names the holder.
    """
    lock_file = store.with_name(f".{store.name}.lock")
    holder_file = store.with_name(f".{store.name}.writer")
    with ExitStack() as stack:
        with write_errors(store):
            store.parent.mkdir(parents=True, exist_ok=True)
            is_locked = stack.enter_context(try_lock(lock_file, store))
        if not is_locked:
            holder = "another process"
            with suppress(OSError):
                holder = holder_file.read_text() or holder
            raise LockedError(f"{store} is being written by {holder}; wait for it to end.")
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]])
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = f"process {os.getpid()} on {socket.gethostname()} since {since} ({command})"
        try:
            with write_errors(store):
                holder_file.write_text(holder)
            yield
        finally:
            with suppress(OSError):
                holder_file.unlink()


@contextmanager
def edit_store(store: Path) -> Iterator[None]:
    """Be the only writer of a store; first complete what a killed writer had begun to publish."""
    with lock_store(store):
        with write_errors(store):
            _complete(store)
            for name in (NEW, RESULTS, REPLACED):
                shutil.rmtree(staging_root(store) / name, ignore_errors=True)
            remove_if_empty(staging_root(store))
            if (store / METADATA).exists():
                identify(store)
        yield


def complete_publication(store: Path) -> None:
    """Complete what a killed writer had begun to publish, if anything and if nobody writes now."""
    if _journal(store).exists():
        with suppress(LockedError, WriteError), lock_store(store), write_errors(store):
            _complete(store)


def identify(store: Path) -> None:
    """Record in `/runs` what identifies a store, unless it is there. Needs the lock.

    Stores of earlier versions have it in the attributes of the root; a copy by plain xarray, which
    has no `/runs`, becomes a store of its own.
    """
    is_copy = not (store / n.RUNS / METADATA).exists()
    recorded = attributes_of(store / n.RUNS)
    if n.PATTERNS_FINGERPRINT in recorded:
        return
    identity = attributes_of(store)
    if is_copy:
        identity[n.STORE_ID] = uuid.uuid4().hex
    identity.setdefault(n.SCHEMA_VERSION, n.SCHEMA)
    identity[n.PATTERNS_FINGERPRINT] = variable_fingerprint(store, n.PATTERNS)
    write_identity(store, identity | recorded)


def write_identity(store: Path, attributes: Mapping[str, Any]) -> None:
    """Change the attributes of `/runs`, and the list that repeats them, in one step. Needs the
    lock.
    """
    staging_root(store).mkdir(exist_ok=True)
    replace_file(_journal(store), b"{}")
    metadata = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    (store / n.RUNS).mkdir(exist_ok=True)
    replace_file(store / n.RUNS / METADATA, json.dumps(metadata, indent=2).encode())
    _complete(store)


def _journal(store: Path) -> Path:
    return staging_root(store) / "publishing.json"


def journalled(store: Path) -> dict[str, str | None]:
    """What is to be published: each key and its folder in `staging_root`, None for a removed key."""
    try:
        return dict(json.loads(_journal(store).read_bytes()))
    except FileNotFoundError:
        return {}


@contextmanager
def staged_work(store: Path, name: str, keep: str = "") -> Iterator[Path]:
    """A folder in `staging_root` for what is to be published. Needs the lock (`edit_store`).

    Its subfolder `keep` stays when this is left, for the next call of the same names; all else in
    it is removed at the beginning and at the end.
    """
    folder = staging_root(store) / name
    with write_errors(store):
        _remove_unless_kept(folder, keep)
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if not _journal(store).exists():
            _remove_unless_kept(folder, keep)
            remove_if_empty(staging_root(store))


def _remove_unless_kept(folder: Path, keep: str) -> None:
    for child in folder.glob("*"):
        if child.name == keep:
            remove_if_empty(child)
        elif child.is_dir():
            shutil.rmtree(child, ignore_errors=True)
        else:
            with suppress(OSError):  # tidying up must not hide why a command failed
                child.unlink()
    remove_if_empty(folder)


def existing_keys(store: Path, keys: Collection[str]) -> list[str]:
    """Those of some keys that a store lists or has a folder of."""
    listed = listed_in(store)
    return [key for key in keys if key in listed or os.path.lexists(store / key)]


def publish(
    store: Path,
    staged: Mapping[str, Path],
    *,
    replacing: Collection[str] = (),
    checksums: Mapping[str, str] | None = None,
) -> None:
    """Put finished folders into the store, durably, and list them. Needs the lock (`edit_store`).

    Everything that one step writes goes through one call: after a kill at any moment, the next
    command finds all as before or all as after.

    Parameters
    ----------
    store
        The folder of the store.
    staged
        Key in the store (`latents`, `runs/vae`) and finished folder below `staging_root`.
    replacing
        Keys that are removed in the same step. Their names may be used by `staged`.
    checksums
        Of files in the staged folders, as far as they are known.

    Raises
    ------
    ExistsError
        Before any change, when a key exists and is not among `replacing`.
    """
    staging = staging_root(store)
    taken = [key for key in existing_keys(store, staged) if not is_of(key, replacing)]
    if taken:
        raise ExistsError(
            f"{store} already holds {', '.join(taken) or 'a store'}; nothing was changed."
        )
    replaced = existing_keys(store, replacing)
    moves: dict[str, str | None] = dict.fromkeys(replaced)
    with write_errors(store):
        for key, folder in staged.items():
            seal(folder, checksums)
            sync_tree(folder)
            moves[key] = folder.relative_to(staging).as_posix()
        staging.mkdir(parents=True, exist_ok=True)
        sync_path(staging)
        replace_file(_journal(store), json.dumps(moves, indent=2).encode())
        _complete(store)
    if staged and replaced:
        log.info(f"{store}: {', '.join(filter(None, replaced)) or 'the store'} replaced")


def _complete(store: Path) -> None:
    """Do what the journal says and is not done yet, list the result, remove the journal."""
    staging = staging_root(store)
    if _journal(store).exists():
        moves = journalled(store)
        _move(store, moves)
        refresh_listing(store, moves)
        for folder in (REPLACED, *filter(None, moves.values())):
            shutil.rmtree(staging / Path(folder).parts[0], ignore_errors=True)
        _journal(store).unlink()
        remove_if_empty(staging)


def _move(store: Path, moves: Mapping[str, str | None]) -> None:
    """Rename replaced folders away and staged folders in, unless that is done."""
    staging = staging_root(store)
    left = {
        key: folder for key, folder in moves.items() if not folder or (staging / folder).exists()
    }
    away = [key for key in left if os.path.lexists(store / key)]
    trash = staging / REPLACED / uuid.uuid4().hex
    if away:
        if any(away):
            refresh_listing(store, (), without=away)  # nobody may read new chunks by old metadata
        trash.mkdir(parents=True)
    for key, folder in left.items():
        target = store / key
        if key in away:
            move(target, trash / (key.replace("/", "-") or "store"))
        if folder:
            move(staging / folder, target)
        if key in away or folder:
            sync_path(target.parent)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds nothing, if that is possible."""
    with suppress(OSError):
        folder.rmdir()
