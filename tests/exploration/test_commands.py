"""The commands print what the functions find, and write sheets, pages, tables and arrays; bad input comes first."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import vaearr as va
from vaearr.cli import app
from vaearr.errors import DataError, ExistsError, NoInputError, UsageError, VaearrError

from .conftest import attached_values


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["look", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_traverse(scan_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.npz"
    text = _run("traverse", scan_path, "--dim", 1, "--base", "prototype:bcc", "--span=-2:2", "--steps", 3, "--out", out)
    assert "from mean of phase bcc" in text
    with np.load(out, allow_pickle=False) as arrays:
        want = va.explore.traverse(scan_path, dims=[1], base="prototype:bcc", span=(-2, 2), steps=3)
        np.testing.assert_array_equal(arrays["decoded"], want["decoded"])
        np.testing.assert_array_equal(arrays["value"], want["value"])
    film = tmp_path / "t.gif"
    assert "from sample at x 1, y 0.5" in _run("traverse", scan_path, "--base", "1:0.5", "--steps", 3, "--out", film)
    with Image.open(film) as shown:
        assert shown.n_frames == 4  # there and back


def test_path_of_negative_points(scan_path: Path, tmp_path: Path) -> None:
    line = ["--point=-1:0", "--point", "1:2", "--steps", 3]
    text = _run("path", scan_path, *line, "--dim", 2, "--dim", 0, "--out", tmp_path / "p.npz")
    assert "latent 2, latent 0; others: mean of all samples" in text
    assert "2 at 0 1: " in text
    with np.load(tmp_path / "p.npz", allow_pickle=False) as arrays:
        np.testing.assert_allclose(arrays["position"], [[-1, 0], [0, 1], [1, 2]])
    assert "PCA 1, PCA 2" in _run("path", scan_path, "--point", "0:0", "--space", "pca")


def test_scatter_as_a_table(attached_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.csv"
    text = _run("scatter", attached_path, "--run", "own", "--method", "pca", "--color", "BC", "--out", out)
    assert "PCA of the latents, 166 samples" in text
    table = pd.read_csv(out)
    assert len(table) == 166
    want = va.explore.embedding(attached_path, "own", "pca", color=["BC"])
    np.testing.assert_allclose(table["PCA 2"], want["position"][:, 1])
    np.testing.assert_allclose(table["BC"], want["amount"][0])
    assert set(table["class_name"].dropna()) == {"fcc", "bcc", "none"}


def test_pairs_and_histograms(attached_path: Path, tmp_path: Path) -> None:
    text = _run("pairs", attached_path, "--run", "own", "--out", tmp_path / "p.npz")
    r = np.corrcoef(attached_values()[np.isfinite(attached_values()).all(1)].T)
    rows = [line for line in text.splitlines() if line.startswith("latent")]
    assert rows[0] == f"latent 0, latent 1: r = {r[0, 1]:.3f}"
    text = _run("histograms", attached_path, "--run", "own", "--class", "bcc", "--bins", 4, "--dim", 3)
    assert "latent 3: " in text
    assert "bcc: " in text
    assert "fcc" not in text


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables(attached_path: Path, tmp_path: Path, ending: str) -> None:
    pytest.importorskip("pyarrow")
    own = [attached_path, "--run", "own", "--out"]
    read = pd.read_csv if ending == "csv" else pd.read_parquet
    text = _run("activations", *own, tmp_path / f"a.{ending}", "--by", "phase", "--class", "fcc")
    assert f"{len(read(tmp_path / f'a.{ending}'))} samples" in text.splitlines()
    assert (read(tmp_path / f"a.{ending}")["phase_name"] == "fcc").all()
    assert "75%" in _run("describe", *own, tmp_path / f"d.{ending}")
    assert read(tmp_path / f"d.{ending}")["count"].tolist() == [166] * 4
    assert "so far" in _run("components", *own, tmp_path / f"c.{ending}", "--components", 2)
    assert read(tmp_path / f"c.{ending}").filter(like="latent_").shape == (2, 4)
    text = _run("health", *own, tmp_path / f"h.{ending}")
    assert "4 of 4 latents active" in text.splitlines()
    assert "largest correlation" in text
    assert read(tmp_path / f"h.{ending}")["wasserstein"].shape == (4,)
    assert "distance" in _run("unusual", *own, tmp_path / f"u.{ending}", "--n", 3)
    assert read(tmp_path / f"u.{ending}")["number"][0] == 20


@pytest.mark.parametrize("ending", ["png", "html"])
def test_sheets_and_pages(scan_path: Path, attached_path: Path, tmp_path: Path, ending: str) -> None:
    commands = {
        "manifold": [scan_path, "--dim", 2, "--dim", 0, "--steps", 3],
        "prototypes": [scan_path],
        "traverse": [scan_path, "--steps", 3],
        "path": [scan_path, "--point", "0:0"],
        "scatter": [attached_path, "--run", "own", "--method", "pca"],
        "pairs": [attached_path, "--run", "own"],
        "histograms": [attached_path, "--run", "own"],
        "activations": [attached_path, "--run", "own"],
        "describe": [attached_path, "--run", "own"],
        "components": [attached_path, "--run", "own"],
        "health": [scan_path],
        "unusual": [attached_path, "--run", "own", "--n", 4],
    }
    begins = {"png": b"\x89PNG", "html": b"<!DOCTYPE html>"}[ending]
    for name, arguments in commands.items():
        out = tmp_path / f"{name}.{ending}"
        assert f"written: {out}" in _run(name, *arguments, "--out", out)
        assert out.read_bytes().startswith(begins)
        if ending == "html":
            assert not re.search(r"<(script|link|img)[^>]+(src|href)=.https?:", out.read_text())


@pytest.mark.parametrize(
    ("command", "options", "error", "message"),
    [
        ("manifold", ["--out", "{}/t.gif"], UsageError, r"must end in \.png"),
        ("traverse", ["--out", "{}/t.csv"], UsageError, r"or \.gif"),
        ("pairs", ["--out", "{}/t.csv"], UsageError, "must end in"),
        ("describe", ["--out", "{}/no/t.csv"], NoInputError, "no folder"),
        ("health", ["--out", "{}/there.png"], ExistsError, "already"),
        ("traverse", ["--base", "middle"], UsageError, "no base 'middle'"),
        ("traverse", ["--span", "3"], UsageError, "is not LOW:HIGH"),
        ("path", ["--point", "1:2", "--space", "pca", "--dim", "1"], UsageError, "are of --space plane"),
        ("path", ["--point", "1:2", "--out", "{}/new.gif"], UsageError, "two points or more"),
        ("path", [], UsageError, "needs points"),
        ("path", ["--point", "1"], UsageError, "is not X:Y"),
        ("path", ["--point", "0:0", "--space", "tnse"], UsageError, "Did you mean 'tsne'"),
        ("path", ["--point", "0:0", "--steps", "3"], UsageError, "two points"),
        ("path", ["--point", "0:0", "--dim", "1"], UsageError, "two dimensions"),
        ("scatter", ["--method", "tnse"], UsageError, "Did you mean 'tsne'"),
        ("scatter", ["--color", "latent:7"], UsageError, "latent:0 to latent:2"),
        ("scatter", ["--color", "BCC"], NoInputError, "Did you mean 'BC'"),
        ("pairs", ["--dim", "1"], UsageError, "two dimensions or more"),
        ("histograms", ["--bins", "0"], UsageError, "bins is 0"),
        ("histograms", ["--by", "phas"], NoInputError, "Did you mean 'phase'"),
        ("activations", ["--class", "bc"], UsageError, "Did you mean 'bcc'"),
        ("components", ["--components", "9"], UsageError, "at most 3"),
        ("health", ["--run", "other"], NoInputError, "no run 'other'"),
        ("unusual", ["--n", "0"], UsageError, "at least 1"),
        ("unusual", [], DataError, "no latent dimension"),
        ("describe", ["--run", "other"], NoInputError, "no run 'other'"),
    ],
    ids=lambda v: "-".join(v)[:30] if isinstance(v, list) else "",
)
def test_refusals_leave_nothing(
    scan_path: Path, tmp_path: Path, command: str, options: list[str], error: type[VaearrError], message: str
) -> None:
    (tmp_path / "there.png").touch()
    given = [option.format(tmp_path) for option in options]
    if "--out" not in options:
        given += ["--out", str(tmp_path / "new.png")]
    with pytest.raises(error, match=message):
        _run(command, scan_path, *given)
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]
