"""Two writers, and readers while somebody writes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.contract.harness import BUSY, vaearr
from tests.reliability.conftest import Stage
from tests.reliability.jobs import STORE
from vaearr.errors import NoInputError
from vaearr.store import open_table
from vaearr.store.commit import lock_store

SECONDS = float(os.environ.get("VAEARR_READERS", "2"))

HOLD = """
import sys
from pathlib import Path
from vaearr.store.commit import lock_store
with lock_store(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

WRITE = """
import sys, itertools
import numpy as np, xarray as xr
from vaearr import store as vs
path = sys.argv[1]
print("ready", flush=True)
for i in itertools.count(1):
    size = 3 + i % 3
    table = xr.Dataset({"a": (("row", "column"), np.full((size, 40), float(i)))}, attrs={"i": i})
    vs.write_results(path, run="vae", tables={"ranking": table}, replacing=["runs/vae/ranking"])
    vs.write_results(path, variables=xr.Dataset({f"map{i}": (("y", "x"), np.full((40, 35), float(i)))}))
    print(i, flush=True)
"""


def test_the_second_writer_is_refused(stage: Stage, tmp_path: Path) -> None:
    store = Path(
        shutil.copytree(stage(("files", "ingest", "train", "encode")) / STORE, tmp_path / STORE)
    )
    np.save(tmp_path / "map.npy", np.ones((40, 35), "f4"))
    command = ("attach", store, tmp_path / "map.npy", "--kind", "map", "--name", "mine")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        said = vaearr(*command, code=BUSY).error
        assert (
            f"process {holder.pid} on {socket.gethostname()} since {time.strftime('%Y-')}" in said
        )
        holder.kill()
        holder.wait()
        began = time.monotonic()
        with lock_store(store):  # at once: the lock is the kernel's
            assert time.monotonic() - began < 0.5
    vaearr(*command)


def test_readers_never_see_a_mixture(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Path(
        shutil.copytree(stage(("files", "ingest", "train", "encode")) / STORE, tmp_path / STORE)
    )
    opened = torn = 0
    seen: set[int] = set()
    with subprocess.Popen(
        [sys.executable, "-c", WRITE, str(store)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or len(seen) < 3:
            assert writer.poll() is None
            opened += 1
            torn += not _is_whole(store, seen)
        writer.kill()
    with capsys.disabled():
        print(
            f"\nreader during a writer: {opened} opens, {len(seen)} versions of a table seen, {torn} torn"
        )
    assert torn == 0


def _is_whole(store: Path, seen: set[int]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = xr.open_zarr(store, chunks=None)
    maps = [name for name in ds.data_vars if str(name).startswith("map")]
    newest = max(maps, key=lambda name: int(str(name)[3:]), default=None)
    is_whole = newest is None or bool((ds[newest].values == int(str(newest)[3:])).all())
    try:
        table = open_table(store, "vae", "ranking")
    except NoInputError:
        return is_whole
    seen.add(table.attrs["i"])
    size = 3 + table.attrs["i"] % 3
    return (
        is_whole
        and table.a.shape == (size, 40)
        and bool((table.a == np.float64(table.attrs["i"])).all())
    )
