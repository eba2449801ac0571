"""One writer at a time. The lock is the kernel's (flock): a process that dies does not keep it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vaearr.errors import LockedError
from vaearr.store.places import desk


def lock_path(store: Path) -> Path:
    """The lock file, a hidden sibling of the store; of one at a URL, on this machine."""
    return desk(store).parent / f".{store.name}.lock"


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Hold the store's write lock. Raises LockedError that names the holder, at once, when another process writes.

    The store's folder is locked too: somebody may remove the lock file.
    """
    path = lock_path(store)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open(path, os.O_RDWR | os.O_CREAT) as handle, ExitStack() as stack:
        _take(handle, store, handle)
        if store.is_dir():
            try:
                _take(stack.enter_context(_open(store, os.O_RDONLY)), store, handle)
            except LockedError:
                raise
            except OSError:  # some file systems of networks lock files only
                pass
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(writer_now()).encode(), 0)
        yield


@contextmanager
def _open(path: Path, flags: int) -> Iterator[int]:
    handle = os.open(path, flags, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)


def _take(handle: int, store: Path, says: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(f"{store} is being written by {_holder(says)}; wait for it to end.") from None


def writer_now() -> dict[str, object]:
    """This process as a writer: who, where, since when, by which command."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]]),
    }


def writer_in_words(who: Mapping[str, object]) -> str:
    """A writer in words; another process, where it did not say who it is."""
    if {"pid", "host", "since", "command"} <= who.keys():
        return f"process {who['pid']} on {who['host']} since {who['since']} ({who['command']})"
    return "another process"


def _holder(handle: int) -> str:
    try:
        who = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        who = None
    return writer_in_words(who if isinstance(who, dict) else {})
