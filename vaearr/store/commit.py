"""How a result becomes visible: staged in a hidden sibling, synced, renamed in, then listed.

The listing is zarr's consolidated metadata in the root `zarr.json`. It is replaced in one atomic step, after every
rename, so plain `xr.open_zarr` sees all variables of a commit or none. A journal of the renames is written first: after
a kill in their midst the next writer completes them.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from vaearr.errors import ExistsError, WriteError
from vaearr.store.lock import locked
from vaearr.store.seals import LISTING, METADATA, nodes, seal

_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EXDEV}
_CANNOT_WRITE |= {errno.EIO}


def staging_root(store: Path) -> Path:
    """Hidden sibling of the store, on the same file system, where unfinished work lies."""
    return store.parent / f".{store.name}.staging"


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
        here = next(p for p in (store, *store.resolve().parents) if p.exists())
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
    """Be the one writer of the store: lock it, complete what a killed writer had begun to publish."""
    from vaearr.store.sending import writing_elsewhere  # which stands on this module

    with writing(store), locked(store), writing_elsewhere(store):
        if _journal(store).exists():
            _roll_forward(store)
        for left in staging_root(store).glob("replaced-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def recover(store: Path) -> None:
    """Complete what a killed writer had begun to publish, if anything."""
    if _journal(store).exists():
        with writer(store):
            pass


def _journal(store: Path) -> Path:
    return staging_root(store) / "publishing.json"


def journalled(store: Path) -> dict[str, str]:
    """A publication that is not completed yet: each key, and its folder below `staging_root`; empty where none is."""
    try:
        found: dict[str, str] = json.loads(_journal(store).read_bytes())
    except FileNotFoundError:
        return {}
    return found


@contextmanager
def staged_folder(store: Path, name: str) -> Iterator[Path]:
    """A folder of its own below `staging_root`, which goes at the end, whatever is left in it."""
    folder = staging_root(store) / f"{name}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        remove_if_empty(staging_root(store))


def publish(store: Path, staged: Mapping[str, Path], *, replace: bool = False) -> None:
    """Move finished folders into the store under the given keys, durably, then list them. Needs the lock (`writer`).

    staged: key inside the store (`latents`, `runs/vae`) -> finished folder below `staging_root`. Raises ExistsError
    before any move when a key is taken and `replace` is False. A replaced folder is moved aside first: a reader finds
    the old, nothing, or the new, never a mixture.
    """
    for key in staged:
        if (store / key).exists() and not replace:
            raise ExistsError(f"{store} already holds {key!r}; nothing was changed.")
    for folder in staged.values():
        seal(folder)
        sync_tree(folder)
    sync_path(staging_root(store))
    moves = {key: str(folder.relative_to(staging_root(store))) for key, folder in staged.items()}
    replace_file(_journal(store), json.dumps(moves, indent=2).encode())
    _roll_forward(store)


def _roll_forward(store: Path) -> None:
    """Do the renames of the journal that are not done yet, list the result, send it on, forget the journal."""
    from vaearr.store.sending import OvertakenError, sending

    with sending(store) as send:
        moves = journalled(store)
        _move(store, moves)
        try:
            send(moves, made_here=True)
        except OvertakenError as error:
            aside = _set_aside(store, moves)
            _forget(store, moves)
            raise ExistsError(
                f"{error} from another machine before what was made here could be sent; theirs stays, and yours was "
                f"moved to {aside}. Look at theirs, or choose another name."
            ) from None
        _forget(store, moves)
    remove_if_empty(staging_root(store))


def _forget(store: Path, moves: Mapping[str, str]) -> None:
    """Remove what is left of staged folders, and the journal."""
    for folder in {staging_root(store) / Path(relative).parts[0] for relative in moves.values()}:
        shutil.rmtree(folder, ignore_errors=True)
    _journal(store).unlink()  # last: by it the next writer finds what a kill left of these folders


def _set_aside(store: Path, moves: Mapping[str, str]) -> Path:
    """Take published folders out of a working copy, which then has those that are there."""
    aside = staging_root(store) / f"overtaken-{uuid.uuid4().hex[:8]}"
    aside.mkdir()
    for key in moves:
        if (store / key).exists():  # not moved before a kill
            (store / key).rename(aside / key.replace("/", "-"))
    return aside


def _move(store: Path, moves: Mapping[str, str]) -> None:
    trash = staging_root(store) / f"replaced-{uuid.uuid4().hex[:8]}"
    there = [key for key, relative in moves.items() if (staging_root(store) / relative).exists()]
    replaced = [key for key in there if (store / key).exists()]
    if replaced:
        unlist(store, replaced)  # so that nobody reads the new chunks by the old metadata
    for key, relative in moves.items():
        folder, final = staging_root(store) / relative, store / key
        if not folder.exists():
            continue
        if final.exists():
            trash.mkdir(exist_ok=True)
            final.rename(trash / key.replace("/", "-"))
        folder.rename(final)
        sync_path(final.parent)
    refresh_listing(store)
    shutil.rmtree(trash, ignore_errors=True)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds nothing."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def refresh_listing(store: Path) -> None:
    """Rewrite the root metadata with the list of everything below, in one atomic step."""
    listing = json.dumps(_consolidated(store), indent=2).encode()
    replace_file(store / METADATA, listing)


def unlist(store: Path, keys: Sequence[str]) -> None:
    """Take keys, and all below them, out of the listing, in one atomic step."""
    root = json.loads((store / METADATA).read_bytes())
    listed = (root.get(LISTING) or {}).get("metadata", {})
    below = tuple(f"{key}/" for key in keys)
    for name in [name for name in listed if name in keys or name.startswith(below)]:
        del listed[name]
    replace_file(store / METADATA, json.dumps(root, indent=2).encode())


def _consolidated(store: Path) -> dict[str, object]:
    """Root metadata with zarr's own consolidated form, made on a copy of the metadata in memory."""
    memory = MemoryStore()
    prototype = default_buffer_prototype()
    root = json.loads((store / METADATA).read_bytes())
    root.pop(LISTING, None)
    below = {f"{key}/{METADATA}": (folder / METADATA).read_bytes() for key, folder, _ in nodes(store)}
    for key, data in {METADATA: json.dumps(root).encode(), **below}.items():
        sync(memory.set(key, prototype.buffer.from_bytes(data)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(memory)
    buffer = sync(memory.get(METADATA, prototype=prototype))
    assert buffer is not None
    result: dict[str, object] = json.loads(buffer.to_bytes())
    return result


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file aside, sync it, rename it in: a reader finds the old or the new one, whole.

    durable: False leaves the sync out, for a file that may be lost when the power fails.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
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


def sync_tree(folder: Path) -> None:
    """fsync every file, then every directory from the leaves up."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync_path(Path(root) / name)
        sync_path(Path(root))


def sync_path(path: Path) -> None:
    """fsync a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
