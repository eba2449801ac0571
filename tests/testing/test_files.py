"""write_scan_files(): what is written can be read back with nothing but h5py and pandas."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest

from vaearr.errors import UsageError
from vaearr.testing import random_patterns_dataset, synthetic_scan, write_scan_files


@pytest.fixture(scope="module")
def scan():
    return synthetic_scan(nx=13, ny=9, pattern_shape=(10, 12), n_grains=4)


def _read(path):
    with h5py.File(path) as file:
        return file["images"][:], file["coords"][:], file["images"].chunks


@pytest.mark.parametrize("order", ["raster", "column", "shuffled"])
def test_round_trip(scan, tmp_path, order):
    paths = write_scan_files(scan, tmp_path / "new" / "folder", order=order)
    assert {name: path.name for name, path in paths.items()} == {
        "patterns": "scan.h5",
        "BC": "bandcontrast.csv",
        "elements": "elements.csv",
        "phase": "phases.csv",
    }
    images, coords, chunks = _read(paths["patterns"])
    assert images.shape == (117, 1, 10, 12)
    assert chunks == (64, 1, 10, 12)
    assert images.dtype == np.uint8
    assert coords.dtype == np.int32
    x, y = coords.T
    np.testing.assert_array_equal(images[:, 0], scan.patterns.values[y, x])
    contrast = pd.read_csv(paths["BC"])
    assert list(contrast) == ["x", "y", "band_contrast"]
    np.testing.assert_array_equal(contrast.band_contrast, scan.BC.values[contrast.y, contrast.x])
    elements = pd.read_csv(paths["elements"])
    assert list(elements) == ["x", "y", *scan.element.values]
    iron = scan.elements.sel(element="Fe").values[elements.y, elements.x]
    np.testing.assert_allclose(elements.Fe, iron, atol=6e-4)
    phases = pd.read_csv(paths["phase"])
    assert list(phases) == ["x_indice", "y_indice", "phase_id"]
    np.testing.assert_array_equal(phases.phase_id, scan.phase.values[phases.y_indice, phases.x_indice])


def test_order_of_rows(scan, tmp_path):
    firsts = {}
    for order in ("raster", "column", "shuffled"):
        _, coords, _ = _read(write_scan_files(scan, tmp_path / order, order=order)["patterns"])
        assert len(np.unique(coords, axis=0)) == 117
        firsts[order] = coords[:3].tolist()
    assert firsts["raster"] == [[0, 0], [1, 0], [2, 0]]
    assert firsts["column"] == [[0, 0], [0, 1], [0, 2]]
    assert firsts["shuffled"] not in (firsts["raster"], firsts["column"])


def test_dropped_and_missing_points_are_in_no_file(tmp_path):
    ds = random_patterns_dataset({"y": 6, "x": 5}, missing=4, chunks={"y": 2})
    x, y = 3, int(np.flatnonzero(ds.present.values[:, 3])[0])
    paths = write_scan_files(ds, tmp_path, drop=[(x, y)])
    _, coords, _ = _read(paths["patterns"])
    assert len(coords) == 30 - 4 - 1
    assert [x, y] not in coords.tolist()
    assert ds.present.values[coords[:, 1], coords[:, 0]].all()
    for name in ("BC", "elements", "phase"):
        table = pd.read_csv(paths[name])
        assert table.iloc[:, :2].to_numpy().tolist() == coords.tolist()
        assert table.notna().all(axis=None)


def test_only_variables_there_are_written(scan, tmp_path):
    assert set(write_scan_files(scan.drop_vars(["elements", "phase"]), tmp_path)) == {"patterns", "BC"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bandcontrast.csv", "scan.h5"]


def test_what_cannot_be_written_is_a_usage_error(scan, tmp_path):
    with pytest.raises(UsageError, match="only scans"):
        write_scan_files(random_patterns_dataset({"sample": 3}), tmp_path)
    with pytest.raises(UsageError, match="cannot drop"):
        write_scan_files(scan, tmp_path, drop=[(13, 0)])
    with pytest.raises(UsageError, match="order"):
        write_scan_files(scan, tmp_path, order="random")
