"""Latents as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from vaearr.attaching import attach
from vaearr.errors import ExistsError
from vaearr.exporting import content as module
from vaearr.exporting import export
from vaearr.store import open_store


def test_full_field_region_and_coordinates(template: Path, ds: xr.Dataset, tmp_path: Path) -> None:
    out = export(template, tmp_path / "out", "npy", run="b")
    full, own = np.load(out / "latents_full.npy"), np.load(out / "latents_roi.npy")
    coords = pd.read_csv(out / "coords.csv")
    assert full.dtype == own.dtype == np.float32
    np.testing.assert_array_equal(full, ds["latents_b"].values.reshape(-1, 4))
    np.testing.assert_array_equal(own, full[np.isfinite(full[:, 0])])
    assert list(coords) == ["x", "y"]
    assert coords.dtypes.map(str).tolist() == ["int64", "int64"]
    assert coords["x"].tolist()[:13] == [*range(10, 22), 10]  # x fastest
    assert coords["y"].tolist()[:13] == [20] * 12 + [21]
    inside = pd.read_csv(out / "coords_roi.csv")
    np.testing.assert_array_equal(inside, coords[np.isfinite(full[:, 0])])


def test_small_blocks_give_the_same_files(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = export(template, tmp_path / "a", "npy", run="b")
    monkeypatch.setattr(module, "BLOCK_BYTES", 1)
    pieces = export(template, tmp_path / "b", "npy", run="b")
    for file in whole.iterdir():
        assert (pieces / file.name).read_bytes() == file.read_bytes()


def test_arrays_come_back_as_runs(store: Path, ds: xr.Dataset, tmp_path: Path) -> None:
    out = export(store, tmp_path / "out", "npy", run="b")
    attach(store, out / "latents_full.npy", run="full")
    attach(store, out / "latents_roi.npy", run="own", roi="b")
    attach(store, out / "latents_roi.npy", run="points", coords=out / "coords_roi.csv")
    for run in ("full", "own", "points"):
        np.testing.assert_array_equal(open_store(store)[f"latents_{run}"].values, ds["latents_b"].values)


def test_another_run_never_mixes_with_it(store: Path, tmp_path: Path) -> None:
    attach(store, np.zeros((14, 12, 4)), run="c")
    out = export(store, tmp_path / "out", "npy", run="b")
    before = (out / "latents_full.npy").read_bytes()
    export(store, out, "npy", run="b")  # the same again
    with pytest.raises(ExistsError, match=r"coords_roi\.csv, latents_full\.npy"):
        export(store, out, "npy", run="c")
    assert (out / "latents_full.npy").read_bytes() == before
