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
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaearr.errors import ExistsError, WriteError
from vaearr.names import RUNS
from vaearr.store.folders import replace_file, sync_path
from vaearr.store.lock import locked
from vaearr.store.seals import LISTING, METADATA, nodes, seal

INLINE = {"kind": "inline", "must_understand": False}  # zarr's consolidated metadata
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
    from vaearr.store.relist import settle  # which stand on this module
    from vaearr.store.sending import writing_elsewhere

    with writing(store), locked(store), writing_elsewhere(store):
        if _journal(store).exists():
            _roll_forward(store)
        for left in staging_root(store).glob("replaced-*"):
            shutil.rmtree(left, ignore_errors=True)
        settle(store)
        yield


def recover(store: Path) -> None:
    """Complete what a killed writer had begun to publish, and mend what other programs did to the root, if anything."""
    from vaearr.store.relist import is_settled

    if _journal(store).exists() or not is_settled(store):
        with writer(store):
            pass


def _journal(store: Path) -> Path:
    return staging_root(store) / "publishing.json"


def journalled(store: Path) -> dict[str, str | None]:
    """What is not completed yet: each key, and its folder below `staging_root`, None for one that is taken out."""
    try:
        found: dict[str, str | None] = json.loads(_journal(store).read_bytes())
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


def publish(
    store: Path, staged: Mapping[str, Path], *, replace: bool = False, instead_of: Collection[str] = ()
) -> None:
    """Move finished folders into the store under the given keys, durably, then list them. Needs the lock (`writer`).

    staged: key inside the store (`latents`, `runs/vae`) -> finished folder below `staging_root`. Raises ExistsError
    before any move when a key is taken and `replace` is False. A replaced folder is moved aside first: a reader finds
    the old, nothing, or the new, never a mixture. instead_of: keys that go in the same step, replaced or not.
    """
    for key in staged:
        if (store / key).exists() and not replace and key not in instead_of:
            raise ExistsError(f"{store} already holds {key!r}; nothing was changed.")
    for folder in staged.values():
        seal(folder)
        sync_tree(folder)
    sync_path(staging_root(store))
    come = {key: str(folder.relative_to(staging_root(store))) for key, folder in staged.items()}
    _change(store, dict.fromkeys(instead_of) | come)


def withdraw(store: Path, keys: Collection[str]) -> None:
    """Take keys, and all below them, out of the store; those that are not there are passed over. Needs the lock.

    First the listing loses them, then their folders go: a reader finds all or none of them.
    """
    staging_root(store).mkdir(exist_ok=True)
    _change(store, dict.fromkeys(keys))


def _change(store: Path, moves: Mapping[str, str | None]) -> None:
    replace_file(_journal(store), json.dumps(moves, indent=2).encode())
    _roll_forward(store)


def _roll_forward(store: Path) -> None:
    """Do the renames of the journal that are not done yet, list the result, send it on, forget the journal."""
    from vaearr.store.sending import OvertakenError, sending

    with sending(store) as send:
        moves = journalled(store)
        _move(store, moves)
        try:
            send(moves, made_here=any(moves.values()))
        except OvertakenError as error:
            aside = _set_aside(store, moves)
            _forget(store, moves)
            raise ExistsError(
                f"{error} from another machine before what was made here could be sent; theirs stays, and yours was "
                f"moved to {aside}. Look at theirs, or choose another name."
            ) from None
        _forget(store, moves)
    remove_if_empty(staging_root(store))


def _forget(store: Path, moves: Mapping[str, str | None]) -> None:
    """Remove what is left of staged folders, and the journal."""
    for folder in {staging_root(store) / Path(relative).parts[0] for relative in moves.values() if relative}:
        shutil.rmtree(folder, ignore_errors=True)
    _journal(store).unlink()  # last: by it the next writer finds what a kill left of these folders


def _set_aside(store: Path, moves: Mapping[str, str | None]) -> Path:
    """Take published folders out of a working copy, which then has those that are there."""
    aside = staging_root(store) / f"overtaken-{uuid.uuid4().hex[:8]}"
    aside.mkdir()
    for key in moves:
        if (store / key).exists():  # not moved before a kill
            (store / key).rename(aside / key.replace("/", "-"))
    return aside


def _move(store: Path, moves: Mapping[str, str | None]) -> None:
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


def refresh_listing(
    store: Path, changed: Collection[str] | None = None, attributes: Mapping[str, Any] | None = None
) -> None:
    """Rewrite the root metadata with the list of everything below, in one atomic step.

    changed: keys that are listed anew, with all below them, from what is there now. All else stays listed as it was
    published, so that nothing that was damaged since is taken for good. None: everything is. attributes: new ones of
    the root.
    """
    listing = json.dumps(_consolidated(store, changed, attributes), indent=2).encode()
    replace_file(store / METADATA, listing)


def unlist(store: Path, keys: Collection[str]) -> None:
    """Take keys, and all below them, out of the listing, in one atomic step."""
    root = json.loads((store / METADATA).read_bytes())
    for name in [name for name in listed(root) if _is_of(name, keys)]:
        del root[LISTING]["metadata"][name]
    replace_file(store / METADATA, json.dumps(root, indent=2).encode())


def listed(root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Metadata of all that the root's metadata list, by key; empty where they list nothing."""
    found: Mapping[str, Any] = (root.get(LISTING) or {}).get("metadata", {})
    return found


def _is_of(name: str, keys: Collection[str]) -> bool:
    return name in keys or name.startswith(tuple(f"{key}/" for key in keys))


def _consolidated(store: Path, changed: Collection[str] | None, attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Root metadata with zarr's consolidated form: those of all that is below, by key, in the order zarr gives them."""
    root: dict[str, Any] = json.loads((store / METADATA).read_bytes())
    known = {} if changed is None else listed(root)
    changed = changed if known else None
    below = {key: value for key, value in known.items() if not _is_of(key, changed or ())}
    below |= {key: json.loads((folder / METADATA).read_bytes()) for key, folder in _there(store, changed)}
    if attributes is not None:
        root["attributes"] = attributes
        below[RUNS] = json.loads((store / RUNS / METADATA).read_bytes())  # which keeps a copy of them
    for metadata in below.values():
        if metadata["node_type"] == "group":
            metadata[LISTING] = {**INLINE, "metadata": {}}
    ordered = sorted(below.items(), key=lambda item: (item[0].count("/"), item[0]))
    return {**root, LISTING: {**INLINE, "metadata": dict(ordered)}}


def _there(store: Path, keys: Collection[str] | None) -> Iterator[tuple[str, Path]]:
    """Arrays and groups that are there under some keys, or at all: key and folder."""
    if keys is None:
        yield from ((key, folder) for key, folder, _ in nodes(store))
        return
    for key in keys:
        if (store / key / METADATA).is_file():
            yield key, store / key
            yield from ((f"{key}/{below}", folder) for below, folder, _ in nodes(store / key))


def sync_tree(folder: Path) -> None:
    """fsync every file, then every directory from the leaves up."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync_path(Path(root) / name)
        sync_path(Path(root))
