"""From files to a store: all values arrive, bad input leaves nothing behind, the store says where
it came from.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vaearr.errors import DataError, UsageError
from vaearr.ingestion.ingest import ingest

NY, NX = 37, 41  # more than one block each way, the last ones ragged


def raster(ny: int = NY, nx: int = NX) -> np.ndarray:
    y, x = np.divmod(np.arange(ny * nx), nx)
    return np.stack([x, y], axis=1)


def patterns(coords: np.ndarray, dtype: Any = "u1") -> np.ndarray:
    pixels = np.arange(5 * 7).reshape(1, 1, 5, 7)
    return ((coords[:, 0] + 3 * coords[:, 1]).reshape(-1, 1, 1, 1) % 80 + pixels).astype(dtype)


def write(path: Path, images: np.ndarray, coords: np.ndarray, **layout: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, **layout)
        file["coords"] = coords
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write(tmp_path / "scan.h5", patterns(raster()), raster())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder of the store, empty."""
    (tmp_path / "stores").mkdir()
    return tmp_path / "stores"


def left(out: Path) -> list[str]:
    """What lies in the folder, but for the lock file, which is empty of meaning once free."""
    return sorted(p.name for p in out.iterdir() if not p.name.endswith(".lock"))


def test_what_is_worth_knowing_is_said(tmp_path: Path, out: Path, said: list[str]) -> None:
    images = patterns(raster())
    said.clear()
    images[[3, 900]] = 7
    (tmp_path / "bc.csv").write_text(",x,y,BC\n0,0,0,5\n1,900,0,5\n")
    maps = {"BC": tmp_path / "bc.csv"}
    ds = ingest(
        write(tmp_path / "a.h5", images, raster()), out / "a.zarr", maps=maps, progress=False
    )
    assert (
        said[0]
        == f"BC: 1 of 2 rows placed by steps; 1 lie outside the scan; {NY * NX - 1} scan points without a row"
    )
    assert "2 patterns are" in said[1]
    assert int(ds.BC.count()) == 1
    assert ds.patterns.attrs["n_constant"] == 2


@pytest.mark.parametrize(
    ("images", "settings", "match"),
    [
        (
            np.full((6, 1, 5, 7), np.nan, "f4"),
            {},
            r"the pattern at y = 0, x = 0 .* \(6 such patterns",
        ),
        (np.full((6, 1, 5, 7), np.nan, "f4"), {"nonfinite": "mask"}, "no pattern holds anything"),
        (np.full((6, 1, 5, 7), 3, "u1"), {}, "6 are constant"),
    ],
)
def test_patterns_to_learn_nothing_from(
    tmp_path: Path, out: Path, images: np.ndarray, settings: dict[str, Any], match: str
) -> None:
    with pytest.raises(DataError, match=match):
        ingest(write(tmp_path / "a.h5", images, raster(2, 3)), out / "a.zarr", **settings)
    assert left(out) == []


def test_source_that_changes_is_refused(scan: Path, out: Path) -> None:
    with pytest.raises(DataError, match="changed while it was read"):
        ingest(scan, out / "a.zarr", progress=lambda *_: os.utime(scan, (1, 1)))
    assert left(out) == []


# refused before any work


@pytest.mark.parametrize(
    "name", ["patterns", "phase", "y_index", "dx", "roi_b", "latents_std_b", "runs", "sample"]
)
def test_map_names_with_a_meaning(scan: Path, out: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a map"):
        ingest(scan, out / "a.zarr", maps={name: "bc.csv"})
    assert left(out) == []
