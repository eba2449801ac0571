"""The command layers: what it prints and writes, and errors in one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from vaearr.cli import app
from vaearr.errors import DataError, UsageError
from vaearr.store import open_store, open_table


def _ok(*args: object) -> str:
    done = CliRunner().invoke(app, ["look", "layers", *map(str, args), "--device", "cpu"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def _record(text: str) -> Any:
    return json.loads(text)


def test_two_samples(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = _ok(labelled, "--a", 3, "--b", 17, "--top", 4, "--out", out, "--seed-files")
    lines = text.splitlines()
    assert "layers that differ most" in lines[0]
    assert [line.split()[0] for line in lines[-2:]] == ["latent", "output"]
    assert len(lines) == 2 + 4 + 2
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("layers.csv", "layers.json", "layer_differences.json"),
        *("top_layers.png", "layer_curves.png", "difference_maps.png"),
    }
    rows = list(csv.DictReader((out / "layers.csv").read_text().splitlines()))
    seed = _record((out / "layer_differences.json").read_text())
    assert list(seed) == [row["layer"] for row in rows]
    assert [value["order"] for value in seed.values()] == list(range(len(rows)))
    for row in rows:
        assert float(row["l2"]) == seed[row["layer"]]["l2_difference"]
        assert float(row["cosine"]) == seed[row["layer"]]["cosine_similarity"]
    assert lines[2].split()[0] == _record((out / "layers.json").read_text())["top_layers"][0]


def test_the_same_sample(labelled: Path) -> None:
    found = _record(_ok(labelled, "--a", 3, "--b", 3, "--json"))
    assert {layer["l2"] for layer in found["layers"]} == {0.0}
    assert found["run"] == "vae"


def test_classes_are_kept(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = (labelled, "--labels", "benign", "malignant", "--level", "block", "--keep", "--out", out, "--seed-files")
    text = _ok(*given)
    assert "9 pairs, mean ± std" in text
    assert "layers below 0.05 after Holm" in text
    assert text == _ok(*given)
    table = open_table(labelled, "vae", "layers")
    assert table.sizes["pair"] == 9
    assert table.attrs["samples"]["labels"] == ["benign", "malignant"]
    seed = _record((out / "aggregated_results.json").read_text())
    assert seed["n_pairs"] == 9
    at = seed["layers"]["latent"]
    assert at["mean_l2_difference"] == pytest.approx(float(table["l2_mean"].sel(layer="latent")))
    singles = list((out / "pairs").glob("*/layer_differences.json"))
    assert len(singles) == 9
    assert len(list(csv.reader((out / "pairs.csv").read_text().splitlines()))) == 1 + 9 * table.sizes["layer"]


def test_masks_and_folders(labelled: Path, tmp_path: Path) -> None:
    ds = open_store(labelled, chunks=None)
    found = _record(_ok(labelled, "--masked", "mask", "--fill", "mean", "--pairs", 4, "--part", "encoder", "--json"))
    assert found["pairs"] == ["0", "1", "2", "3"]
    for k, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        for i in range(3):
            np.save(tmp_path / folder / f"{i}.npy", ds["patterns"].values[2 * i + k])
    (tmp_path / "two" / "2.npy").write_bytes(b"no array")
    given = ("--positive", tmp_path / "one", "--negative", tmp_path / "two")
    with pytest.raises(DataError, match=r"1 of 3 pairs cannot be compared: 2\.npy"):
        _ok(labelled, *given)
    found = _record(_ok(labelled, *given, "--skip-bad", "--json"))
    assert found["pairs"] == ["0.npy", "1.npy"]
    assert len(found["failed"]) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "0 ways to choose samples"),
        (("--a", "1"), "--b is missing"),
        (("--negative", "x"), "--positive is missing"),
        (("--a", "1", "--b", "2", "--masked", "mask"), "2 ways to choose samples"),
        (("--a", "1", "--b", "2", "--seed-files"), "--out"),
        (("--a", "1", "--b", "2", "--keep", "--name", "history"), "meaning of its own"),
        (("--a", "1", "--b", "2", "--part", "encode"), "no part 'encode'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refused(labelled: Path, given: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        _ok(labelled, *given)
