"""One writer over machines: a small object beside the store that names who writes, renewed while that lasts.

Its age is measured by the server's clock alone. One that was not renewed for long may be taken over.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from vaearr.errors import LockedError, VaearrError
from vaearr.store.lock import writer_in_words, writer_now
from vaearr.store.objects import ConflictError, Objects, Stamp

RENEW_SECONDS = 20.0
STALE_SECONDS = 60.0
MARGIN_SECONDS = 10.0  # before it may be taken over, its holder writes no more


class Lease:
    """The right to write a store, as long as `check` passes."""

    def __init__(self, objects: Objects, machine: str) -> None:
        self.objects, self.machine = objects.beside, machine
        self.url, self.name = objects.url, f".{objects.name}.lock"
        self.token = uuid.uuid4().hex
        self.who = {**writer_now(), "machine": machine, "token": self.token}
        self.tag, self.renewed, self.is_lost, self.count = "", _clock(), False, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name=f"lease of {objects.name}")

    def take(self) -> None:
        """Become the holder. Raises LockedError that names the one there is."""
        self.renewed = _clock()
        try:
            self.tag = self.objects.create(self.name, self._words())
        except ConflictError:
            self._take_over()
        self._thread.start()

    def _take_over(self) -> None:
        found = self.objects.fetch(self.name)
        try:
            if found is None:  # released just now
                self.tag = self.objects.create(self.name, self._words())
                return
            who = _read(found[0])
            # a holder of this very copy is dead: its lock on the copy is ours
            if who.get("machine") != self.machine and self._age(found[1]) <= STALE_SECONDS:
                raise LockedError(f"{self.url} is being written by {writer_in_words(who)}; wait for it to end.")
            self.renewed = _clock()
            self.tag = self.objects.replace(self.name, self._words(), found[1].tag)
        except ConflictError:
            raise LockedError(f"{self.url} is being written by another process; wait for it to end.") from None

    def _age(self, stamp: Stamp) -> float:
        """Seconds since an object was written, by the server's clock."""
        probe = f".{self.name[1:].removesuffix('.lock')}.clock-{self.token[:8]}"
        self.objects.put(probe, b"")
        try:
            now = self.objects.stamp(probe)
        finally:
            self.objects.delete([probe])
        return (now.changed - stamp.changed).total_seconds() if now else 0.0

    def _words(self) -> bytes:
        self.count += 1  # so that each renewal has a tag of its own
        return json.dumps(self.who | {"renewed": self.count}).encode()

    def check(self) -> None:
        """Raise LockedError where another may hold it by now."""
        if self.is_lost or _clock() - self.renewed > STALE_SECONDS - MARGIN_SECONDS:
            raise LockedError(
                f"the right to write {self.url} was lost (no answer from the server for too long, or another machine "
                "took it over), so nothing more was sent."
            )

    def _keep(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            try:
                self._renew()
            except ConflictError:
                self.is_lost = True
                return
            except VaearrError:  # no answer; `check` knows for how long
                continue

    def _renew(self) -> None:
        """Raises ConflictError where another holds it, or nobody."""
        before = _clock()
        try:
            self.tag = self.objects.replace(self.name, self._words(), self.tag)
        except ConflictError:
            found = self.objects.fetch(self.name)
            if found is None or _read(found[0]).get("token") != self.token:
                raise
            self.tag = self.objects.replace(self.name, self._words(), found[1].tag)  # an answer was lost
        self.renewed = before

    def release(self) -> None:
        """Be no holder any more; an object that may be another's stays."""
        self._over.set()
        self._thread.join()
        try:
            self.check()
            self.objects.delete([self.name])
        except VaearrError:  # it grows old by itself
            return


@contextmanager
def leased(objects: Objects, machine: str) -> Iterator[Lease]:
    """Be the one writer of a store on object storage. Raises LockedError that names the holder, at once.

    machine: what tells this working copy from all others; its own lock must be held.
    """
    lease = Lease(objects, machine)
    lease.take()
    try:
        yield lease
    finally:
        lease.release()


def _read(data: bytes) -> dict[str, object]:
    try:
        who = json.loads(data)
        return who if isinstance(who, dict) else {}
    except ValueError:
        return {}


def _clock() -> float:
    """Seconds that go on while the machine sleeps, where it can tell."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
