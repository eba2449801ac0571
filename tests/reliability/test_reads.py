"""Reads that fail for a moment, files that are gone, pipes in the place of files."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.storage import LocalStore

import vaearr as va
from tests.reliability.conftest import Stage
from tests.reliability.jobs import STORE
from tests.reliability.mutations import FORMATS
from tests.reliability.test_kills import hashes
from vaearr.config import AssociateConfig, ClusterConfig, IngestConfig
from vaearr.errors import DataError
from vaearr.sources import lazy, open_source
from vaearr.store import open_store, open_table, retries
from vaearr.store.verify import verify_store

SECONDS = 60  # after which a command that should refuse a pipe counts as hung


@pytest.fixture
def store(stage: Stage, tmp_path: Path) -> Path:
    before = stage(("files", "ingest", "train", "encode", "associate")) / STORE
    return Path(shutil.copytree(before, tmp_path / STORE))


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """`left`: how many reads of pattern files fail from now on; `calls`: how many were tried."""
    count = {"left": 0, "calls": 0, "errno": errno.EIO}
    slabs, get, sleep = lazy._slabs, LocalStore.get, asyncio.sleep

    def tried() -> None:
        count["calls"] += 1
        if count["left"]:
            count["left"] -= 1
            raise OSError(count["errno"], os.strerror(count["errno"]))

    def failing_slabs(*args: Any) -> np.ndarray:
        tried()
        return slabs(*args)

    async def failing_get(self: LocalStore, key: str, *args: Any, **how: Any) -> Any:
        if "/c/" in key and "patterns" in f"{self.root}/{key}":
            tried()
        return await get(self, key, *args, **how)

    monkeypatch.setattr(lazy, "_slabs", failing_slabs)
    monkeypatch.setattr(LocalStore, "get", failing_get)
    monkeypatch.setattr(retries.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: sleep(0))
    return count


@pytest.mark.parametrize("number", [errno.EIO, errno.EAGAIN])
@pytest.mark.parametrize("what", ["source", "store"])
def test_reads_that_fail_for_a_moment(
    what: str, number: int, fails: dict[str, int], store: Path, tmp_path: Path
) -> None:
    if what == "source":
        make = FORMATS["hdf5"].make
        assert make is not None
        make(tmp_path / "scan.h5")

    def read() -> np.ndarray:
        ds = open_store(store, chunks=None) if what == "store" else open_source(tmp_path / "scan.h5")
        fails["calls"] = 0
        return np.asarray(ds.patterns.isel(y=slice(0, 2), x=slice(0, 3)).values)

    whole = read()
    usual = fails["calls"]
    assert usual > 0
    fails["errno"] = number
    for times in (1, 3):
        ds = open_store(store, chunks=None) if what == "store" else open_source(tmp_path / "scan.h5")
        fails["left"], fails["calls"] = times, 0
        assert np.array_equal(ds.patterns.isel(y=slice(0, 2), x=slice(0, 3)).values, whole)
        assert times < fails["calls"] <= usual * (times + 1)
    ds = open_store(store, chunks=None) if what == "store" else open_source(tmp_path / "scan.h5")
    fails["left"], fails["calls"] = 10**6, 0
    with pytest.raises((OSError, DataError), match=os.strerror(number)):
        ds.patterns.isel(y=slice(0, 2), x=slice(0, 3)).load()
    assert fails["calls"] <= 4 * usual  # no storm
    fails["left"] = 0


READERS: dict[str, Callable[[Path], object]] = {
    "BC": lambda store: va.associate_store(
        store, AssociateConfig(metrics=("distance_correlation",), targets=("BC",)), overwrite=True
    ),
    "latents": lambda store: va.cluster_store(store, ClusterConfig(method="kmeans", k=2)),
    "roi": lambda store: open_store(store).roi.load(),
    "present": lambda store: open_store(store, chunks=None).present.values,
    "runs/vae/association": lambda store: open_table(store, "vae", "association"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_chunk_that_is_gone_is_not_read_as_nothing(name: str, store: Path) -> None:
    """zarr reads NaN or 0 where a chunk is missing; readers here say which one it was, and leave the store alone."""
    chunk = max(path for path in (store / name).rglob("c/**/*") if path.is_file() and path.name != "zarr.json")
    chunk.unlink()
    before = hashes(store)
    with pytest.raises(DataError, match=f"{chunk.relative_to(store / name)} is missing"):
        READERS[name](store)
    assert hashes(store) == before
    assert any(str(chunk.relative_to(store)) in str(item) for item in verify_store(store).findings)


@pytest.fixture
def in_time() -> Iterator[None]:
    """A read that waits for ever ends in an error."""

    def over(number: int, frame: object) -> None:
        raise TimeoutError("it waits for ever")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_pipes_and_devices_are_refused_at_once(stage: Stage, store: Path, tmp_path: Path, in_time: None) -> None:
    pipe, folder, new = tmp_path / "pipe.csv", tmp_path / "pictures", tmp_path / "new.zarr"
    folder.mkdir()
    for place in (pipe, folder / "a.png"):
        os.mkfifo(place)
    scan = stage(("files",)) / "scan.h5"
    ways: list[Callable[[], object]] = [
        lambda: va.ingest(pipe, new),
        lambda: va.ingest("/dev/zero", new),
        lambda: va.ingest(pipe, new, config=IngestConfig(format="nifti")),
        lambda: va.ingest(scan, new, maps={"BC": pipe}),
        lambda: va.ingest(scan, new, elements=pipe),
        lambda: va.ingest(scan, new, orientations=pipe),
        lambda: va.ingest(folder, new),
        lambda: va.attach(store, pipe, run="other"),
    ]
    for way in ways:
        with pytest.raises(DataError, match=r"not an ordinary file|no such file"):
            way()
        assert not new.exists()


def test_a_pipe_in_the_place_of_a_chunk(store: Path, in_time: None) -> None:
    for name in ("patterns", "BC"):
        chunk = next(path for path in (store / name / "c").rglob("*") if path.is_file())
        chunk.unlink()
        os.mkfifo(chunk)
    found = [str(item) for item in verify_store(store).findings]
    assert len([line for line in found if "not an ordinary file" in line]) == 2
    with pytest.raises(DataError, match="not an ordinary file"):
        va.encode(store)
    with pytest.raises(DataError, match="not an ordinary file"):
        open_store(store, chunks=None).BC.load()
