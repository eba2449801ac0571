"""Damaged files of every format: one clear line or the same values; no crash, no hang, no flood of memory.

A few of each by default; VAEARR_FUZZ=400 reads that many of each.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.conftest import Stage
from tests.reliability.jobs import STORE
from tests.reliability.mutations import FORMATS, SECONDS
from tests.reliability.test_kills import hashes
from tests.reliability.workshop import Workshop

COUNT = int(os.environ.get("VAEARR_FUZZ", "6"))
MODULE = "tests.reliability.mutations"
MEMORY = 2 * 2**30  # that a child may take
OUTCOMES = ("error", "same", "silent", "raw", "memory", "crash", "hang")


def _outcomes(workshop: Workshop, job: str, folder: Path, count: int, **arguments: Any) -> list[tuple[str, str]]:
    """What came of each file; a child that died is replaced by one that goes on behind what killed it."""
    results, told = folder / "results", []
    results.touch()
    while len(told) < count:
        end = workshop.run(
            job,
            folder,
            module=MODULE,
            fault={"kind": "off"},
            limits={"RLIMIT_AS": MEMORY},
            timeout=60 + 2 * (count - len(told)) + SECONDS,
            arguments={"first": len(told), "count": count - len(told), "seed": 7, **arguments},
        )
        told = [tuple(json.loads(line)[1:]) for line in results.read_text().splitlines()]
        if len(told) < count:
            assert end["code"] != 0, end
            kind = "hang" if end["code"] == -14 or end["hung"] else "crash"
            with results.open("a") as file:
                file.write(json.dumps([len(told), kind, f"exit {end['code']}"]) + "\n")
            told.append((kind, f"exit {end['code']}"))
    return told


def _judge(name: str, told: list[tuple[str, str]], is_sealed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    counts = Counter(kind for kind, _ in told)
    with capsys.disabled():
        print(f"\n{name}: {len(told)} inputs: " + ", ".join(f"{kind} {counts[kind]}" for kind in OUTCOMES))
    forbidden = {"raw", "memory", "crash", "hang"} | ({"silent"} if is_sealed else set())
    assert not [(i, *item) for i, item in enumerate(told) if item[0] in forbidden]
    assert counts["error"], "no damage was told"


@pytest.mark.parametrize("name", [*FORMATS])
def test_damaged_files(
    name: str, workshop: Workshop, stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = FORMATS[name]
    if kind.make is None:
        shutil.copytree(stage(("files", "ingest", "train")) / STORE / "runs/vae/model", tmp_path / "in")
    _judge(name, _outcomes(workshop, "fuzz", tmp_path, COUNT, format=name), kind.is_sealed, capsys)


@pytest.mark.parametrize("which", ["chunks", "metadata"])
def test_damaged_stores(
    which: str, workshop: Workshop, stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / STORE
    shutil.copytree(stage(("files", "ingest", "train", "encode")) / STORE, store)
    before = hashes(store)
    told = _outcomes(workshop, "fuzz_store", tmp_path, COUNT, which=which)
    assert hashes(store) == before
    _judge(f"{which} of a store", told, True, capsys)
