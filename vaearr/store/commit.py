"""Publish results: stage them next to the store, rename them into it, then list them.

The list of variables (`listing`) is replaced last, in one atomic step, so plain `xr.open_zarr` sees
all variables of a publication or none. The renames are written to a journal first: after a kill the
next command that uses the store completes them. A new store is published in the same way, under the
key "".
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
from contextlib import contextmanager, suppress
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
    is_at_or_below,
    listed_in,
    refresh_listing,
    seal,
)
from vaearr.store.paths import METADATA

log = logging.getLogger("vaearr")

STORE_KEY = ""  # of a complete store
# folders of unfinished work that no command resumes
NEW = "new"
RESULTS = "results"
REPLACED = "replaced"


def staging_root(store: Path) -> Path:
    """Return the hidden folder next to the store for unfinished work."""
    return store.with_name(f".{store.name}.staging")


@contextmanager
def lock_store(store: Path) -> Iterator[None]:
    """Hold the store's write lock. Raises LockedError, naming the holder, if another process does.

    A hidden file next to the store is locked; while it is, another one names the holder.
    """
    lock_file = store.with_name(f".{store.name}.lock")
    holder_file = _holder_file(store)
    with write_errors(store):
        store.parent.mkdir(parents=True, exist_ok=True)
    with try_lock(lock_file, store) as is_locked:
        if not is_locked:
            holder = recorded_writer(store) or "another process"
            raise LockedError(f"{store} is being written by {holder}; wait for it to end.")
        try:
            with write_errors(store):
                holder_file.write_text(_this_process())
            yield
        finally:
            with suppress(OSError):
                holder_file.unlink()


def recorded_writer(store: Path) -> str:
    """Return the process that writes a store, or that was killed while it wrote; "" for none."""
    try:
        return _holder_file(store).read_text()
    except OSError:
        return ""


def _holder_file(store: Path) -> Path:
    return store.with_name(f".{store.name}.writer")


def _this_process() -> str:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]])
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()} since {since} ({command})"


@contextmanager
def edit_store(store: Path) -> Iterator[None]:
    """Lock a store for writing, after an interrupted publication is completed."""
    with lock_store(store):
        with write_errors(store):
            _apply_journal(store)
            for name in (NEW, RESULTS, REPLACED):
                shutil.rmtree(staging_root(store) / name, ignore_errors=True)
            remove_if_empty(staging_root(store))
            if (store / METADATA).exists():
                identify(store)
        yield


def recover(store: Path) -> None:
    """Complete an interrupted publication, if one exists and no process writes now."""
    if _journal(store).exists():
        with suppress(LockedError, WriteError), lock_store(store), write_errors(store):
            _apply_journal(store)


def identify(store: Path) -> None:
    """Record in `/runs` what identifies a store, unless it is recorded. Needs the lock.

    Stores of earlier versions have it in the attributes of the root; what `/runs` records wins. A
    copy by plain xarray, which has no `/runs`, gets a new identity.
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
    """Change the attributes of `/runs` and their listed copy in one step. Needs the lock."""
    staging_root(store).mkdir(exist_ok=True)
    # moves nothing; applied after a kill it lists `/runs` again, as `refresh_listing` always does
    replace_file(_journal(store), b"{}")
    metadata = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    (store / n.RUNS).mkdir(exist_ok=True)
    replace_file(store / n.RUNS / METADATA, json.dumps(metadata, indent=2).encode())
    _apply_journal(store)


def _journal(store: Path) -> Path:
    return staging_root(store) / "publishing.json"


def journalled(store: Path) -> dict[str, str | None]:
    """Return the journal: each key and its folder in `staging_root`, None for a removed key."""
    try:
        return dict(json.loads(_journal(store).read_bytes()))
    except FileNotFoundError:
        return {}


