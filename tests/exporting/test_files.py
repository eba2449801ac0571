"""Exports appear whole or not at all, and never in place of others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vaearr.errors import ExistsError, WriteError
from vaearr.exporting.formats import write_json
from vaearr.provenance import as_json
from vaearr.store.folders import staged


def _write(folder: Path, **files: str) -> None:
    with staged(folder) as aside:
        for name, text in files.items():
            path = aside / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def _tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    _write(tmp_path / "deep" / "out", a="1", maps__b="2")
    assert _tree(tmp_path) == {"deep/out/a": "1", "deep/out/maps/b": "2"}


def test_files_are_added_and_equal_ones_stay(tmp_path: Path) -> None:
    _write(tmp_path / "out", a="1")
    before = (tmp_path / "out" / "a").stat().st_mtime_ns
    _write(tmp_path / "out", a="1", maps__b="2")
    assert _tree(tmp_path / "out") == {"a": "1", "maps/b": "2"}
    assert (tmp_path / "out" / "a").stat().st_mtime_ns == before


@pytest.mark.parametrize("files", [{"c": "3", "a": "2"}, {"c": "3", "maps": "x"}, {"c": "3", "a__d": "x"}])
def test_other_content_is_refused_before_anything_changes(tmp_path: Path, files: dict[str, str]) -> None:
    _write(tmp_path / "out", a="1", maps__b="2")
    before = _tree(tmp_path)
    with pytest.raises(ExistsError, match="other content; nothing was changed"):
        _write(tmp_path / "out", **files)
    assert _tree(tmp_path) == before


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with staged(tmp_path / "out") as aside:
            (aside / "a").write_text("1")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ExistsError, match="is a file"):
        _write(tmp_path / "out", a="1")
    with pytest.raises(WriteError, match="cannot be written"):
        _write(tmp_path / "out" / "deeper", a="1")


def test_json_is_strict_and_written_once(tmp_path: Path) -> None:
    record = {"a": np.nan, "b": np.float32(np.inf), "c": np.arange(2), 3: (1.5, None, True), "d": Path("x")}
    write_json(tmp_path / "r.json", record)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    read = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)
    assert read == {"a": None, "b": None, "c": [0, 1], "3": [1.5, None, True], "d": "x"} == as_json(record)
    with pytest.raises(ExistsError, match=r"both called r\.json"):
        write_json(tmp_path / "r.json", record)
