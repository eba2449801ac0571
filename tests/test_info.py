"""What is in a store, in words: bytes, the ROI, and runs that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vaearr import grid
from vaearr.cli import app
from vaearr.errors import NoInputError, UsageError
from vaearr.info import in_words, roi_words, store_facts
from vaearr.run.train import train
from vaearr.store import create_store, open_store

from .conftest import TINY_TRAINING
from .data import random_patterns_dataset


def test_bytes_are_counted_behind_a_tilde(scan_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(scan_store.parent))
    facts = store_facts("~/scan.zarr")
    assert facts["stored_bytes"] == sum(file.stat().st_size for file in scan_store.rglob("*") if file.is_file())
    assert facts["store"] == str(scan_store)


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("runs/vae/health/kl/c/0", "garbage", "kl"),
    ],
    ids=["no health"],
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


@pytest.mark.parametrize(
    ("signal", "word"), [({"y": 8, "x": 9}, "images"), ({"z": 4, "y": 8, "x": 9}, "volumes")], ids=["images", "volumes"]
)
def test_collections_are_called_what_they_are(signal: dict[str, int], word: str, tmp_path: Path) -> None:
    store = create_store(random_patterns_dataset({"sample": 5}, signal, missing=1), tmp_path / "a.zarr")
    lines = in_words(store_facts(store)).splitlines()
    sides = " x ".join(map(str, signal.values()))
    assert lines[0].endswith(f"collection of 5 {word}, {sides} uint8")
    assert f"  4 of 5 {word} can be used" in lines
    assert roi_words(None, word) == f"all {word}"
    assert not [line for line in lines[:5] if "scan point" in line]


def _info(*args: object) -> Any:
    return CliRunner().invoke(app, ["info", *map(str, args)])


def test_the_command_tells_of_a_network(trained_store: Path, tmp_path: Path) -> None:
    picture = tmp_path / "network.png"
    done = _info(trained_store, "--model", "--out", picture)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("ConvVAE: ")
    assert picture.read_bytes()[1:4] == b"PNG"
    record = json.loads(_info(trained_store, "--model", "--json").stdout)
    assert record["latent_shape"] == [3]
    assert record["layers"][0]["layer"] == "input"


def test_the_command_draws_samples(scan_store: Path, tmp_path: Path) -> None:
    picture = tmp_path / "samples.png"
    done = _info(scan_store, "--sheet", picture)
    assert done.exit_code == 0, done.output
    assert "scan of" in done.stdout
    assert picture.read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("args", "error", "why"),
    [
        (["--out", "a.png"], UsageError, "add --model"),
        (["--model", "--sheet", "a.png"], UsageError, "leave out --model"),
        (["--model"], NoInputError, "run 'vae'"),
        (["--sheet", "a.gif"], UsageError, "ends in '.gif'"),
    ],
    ids=["out alone", "both", "no run", "no picture"],
)
def test_the_command_refuses(args: list[str], error: type[Exception], why: str, scan_store: Path) -> None:
    done = _info(scan_store, *args)
    assert isinstance(done.exception, error)
    assert why in str(done.exception)