@contextmanager
def work_folder(store: Path, name: str, keep: str = "") -> Iterator[Path]:
    """Yield a folder in `staging_root` for unfinished work. Needs the lock (`edit_store`).

    Its content is removed at the beginning and at the end, except for the subfolder `keep`, which
    the next call of the same names finds again.
    """
    folder = staging_root(store) / name
    with write_errors(store):
        _remove_unless_kept(folder, keep)
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        # a publication that is not complete still needs the folder
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
            with suppress(OSError):  # must not hide the error of a command
                child.unlink()
    remove_if_empty(folder)


def existing_keys(store: Path, keys: Collection[str]) -> list[str]:
    """Return those keys that a store lists or has a folder of."""
    listed = listed_in(store)
    return [key for key in keys if key in listed or os.path.lexists(store / key)]


def publish(
    store: Path,
    folders: Mapping[str, Path],
    *,
    replacing: Collection[str] = (),
    checksums: Mapping[Path, str] | None = None,
) -> None:
    """Move finished folders into the store, durably, and list them. Needs the lock (`edit_store`).

    Everything that one step writes is published in one call: after a kill at any moment, the next
    command finds the state before or after it.

    Parameters
    ----------
    store
        The folder of the store.
    folders
        Finished folders below `staging_root` by their keys in the store (`latents`, `runs/vae`).
    replacing
        Keys that are removed in the same step. Their names may be used by `folders`.
    checksums
        Checksums of files in these folders that are known already.

    Raises
    ------
    ExistsError
        Before any change, if a key exists and is not among `replacing`.
    """
    staging = staging_root(store)
    taken = [key for key in existing_keys(store, folders) if not is_at_or_below(key, replacing)]
    if taken:
        names = "a store" if taken == [STORE_KEY] else ", ".join(taken)
        raise ExistsError(f"{store} already holds {names}; nothing was changed.")
    replaced = existing_keys(store, replacing)
    moves: dict[str, str | None] = dict.fromkeys(replaced)
    with write_errors(store):
        for key, folder in folders.items():
            seal(folder, checksums)
            sync_tree(folder)
            moves[key] = folder.relative_to(staging).as_posix()
        staging.mkdir(parents=True, exist_ok=True)
        sync_path(staging)
        replace_file(_journal(store), json.dumps(moves, indent=2).encode())
        _apply_journal(store)
    if folders and replaced:
        names = "the store" if replaced == [STORE_KEY] else ", ".join(replaced)
        log.info(f"{store}: {names} replaced")


def _apply_journal(store: Path) -> None:
    """Do what the journal lists and is not done yet, list the result, remove the journal."""
    if not _journal(store).exists():
        return
    staging = staging_root(store)
    moves = journalled(store)
    _move(store, moves)
    refresh_listing(store, moves)
    for folder in (REPLACED, *filter(None, moves.values())):
        work = Path(folder).parts[0]  # the work folder, out of which everything was moved
        shutil.rmtree(staging / work, ignore_errors=True)
    _journal(store).unlink()
    remove_if_empty(staging)


def _move(store: Path, moves: Mapping[str, str | None]) -> None:
    """Rename replaced folders away and staged folders in, unless that is done."""
    staging = staging_root(store)
    # removed keys, and keys whose new folder is not in the store yet
    pending = [key for key, folder in moves.items() if not folder or (staging / folder).exists()]
    replaced = [key for key in pending if os.path.lexists(store / key)]
    trash = staging / REPLACED / uuid.uuid4().hex
    if replaced:
        if replaced != [STORE_KEY]:  # a store that is replaced disappears with its list
            refresh_listing(store, (), without=replaced)  # old metadata must not meet new chunks
        trash.mkdir(parents=True)
    for key in pending:
        target = store / key
        folder = moves[key]
        if key in replaced:
            move(target, trash / (key.replace("/", "-") or "store"))
        if folder:
            move(staging / folder, target)
        if key in replaced or folder:
            sync_path(target.parent)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder if it is empty."""
    with suppress(OSError):
        folder.rmdir()
