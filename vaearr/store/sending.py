"""What is published in a working copy goes to its store on object storage, by one writer over all machines.

Objects go first, the root's listing last and only in place of the one that was known: a reader sees all of a commit or
none.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vaearr import names as n
from vaearr.errors import LockedError, NoInputError, WriteError
from vaearr.store.commit import staging_root
from vaearr.store.copies import (
    Record,
    alone,
    bring,
    files_of_folder,
    kept,
    objects_of,
    parsed,
    record_of,
    save,
)
from vaearr.store.lease import Lease, leased
from vaearr.store.objects import ConflictError, Objects, side_by_side
from vaearr.store.seals import LISTING, METADATA

_LEASES: dict[Path, Lease] = {}  # of the copies that this process writes


class OvertakenError(Exception):
    """Another machine wrote under the same name what was not known when this was made: which, in words."""


@contextmanager
def writing_elsewhere(store: Path) -> Iterator[None]:
    """For a working copy: be the one writer of its store over all machines, and have all that others wrote.

    The copy's own lock must be held. Raises LockedError that names the holder. Does nothing for any other store.
    """
    record = record_of(store)
    if record is None:
        yield
        return
    objects = objects_of(record)
    with leased(objects, record.machine) as lease:
        with alone(store):
            _bring_for_writing(store, objects)
        _LEASES[store] = lease
        try:
            yield
        finally:
            del _LEASES[store]


def _bring_for_writing(copy: Path, objects: Objects) -> None:
    """Bring a copy up to date; staged work for another store that was at the URL before goes."""
    record = bring(copy, objects)
    if record.staged_for == record.store_id:
        return
    if record.staged_for is not None:
        for left in (staging_root(copy), copy):
            shutil.rmtree(left, ignore_errors=True)
        record.root, record.objects = None, {}
    record.staged_for = record.store_id
    save(copy, record)
    bring(copy, objects)


@contextmanager
def sending(store: Path) -> Iterator[Callable[..., None]]:
    """Alone with a working copy while it changes; what it gives sends the named keys. For other stores it does nothing.

    Keys that are in the copy are uploaded, those that are not are removed there. Needs `writing_elsewhere`. made_here:
    refuse, by OvertakenError and with nothing changed there, to replace what was not known when they were made.
    """
    record = record_of(store)
    if record is None:
        yield lambda keys, made_here=False: None
        return
    objects = objects_of(record)
    with alone(store), _kept_here(store, objects):
        record = bring(store, objects)
        assert record.root is not None
        tag, record.root = record.root, None  # until all is sent the copy counts as behind
        save(store, record)
        yield lambda keys, made_here=False: _push(store, list(keys), objects, record, tag, made_here)


@contextmanager
def _kept_here(copy: Path, objects: Objects) -> Iterator[None]:
    """What keeps results from being sent, with where they are and what to do."""
    try:
        yield
    except ConflictError:
        reason = f"{objects.url} was changed by another program meanwhile."
    except (LockedError, WriteError, NoInputError) as error:
        reason = str(error)
    else:
        return
    raise WriteError(
        f"{reason} What was published here is kept in {copy}, and the next command that writes to the store from this "
        "machine sends it: run the same command again."
    )


def _push(copy: Path, keys: list[str], objects: Objects, record: Record, tag: str, made_here: bool) -> None:
    lease = _LEASES[copy]
    lease.check()
    found = objects.fetch(METADATA)
    if found is None or found[1].tag != tag:
        raise ConflictError(METADATA)
    root = parsed(found[0], objects.url)
    below = tuple(f"{key}/" for key in keys)
    listed = root[LISTING]["metadata"]
    if made_here and (unknown := [key for key in keys if key in listed and not _is_known(key, objects, record)]):
        raise OvertakenError(f"{', '.join(unknown)} in {objects.url} was written")
    if taken := [key for key in listed if key in keys or key.startswith(below)]:
        for key in taken:
            del listed[key]
        tag = objects.replace(METADATA, stamped(json.dumps(root, indent=2).encode()), tag)
    try:
        upload(
            copy,
            [f"{key}/{name}" for key in keys for name in files_of_folder(copy / key)],
            objects,
            record,
            keys,
            lease,
        )
    finally:
        save(copy, record)
    lease.check()
    record.root = objects.replace(METADATA, stamped((copy / METADATA).read_bytes()), tag)
    save(copy, record)


def _is_known(key: str, objects: Objects, record: Record) -> bool:
    """Whether all that is there under a key was brought here, or sent from here."""
    return all(record.objects.get(stamp.name, ("",))[0] == stamp.tag for stamp in objects.below(f"{key}/"))


def upload(folder: Path, names: list[str], objects: Objects, record: Record, keys: list[str], lease: Lease) -> None:
    """Send files under their names, metadata of groups first; under `keys` nothing else is left there."""
    names = [name for name in names if Path(name).name != n.CHECKPOINT]  # which goes when the run is there
    there: dict[str, str] = {}
    for stamps in side_by_side(lambda key: [*objects.below(f"{key}/")], keys):
        there |= {stamp.name: stamp.tag for stamp in stamps}

    def send(name: str) -> None:
        if name in there and record.is_fresh(folder, name, there[name]):
            return
        lease.check()
        found = kept(folder / name, objects.put(name, folder / name))
        assert found is not None
        record.objects[name] = found

    first = {f"{key}/{METADATA}" for key in keys}
    for name in sorted(first & set(names)):
        send(name)
    side_by_side(send, [name for name in names if name not in first])
    lease.check()
    objects.delete(sorted(there.keys() - set(names)))
    for name in there.keys() - set(names):
        record.objects.pop(name, None)


def stamped(root: bytes) -> bytes:
    """A listing whose bytes, and so its tag, are its own: blanks and tabs at the end, which no reader of JSON sees."""
    return root.rstrip() + b"\n" + bytes(b" \t"[int(bit)] for bit in f"{uuid.uuid4().int:0128b}")
