"""What is in a store, in words: bytes, the ROI, and runs that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vaearr.run.facts import in_words, store_facts
from vaearr.run.train import train

from .conftest import TINY_TRAINING
from .contract.harness import NO_INPUT, USAGE, vaearr


def test_a_damaged_run_does_not_hide_the_rest(
    trained_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(trained_store, run="b", config=TINY_TRAINING)
    (trained_store / "runs/vae/health/kl/c/0").write_text("garbage")
    monkeypatch.setenv("HOME", str(trained_store.parent))
    facts = store_facts(f"~/{trained_store.name}")
    assert facts["stored_bytes"] == sum(
        file.stat().st_size for file in trained_store.rglob("*") if file.is_file()
    )
    assert "kl" in facts["trained"]["vae"]["damaged"]
    assert facts["trained"]["b"]["n_active"] >= 0
    assert json.loads(json.dumps(facts))
    lines = in_words(facts).splitlines()
    assert [line for line in lines if line.startswith("  vae: damaged: ")]
    assert [line for line in lines if line.startswith("  b: conv, 3 latent dimensions")]


def test_the_command_refuses(scan_store: Path, tmp_path: Path) -> None:
    assert "run 'vae'" in vaearr("info", scan_store, "--model", code=NO_INPUT).error
    assert (
        "cannot end in '.gif'"
        in vaearr("info", scan_store, "--out", tmp_path / "a.gif", code=USAGE).error
    )
