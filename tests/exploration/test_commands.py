"""The commands print what the functions find, and write sheets and arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import vaearr as va
from vaearr.cli import app
from vaearr.errors import ExistsError, NoInputError, UsageError


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
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


def test_sheets(scan_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    _run("manifold", scan_path, "--dim", 2, "--dim", 0, "--steps", 3, "--out", tmp_path / "m.png")
    assert "fcc: n " in _run("prototypes", scan_path, "--out", tmp_path / "p.png")
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("m.png", "p.png"))


def test_refusals_come_before_the_work(scan_path: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.png"):
        _run("traverse", scan_path, "--out", tmp_path / "t.gif")
    with pytest.raises(NoInputError, match="no folder"):
        _run("traverse", scan_path, "--out", tmp_path / "no" / "t.png")
    (tmp_path / "t.png").touch()
    with pytest.raises(ExistsError, match="already"):
        _run("manifold", scan_path, "--out", tmp_path / "t.png")
    with pytest.raises(UsageError, match="no base 'middle'"):
        _run("traverse", scan_path, "--base", "middle")
    with pytest.raises(UsageError, match="is not LOW:HIGH"):
        _run("traverse", scan_path, "--span", "3")
