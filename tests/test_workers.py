"""Many workers: the same numbers as one process, whoever dies; each refusal in one line; nothing left running."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
import xarray as xr

import vaearr as va
from vaearr import ingestion, workers
from vaearr.config import AssociateConfig, EncodeConfig, IngestConfig, SignificanceConfig
from vaearr.errors import DataError, NoInputError, UsageError, WorkersError, WriteError
from vaearr.provenance import nested
from vaearr.store import create_store
from vaearr.testing import random_patterns_dataset
from vaearr.verifying import verify_store

from .conftest import TINY_TRAINING

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")

NAMES = ["latents", "latents_std", "reconstruction_error"]
STRICT = "import warnings; warnings.simplefilter('error')"
KEYS = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
SLOW = EncodeConfig(batch_size=8)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes in which warnings are errors, too."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, preload=[STRICT], silence_logs=50, **KEYS) as made:
        yield made


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    """A client of both workers, which dask computes with only where it is told to."""
    with distributed.Client(cluster, set_as_default=False) as made:
        made.wait_for_workers(2, timeout=30)
        yield made


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 20 shards with a run, encoded in one process."""
    ds = random_patterns_dataset({"y": 130, "x": 110}, {"dy": 9, "dx": 11}, missing=5)
    path = create_store(ds, tmp_path_factory.mktemp("workers") / "scan.zarr")
    va.train(path, roi=va.roi(ds, x=(1.0, 50.0), y=(0, 60)), config=TINY_TRAINING.replace(epochs=1, batch_size=512))
    roi = xr.open_zarr(path).roi
    assert 0 < int(roi.sum()) < roi.size
    va.encode(path, config=SLOW)
    return path


@pytest.fixture
def trained(encoded: Path, tmp_path: Path) -> Path:
    """The same store before it was encoded."""
    from vaearr.store.remove import remove

    path = Path(shutil.copytree(encoded, tmp_path / "scan.zarr"))
    remove(path, variables=[*NAMES, "latent"])
    return path


def assert_same(store: Path, encoded: Path) -> None:
    """Bit for bit, coordinates and all, but for the time of the making."""
    got, want = (xr.open_zarr(path)[NAMES].load() for path in (store, encoded))
    xr.testing.assert_equal(got, want)
    for name in NAMES:
        assert got[name].values.tobytes() == want[name].values.tobytes()
        assert nested(got[name].attrs, "provenance")["config"] == nested(want[name].attrs, "provenance")["config"]


def test_encode_is_that_of_one_process(client: Any, trained: Path, encoded: Path) -> None:
    said: list[str] = []
    done: list[tuple[int, int]] = []
    va.encode(trained, config=SLOW, dask=client, say=said.append, on_block=lambda *at: done.append(at))
    assert_same(trained, encoded)
    assert said[0] == "on 2 Dask workers (2 threads)"
    assert done == [(i + 1, 20) for i in range(20)]
    assert client.status == "running"  # it is the caller's


def slowly() -> int:
    """On a worker: take a moment for each block, so that there is a midst to be killed in; its process id."""
    from vaearr import latents

    whole = latents._read

    def read(*args: Any) -> Any:
        time.sleep(0.5)
        return whole(*args)

    read.whole = whole  # type: ignore[attr-defined]
    latents._read = read
    return os.getpid()


def quickly() -> None:
    """On a worker: no longer."""
    from vaearr import latents

    latents._read = getattr(latents._read, "whole", latents._read)


@pytest.mark.long
def test_a_worker_killed_in_mid_encode_changes_no_bit(client: Any, trained: Path, encoded: Path) -> None:
    seen: dict[str, Any] = {}
    address, pid = next(iter(client.run(slowly).items()))

    def kill_one(done: int, total: int) -> None:
        if "pid" in seen or done < 5:
            return
        os.kill(pid, signal.SIGSTOP)  # what it works on now it never ends
        working_on = client.processing()[address]
        if not working_on:
            os.kill(pid, signal.SIGCONT)
            return
        staged = list(trained.parent.glob(".*.staging/variables-*/latents/c/*/*/0"))
        seen.update(pid=pid, working_on=working_on, staged=len(staged), total=total)
        os.kill(pid, signal.SIGKILL)

    va.encode(trained, config=SLOW, dask=client, on_block=kill_one)
    assert seen["working_on"]  # killed in the midst of a block
    assert 5 <= seen["staged"] < seen["total"] == 20  # some blocks done, some not
    assert not psutil.pid_exists(pid)
    assert_same(trained, encoded)
    client.run(quickly)


