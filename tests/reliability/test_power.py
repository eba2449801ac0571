"""The power fails right after a command said that it is done: all it told of is on the disk.

A file system in a file, mounted by loop (needs root): its image is copied while nothing of the system's own memory has
been written back, and the copy is mounted as after a restart.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.reliability.conftest import Stage
from tests.reliability.jobs import BEFORE, STORE, contents
from tests.reliability.workshop import Workshop
from vaearr.store.verify import verify_store

MIB = 96
ON_REQUEST = pytest.mark.skipif("VAEARR_KILLS" not in os.environ, reason="longer; set VAEARR_KILLS")
Mount = Callable[[Path, str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    places: list[Path] = []

    def mounted(image: Path, name: str) -> Path:
        place = tmp_path / name
        place.mkdir()
        done = subprocess.run(["mount", "-o", "loop", str(image), str(place)], capture_output=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"an image cannot be mounted here (needs root and loop devices): {done.stderr.decode()[:80]}")
        places.append(place)
        return place

    yield mounted
    for place in places:
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


@pytest.mark.parametrize("job", ["ingest", "encode", pytest.param("train", marks=ON_REQUEST)])
def test_what_was_told_survives(job: str, workshop: Workshop, stage: Stage, tmp_path: Path, mount: Mount) -> None:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not here")
    image, later = tmp_path / "disk.img", tmp_path / "copy.img"
    with image.open("wb") as file:
        file.truncate(MIB * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, timeout=60)
    disk = mount(image, "disk")
    folder = Path(shutil.copytree(stage(BEFORE[job]), disk / "work"))
    subprocess.run(["sync", "-f", str(disk)], check=True, timeout=60)
    workshop.do(job, folder)
    (disk / "not-synced").write_bytes(bytes(10**6))
    shutil.copyfile(image, later)  # what a restart would find
    finished = contents(folder / STORE)
    after = mount(later, "after") / "work"
    lost = after.parent / "not-synced"
    assert not lost.exists() or lost.stat().st_size < 10**6, "the image held what was never synced: no power failure"
    assert contents(after / STORE) == finished
    found = verify_store(after / STORE)
    assert found.is_healthy, [str(item) for item in found.findings]
    workshop.do(job, after)
    assert contents(after / STORE) == finished
