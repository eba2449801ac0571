"""Publishing to object storage. Nobody holds a lock over machines: what two write at once, one of them is told.

The first object of each key, its `zarr.json`, is written only where there is none, with bytes of its own, and so says
whose the others are. They follow, unlisted. The listing goes last, and only in place of the one that was known.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vaearr import names as n
from vaearr.errors import DataError, ExistsError, LockedError, NoInputError, VaearrError
from vaearr.store.folders import PART, replace_file
from vaearr.store.listing import entries, listing
from vaearr.store.places import METADATA, ConflictError, Folder, Objects, side_by_side, stamped
from vaearr.store.seals import LISTING

_CLAIM = "ingest.claim"  # the first object of a new store, and the same below the staging root
_OF_STORE = "store.id"  # below the staging root: the store that what is staged is for


def read_root(objects: Objects) -> tuple[dict[str, Any], str]:
    """The root's metadata and their tag. Raises NoInputError or DataError."""
    found = objects.fetch(METADATA)
    if found is None:
        raise NoInputError(f"there is no store at {objects.url}; make one with 'vaearr ingest SOURCE {objects.url}'.")
    try:
        root: dict[str, Any] = json.loads(found[0])
        assert isinstance(root["attributes"], dict)
        assert isinstance(root[LISTING]["metadata"], dict)
    except (ValueError, KeyError, TypeError, AssertionError):
        raise DataError(
            f"{objects.url} is not a zarr v3 store with a list of its variables; give the URL of one that 'vaearr "
            "ingest' made."
        ) from None
    return root, found[1]


def forget_others(store: Path, staging: Path) -> None:
    """Clear what is staged for another store that was at the URL before."""
    own = str(read_root(Objects(store))[0]["attributes"].get(n.STORE_ID))
    file = staging / _OF_STORE
    if not file.exists() or file.read_text() != own:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        replace_file(file, own.encode())


def taken(store: Path, keys: Collection[str]) -> list[str]:
    """Those of some keys that are listed."""
    known = read_root(Objects(store))[0][LISTING]["metadata"]
    return [key for key in keys if key in known]


def with_tags(store: Path, moves: Mapping[str, Any]) -> dict[str, Any]:
    """A journal's moves, each key with its folder and the tag that its first object has now (None: it has none)."""
    objects, known = Objects(store), set(taken(store, moves))
    found = side_by_side(lambda key: _tag(objects, key) if key in known else None, moves)
    return {key: {"folder": moves[key], "tag": tag} for key, tag in zip(moves, found, strict=True)}


def mark(folder: Path) -> None:
    """Give a finished folder's metadata bytes of their own."""
    (folder / METADATA).write_bytes(stamped((folder / METADATA).read_bytes()))


def send(store: Path, staging: Path, moves: Mapping[str, Any], *, is_resumed: bool = False) -> None:
    """Send staged folders, take others out, list the result; see `with_tags`. Raises LockedError, with all as it was.

    is_resumed: after a kill, where everything may be done already; what somebody else wrote meanwhile stays.
    """
    objects = Objects(store)
    folders = {key: staging / move["folder"] for key, move in moves.items() if move["folder"]}
    tags = {key: move["tag"] for key, move in moves.items()}
    if is_resumed and not all((folder / METADATA).exists() for folder in folders.values()):
        return
    root, tag = read_root(objects)
    new = [key for key in folders if tags[key] is None]
    away = [key for key in moves if key not in new and key in root[LISTING]["metadata"]]
    try:
        _claim(objects, {key: folders[key] for key in new}, tags)
        if away:
            root, tag = _swap(objects, root, tag, away, {}, is_ours=is_resumed)
    except LockedError:
        _erase(objects, [key for key in new if _is_ours(objects, key, folders[key])])
        if is_resumed:
            return
        raise
    _claim(objects, {key: folder for key, folder in folders.items() if key not in new}, tags)
    _erase(objects, [key for key in moves if key not in folders and tags[key] and _tag(objects, key) == tags[key]])
    if not folders:
        return
    _upload(objects, folders, clear=is_resumed or len(new) < len(folders))
    come = {name: entry for key, folder in folders.items() for name, entry in entries(folder, key).items()}
    try:
        _swap(objects, root, tag, list(folders), come, is_ours=is_resumed or bool(away))
    except LockedError:
        _erase(objects, folders)
        raise


def _is_ours(objects: Objects, key: str, folder: Path) -> bool:
    return objects.read(f"{key}/{METADATA}") == (folder / METADATA).read_bytes()


def _tag(objects: Objects, key: str) -> str | None:
    head = objects.head(f"{key}/{METADATA}")
    return head["e_tag"] if head else None


