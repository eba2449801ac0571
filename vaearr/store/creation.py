"""A new store on object storage: its shards leave this machine one by one, its listing goes last.

A mark among the objects says that they are unfinished; the next ingest to the same URL may remove them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaearr import names as n
from vaearr.errors import ExistsError, VaearrError
from vaearr.store.commit import staging_root, writing
from vaearr.store.copies import Record, files_of_folder, place, record_of, save
from vaearr.store.lease import Lease, leased
from vaearr.store.lock import locked, writer_now
from vaearr.store.objects import ConflictError, Objects
from vaearr.store.seals import METADATA
from vaearr.store.sending import stamped, upload

MARK = ".unfinished-ingest"


class Creation:
    """A store that is being made at a URL: `send` each shard, then `finish` with what else was written."""

    def __init__(self, copy: Path, objects: Objects, record: Record, lease: Lease) -> None:
        self.copy, self.objects, self.record, self.lease = copy, objects, record, lease
        self.is_ours = True

    def send(self, shard: Path, staged: Path) -> None:
        """Upload a finished shard and remove it here."""
        self.lease.check()
        self.objects.put(shard.relative_to(staged).as_posix(), shard)
        shard.unlink()

    def finish(self, staged: Path) -> None:
        """Upload the rest, then the listing."""
        names = [name for name in files_of_folder(staged) if name != METADATA]
        upload(staged, names, self.objects, self.record, [], self.lease)
        root = (staged / METADATA).read_bytes()
        self.lease.check()
        try:
            self.record.root = self.objects.create(METADATA, stamped(root))
        except ConflictError:
            self.is_ours = False
            raise ExistsError(
                f"{self.objects.url} appeared while it was being written; it was left as it is."
            ) from None
        self.is_ours = False  # but everybody's
        self.record.store_id = self.record.staged_for = json.loads(root)["attributes"][n.STORE_ID]
        save(self.copy, self.record)
        self.objects.delete([MARK])


@contextmanager
def creating(url: str) -> Iterator[Creation]:
    """Be the one who makes a store at a URL. Raises ExistsError where anything else lies, LockedError.

    What was uploaded is removed where it fails; after a kill, or without a network, the next ingest to the URL does it.
    """
    objects = Objects(url)
    copy = place(objects.url, objects.endpoint)
    before = record_of(copy)
    record = Record(objects.url, objects.endpoint)
    record.machine = before.machine if before else record.machine
    with writing(copy), locked(copy), _named(copy, record), leased(objects, record.machine) as lease:
        check_free(objects)
        for left in (copy, staging_root(copy)):  # of a store that was at the URL before
            shutil.rmtree(left, ignore_errors=True)
        _clear(objects)
        objects.put(MARK, json.dumps(writer_now()).encode())
        save(copy, record)
        creation = Creation(copy, objects, record, lease)
        try:
            yield creation
        except BaseException:
            if creation.is_ours:
                _undo(creation)
            raise


@contextmanager
def _named(copy: Path, record: Record) -> Iterator[None]:
    """A copy with a name of its own, by which it knows a lease that it left behind."""
    if record_of(copy) is None:
        save(copy, record)
    yield


def check_free(objects: Objects) -> None:
    """Raise ExistsError where a store is at a URL, or objects that no killed ingest left."""
    if objects.stamp(METADATA) is not None:
        raise ExistsError(
            f"{objects.url} already exists; give another URL, or remove it first if you mean to replace it."
        )
    found = next(objects.below(), None)
    if found is not None and objects.stamp(MARK) is None:
        raise ExistsError(
            f"{objects.url} holds objects that are no store, such as {found.name!r}; nothing was changed. Give another "
            "URL, or remove them first."
        )


def _clear(objects: Objects) -> None:
    """Remove what an unfinished ingest left but its mark; the listing goes first, so that nobody reads the rest."""
    left = [stamp.name for stamp in objects.below() if stamp.name != MARK]
    objects.delete([name for name in left if name == METADATA])
    objects.delete([name for name in left if name != METADATA])


def _undo(creation: Creation) -> None:
    try:
        creation.lease.check()
        _clear(creation.objects)
        creation.objects.delete([MARK])
    except VaearrError:  # the mark stays, and with it the next ingest's right to do this
        return
