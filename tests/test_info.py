"""What is in a store, in words: bytes, the ROI, and runs that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vaearr import grid
from vaearr.info import in_words, roi_words, store_facts
from vaearr.runs import train
from vaearr.store import open_store

from .conftest import TINY_TRAINING


def test_bytes_are_counted_behind_a_tilde(scan_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(scan_store.parent))
    facts = store_facts("~/scan.zarr")
    assert facts["stored_bytes"] == sum(file.stat().st_size for file in scan_store.rglob("*") if file.is_file())
    assert facts["store"] == str(scan_store)


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("runs/vae/zarr.json", "garbage", "zarr.json"),
        ("runs/vae/zarr.json", '{"zarr_format": 3, "node_type": "group", "attributes": {}}', "it lacks 'config'"),
        ("runs/vae/health/zarr.json", "garbage", ""),
    ],
    ids=["no JSON", "no manifest", "no health"],
)
def test_a_damaged_run_does_not_hide_the_rest(trained_store: Path, file: str, text: str, why: str) -> None:
    train(trained_store, run="b", config=TINY_TRAINING)
    (trained_store / file).write_text(text)
    facts = store_facts(trained_store)
    assert why in facts["trained"]["vae"]["damaged"]
    assert facts["trained"]["b"]["n_active"] >= 0
    assert json.loads(json.dumps(facts))
    lines = in_words(facts).splitlines()
    assert [line for line in lines if line.startswith("  vae: damaged: ")]
    assert [line for line in lines if line.startswith("  b: conv, 3 latent dimensions")]


@pytest.mark.parametrize(
    ("roi", "words"),
    [
        (None, "every measured point"),
        ({"x": None, "y": None, "z": None, "where": None}, "every measured point"),
        ({"x": [1.0, 12.5], "where": "BC > 45"}, "x from 1 to below 12.5, BC > 45"),
        ("given as a map", "given as a map"),
    ],
    ids=["none", "empty", "conditions", "map"],
)
def test_the_roi_in_words(roi: Any, words: str) -> None:
    assert roi_words(roi) == words


def test_info_tells_how_the_roi_was_given(trained_store: Path) -> None:
    given = grid.roi(open_store(trained_store), x=(1.0, 9.0)).drop_attrs()
    train(trained_store, run="b", roi=given, config=TINY_TRAINING)
    text = in_words(store_facts(trained_store))
    assert "(x from 1 to below 12)" in text
    assert "(given as a map)" in text
