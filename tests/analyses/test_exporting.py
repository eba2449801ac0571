"""Exports of collections and volumes, and how a folder of files is replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import vaearr as va
from vaearr.errors import UsageError
from vaearr.store import create_store
from vaearr.store.folders import output_folder

from ..data import random_patterns_dataset


def test_collections_and_volumes_as_tables(tmp_path: Path) -> None:
    images = create_store(random_patterns_dataset({"sample": 7}), tmp_path / "c.zarr")
    va.attach(images, np.arange(14.0).reshape(7, 2), run="a")
    out = va.load_run(images, "a").export(tmp_path / "c", "csv", variables=("label",))
    assert list(pd.read_csv(out / "latents_a.csv")) == ["sample", "latent_0", "latent_1", "label"]
    volume = create_store(random_patterns_dataset({"z": 2, "y": 3, "x": 4}), tmp_path / "v.zarr")
    va.attach(volume, np.arange(24.0), run="a")
    frame = pd.read_csv(va.load_run(volume, "a").export(tmp_path / "v") / "latents_a.csv")
    assert list(frame) == ["x", "y", "z", "latent_0"]
    np.testing.assert_array_equal(frame["latent_0"], np.arange(24))
    for format_, words in (("png", "z, y, x"), ("seed0", "Use csv or npy")):
        with pytest.raises(UsageError, match=words):
            va.load_run(volume, "a").export(tmp_path / "no", format_)


def test_a_folder_of_ours_is_whole_while_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a report is written: killed at any rename, a page is there, and its record is new only
    with all the rest.
    """
    folder, names = tmp_path / "report", ["index.html", "png/a.png", "report.json"]

    def write(text: str, *files: str) -> None:
        with output_folder(folder, last="report.json") as aside:
            (aside / "png").mkdir()
            for file in files:
                (aside / file).write_text(text)

    replace = Path.replace
    write("0", *names, "png/old.png")
    for survived in range(3):
        left = iter(range(survived))

        def killed(path: Path, target: Path, left: Iterator[int] = left) -> Path:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write("1", *names)
        monkeypatch.undo()
        assert [(folder / name).read_text() for name in names] == ["1"] * survived + ["0"] * (
            3 - survived
        )
    write("1", *names)
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "a.png",
        "index.html",
        "report.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