def _claim(objects: Objects, folders: Mapping[str, Path], tags: Mapping[str, str | None]) -> None:
    """Write the first object of each key in the place of the one that was known; again does nothing."""
    for key, folder in folders.items():
        name, data, tag = f"{key}/{METADATA}", (folder / METADATA).read_bytes(), tags[key]
        try:
            objects.create(name, data) if tag is None else objects.replace(name, data, tag)
        except ConflictError:
            raise LockedError(
                f"{objects.url}: {key} is being written by another command, or one that was killed on another machine "
                f"left it ('vaearr verify {objects.url}' says since when); nothing was published. Run the same command "
                "again when it is done or cleared away."
            ) from None


def _upload(objects: Objects, folders: Mapping[str, Path], *, clear: bool) -> None:
    names = {
        f"{key}/{name}": folder / name
        for key, folder in folders.items()
        for name in Folder(folder).files()
        if name != METADATA and Path(name).name != n.CHECKPOINT and not name.endswith(PART)  # which goes with the run
    }
    side_by_side(lambda item: objects.put(*item), names.items())
    if clear:
        wanted = {*names, *(f"{key}/{METADATA}" for key in folders)}
        objects.remove([name for key in folders for name in objects.files(f"{key}/") if name not in wanted])


def _erase(objects: Objects, keys: Collection[str]) -> None:
    """Remove all objects of keys; that which says whose they are goes last."""
    for key in keys:
        objects.remove([name for name in objects.files(f"{key}/") if name != f"{key}/{METADATA}"])
        objects.remove([f"{key}/{METADATA}"])


def _swap(
    objects: Objects, root: dict[str, Any], tag: str, gone: Collection[str], new: Mapping[str, Any], *, is_ours: bool
) -> tuple[dict[str, Any], str]:
    """Put a new listing in place of the known one. Raises LockedError where it is another by now and not is_ours."""
    while True:
        data = stamped(listing(root, gone, new))
        try:
            return json.loads(data), objects.replace(METADATA, data, tag)
        except ConflictError:
            before = root[LISTING]["metadata"]
            root, tag = read_root(objects)
            if not is_ours:
                now = root[LISTING]["metadata"]
                changed = sorted({key.split("/c/")[0] for key in now.keys() ^ before.keys()}) or ["something"]
                raise LockedError(
                    f"{objects.url} was changed by another command meanwhile ({', '.join(changed[:5])}), so nothing of "
                    "this one was published; run the same command again."
                ) from None


@contextmanager
def creating(store: Path, staging: Path) -> Iterator[Objects]:
    """Be the one who makes a store at a URL: objects may be put there but the listing, which `finish` writes.

    Raises ExistsError where anything lies there but what a killed ingest of this machine left. What was sent is removed
    where it fails.
    """
    objects = Objects(store)
    check_free(objects, staging)
    objects.remove(objects.files())
    shutil.rmtree(staging, ignore_errors=True)  # of a store that was at the URL before
    staging.mkdir(parents=True)
    replace_file(staging / _CLAIM, claim := uuid.uuid4().hex.encode())
    try:
        objects.create(_CLAIM, claim)
    except ConflictError:
        raise ExistsError(f"{objects.url} is being made by another command; give another URL, or wait.") from None
    try:
        yield objects
    except BaseException:
        with suppress(VaearrError):  # without a network the claim stays, and the next ingest clears up
            if objects.head(METADATA) is None:
                objects.remove(objects.files())
        raise
    objects.remove([_CLAIM])


def finish(objects: Objects, staged: Path) -> None:
    """Send what is left of a new store, then its listing. Raises ExistsError where there is one by now."""
    names = [name for name in Folder(staged).files() if name != METADATA]
    side_by_side(lambda name: objects.put(name, staged / name), names)
    try:
        objects.create(METADATA, stamped((staged / METADATA).read_bytes()))
    except ConflictError:
        raise ExistsError(f"{objects.url} appeared while it was being written; it was left as it is.") from None


def check_free(objects: Objects, staging: Path) -> None:
    """Raise ExistsError where a store, or anything else, is at a URL, but for what a killed ingest from here left."""
    if objects.head(METADATA) is not None:
        raise ExistsError(
            f"{objects.url} already exists; give another URL, or remove it first if you mean to replace it."
        )
    found = next(iter(objects.listed()), None)
    if found is None or ((staging / _CLAIM).exists() and objects.read(_CLAIM) == (staging / _CLAIM).read_bytes()):
        return
    raise ExistsError(
        f"{objects.url} holds objects that are no store, such as {found['path']!r} (an ingest that runs elsewhere, or "
        "was killed there, has such); nothing was changed. Give another URL, or remove them first."
    )
