"""Maps as PNG and PDF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vaearr.attaching import attach
from vaearr.errors import ExistsError, UsageError
from vaearr.exporting import export
from vaearr.store import create_store

from ..data import random_patterns_dataset


def test_the_sheet_of_latents(template: Path, tmp_path: Path) -> None:
    from PIL import Image

    out = export(template, tmp_path / "out", "png", run="b", latents=(0, 2))
    with Image.open(out / "latents_b.png") as image:
        assert image.info["dpi"][0] == pytest.approx(300, abs=0.1)
        assert min(image.size) > 400


def test_named_maps_as_pdf_with_letters_as_letters(scored: Path, tmp_path: Path) -> None:
    out = export(scored, tmp_path / "out", "pdf", run="b", variables=("BC", "pca", "clusters"))
    names = sorted(file.stem for file in out.iterdir())
    assert names == ["BC", "clusters", "pca_0", "pca_1"]
    text = (out / "BC.pdf").read_bytes()
    assert b"/CIDFontType2" in text or b"/Subtype /TrueType" in text
    assert b"/Subtype /Type3" not in text
    export(scored, out, "pdf", run="b", variables=("BC",))  # the same bytes again


def test_what_has_no_picture(template: Path, tmp_path: Path) -> None:
    store = create_store(random_patterns_dataset({"z": 2, "y": 3, "x": 4}), tmp_path / "v.zarr")
    attach(store, np.zeros(24), run="a")
    with pytest.raises(UsageError, match="z, y, x"):
        export(store, tmp_path / "out", "png", run="a")
    with pytest.raises(UsageError, match="dpi is 0"):
        export(template, tmp_path / "out", "png", run="b", dpi=0)


def test_a_huge_resolution(template: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dpi is 100000; expected dots per inch from 1 to 2400"):
        export(template, tmp_path / "out", "png", run="b", dpi=100_000)


def test_pictures_whose_names_are_alike(store: Path, tmp_path: Path) -> None:
    lines = [f"{x},{y},1,2" for y in range(20, 34) for x in range(10, 22)]
    (tmp_path / "e.csv").write_text("\n".join(["x,y,Fe/Ni,Fe Ni", *lines]))
    attach(store, tmp_path / "e.csv", kind="elements", name="eds", read_as="steps")
    with pytest.raises(UsageError, match=r"two pictures would be called 'eds_Fe_Ni\.png'"):
        export(store, tmp_path / "out", "png", run="b", variables=("eds",), dpi=50)
    assert not (tmp_path / "out").exists()


def test_no_export_into_a_store(store: Path) -> None:
    before = sorted(path.name for path in store.iterdir())
    for folder in (store, store / "sub", store / "runs" / "b" / "files"):
        with pytest.raises(ExistsError, match="is a zarr store; export into a folder outside it"):
            export(store, folder, "npy", run="b")
    assert sorted(path.name for path in store.iterdir()) == before
