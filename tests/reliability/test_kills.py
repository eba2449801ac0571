"""Killed at any moment, or met by a full disk: all is as before the command or as after it, and the
same command finishes the work, with the result of an undisturbed run.

A few faults for each command by default; VAEARR_KILLS=200 does that many.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.reliability.conftest import Stage
from tests.reliability.jobs import BEFORE, OVERWRITES, STORE, contents
from tests.reliability.workshop import Workshop
from vaearr.errors import WriteError
from vaearr.store import check_store
from vaearr.store.verify import verify_store

ON_REQUEST = int(os.environ.get("VAEARR_KILLS", "0"))
SHORT = ("ingest", "train", "encode", "attach", "overwrite cluster")
LONG = ("cluster", *(f"overwrite {step}" for step in OVERWRITES if step != "cluster"))
CASES = [*SHORT, *(pytest.param(case, marks=pytest.mark.long) for case in LONG)]
FAULTS = {
    "kill": {"kind": "kill"},
    "torn file": {"kind": "torn"},
    "full disk": {"kind": "errno", "errno": errno.ENOSPC, "lasting": True},
    "read-only": {"kind": "errno", "errno": errno.EROFS, "lasting": True},
    "broken": {"kind": "errno", "errno": errno.EIO},
}
QUICK = ("kill", "full disk")


def hashes(folder: Path) -> dict[str, str]:
    """Checksum of every file below a folder, by its path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _contents(store: Path) -> dict[str, Any]:
    return contents(store) if store.exists() else {}


def _state(store: Path, before: dict[str, Any], after: dict[str, Any]) -> str:
    """What everybody finds, and the next command."""
    if store.exists():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            xr.open_zarr(store)
        check_store(store)
        found = verify_store(store, progress=False)
        assert found.is_healthy, [str(item) for item in found.findings]
    shown = _contents(store)
    return "before" if shown == before else "after" if shown == after else "in between"


@pytest.mark.parametrize(
    "fault",
    [*QUICK, *(pytest.param(name, marks=pytest.mark.long) for name in FAULTS if name not in QUICK)],
)
@pytest.mark.parametrize("case", CASES)
def test_before_or_after(
    case: str,
    fault: str,
    workshop: Workshop,
    stage: Stage,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job, _, step = case.partition(" ")
    arguments = {"step": step} if step else {}
    start, folder = stage(BEFORE[job]), tmp_path / "work"
    whole = Path(shutil.copytree(start, tmp_path / "whole"))
    before = _contents(whole / STORE)
    changes = workshop.do(job, whole, arguments=arguments)["changes"]
    after = contents(whole / STORE)
    assert after != before
    journal = [i for i, what in enumerate(changes, 1) if "publishing.json" in what]
    rng = np.random.default_rng(sum(map(ord, case + fault)))
    n = ON_REQUEST or (8 if case in LONG else 2)
    # half of them while it publishes; changes before the third are those of the lock
    moments = [
        *rng.integers(journal[0], journal[-1] + 2, n // 2),
        *rng.integers(3, len(changes) + 1, n - n // 2),
    ]
    states: Counter[str] = Counter()
    for at in moments:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder)
        result = workshop.run(
            job, folder, fault={**FAULTS[fault], "at": int(at)}, arguments=arguments
        )
        error = result.get("error")
        if error is not None:  # what is only tidied up may fail in silence
            assert (error["is_ours"], error["exit_code"]) == (True, WriteError.exit_code), error
            assert os.strerror(FAULTS[fault]["errno"]) in error["message"], error
            assert str(folder) in error["message"], error
        states[_state(folder / STORE, before, after)] += 1
        workshop.do(job, folder, arguments=arguments)
        assert contents(folder / STORE) == after, f"{fault} at {at}: the result is another one"
        again = verify_store(folder / STORE)
        assert (again.findings, again.notes) == ([], []), "work lies about that is done"
    with capsys.disabled():
        print(f"\n{case}, {fault}: {dict(states)} of {len(changes)} changes of the disk")
    assert not states["in between"]


def test_chunks_that_a_power_failure_emptied(
    workshop: Workshop, stage: Stage, tmp_path: Path
) -> None:
    """Names of staged chunks may survive without their bytes: they do not count as written."""
    before = stage(BEFORE["encode"])
    whole = Path(shutil.copytree(before, tmp_path / "whole"))
    changes = workshop.do("encode", whole)["changes"]
    staged = next(i for i, what in enumerate(changes, 1) if what.endswith("checksums.sha256"))
    folder = Path(shutil.copytree(before, tmp_path / "work"))
    assert workshop.run("encode", folder, fault={"kind": "kill", "at": staged})["killed"]
    chunks = [p for p in folder.glob(".*.staging/variables-*/*/latents/c/**/*") if p.is_file()]
    assert len(chunks) == 4
    chunks[0].write_bytes(b"")
    chunks[1].write_bytes(chunks[1].read_bytes()[:-3])
    (chunks[2].with_name(f"0.{'0' * 32}.partial")).write_bytes(b"half")
    workshop.do("encode", folder)
    assert contents(folder / STORE) == contents(whole / STORE)
    found = verify_store(folder / STORE)
    assert (found.findings, found.notes) == ([], [])


@pytest.mark.parametrize("job", ["ingest", "encode", "attach"])
def test_all_bytes_are_synced_before_they_are_shown(
    job: str, workshop: Workshop, stage: Stage, tmp_path: Path
) -> None:
    """What is told as done survives a power failure: files and folders are synced, renamed in, then
    their parent is.
    """
    folder = Path(shutil.copytree(stage(BEFORE[job]), tmp_path / "work"))
    had = hashes(folder)
    changes = workshop.do(job, folder)["changes"]
    synced: set[str] = set()
    shown: list[str] = []
    for what in changes:
        kind, path = what.split(" ", 1)
        if kind == "fsync":
            synced.add(path)
        elif (
            kind == "rename"
            and ".staging/" in path
            and not path.endswith((".partial", "publishing.json"))
        ):
            shown.append(path)
            assert path in synced, f"{path} is shown before it is synced"
    new = [Path(path) for path in hashes(folder) if path not in had and path.startswith(STORE)]
    assert shown
    assert {path.name for path in new} <= {Path(path).name for path in synced}
    assert (
        f"fsync {folder / STORE if job != 'ingest' else folder}"
        in changes[changes.index(f"rename {shown[-1]}") :]
    )
