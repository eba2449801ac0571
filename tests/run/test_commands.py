"""The commands reconstruct, sample, interpolate, stats: what they print and write, and errors in one line."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vaearr.cli import app
from vaearr.errors import NoInputError, UsageError, VaearrError
from vaearr.store import open_store, open_table

from ..store.test_store import tree_hash


def _ok(*args: object) -> str:
    done = CliRunner().invoke(app, list(map(str, args)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_reconstruct(trained_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["--variable", "--where", "BC > 20", "--data-range", "200", "--binarise", "100", "--out", out]
    text = _ok("reconstruct", trained_store, *given)
    assert "data range 200" in text
    assert "all: psnr" in text
    assert "warning: SSIM needs" in text
    assert sorted(path.name for path in out.iterdir()) == ["binary.png", "metrics.csv", "reconstruction.png"]
    ds = open_store(trained_store, chunks=None)
    inside = np.isfinite(open_table(trained_store, "vae", "reconstruction")["mse"])
    np.testing.assert_array_equal(inside, ds["present"] & (ds["BC"] > 20))
    assert "reconstruction" in ds
    assert "warning" in _ok("reconstruct", trained_store, "--name", "own", "--set", "examples=0", "--part", "train")


def test_sample(collection: Path, tmp_path: Path) -> None:
    text = _ok("look", "sample", collection, "--n", 3, "--seed", 5, "--out", tmp_path / "out")
    assert text == _ok("look", "sample", collection, "--n", 3, "--seed", 5)
    assert len(text.splitlines()) == 3
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["sample_000.png", "sample_001.png", "sample_002.png", "samples.png", "vectors.png", "z.csv"]
    rows = list(csv.reader((tmp_path / "out" / "z.csv").read_text().splitlines()))
    assert rows[0] == ["latent_0", "latent_1", "latent_2"]
    assert f"{float(rows[1][0]):.4g}" == text.split()[1]
    assert len(_ok("look", "sample", collection, "--run", "ae", "--source", "fitted").splitlines()) == 16


def test_interpolate(trained_store: Path, collection: Path, tmp_path: Path) -> None:
    text = _ok(
        "look", "interpolate", trained_store, "--from", "2:4", "--to", "9:15", "--steps", 4, "--out", tmp_path / "a"
    )
    assert text.startswith("lerp, 4 steps, distance of the ends")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["interpolation.gif", "interpolation.png", "vectors.png", "z.csv"]
    assert _ok("look", "interpolate", collection, "--from", "2", "--to", "30", "--method", "slerp").startswith(
        "slerp, 9"
    )


def test_stats(trained_store: Path, tmp_path: Path) -> None:
    text = _ok("look", "stats", trained_store, "--out", tmp_path / "out")
    assert "of 3 latents active" in text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["latent_statistics.png"]
    assert open_table(trained_store, "vae", "latent_statistics").sizes == {"latent": 3}


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (["reconstruct", "{store}", "--run", "b"], NoInputError, "no run 'b'"),
        (["reconstruct", "{store}", "--part", "tset"], UsageError, "part"),
        (["reconstruct", "{store}", "--data-range", "big"], UsageError, "data_range"),
        (["reconstruct", "{store}", "--x", "3"], UsageError, "not START:STOP"),
        (["reconstruct", "{store}", "--set", "exampels=2"], UsageError, "Did you mean 'examples'"),
        (["reconstruct", "{store}", "--file", "none.png"], NoInputError, "none.png does not exist"),
        (["reconstruct", "{store}", "--file", "none.png", "--part", "train"], UsageError, "a store's own samples"),
        (["reconstruct", "{store}", "--files", "--dtype", "uint8"], UsageError, "use float32, or source"),
        (["reconstruct", "{store}", "--dtype", "source"], UsageError, "--dtype is of written files"),
        (["reconstruct", "{store}", "--window", "8"], UsageError, "need a network with spatial latents"),
        (["reconstruct", "{store}", "--window", "8by8"], UsageError, "--window '8by8' is not AxB"),
        (["look", "interpolate", "{store}", "--from", "1:2"], UsageError, "give either --to or --to-file"),
        (["look", "sample", "{store}", "--source", "pior"], UsageError, "Did you mean 'prior'"),
        (["look", "sample", "{store}", "--n", "0"], UsageError, "at least 1"),
        (["look", "interpolate", "{store}", "--from", "a:b", "--to", "1:2"], UsageError, "--from 'a:b' is not X:Y"),
        (["look", "interpolate", "{store}", "--from", "1:2", "--to", "1"], UsageError, "a value for each of y, x"),
        (
            ["look", "interpolate", "{store}", "--from", "1:2", "--to", "1:3", "--method", "spline"],
            UsageError,
            "spline",
        ),
        (["look", "stats", "{store}", "--run", "b"], NoInputError, "no run 'b'"),
    ],
    ids=lambda v: " ".join(v)[:50] if isinstance(v, list) else "",
)
def test_refusals(
    trained_template: Path, tmp_path: Path, args: list[str], error: type[VaearrError], message: str
) -> None:
    before = tree_hash(trained_template)
    given = [arg.format(store=trained_template) for arg in args]
    done = CliRunner().invoke(app, [*given, "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, error), done.output
    assert message in str(done.exception)
    assert tree_hash(trained_template) == before
    assert not list(tmp_path.iterdir())


def test_black_and_white_needs_a_folder(trained_template: Path) -> None:
    done = CliRunner().invoke(app, ["reconstruct", str(trained_template), "--binarise", "3"])
    assert "give its folder with --out" in str(done.exception)


def test_errors_are_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vaearr", "look", "stats", str(tmp_path / "none.zarr")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == NoInputError.exit_code
    assert done.stderr.startswith("vaearr: there is no store")
    assert done.stderr.count("\n") == 1


def test_files(collection: Path, tmp_path: Path) -> None:
    ds = open_store(collection, chunks=None)
    for i in (4, 9):
        Image.fromarray(np.moveaxis(ds["patterns"][i].values, 0, -1)).save(tmp_path / f"one {i}.png")
    out = tmp_path / "out"
    text = _ok(
        "reconstruct", collection, "--file", tmp_path / "one 4.png", "--file", tmp_path / "one 9.png", "--out", out
    )
    rows = text.splitlines()
    assert rows[0].split() == ["file", "mse", "mae", "psnr", "ssim"]
    assert rows[1].startswith(str(tmp_path / "one 4.png"))
    assert rows[3].startswith("2 samples of run 'vae' in stored units; data range 255.0")
    assert sorted(path.name for path in out.iterdir()) == ["files", "metrics.csv", "reconstruction.png"]
    assert sorted(path.name for path in (out / "files").iterdir()) == ["one 4.png", "one 9.png"]
    table = list(csv.reader((out / "metrics.csv").read_text().splitlines()))
    assert table[0] == ["file", "mse", "mae", "psnr", "ssim"]
    assert f"{float(table[2][1]):.4g}" == rows[2].split()[-4]
    _ok("reconstruct", collection, "--files", "--part", "validation", "--out", tmp_path / "all")
    n_validation = int((ds["split"] == 2).sum())
    assert len(list((tmp_path / "all" / "files").iterdir())) == n_validation
    assert len((tmp_path / "all" / "metrics.csv").read_text().splitlines()) == 1 + n_validation
    ends = ("--from-file", tmp_path / "one 4.png", "--to", "30", "--steps", 3)
    assert _ok("look", "interpolate", collection, *ends) == _ok(
        "look", "interpolate", collection, "--from", 4, "--to", 30, "--steps", 3
    )