CLIENT = """
import os, signal, sys
import psutil
import vaearr as va
from vaearr.config import AssociateConfig, EncodeConfig, IngestConfig, SignificanceConfig

def stop(done, total):
    if done == 5:
        print(*(p.pid for p in psutil.Process().children(recursive=True)), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    va.encode(sys.argv[1], config=EncodeConfig(batch_size=8), dask="local:2", on_block=stop)
"""


@pytest.mark.long
def test_the_calling_process_killed_leaves_no_worker_and_goes_on(trained: Path, encoded: Path, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(CLIENT)
    done = subprocess.run([sys.executable, str(script), str(trained)], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = list(map(int, done.stdout.split()))
    assert len(pids) >= 2
    until = time.monotonic() + 30
    while time.monotonic() < until and any(map(psutil.pid_exists, pids)):
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, pids))
    assert "latents" not in xr.open_zarr(trained)
    said: list[str] = []
    va.encode(trained, config=SLOW, say=said.append)
    assert said[0] == "going on with an interrupted encode: 5 blocks are done"
    assert_same(trained, encoded)


@pytest.mark.long
def test_a_block_that_kills_every_worker_is_named_and_the_rest_is_kept(
    trained: Path, encoded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vaearr import latents

    whole = latents.encode_shard

    def poison(region: Any, *args: Any) -> Any:
        if region["y"].start == 64 and region["x"].start == 32:
            os._exit(9)
        return whole(region, *args)

    monkeypatch.setattr(latents, "encode_shard", poison)
    settings = {**KEYS, "scheduler_kwargs": {"dashboard": False, "allowed_failures": 1}}
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, preload=[STRICT], silence_logs=50, **settings
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
        pytest.raises(WorkersError, match=r"the block at y 64 to 95, x \d+ to \d+ killed .*--memory-limit.*batch_size"),
    ):
        va.encode(trained, config=SLOW, dask=client)
    assert "latents" not in xr.open_zarr(trained)
    said: list[str] = []
    va.encode(trained, config=SLOW, say=said.append)
    assert said[0].startswith("going on with an interrupted encode: ")
    assert_same(trained, encoded)


def test_a_write_that_fails_leaves_no_work_behind(client: Any, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaearr import latents

    whole = latents._write

    def full(staging: Any, block: Any, *args: Any) -> Any:
        if block.region["y"].start >= 64:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(staging, block, *args)

    monkeypatch.setattr(latents, "_write", full)
    with pytest.raises(WriteError, match="No space left") as raised:
        va.encode(trained, config=SLOW, dask=client)
    assert not client.futures  # though the error, with all that it saw, is still held
    assert raised.value.exit_code == 74
    assert "latents" not in xr.open_zarr(trained)


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, str]]:
    """The process of a scheduler with one worker, and its scheduler file; nobody waits long for it."""
    monkeypatch.setattr(workers, "PATIENCE", 2)
    file = tmp_path / "scheduler.json"
    at = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    command = [sys.executable, "-m"]
    with (tmp_path / "log").open("w") as log:
        started = [subprocess.Popen([*command, "distributed.cli.dask_scheduler", *at, "--port", "0"], stderr=log)]
        try:
            until = time.monotonic() + 60
            while not file.exists() and time.monotonic() < until:
                time.sleep(0.1)
            worker = ["distributed.cli.dask_worker", *at, "--nthreads", "1", "--no-nanny"]
            started.append(subprocess.Popen([*command, *worker], stderr=log))
            with distributed.Client(scheduler_file=str(file), set_as_default=False) as client:
                client.wait_for_workers(1, timeout=60)
            yield started[0], str(file)
        finally:
            for process in started:
                process.kill()
                process.wait()


