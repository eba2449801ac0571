"""Damaged files of every format: one clear line or the same values; no crash, no hang, no flood of
memory.

A few of each by default; VAEARR_FUZZ=400 reads that many of each.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.reliability.conftest import Stage
from tests.reliability.jobs import STORE
from tests.reliability.mutations import FORMATS, SECONDS
from tests.reliability.workshop import Workshop

COUNT = int(os.environ.get("VAEARR_FUZZ", "6"))
MEMORY = 2 * 2**30  # that a child may take


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(
    name: str, workshop: Workshop, stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, place = stage(("files", "ingest", "train", "encode")) / STORE, tmp_path / "in"
    if name.endswith("of a store"):
        shutil.copytree(store, place / STORE)
        shutil.copytree(store, place / "whole.zarr")
    elif FORMATS[name].make is not None:
        place.mkdir()
    else:
        shutil.copytree(store / "runs/vae/model", place)
    end = workshop.run(
        "fuzz",
        tmp_path,
        module="tests.reliability.mutations",
        fault={"kind": "off"},
        memory=MEMORY,
        timeout=60 + 3 * COUNT + SECONDS,
        arguments={"format": name, "count": COUNT, "seed": 7},
    )
    assert end["code"] == 0, f"a crash, or a hang of number {(tmp_path / 'at').read_text()}: {end}"
    assert end["error"] is None, end
    counts = Counter(kind for kind, _ in end["value"])
    with capsys.disabled():
        print(f"\n{name}: {len(end['value'])} inputs: {dict(counts)}")
    forbidden = {"raw", "memory"} | ({"silent"} if FORMATS[name].is_sealed else set())
    assert not [(i, *item) for i, item in enumerate(end["value"]) if item[0] in forbidden]
    assert counts["error"], "no damage was told"
