"""What xarray opens by vaearr's engines."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import DataError


def test_engines_open_what_open_source_does(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).random((6, 7, 8)).astype("f4")
    nib.save(nib.Nifti1Image(volume, np.diag([2.0, 2, 2, 1])), tmp_path / "a.nii.gz")
    own = va.open_source(tmp_path / "a.nii.gz")
    for engine in ("nifti", "vaearr"):
        found = xr.open_dataset(tmp_path / "a.nii.gz", engine=engine)
        xr.testing.assert_equal(found.patterns, own.patterns)
    assert "affine" not in xr.open_dataset(
        tmp_path / "a.nii.gz", engine="nifti", drop_variables="affine"
    )
    with (tmp_path / "a.nii.gz").open("rb") as file, pytest.raises(DataError, match="by path"):
        xr.open_dataset(file, engine="vaearr")
    with pytest.raises(DataError):
        xr.open_dataset(tmp_path / "a.nii.gz", engine="idx")
