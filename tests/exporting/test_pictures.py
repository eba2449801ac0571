"""Maps as PNG and PDF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vaearr.attaching import attach
from vaearr.errors import UsageError
from vaearr.exporting import export
from vaearr.store import create_store
from vaearr.testing import random_patterns_dataset


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
