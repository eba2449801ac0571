"""Files and folders that appear complete or not at all, and locks.

All calls that differ between POSIX and Windows are in this module.
"""

from __future__ import annotations

import errno
import filecmp
import hashlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout, lock_descriptor

from vaearr.errors import DamagedError, ExistsError, WriteError, listed

PART = ".partial"  # suffix of unfinished files, of zarr and of vaearr
IS_WINDOWS = os.name == "nt"
RENAME_ATTEMPTS = 100  # on Windows, 10 ms apart: a file that is being read cannot be renamed
CANNOT_WRITE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EFBIG,
    errno.EXDEV,
    errno.EIO,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
}


@contextmanager
def try_lock(file: Path, folder: Path) -> Iterator[bool]:
    """Lock a file and a folder without waiting; yield whether that succeeded.

    The locks of a dead process are free. The folder is locked too, in case somebody deletes the
    file; on Windows only the file is locked, which cannot be deleted while it is in use.
    """
    with ExitStack() as stack:
        try:
            with write_errors(folder):
                stack.enter_context(FileLock(file, timeout=0))
            is_locked = True
        except Timeout:
            is_locked = False
        if is_locked and folder.is_dir() and not IS_WINDOWS:
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            with suppress(OSError):  # some network file systems lock only files
                is_locked = lock_descriptor(handle, blocking=False)
        yield is_locked


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn "disk full", "read-only" and similar errors of writing to a path into a WriteError."""
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_WRITE or isinstance(error, WriteError):
            raise
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        free = shutil.disk_usage(existing).free / 2**30
        where = f" at {error.filename}" if isinstance(error.filename, str) else ""
        raise WriteError(
            f"cannot write {path}: {os.strerror(error.errno)}{where} ({free:.2g} GiB free). "
            "Free some space or correct the permissions, then run the same command again."
        ) from error


def has_file(root: Path, name: str) -> bool:
    """Whether a file or folder of this name exists.

    Raises DamagedError for a symbolic link on its path, a pipe or a device.
    """
    path = root / name
    if path.resolve() != root.resolve() / name:
        raise DamagedError(
            f"{path} is a symbolic link or lies behind one, which may lead anywhere; put the file "
            "there."
        )
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise DamagedError(f"{path} is not an ordinary file; restore it from a copy.")
    return True


def file_sizes(folder: Path) -> dict[str, int]:
    """Size of each file below a folder, by its path with "/"; 0 for links, pipes and devices."""
    sizes = {}
    for root, folders, files in os.walk(folder):
        relative = Path(root).relative_to(folder).as_posix()
        prefix = "" if relative == "." else f"{relative}/"
        for name in (*files, *folders):
            with suppress(FileNotFoundError):  # removed by a writer since it was listed
                status = os.lstat(f"{root}/{name}")
                if stat.S_ISREG(status.st_mode):
                    sizes[prefix + name] = status.st_size
                elif not stat.S_ISDIR(status.st_mode):
                    sizes[prefix + name] = 0
    return sizes


def sha256_of(path: Path) -> str:
    """Return the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def move(source: Path, target: Path) -> None:
    """Rename a file or folder, in place of a file of this name."""
    for attempt in range(RENAME_ATTEMPTS):
        try:
            source.replace(target)
            return
        except PermissionError:
            if not IS_WINDOWS or attempt == RENAME_ATTEMPTS - 1:
                raise
            time.sleep(0.01)


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file under another name, sync it, rename it: readers find the old or the new one.

    durable: False does not sync, for a file that may be lost in a power failure. Raises WriteError
    if the disk is full or cannot be written.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PART}")
    with write_errors(path):
        try:
            with open(part, "wb") as handle:
                handle.write(data)
                if durable:
                    handle.flush()
                    os.fsync(handle.fileno())
            move(part, path)
        finally:
            part.unlink(missing_ok=True)
        if durable:
            sync_path(path.parent)


def sync_path(path: Path) -> None:
    """Flush a file or a folder to the disk; on Windows, folders cannot be flushed."""
    if IS_WINDOWS and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if IS_WINDOWS else os.O_RDONLY)
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
def output_folder(folder: Path, *, last: str | None = None) -> Iterator[Path]:
    """Yield a hidden folder next to `folder`, whose files are renamed into it at the end.

    A new folder appears in one rename, with all its files. Raises ExistsError, with nothing
    changed, if `folder` has files of the same names and other content.

    last: for a folder that is replaced: this file is moved after the others, then old files are
    removed. A kill in between leaves each file complete, the old or the new one.
    """
    new_folder = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}{PART}")
    with write_errors(folder):
        try:
            if folder.exists() and not folder.is_dir():
                raise ExistsError(f"{folder} is a file; give a folder.")
            new_folder.mkdir(parents=True)
            yield new_folder
            if folder.exists():
                _move_files(new_folder, folder, last)
            else:
                move(new_folder, folder)
        finally:
            shutil.rmtree(new_folder, ignore_errors=True)


def _move_files(new_folder: Path, folder: Path, last: str | None) -> None:
    files = sorted(file_sizes(new_folder), key=lambda file: (file == last, file))
    if last is None:
        existing = [file for file in files if (folder / file).exists()]
        _, different, unreadable = filecmp.cmpfiles(new_folder, folder, existing, shallow=False)
        clashes = [*different, *unreadable]
        if clashes:
            raise ExistsError(
                f"{folder} holds {listed(clashes)} with other content; nothing was changed. Choose "
                "another folder."
            )
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        move(new_folder / file, folder / file)
    if last is not None:
        for file in file_sizes(folder).keys() - set(files):
            (folder / file).unlink()
