"""Plain files, and folders of them, that appear complete or not at all; links in a store are never followed."""

from __future__ import annotations

import errno
import filecmp
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaearr.errors import DamagedError, ExistsError, VaearrError, WriteError

MOST_NAMED = 5
PART = ".partial"  # ending of unfinished files, of zarr and of vaearr
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
CANNOT_WRITE = DISK_FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EXDEV, errno.EIO}


@contextmanager
def write_errors(path: Path, needed_bytes: int = 0) -> Iterator[None]:
    """Turn "disk full", "read-only" and similar errors into a WriteError that says what to do.

    Parameters
    ----------
    path
        The store, or the file, that is written.
    needed_bytes
        What the whole work takes at most, if known; named when the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_WRITE or isinstance(error, WriteError):
            raise
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        space = f"{shutil.disk_usage(existing).free / 2**30:.2g} GiB free"
        if needed_bytes and error.errno in DISK_FULL:
            space += f"; it takes up to {needed_bytes / 2**30:.2g} GiB in all"
        where = f" at {error.filename}" if isinstance(error.filename, str) else ""
        raise WriteError(
            f"cannot write {path}: {os.strerror(error.errno)}{where} ({space}). "
            "Free some space or correct the permissions, then run the same command again."
        ) from error


def is_there(root: Path, name: str) -> bool:
    """Whether a folder of a store has a file of this name.

    Raises DamagedError for a link on the way to it, and for a pipe or a device.
    """
    path = root / name
    if os.path.realpath(path) != os.path.join(os.path.realpath(root), name):
        raise DamagedError(
            f"{path} is a symbolic link or lies behind one, which may lead anywhere; put the file there."
        )
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DamagedError(f"{path} is not an ordinary file; restore it from a copy.")
    return True


def file_sizes(folder: Path) -> dict[str, int]:
    """Size of each file below a folder, by its path in it; 0 for links, pipes and devices."""
    sizes = {}
    folders = [""]
    while folders:
        below = folders.pop()
        try:
            entries = list(os.scandir(folder / below))
        except (FileNotFoundError, NotADirectoryError):  # removed by a writer since it was listed
            continue
        for entry in entries:
            name = f"{below}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{name}/")
                continue
            try:
                is_file = entry.is_file(follow_symlinks=False)
                sizes[name] = entry.stat(follow_symlinks=False).st_size if is_file else 0
            except FileNotFoundError:
                continue
    return sizes


def sha256_of(path: Path) -> str:
    """Checksum of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file aside, sync it, rename it in: a reader finds the old or the new one, complete.

    durable: False leaves the sync out, for a file that may be lost when the power fails. Raises
    WriteError where the disk is full or cannot be written.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PART}")
    with write_errors(path):
        try:
            with open(part, "wb") as handle:
                handle.write(data)
                if durable:
                    handle.flush()
                    os.fsync(handle.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        if durable:
            sync_path(path.parent)


def sync_path(path: Path) -> None:
    """fsync a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """fsync every file, then every directory from the leaves up."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in (*files, ""):
            sync_path(Path(root) / name)


@contextmanager
def staged(folder: Path, *, last: str | None = None) -> Iterator[Path]:
    """A hidden folder beside `folder`, whose files are renamed into it at the end.

    A new folder appears in one rename, with all files in it. In one that is there, files of the same content are left
    as they are. Raises ExistsError, with nothing changed, where one of another content is there.

    last: for a folder that is all the caller's: its files are replaced one by one, this one after the others, then go
    those that are not among the new. A kill in between leaves each file whole, the old or the new one.
    """
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        if folder.exists() and not folder.is_dir():
            raise ExistsError(f"{folder} is a file; give a folder.")
        aside.mkdir(parents=True)
        yield aside
        if folder.exists():
            _move_files(aside, folder, last)
        else:
            aside.rename(folder)
    except VaearrError:
        raise
    except OSError as error:
        raise WriteError(f"{folder} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _move_files(aside: Path, folder: Path, last: str | None) -> None:
    files = sorted(_files(aside), key=lambda file: (str(file) == last, file))
    if last is not None:
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (aside / file).replace(folder / file)
        for file in _files(folder) - set(files):
            (folder / file).unlink()
        return
    if clashes := [str(file) for file in files if _clashes(aside / file, folder / file)]:
        more = f" and {len(clashes) - MOST_NAMED} more" if len(clashes) > MOST_NAMED else ""
        raise ExistsError(
            f"{folder} holds {', '.join(clashes[:MOST_NAMED])}{more} with other content; nothing was changed. Choose "
            "another folder."
        )
    for file in files:
        if not (folder / file).exists():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (aside / file).rename(folder / file)


def _files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()}


def _clashes(new: Path, final: Path) -> bool:
    if final.exists():
        return not (final.is_file() and filecmp.cmp(new, final, shallow=False))
    return any(parent.is_file() for parent in final.parents)
