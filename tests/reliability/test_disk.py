"""The disk is full, read-only or broken: one line that says so, nothing half-written, and the work goes on after."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.conftest import Stage
from tests.reliability.jobs import BEFORE, STORE, contents
from tests.reliability.test_kills import assert_intact
from tests.reliability.workshop import Workshop
from vaearr.errors import WriteError

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EROFS)
EVERY = bool(os.environ.get("VAEARR_KILLS"))
PARTS = (0.02, 0.3, 0.6, 0.8, 0.97) if EVERY else (0.1, 0.85)
JOBS = ("ingest", "train", "encode", "associate_again", "cluster", "attach") if EVERY else ("ingest", "encode")


def assert_told(result: dict[str, Any], number: int, folder: Path) -> None:
    """One line of ours, with the reason, the path and the free space."""
    error = result["error"]
    assert error is not None, "the fault was passed over"
    assert error["is_ours"], error
    assert error["exit_code"] == WriteError.exit_code, error
    assert os.strerror(number) in error["message"], error
    assert str(folder) in error["message"], error
    assert "\n" not in error["message"], error


@pytest.mark.parametrize("job", JOBS)
def test_errors_of_the_disk(job: str, workshop: Workshop, stage: Stage, tmp_path: Path) -> None:
    before, folder = stage(BEFORE[job]), tmp_path / "work"
    whole = Path(shutil.copytree(before, tmp_path / "whole"))
    changes = workshop.do(job, whole)["changes"]
    finished = contents(whole / STORE)
    for i, part in enumerate(PARTS):
        for number in ERRORS if EVERY else ERRORS[3 * i : 3 * i + 1]:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(before, folder)
            # counted without what goes before the work: folders that are there, the lock
            at = max(3, int(part * len(changes)))
            fault = {"kind": "errno", "at": at, "errno": number, "lasting": number != errno.EIO}
            result = workshop.run(job, folder, fault=fault)
            if result["error"] is not None:  # what is only tidied up may fail in silence
                assert_told(result, number, folder)
            assert_intact(folder, before, finished, job)
            workshop.do(job, folder)
            assert contents(folder / STORE) == finished


def test_files_that_may_not_grow(workshop: Workshop, stage: Stage, tmp_path: Path) -> None:
    """The system's own limit of the size of a file: EFBIG in the midst of a chunk."""
    folder = Path(shutil.copytree(stage(BEFORE["ingest"]), tmp_path / "work"))
    result = workshop.run("ingest", folder, limits={"RLIMIT_FSIZE": 20_000})
    assert_told(result, errno.EFBIG, folder)
    assert {path.name for path in folder.glob("*.zarr")} == set()
    assert {path.name for path in folder.glob(".*")} <= {f".{STORE}.lock"}
    workshop.do("ingest", folder)
