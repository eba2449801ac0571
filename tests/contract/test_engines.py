"""What xarray opens by vaearr's engines."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import DataError

from .harness import vaearr


def test_engines_open_what_open_source_does(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).random((6, 7, 8)).astype("f4")
    nib.save(nib.Nifti1Image(volume, np.diag([2.0, 2, 2, 1])), tmp_path / "a.nii.gz")
    own = va.open_source(tmp_path / "a.nii.gz")
    for engine in ("nifti", "vaearr", None):
        found = xr.open_dataset(tmp_path / "a.nii.gz", engine=engine)
        xr.testing.assert_equal(found.patterns, own.patterns)
    assert "affine" not in xr.open_dataset(tmp_path / "a.nii.gz", engine="nifti", drop_variables="affine")
    with (tmp_path / "a.nii.gz").open("rb") as file, pytest.raises(DataError, match="by path"):
        xr.open_dataset(file, engine="vaearr")
    with pytest.raises(DataError):
        xr.open_dataset(tmp_path / "a.nii.gz", engine="idx")


def test_a_crop_is_spelt_as_a_box(scan_store: Path, tmp_path: Path) -> None:
    vaearr("ingest", scan_store, tmp_path / "a.zarr", "--crop", "dy=4:16", "--crop", "dx=:9")
    ds, whole = va.open_store(tmp_path / "a.zarr"), va.open_store(scan_store)
    np.testing.assert_array_equal(ds.patterns, whole.patterns[:, :, 4:16, :9])