@pytest.mark.long
def test_the_scheduler_lost_in_mid_encode_is_told_in_one_line(
    scheduler: tuple[Any, str], trained: Path, encoded: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    process, where = scheduler

    def lose(done: int, total: int) -> None:
        if done == 5:
            process.kill()

    with pytest.raises(WorkersError, match=r"the Dask scheduler was lost at .*; run the same command again") as raised:
        va.encode(trained, config=SLOW, dask=where, on_block=lose)
    assert raised.value.exit_code == 69
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""  # no log of tracebacks
    assert "latents" not in xr.open_zarr(trained)
    said: list[str] = []
    va.encode(trained, config=SLOW, say=said.append)
    assert re.match(r"going on with an interrupted encode: ([5-9]|1\d) blocks are done", said[0])
    assert_same(trained, encoded)


def test_the_scheduler_lost_in_mid_association_is_told_in_one_line(scheduler: tuple[Any, str], encoded: Path) -> None:
    process, where = scheduler
    ds = xr.open_zarr(encoded).load()
    with workers.connected(where) as client, client.as_current():
        scatter = client.scatter

        def and_lose(*args: Any, **kwargs: Any) -> Any:
            made = scatter(*args, **kwargs)
            process.kill()
            process.wait()
            return made

        client.scatter = and_lose
        with pytest.raises(WorkersError, match=r"the Dask scheduler was lost at a part of the computation \("):
            va.associate(ds.latents, ds[["BC"]], "pearson", ds.roi)


def test_an_error_of_the_work_is_that_of_one_process(client: Any, trained: Path) -> None:
    for name in ("2/1", "1/2"):
        shard = trained / "patterns" / "c" / name / "0" / "0"
        shard.write_bytes(shard.read_bytes()[:-7])
    messages = []
    for dask in (None, client):
        with pytest.raises(DataError, match=r"is damaged: patterns/c/1/2/0/0 cannot be decoded") as raised:
            va.encode(trained, dask=dask)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def scan_file(folder: Path, dtype: str = "u1", order: bool = True) -> Path:
    """70 x 75 points, nine shards, some missing, one constant; each value tells its place."""
    coords = np.stack(np.divmod(np.arange(70 * 75), 75), axis=1)[:, ::-1][:-9]
    values = (coords[:, 0] + 3 * coords[:, 1]).reshape(-1, 1, 1) % 80 + np.arange(5 * 7).reshape(1, 5, 7)
    values[17] = 4
    if not order:
        shuffled = np.random.default_rng(0).permutation(len(coords))
        coords, values = coords[shuffled], values[shuffled]
    with h5py.File(folder / "scan.h5", "w") as file:
        chunks = None if order else (64, 5, 7)
        file.create_dataset("images", data=values.astype(dtype), chunks=chunks)
        file["coords"] = coords
    return folder / "scan.h5"


def assert_same_store(one: Path, two: Path) -> None:
    """Every file of the patterns byte for byte, all else by value."""
    files = [sorted(p.relative_to(s) for p in (s / "patterns").rglob("*") if p.is_file()) for s in (one, two)]
    assert files[0] == files[1]
    for file in files[0]:
        if file.name != "zarr.json":
            assert (one / file).read_bytes() == (two / file).read_bytes(), file
    a, b = (xr.open_zarr(store).load() for store in (one, two))
    xr.testing.assert_equal(a, b)
    assert a.patterns.attrs == b.patterns.attrs
    assert verify_store(two).is_healthy


@pytest.mark.parametrize(
    ("dtype", "order", "settings"),
    [
        ("u1", True, {}),
        ("u2", False, {}),
        ("f4", True, {"bin": 2, "crop": {"dy": (0, 4), "dx": (0, 6)}, "nonfinite": "mask"}),
    ],
    ids=["plain", "any order", "binned"],
)
def test_ingest_is_that_of_one_process(
    client: Any, tmp_path: Path, dtype: str, order: bool, settings: dict[str, Any]
) -> None:
    file = scan_file(tmp_path, dtype, order)
    if dtype == "f4":
        with h5py.File(file, "a") as opened:
            opened["images"][40:43, 2, 2] = np.nan
    said: dict[Any, list[str]] = {None: [], client: []}
    done: list[tuple[int, int]] = []
    for i, dask in enumerate(said):
        va.ingest(
            *(file, tmp_path / f"{i}.zarr"),
            config=IngestConfig(**settings),
            dask=dask,
            say=said[dask].append,
            progress=lambda *at: done.append(at),
        )
    assert_same_store(tmp_path / "0.zarr", tmp_path / "1.zarr")
    assert [line for line in said[client] if "Dask" not in line] == said[None]
    assert "1 patterns are constant (every detector pixel has the same value)." in said[None]
    assert done[:9] == done[9:] == [(i + 1, 9) for i in range(9)]


def test_a_worker_killed_in_mid_ingest_changes_no_byte(client: Any, tmp_path: Path) -> None:
    file = scan_file(tmp_path)
    killed: list[int] = []

    def kill_one(done: int, total: int) -> None:
        if not killed:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    va.ingest(file, tmp_path / "a.zarr")
    va.ingest(file, tmp_path / "b.zarr", dask=client, progress=kill_one)
    assert not psutil.pid_exists(killed[0])
    assert_same_store(tmp_path / "a.zarr", tmp_path / "b.zarr")


def test_ingest_refuses_what_one_process_refuses(client: Any, tmp_path: Path) -> None:
    file = scan_file(tmp_path, "f4")
    with h5py.File(file, "a") as opened:
        opened["images"][[80, 3000], 2, 2] = np.nan
    messages = []
    for dask in (None, client):
        with pytest.raises(DataError, match=r"NaN or infinite values \(1 such pattern in this block") as raised:
            va.ingest(file, tmp_path / "out.zarr", dask=dask)
        messages.append(str(raised.value))
        assert not list(tmp_path.glob("*out.zarr*/**/*"))
    assert messages[0] == messages[1]
    with pytest.raises(UsageError, match=r"folder that they share, and s3://bucket/a\.zarr is a URL"):
        va.ingest(file, "s3://bucket/a.zarr", dask=client)
    hidden = {"source_bytes": "the source", "can_write": "the folder"}
    for name, what in hidden.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ingestion, name, absent)
            with pytest.raises(WorkersError, match=rf"worker tcp://\S+ cannot see {what} .* \(there is none\); put it"):
                va.ingest(file, tmp_path / "out.zarr", dask=client)
        assert not list(tmp_path.glob("*out.zarr*/**/*"))


