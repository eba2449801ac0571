"""How a result becomes visible: staged beside the store, put in its place, then listed.

The listing (`listing`) is replaced in one atomic step after all else, so plain `xr.open_zarr` sees all variables of a
commit or none. In a folder finished folders are synced and renamed in; to object storage they are sent (`sending`). A
journal is written first: after a kill the next writer completes it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaearr.errors import ExistsError, LockedError, WriteError
from vaearr.store import sending
from vaearr.store.folders import replace_file, sync_path, sync_tree
from vaearr.store.listing import refresh_listing, unlist
from vaearr.store.lock import locked
from vaearr.store.places import desk, object_url
from vaearr.store.seals import seal
from vaearr.store.settling import is_settled, settle

_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EXDEV}
_CANNOT_WRITE |= {errno.EIO}
Moves = Mapping[str, Any]  # each key: its folder below `staging_root`, None for one that goes; see `sending.with_tags`


def staging_root(store: Path) -> Path:
    """Hidden sibling of the store, on the same file system, where unfinished work lies."""
    own = desk(store)
    return own.parent / f".{own.name}.staging"


@contextmanager
def writing(store: Path, need: int = 0) -> Iterator[None]:
    """Turn "disk full", "read-only" and the like into one WriteError that says what to do.

    need: bytes that all of the work takes at most, where that is known; said where the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT_WRITE or isinstance(error, WriteError):
            raise
        here = next(p for p in (desk(store), *desk(store).parents) if p.exists())
        free = shutil.disk_usage(here).free / 2**30
        at = f" at {error.filename}" if isinstance(error.filename, str) else ""
        is_full = need and error.errno in (errno.ENOSPC, errno.EDQUOT)
        needed = f"; it takes up to {need / 2**30:.2g} GiB in all" if is_full else ""
        raise WriteError(
            f"cannot write {store}: {os.strerror(error.errno)}{at} ({free:.2g} GiB free{needed}); nothing was "
            "published. Make room or mend the permissions and run the same command again."
        ) from error


@contextmanager
def writer(store: Path) -> Iterator[None]:
    """Be the one writer of the store on this machine: lock it, complete what a killed writer had begun to publish."""
    with writing(store), locked(store):
        if object_url(store):
            sending.forget_others(store, staging_root(store))
        if _journal(store).exists():
            _roll_forward(store)
        for left in staging_root(store).glob("replaced-*"):
            shutil.rmtree(left, ignore_errors=True)
        if not object_url(store):
            settle(store)
        yield


def recover(store: Path) -> None:
    """Complete what a killed writer had begun to publish, and mend what other programs did to the root, if anything."""
    if _journal(store).exists() or not (object_url(store) or is_settled(store)):
        with writer(store):
            pass


def _journal(store: Path) -> Path:
    return staging_root(store) / "publishing.json"


def journalled(store: Path) -> dict[str, Any]:
    """What is not completed yet: each key, and its folder below `staging_root`; see `Moves`."""
    try:
        found: dict[str, Any] = json.loads(_journal(store).read_bytes())
    except FileNotFoundError:
        return {}
    return found


def staged_names(moves: Moves) -> set[str]:
    """Folders below `staging_root` that a journal needs."""
    folders = [found["folder"] if isinstance(found, dict) else found for found in moves.values()]
    return {Path(folder).parts[0] for folder in folders if folder}


@contextmanager
def staged_folder(store: Path, name: str) -> Iterator[Path]:
    """A folder of its own below `staging_root`, which goes at the end, unless a journal needs it."""
    folder = staging_root(store) / f"{name}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        if folder.name not in staged_names(journalled(store)):
            shutil.rmtree(folder, ignore_errors=True)
            remove_if_empty(staging_root(store))


def publish(
    store: Path, staged: Mapping[str, Path], *, replace: bool = False, instead_of: Collection[str] = ()
) -> None:
    """Put finished folders into the store under the given keys, durably, then list them. Needs the lock (`writer`).

    staged: key inside the store (`latents`, `runs/vae`) -> finished folder below `staging_root`. Raises ExistsError
    before any change when a key is taken and `replace` is False. A replaced one is unlisted first: a reader finds the
    old, nothing, or the new, never a mixture. instead_of: keys that go in the same step, replaced or not. Of a store on
    object storage, raises LockedError where somebody else publishes at the same time; what is staged stays.
    """
    there = sending.taken(store, staged) if object_url(store) else [key for key in staged if (store / key).exists()]
    if not replace and (taken := [key for key in there if key not in instead_of]):
        raise ExistsError(f"{store} already holds {', '.join(taken)}; nothing was changed.")
    for folder in staged.values():
        if object_url(store):
            sending.mark(folder)
        seal(folder)
        if not object_url(store):
            sync_tree(folder)
    sync_path(staging_root(store))
    come = {key: str(folder.relative_to(staging_root(store))) for key, folder in staged.items()}
    _change(store, dict.fromkeys(instead_of) | come)


def withdraw(store: Path, keys: Collection[str]) -> None:
    """Take keys, and all below them, out of the store; those that are not there are passed over. Needs the lock.

    First the listing loses them, then their files go: a reader finds all or none of them.
    """
    staging_root(store).mkdir(parents=True, exist_ok=True)
    _change(store, dict.fromkeys(keys))


def _change(store: Path, moves: Moves) -> None:
    if object_url(store):
        moves = sending.with_tags(store, moves)
    replace_file(_journal(store), json.dumps(moves, indent=2).encode())
    if not object_url(store):
        _roll_forward(store)
        return
    try:
        sending.send(store, staging_root(store), moves)
    except LockedError:
        _journal(store).unlink()
        raise
    except OSError as error:
        raise WriteError(f"{error} What was made is kept on this machine: run the same command again.") from error
    _forget(store, moves)


def _roll_forward(store: Path) -> None:
    """Do what the journal says and is not done yet, list the result, forget the journal."""
    moves = journalled(store)
    if object_url(store):
        sending.send(store, staging_root(store), moves, is_resumed=True)
    else:
        _move(store, moves)
    _forget(store, moves)


def _forget(store: Path, moves: Moves) -> None:
    """Remove what is left of staged folders, and the journal."""
    for folder in staged_names(moves):
        shutil.rmtree(staging_root(store) / folder, ignore_errors=True)
    _journal(store).unlink()  # last: by it the next writer finds what a kill left of these folders
    remove_if_empty(staging_root(store))


def _move(store: Path, moves: Moves) -> None:
    staging = staging_root(store)
    trash = staging / f"replaced-{uuid.uuid4().hex[:8]}"
    left = {key: relative for key, relative in moves.items() if relative is None or (staging / relative).exists()}
    away = [key for key in left if os.path.lexists(store / key)]
    if away:
        unlist(store, away)  # so that nobody reads the new chunks by the old metadata
        trash.mkdir()
    for key, relative in left.items():
        if key in away:
            (store / key).rename(trash / key.replace("/", "-"))
        if relative is not None:
            (staging / relative).rename(store / key)
        if key in away or relative is not None:
            sync_path((store / key).parent)
    refresh_listing(store, moves)
    shutil.rmtree(trash, ignore_errors=True)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds nothing."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
