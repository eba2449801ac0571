"""One writer over machines: who it is, when it may be taken for dead, what happens to one that was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from vaearr import store as vs
from vaearr.errors import LockedError, WriteError
from vaearr.store import lease as leases
from vaearr.store import sending
from vaearr.store.commit import writer
from vaearr.store.lease import Lease, leased
from vaearr.store.objects import ConflictError, Objects

from .s3 import Server

LOCK = ".scan.zarr.lock"


@pytest.fixture
def objects(s3: Server, url: str) -> Objects:
    return Objects(url)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.05)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_second_machine_is_refused_and_told_who(objects: Objects) -> None:
    with leased(objects, "one"):
        found = objects.beside.fetch(LOCK)
        assert found is not None
        who = json.loads(found[0])
        named = rf"{objects.url} is being written by process {who['pid']} on {who['host']} since .*; wait for it to end"
        with pytest.raises(LockedError, match=named), leased(objects, "two"):
            pass
    with leased(objects, "two"):
        pass
    assert list(objects.beside.below()) == []


def test_it_is_renewed_while_it_is_held(objects: Objects, quick: None) -> None:
    with leased(objects, "one") as lease:
        first = objects.beside.stamp(LOCK)
        until(lambda: (now := objects.beside.stamp(LOCK)) is not None and first is not None and now.tag != first.tag)
        lease.check()
    assert objects.beside.stamp(LOCK) is None


def test_a_renewal_whose_answer_was_lost_is_no_loss(objects: Objects) -> None:
    with leased(objects, "one") as lease:
        objects.beside.replace(LOCK, lease._words(), lease.tag)
        lease._renew()
        lease._renew()
        objects.beside.put(LOCK, b'{"token": "of another"}')
        with pytest.raises(ConflictError):
            lease._renew()
        lease.is_lost = True
    found = objects.beside.fetch(LOCK)
    assert found is not None
    assert found[0] == b'{"token": "of another"}'


def test_one_that_was_not_renewed_is_taken_over(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = Lease(objects, "dead")
    dead.tag = objects.beside.create(LOCK, dead._words())
    with pytest.raises(LockedError, match="is being written by process"), leased(objects, "two"):
        pass
    with leased(objects, "dead"):  # the same copy on the same machine: its lock is ours, so it is dead
        pass
    dead.tag = objects.beside.create(LOCK, b"no JSON")
    with pytest.raises(LockedError, match="is being written by another process"), leased(objects, "two"):
        pass
    monkeypatch.setattr(leases, "STALE_SECONDS", -1.0)
    monkeypatch.setattr(leases, "MARGIN_SECONDS", -1000.0)
    with leased(objects, "two"):
        found = objects.beside.fetch(LOCK)
        assert found is not None
        assert json.loads(found[0])["machine"] == "two"
    assert list(objects.beside.below()) == []  # the clock's probe is gone too


def test_only_one_takes_a_dead_one_over(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    objects.beside.create(LOCK, b"{}")
    monkeypatch.setattr(leases, "STALE_SECONDS", -1.0)
    slow = Lease(objects, "slow")

    def first(stamp: object) -> float:
        objects.beside.put(LOCK, b'{"machine": "quick"}')
        return 1e9

    monkeypatch.setattr(slow, "_age", first)
    with pytest.raises(LockedError, match="is being written by another process"):
        slow.take()


def test_a_lost_one_writes_no_more(s3: Server, url: str, scan: xr.Dataset, quick: None) -> None:
    vs.create_store(scan, url)
    objects, extra = Objects(url), xr.Dataset({"extra": vs.open_store(url).BC.load()})
    copy = vs.check_store(url)
    before = {stamp.name: stamp.tag for stamp in objects.below()}
    with writer(copy):
        objects.beside.put(LOCK, b'{"machine": "another"}')
        until(lambda: sending._LEASES[copy].is_lost)
        folder = vs.write.staging_root(copy) / "mine"
        vs.write._write_small(extra, folder)
        with pytest.raises(WriteError, match=r"the right to write s3://.* was lost .*kept in .*run the same command"):
            vs.write.publish(copy, {"extra": folder / "extra"})
    assert {stamp.name: stamp.tag for stamp in objects.below()} == before
    found = objects.beside.fetch(LOCK)
    assert found is not None
    assert found[0] == b'{"machine": "another"}'  # it is the other's
    objects.beside.delete([LOCK])
    vs.recover(copy)
    assert "extra" in vs.open_store(url)


def test_no_answer_for_long_counts_as_lost(
    s3: Server, objects: Objects, quick: None, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "STALE_SECONDS", 1.0)
    monkeypatch.setattr(leases, "MARGIN_SECONDS", 0.5)
    with leased(Objects(objects.url), "one") as lease:
        s3.go_away(0)
        lease.check()
        time.sleep(0.7)
        with pytest.raises(LockedError, match="no answer from the server for too long"):
            lease.check()
    s3.forget()
    assert objects.beside.stamp(LOCK) is not None  # it grows old by itself


def test_two_machines_write_one_after_the_other(
    s3: Server, url: str, scan: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vs.create_store(scan, url)
    first = vs.check_store(url)
    bc = vs.open_store(url).BC.load()
    monkeypatch.setenv("VAEARR_CACHE", str(tmp_path / "second machine"))
    second = vs.check_store(url)
    assert first != second
    with writer(first):
        with pytest.raises(LockedError, match="is being written by process"):
            vs.add_variables(url, xr.Dataset({"extra": bc}))
        assert "extra" not in vs.open_store(url)  # readers do not wait
    vs.add_variables(url, xr.Dataset({"extra": bc}))
    vs.add_variables(first, xr.Dataset({"more": bc}))
    assert {"extra", "more"} <= set(vs.open_store(first).variables)
    assert {"extra", "more"} <= set(vs.open_store(url).variables)
