"""Reads that fail for a moment."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zarr.storage import LocalStore

from tests.reliability.conftest import Stage
from tests.reliability.jobs import STORE
from vaearr.errors import DataError
from vaearr.sources import lazy, open_source
from vaearr.store import open_store, retries


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
    what: str, number: int, fails: dict[str, int], stage: Stage, tmp_path: Path
) -> None:
    folder = stage(("files", "ingest"))

    def read(left: int) -> np.ndarray:
        ds = open_store(folder / STORE, chunks=None) if what == "store" else open_source(folder / "scan.h5")
        fails.update(left=left, calls=0, errno=number)
        return np.asarray(ds.patterns.isel(y=slice(0, 2), x=slice(0, 3)).values)

    whole, usual = read(0), fails["calls"]
    assert usual > 0
    for times in (1, 3):
        assert np.array_equal(read(times), whole)
        assert times < fails["calls"] <= usual * (times + 1)
    with pytest.raises((OSError, DataError), match=os.strerror(number)):
        read(10**6)
    assert fails["calls"] <= 4 * usual  # no storm
