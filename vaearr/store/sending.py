"""Publishing to object storage, as the only one: who publishes marks the listing, in place of the one that was read.

Of two who come at once one is told. Objects follow, unlisted; a listing of them without the mark goes last. Whose mark
it is, a file beside what is staged says, so that the next command of a machine goes on with what one before began. A
command that publishes puts objects all the time: a mark is nobody's where all objects have rested for long.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vaearr import names as n
from vaearr.errors import DataError, ExistsError, LockedError, NoInputError, VaearrError
from vaearr.store.folders import PART, replace_file
from vaearr.store.listing import LISTING, entries, is_of, join, listed, listing
from vaearr.store.places import AT_ONCE, METADATA, ConflictError, Folder, Objects, read_ahead, stamped

RESTING_SECONDS = 3600.0  # no request takes as long, with all its retries
MARK = "publishing"  # of the listing, with the content of the file
LOCK = "publishing.lock"  # the object, with the same content, while there is no listing yet
TOKEN = "publishing.token"  # the file: the store that all is for, and a word of its own
_NEW = "new"


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


def unlisted(objects: Objects) -> dict[str, float]:
    """Keys that no list mentions: for how many seconds all below them have rested."""
    stamps, known = [*objects.listed()], listed(read_root(objects)[0])
    names = [stamp["path"].removesuffix(f"/{METADATA}") for stamp in stamps if stamp["path"].endswith(f"/{METADATA}")]
    keys = {name for name in names if name not in known}
    return {
        key: _rest([stamp for stamp in stamps if is_of(stamp["path"], (key,))])
        for key in sorted(keys)
        if not is_of(key, keys - {key})
    }


def _rest(stamps: Collection[Mapping[str, Any]]) -> float:
    return time.time() - max((stamp["last_modified"].timestamp() for stamp in stamps), default=0.0)


def token(staging: Path, store_id: str) -> str:
    """What says that a mark is this machine's. What is staged for another store that was at the URL goes."""
    file = staging / TOKEN
    if not file.exists() or file.read_text().split(" ")[0] != store_id:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        replace_file(file, f"{store_id} {uuid.uuid4().hex}".encode())
    return file.read_text()


def send(store: Path, staging: Path, moves: Mapping[str, str | None], *, again: bool = False) -> None:
    """Mark the listing and take keys out of it, send staged folders in their place, list these.

    again: what a killed command had begun; nothing is done where it, or others since, had come to the end. Raises
    LockedError where another machine publishes.
    """
    objects, own = Objects(store), (staging / TOKEN).read_text()
    root, tag = read_root(objects)
    mark, folders = root[LISTING].get(MARK), {key: staging / folder for key, folder in moves.items() if folder}
    if again and mark != own and any(key in listed(root) for key in moves):
        return
    if not all(folder.exists() for folder in folders.values()):
        return  # it was done, and a kill came while it was forgotten
    come = {name: entry for key, folder in folders.items() for name, entry in entries(folder, key).items()}
    is_free = mark in (None, own) or _rest([*objects.listed()]) >= RESTING_SECONDS
    try:
        if not is_free:
            raise ConflictError(METADATA)
        root = json.loads(listing(root, moves, {}))
        root[LISTING][MARK] = own
        tag = objects.put(METADATA, stamped(json.dumps(root, indent=2).encode()), {"e_tag": tag})
    except ConflictError:
        raise LockedError(
            f"{objects.url} is being written by another command, or one was killed on another machine; nothing was "
            "published. Run the same command again when it is done, or an hour after it was killed."
        ) from None
    for key in moves:
        objects.remove(objects.files(f"{key}/"))
    for key, folder in folders.items():
        _upload(objects, folder, key)
    while root[LISTING].get(MARK) == own:
        with suppress(ConflictError):  # another program may write attributes meanwhile
            objects.put(METADATA, stamped(listing(root, moves, come)), {"e_tag": tag})
            return
        root, tag = read_root(objects)
    raise LockedError(f"{objects.url}: sending rested for so long that another command went on; run it again.")


def _upload(objects: Objects, folder: Path, key: str) -> None:
    names = [name for name in Folder(folder).files() if Path(name).name != n.CHECKPOINT and not name.endswith(PART)]
    for _ in read_ahead(lambda name: objects.put(join(key, name), folder / name), names, AT_ONCE):
        pass


@contextmanager
def creating(store: Path, staging: Path) -> Iterator[Objects]:
    """Be the one who makes a store at a URL: objects may be put there but the listing, which `finish` writes.

    Raises ExistsError where anything lies there but what a killed ingest of this machine left. What was sent is removed
    where it fails.
    """
    objects = Objects(store)
    check_free(objects, staging)
    try:
        objects.put(LOCK, token(staging, _NEW).encode(), "create")
    except ConflictError:
        raise ExistsError(f"{objects.url} is being made by another command; give another URL, or wait.") from None
    try:
        objects.remove(objects.files().keys() - {LOCK})
        yield objects
    except BaseException:
        with suppress(VaearrError):  # without a network the lock stays, and the next ingest clears up
            if objects.tag() is None:
                objects.remove(objects.files())
        raise
    objects.remove([LOCK])


def finish(objects: Objects, staged: Path) -> None:
    """Send what is left of a new store, then its listing. Raises ExistsError where there is one by now."""
    root = (staged / METADATA).read_bytes()
    (staged / METADATA).unlink()
    _upload(objects, staged, "")
    try:
        objects.put(METADATA, stamped(root), "create")
    except ConflictError:
        raise ExistsError(f"{objects.url} appeared while it was being written; it was left as it is.") from None


def check_free(objects: Objects, staging: Path) -> None:
    """Raise ExistsError where a store, or anything else, is at a URL, but for what a killed ingest from here left."""
    if objects.tag() is not None:
        raise ExistsError(
            f"{objects.url} already exists; give another URL, or remove it first if you mean to replace it."
        )
    found = next(iter(objects.listed()), None)
    if found is None or ((staging / TOKEN).exists() and objects.read(LOCK) == (staging / TOKEN).read_bytes()):
        return
    raise ExistsError(
        f"{objects.url} holds objects that are no store, such as {found['path']!r} (an ingest that runs elsewhere, or "
        "was killed there, has such); nothing was changed. Give another URL, or remove them first."
    )