def absent(*args: Any) -> None:
    """What a worker says that lacks a folder."""
    raise FileNotFoundError("there is none")


def test_associations_are_those_of_one_process(client: Any, encoded: Path) -> None:
    ds = xr.open_zarr(encoded).load()
    roi = ds.roi & (ds.y < 6)
    more = xr.concat([ds.latents, ds.latents**2, ds.latents[..., ::-1] * ds.BC], "latent")
    latents = more.assign_coords(latent=np.arange(9)).where(roi)
    latents[..., 4] = latents[..., 4].where(ds.x > 3)  # another pattern of missing points
    target = ds[["BC", "elements"]]
    tested = SignificanceConfig(n_surrogates=19)
    small = roi & (ds.y < 3)

    def results() -> list[xr.Dataset]:
        return [
            va.associate(latents, target, "all", roi).to_dataset(),
            va.significance(latents, target, ("pearson", "partial_pearson_2", "mutual_information"), small, tested),
        ]

    want = results()
    with workers.computing_on(client):
        got = results()
    for one, other in zip(want, got, strict=True):
        for name in one.data_vars:
            assert one[name].values.tobytes() == other[name].values.tobytes(), name
    assert np.isfinite(want[1].p_value).any()


def test_associate_store_and_shared_values_that_are_lost(
    client: Any, encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [Path(shutil.copytree(encoded, tmp_path / name)) for name in ("a.zarr", "b.zarr")]
    config = AssociateConfig(metrics=("pearson", "spearman"), targets=("BC",))
    want = va.associate_store(stores[0], config)
    pids = client.run(os.getpid)
    scatter = client.scatter

    def and_die(*args: Any, **kwargs: Any) -> Any:
        made = scatter(*args, **kwargs)
        if pids:
            client.scatter = scatter
            for pid in pids.values():  # all that hold the values
                os.kill(pid, signal.SIGKILL)
            pids.clear()
        return made

    client.scatter = and_die
    monkeypatch.setattr(workers, "LOST", 10)
    got = va.associate_store(stores[1], config, dask=client)
    xr.testing.assert_equal(got, want)


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ("somewhere", UsageError, r"'somewhere' is no place of Dask workers; give .*tcp://host:8786.*local:4"),
        ("local:0", UsageError, "at least 1"),
        ("http://127.0.0.1:1", UsageError, "is no address of a Dask scheduler: unknown address scheme"),
        ("nowhere.json", NoInputError, r"nowhere\.json cannot be read"),
        ("{folder}/other.json", UsageError, r"other\.json is no scheduler file"),
    ],
)
def test_places_that_cannot_be_meant(
    trained: Path, tmp_path: Path, where: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(error, match=message):
        va.encode(trained, dask=where.format(folder=tmp_path))


def test_no_scheduler_or_something_else_there(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(workers, "PATIENCE", 2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        where = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(
            WorkersError, match=f"no Dask scheduler answers at {where} .*start one with 'dask scheduler'"
        ):
            va.encode(trained, dask=where)  # nobody listens
        taken.listen()
        with pytest.raises(WorkersError, match="no Dask scheduler answers"):
            va.encode(trained, dask=where)  # somebody does, and says nothing
        assert time.monotonic() - began < 10


def test_a_scheduler_without_workers(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 2)
    with (
        distributed.LocalCluster(n_workers=0, silence_logs=50, **KEYS) as empty,
        pytest.raises(WorkersError, match=f"{empty.scheduler_address} has no workers; start some with 'dask worker"),
    ):
        va.encode(trained, dask=empty.scheduler_address)


def test_workers_that_do_not_fit(client: Any, trained: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "versions", lambda: {"vaearr": "0.0.1"})
        with pytest.raises(
            WorkersError, match=r"worker tcp://\S+ has vaearr \S+, this process 0\.0\.1; install the same"
        ):
            va.encode(trained, dask=client)
    with pytest.raises(
        WorkersError, match=r"worker tcp://\S+ cannot see the store /a .*\(there is no store at /a; .*same"
    ):
        workers.check_each(client, "the store /a", "id", workers.store_id, "/a")
    other = create_store(random_patterns_dataset(), tmp_path / "other.zarr")
    with pytest.raises(WorkersError, match=r"it finds '\w+', this process 'id'"):
        workers.check_each(client, "the store", "id", workers.store_id, str(other))


def test_a_cluster_of_ones_own_is_on_loopback_and_ends(trained: Path) -> None:
    before = {thread.name for thread in threading.enumerate()}
    with workers.connected("local:2") as client:
        us = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = {c.laddr.ip for p in us for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}
        assert set(client.nthreads().values()) == {1}
        assert len(client.nthreads()) == 2
        pids = list(client.run(os.getpid).values())
    with pytest.raises(ZeroDivisionError), workers.connected("local:1") as client:  # noqa: PT012
        pids += client.run(os.getpid).values()
        raise ZeroDivisionError
    assert not any(map(psutil.pid_exists, pids))
    idle = ("Dask-Offload", "Dask-Callback", "asyncio")  # of distributed, for the next cluster
    assert [name for t in threading.enumerate() if (name := t.name) not in before and not name.startswith(idle)] == []
