"""What is in a store, in words: bytes, the ROI, and runs that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vaearr.run.facts import in_words, roi_words, store_facts
from vaearr.run.train import train
from vaearr.store import create_store

from .conftest import TINY_TRAINING
from .contract.harness import NO_INPUT, USAGE, vaearr
from .data import random_patterns_dataset


def test_a_damaged_run_does_not_hide_the_rest(trained_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(trained_store, run="b", config=TINY_TRAINING)
    (trained_store / "runs/vae/health/kl/c/0").write_text("garbage")
    monkeypatch.setenv("HOME", str(trained_store.parent))
    facts = store_facts(f"~/{trained_store.name}")
    assert facts["stored_bytes"] == sum(file.stat().st_size for file in trained_store.rglob("*") if file.is_file())
    assert "kl" in facts["trained"]["vae"]["damaged"]
    assert facts["trained"]["b"]["n_active"] >= 0
    assert json.loads(json.dumps(facts))
    lines = in_words(facts).splitlines()
    assert [line for line in lines if line.startswith("  vae: damaged: ")]
    assert [line for line in lines if line.startswith("  b: conv, 3 latent dimensions")]


@pytest.mark.parametrize(
    ("signal", "word"), [({"y": 8, "x": 9}, "images"), ({"z": 4, "y": 8, "x": 9}, "volumes")], ids=["images", "volumes"]
)
def test_collections_are_called_what_they_are(signal: dict[str, int], word: str, tmp_path: Path) -> None:
    store = create_store(random_patterns_dataset({"sample": 5}, signal, missing=1), tmp_path / "a.zarr")
    lines = in_words(store_facts(store)).splitlines()
    assert lines[0].endswith(f"collection of 5 {word}, {' x '.join(map(str, signal.values()))} uint8")
    assert f"  4 of 5 {word} can be used" in lines
    assert roi_words(None, word) == f"all {word}"


def test_the_command_draws_the_network_and_samples(trained_store: Path, tmp_path: Path) -> None:
    assert "n_parameters" in vaearr("info", trained_store, "--model", "--out", tmp_path / "a.png").out
    record = json.loads(vaearr("info", trained_store, "--model", "--json").out)
    assert (record["latent_shape"], record["layers"][0]["layer"]) == ([3], "input")
    assert "scan of" in vaearr("info", trained_store, "--out", tmp_path / "b.png").out
    assert all((tmp_path / name).read_bytes()[1:4] == b"PNG" for name in ("a.png", "b.png"))


def test_the_command_refuses(scan_store: Path, tmp_path: Path) -> None:
    assert "run 'vae'" in vaearr("info", scan_store, "--model", code=NO_INPUT).error
    assert "cannot end in '.gif'" in vaearr("info", scan_store, "--out", tmp_path / "a.gif", code=USAGE).error
