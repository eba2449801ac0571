"""The disk is full, read-only or broken: one line that says so, nothing half-written, and the work goes on after."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
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


Mounted = Callable[[str], Path]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    """A small file system of its own; needs to be root."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "vaearr", str(place)], capture_output=True, check=False
        )
        if done.returncode != 0:
            pytest.skip("a file system cannot be mounted here (needs root); injected errors stand for it")
        return place

    yield mount
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


@pytest.mark.parametrize("free", [8, 48, 96] if EVERY else [8, 96])
def test_a_disk_that_is_full(free: int, workshop: Workshop, stage: Stage, tmp_path: Path, mounted: Mounted) -> None:
    """free: kB left for the latents and all beside them, which need more."""
    before = stage(BEFORE["encode"])
    whole = Path(shutil.copytree(before, tmp_path / "whole"))
    workshop.do("encode", whole)
    finished = contents(whole / STORE)
    disk = mounted("size=4m")
    folder = Path(shutil.copytree(before, disk / "work"))
    left = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(max(0, left.f_bavail * left.f_frsize - free * 1024)))
    result = workshop.run("encode", folder)
    assert_told(result, errno.ENOSPC, folder)
    assert re.search(r"GiB free; it takes up to [\d.e-]+ GiB in all", result["error"]["message"])
    assert_intact(folder, before, finished, "encode")
    (disk / "filler").unlink()
    workshop.do("encode", folder)
    assert contents(folder / STORE) == finished


def test_a_store_that_is_read_only(stage: Stage, workshop: Workshop, mounted: Mounted) -> None:
    disk = mounted("size=8m")
    before = stage(BEFORE["encode"])
    folder = Path(shutil.copytree(before, disk / "work"))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    command = [sys.executable, "-m", "vaearr", "encode", str(folder / STORE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == WriteError.exit_code
    assert f"vaearr: cannot write {folder / STORE}: Read-only file system" in done.stderr.splitlines()[-1]
    read = subprocess.run([*command[:3], "verify", str(folder / STORE)], capture_output=True, text=True, check=False)
    assert read.returncode == 0  # readers write nothing
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    workshop.do("encode", folder)
