"""Killed at any moment: nothing that was written before is touched, nothing unfinished is taken for a result, and the
same command finishes the work, with the result of an undisturbed run.

A few kills for each command by default; VAEARR_KILLS=200 does that many for each, the report among them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.reliability.conftest import Stage
from tests.reliability.jobs import BEFORE, OVERWRITES, STORE, contents
from tests.reliability.workshop import Workshop
from vaearr.store import check_store, open_store, run_names
from vaearr.store.verify import verify_store

ON_REQUEST = int(os.environ.get("VAEARR_KILLS", "0"))
FEW = {"ingest": 2, "train": 1, "encode": 2, "associate_again": 1, "cluster": 1, "attach": 1}
MANY = dict.fromkeys((*FEW, "associate", "train_other"), ON_REQUEST) | {"report": ON_REQUEST // 10}
REPLACED = {"associate_again": "runs/vae/association"}
COMMIT = ("publishing.json", f"/{STORE}/.zarr.json", f"fsync {STORE}", "rename")


def hashes(folder: Path) -> dict[str, str]:
    """Checksum of every file below a folder, by its path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _faults(job: str, changes: list[str], seconds: float, n: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kinds of kills with their orders: at changes in turn (half of them where things are published), at moments."""
    rng = np.random.default_rng(sum(map(ord, job)) + n)
    commit = [i for i, what in enumerate(changes, 1) if any(part in what for part in COMMIT)]
    for i in range(n):
        if i % 4 == 3 or not commit:
            yield "at a moment", {"kill_after": float(rng.uniform(0, seconds))}
            continue
        at = int(rng.choice(commit)) if i % 2 else int(rng.integers(1, len(changes) + 1))
        kind = "torn" if i % 3 == 2 else "kill"
        yield f"{kind} {changes[at - 1].split(' ')[0]}", {"fault": {"kind": kind, "at": at}}


def assert_intact(folder: Path, before: Path, finished: dict[str, Any], job: str) -> None:
    """After a kill: all as before, or as after the whole command; nothing half."""
    for path, seal in hashes(before).items():
        is_replaced = job in REPLACED and path.startswith(f"{STORE}/{REPLACED[job]}/")
        if (
            path not in (f"{STORE}/zarr.json", f"{STORE}/runs/zarr.json")
            and not is_replaced
            and not path.startswith(".")
        ):
            assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == seal, f"{path} was changed"
    store = folder / STORE
    if not store.exists():
        assert job == "ingest"
        return
    open_store(store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xr.open_zarr(store)
    known = contents(before / STORE) if (before / STORE).exists() else {}
    shown = contents(store)
    for name, value in shown.items():
        assert value == finished.get(name) or value == known.get(name), f"{name} is neither the old nor the new one"
    lost = {name for name in known if name not in shown and not name.startswith(REPLACED.get(job, "nothing"))}
    assert not lost
    if job.startswith("train"):
        assert set(run_names(store)) <= {name.split("/")[1] for name in finished if name.startswith("runs/")}
    found = verify_store(store)
    assert found.is_healthy, [str(item) for item in found.findings]


@pytest.mark.parametrize("job", MANY)
def test_killed(job: str, workshop: Workshop, stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    n = (MANY if ON_REQUEST else FEW).get(job, 0)
    if not n:
        pytest.skip(f"{job} is killed on request; set VAEARR_KILLS to a number of kills, 10 or more")
    before = stage(BEFORE[job])
    whole = tmp_path / "whole"
    shutil.copytree(before, whole)
    undisturbed = workshop.do(job, whole)
    finished = contents(whole / STORE)
    done: Counter[str] = Counter()
    done_before_kill = 0
    folder = tmp_path / "killed"
    for kind, order in _faults(job, undisturbed["changes"], undisturbed["seconds"], n):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before, folder)
        result = workshop.run(job, folder, **order)
        assert result["killed"] or result.get("error", "") is None, result
        done[kind] += 1
        done_before_kill += not result["killed"]
        assert_intact(folder, before, finished, job)
        workshop.do(job, folder)
        assert contents(folder / STORE) == finished, f"{kind} {order}: the result is another one"
        again = verify_store(folder / STORE)
        assert again.is_healthy
        assert not [left for left in again.leftovers if not left.is_rubbish], "work lies about that is done"
        if job == "report":
            assert (folder / "scan.reports" / "vae" / "index.html").stat().st_size > 10**5
    with capsys.disabled():
        where = ", ".join(f"{kind} {count}" for kind, count in sorted(done.items()))
        print(
            f"\n{job}: {done.total()} kills ({where}; {done_before_kill} of them too late), stores damaged 0, "
            f"completed {done.total()}; {len(undisturbed['changes'])} changes of the disk in an undisturbed run"
        )


def _state(store: Path, before: dict[str, Any], after: dict[str, Any]) -> str:
    """What the next command finds, and everybody after it."""
    check_store(store)
    found = verify_store(store, progress=False)
    assert found.is_healthy, [str(item) for item in found.findings]
    shown = contents(store)
    return "before" if shown == before else "after" if shown == after else "in between"


@pytest.mark.long
@pytest.mark.parametrize("fault", ["kill", "errno"])
@pytest.mark.parametrize("step", OVERWRITES)
def test_overwrite_leaves_before_or_after(
    step: str, fault: str, workshop: Workshop, stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed, or met by a full disk, at changes of the disk: three of four while it publishes."""
    whole = Path(shutil.copytree(stage(BEFORE["overwrite"]), tmp_path / "whole"))
    before = contents(whole / STORE)
    changes = workshop.do("overwrite", whole, arguments={"step": step})["changes"]
    after = contents(whole / STORE)
    assert after != before
    journals = ("publishing.json", "replacing.json")
    of_journal = [i for i, what in enumerate(changes) if any(name in what for name in journals)]
    begin, end = of_journal[0], of_journal[-1] + 2  # what was replaced is removed after that
    rng = np.random.default_rng(sum(map(ord, step)))
    n = (ON_REQUEST or 20) if fault == "kill" else 5
    publishing = rng.integers(begin, end, n - n // 4)
    states: Counter[str] = Counter()
    for at in (*publishing.tolist(), *rng.integers(3, len(changes) + 1, n // 4).tolist()):
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(stage(BEFORE["overwrite"]), folder)
        order = {"kind": fault, "at": at, "errno": errno.ENOSPC, "lasting": True}
        result = workshop.run("overwrite", folder, fault=order, arguments={"step": step})
        if fault == "errno" and result["error"] is not None:
            assert result["error"]["is_ours"], result
            assert os.strerror(errno.ENOSPC) in result["error"]["message"], result
        states[_state(folder / STORE, before, after)] += 1
        workshop.do("overwrite", folder, arguments={"step": step})
        assert contents(folder / STORE) == after
    with capsys.disabled():
        print(f"\n{step}, {fault}: {states.total()}; {dict(states)}; {end - begin} changes of a publication")
    assert not states["in between"]


def test_chunks_that_a_power_failure_emptied(workshop: Workshop, stage: Stage, tmp_path: Path) -> None:
    """Names of staged chunks may survive without their bytes: they do not count as written."""
    before = stage(BEFORE["encode"])
    whole = Path(shutil.copytree(before, tmp_path / "whole"))
    changes = workshop.do("encode", whole)["changes"]
    staged = next(i for i, what in enumerate(changes, 1) if what.endswith("checksums.sha256"))
    folder = Path(shutil.copytree(before, tmp_path / "work"))
    assert workshop.run("encode", folder, fault={"kind": "kill", "at": staged})["killed"]
    chunks = [p for p in folder.glob(".*.staging/variables-*/latents/c/**/*") if p.is_file()]
    assert len(chunks) == 4
    chunks[0].write_bytes(b"")
    chunks[1].write_bytes(chunks[1].read_bytes()[:-3])
    (chunks[2].with_name(f"0.{'0' * 32}.partial")).write_bytes(b"half")
    workshop.do("encode", folder)
    assert contents(folder / STORE) == contents(whole / STORE)
    found = verify_store(folder / STORE)
    assert (found.findings, found.leftovers) == ([], [])


@pytest.mark.parametrize("job", ["ingest", "encode", "attach"])
def test_all_bytes_are_synced_before_they_are_shown(job: str, workshop: Workshop, stage: Stage, tmp_path: Path) -> None:
    """What is told as done survives a power failure: files and folders are synced, renamed in, then their parent is."""
    folder = Path(shutil.copytree(stage(BEFORE[job]), tmp_path / "work"))
    had = hashes(folder)
    changes = workshop.do(job, folder)["changes"]
    synced: set[str] = set()
    shown: list[str] = []
    for what in changes:
        kind, path = what.split(" ", 1)
        if kind == "fsync":
            synced.add(path)
        elif kind == "rename" and ".staging/" in path and not path.endswith((".partial", "publishing.json")):
            shown.append(path)
            if not Path(path).name.startswith("."):
                assert path in synced, f"{path} is shown before it is synced"
    new = [Path(path) for path in hashes(folder) if path not in had and path.startswith(STORE)]
    names = {Path(path).name for path in synced}
    assert shown
    assert new
    for path in new:
        assert path.name in names, f"{path} was never synced"
    assert f"fsync {folder / STORE if job != 'ingest' else folder}" in changes[changes.index(f"rename {shown[-1]}") :]
