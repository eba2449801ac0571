"""How a result becomes visible: staged beside the store, put in its place, then listed.

The listing (`listing`) is replaced in one atomic step after all else, so plain `xr.open_zarr` sees all variables of a
commit or none. In a folder finished folders are synced and renamed in; to object storage they are sent (`sending`). A
journal is written first: after a kill the next writer completes it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vaearr import names as n
from vaearr.errors import ExistsError, LockedError, NoInputError, WriteError
from vaearr.store import sending
from vaearr.store.folders import replace_file, sync_path, sync_tree
from vaearr.store.listing import listed_in, refresh_listing, seal
from vaearr.store.places import Objects, desk, object_url, place
from vaearr.store.settling import is_settled, settle

_FULL = {errno.ENOSPC, errno.EDQUOT}
_CANNOT_WRITE = _FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EXDEV, errno.EIO}
_ALONE = fcntl.LOCK_EX | fcntl.LOCK_NB


def staging_root(store: Path) -> Path:
    """Hidden sibling of the store, on the same file system, where unfinished work lies."""
    own = desk(store)
    return own.parent / f".{own.name}.staging"


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Hold the store's write lock. Raises LockedError that names the holder, at once, when another process writes.

    The lock is the kernel's (flock): a process that dies does not keep it. It is on a hidden sibling of the store, of
    one at a URL on this machine, and on the store's folder: somebody may remove the lock file.
    """
    path = lock_path(store)
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        stack.callback(os.close, handle)
        try:
            fcntl.flock(handle, _ALONE)
            if store.is_dir():
                folder = os.open(store, os.O_RDONLY)
                stack.callback(os.close, folder)
                try:
                    fcntl.flock(folder, _ALONE)
                except OSError as error:  # some file systems of networks lock files only
                    if isinstance(error, BlockingIOError):
                        raise
        except BlockingIOError:
            holder = " ".join(os.pread(handle, 400, 0).decode(errors="replace").split()) or "another process"
            raise LockedError(f"{store} is being written by {holder}; wait for it to end.") from None
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]])
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()} since {since} ({command})".encode(), 0)
        yield


def lock_path(store: Path) -> Path:
    """The lock file, a hidden sibling of the store; of one at a URL, on this machine."""
    return desk(store).parent / f".{store.name}.lock"


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
        needed = f"; it takes up to {need / 2**30:.2g} GiB in all" if need and error.errno in _FULL else ""
        raise WriteError(
            f"cannot write {store}: {os.strerror(error.errno)}{at} ({free:.2g} GiB free{needed}); nothing was "
            "published. Make room or mend the permissions and run the same command again."
        ) from error


@contextmanager
def writer(store: Path) -> Iterator[None]:
    """Be the one writer of the store on this machine: lock it, complete what a killed writer had begun to publish."""
    staging = staging_root(store)
    with writing(store), locked(store):
        if object_url(store):
            sending.token(staging, str(sending.read_root(Objects(store))[0]["attributes"].get(n.STORE_ID)))
        if _journal(store).exists():
            _carry_out(store, again=True)
        _clear(staging)
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


def journalled(store: Path) -> dict[str, str | None]:
    """What is not completed yet: each key, and its folder below `staging_root`, None for one that goes."""
    try:
        return dict(json.loads(_journal(store).read_bytes()))
    except FileNotFoundError:
        return {}


def staged_names(store: Path) -> set[str]:
    """Folders below `staging_root` that the journal needs."""
    return {Path(folder).parts[0] for folder in journalled(store).values() if folder}


@contextmanager
def staged_folder(store: Path, name: str) -> Iterator[Path]:
    """A folder of its own below `staging_root`, which goes at the end, unless a journal needs it."""
    folder = staging_root(store) / f"{name}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        if folder.name not in staged_names(store):
            shutil.rmtree(folder, ignore_errors=True)
            remove_if_empty(staging_root(store))


def present(store: Path, keys: Collection[str]) -> list[str]:
    """Those of some keys that a store lists, or has a folder of."""
    known = listed_in(place(store))
    return [key for key in keys if key in known or (not object_url(store) and os.path.lexists(store / key))]


def publish(
    store: Path, staged: Mapping[str, Path], *, replace: bool = False, instead_of: Collection[str] = ()
) -> None:
    """Put finished folders into the store under the given keys, durably, then list them. Needs the lock (`writer`).

    staged: key inside the store (`latents`, `runs/vae`) -> finished folder below `staging_root`. Raises ExistsError
    before any change when a key is taken and `replace` is False. A replaced one is unlisted first: a reader finds the
    old, nothing, or the new, never a mixture. instead_of: keys that go in the same step, replaced or not. Of a store on
    object storage, raises LockedError where somebody else publishes at the same time; what is staged stays.
    """
    staging = staging_root(store)
    if not replace and (taken := [key for key in present(store, staged) if key not in instead_of]):
        raise ExistsError(f"{store} already holds {', '.join(taken)}; nothing was changed.")
    for folder in staged.values():
        seal(folder)
        sync_tree(folder)
    sync_path(staging)
    come = {key: str(folder.relative_to(staging)) for key, folder in staged.items()}
    _change(store, dict.fromkeys(instead_of) | come)


def withdraw(store: Path, keys: Collection[str]) -> None:
    """Take keys, and all below them, out of the store; those that are not there are passed over. Needs the lock.

    First the listing loses them, then their files go: a reader finds all or none of them.
    """
    staging_root(store).mkdir(parents=True, exist_ok=True)
    _change(store, dict.fromkeys(keys))


def _change(store: Path, moves: Mapping[str, str | None]) -> None:
    replace_file(_journal(store), json.dumps(moves, indent=2).encode())
    try:
        _carry_out(store)
    except LockedError:  # nothing has begun
        _journal(store).unlink()
        raise
    except (NoInputError, WriteError) as error:  # of object storage
        raise WriteError(f"{error} What was made is kept on this machine: run the same command again.") from error


def _carry_out(store: Path, *, again: bool = False) -> None:
    """Do what the journal says and is not done yet, list the result, forget the journal."""
    staging, moves = staging_root(store), journalled(store)
    if object_url(store):
        sending.send(store, staging, moves, again=again)
        _forget(store)
        return
    trash = staging / f"replaced-{uuid.uuid4().hex[:8]}"
    left = {key: folder for key, folder in moves.items() if folder is None or (staging / folder).exists()}
    away = [key for key in left if os.path.lexists(store / key)]
    if away:
        refresh_listing(store, (), without=away)  # so that nobody reads the new chunks by the old metadata
        trash.mkdir()
    for key, folder in left.items():
        if key in away:
            (store / key).rename(trash / key.replace("/", "-"))
        if folder is not None:
            (staging / folder).rename(store / key)
        if key in away or folder is not None:
            sync_path((store / key).parent)
    refresh_listing(store, moves)
    _forget(store)


def _forget(store: Path) -> None:
    """Remove what is left of staged folders, and the journal."""
    staging = staging_root(store)
    for name in staged_names(store):
        if object_url(store) and (staging / name).exists():  # a kill while it goes leaves no half to send
            (staging / name).rename(staging / f"replaced-{uuid.uuid4().hex[:8]}")
        shutil.rmtree(staging / name, ignore_errors=True)
    _journal(store).unlink()  # after the folders: by it the next writer finds what a kill left of them
    _clear(staging)


def _clear(staging: Path) -> None:
    for left in staging.glob("replaced-*"):
        shutil.rmtree(left, ignore_errors=True)
    remove_if_empty(staging)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds nothing."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
