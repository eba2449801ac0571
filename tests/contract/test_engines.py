"""What xarray opens by vaearr's engines, and OME-Zarr images, as files in."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import xarray as xr
import zarr

import vaearr as va
from vaearr.errors import DataError

from .harness import vaearr


def ome(path: Path, axes: str, shape: tuple[int, ...], version: str = "0.5") -> np.ndarray:
    """An OME-Zarr image with pixels of 0.5 um; returns its values."""
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    values = np.random.default_rng(0).integers(0, 999, shape).astype("u2")
    group.create_array("0", data=values, chunks=(1,) * (len(shape) - 2) + shape[-2:])
    kinds = {"t": "time", "c": "channel"}
    told = {
        "axes": [
            {"name": a, "type": kinds.get(a, "space")} | ({"unit": "micrometer"} if a in "zyx" else {}) for a in axes
        ],
        "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.5] * len(axes)}]}],
    }
    group.attrs.update(
        {"ome": {"version": version, "multiscales": [told]}} if version == "0.5" else {"multiscales": [told]}
    )
    return values


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_time_series_is_a_collection(version: str, tmp_path: Path) -> None:
    values = ome(tmp_path / "a.zarr", "tczyx", (5, 1, 1, 12, 14), version)
    lazy = xr.open_dataset(tmp_path / "a.zarr", engine="ome-zarr", chunks={})
    assert lazy.patterns.chunks is not None
    ds = va.ingest(tmp_path / "a.zarr", tmp_path / "store.zarr")
    assert ds.patterns.dims == ("sample", "y", "x")
    assert ds.patterns.dtype == np.uint16
    np.testing.assert_array_equal(ds.patterns, values[:, 0, 0])
    np.testing.assert_allclose(ds.x, 0.5 * np.arange(14))
    assert ds.y.attrs["units"] == "um"


def test_channels_volumes_and_single_images(tmp_path: Path) -> None:
    colour = ome(tmp_path / "c.zarr", "tcyx", (4, 3, 12, 14))
    np.testing.assert_array_equal(va.open_source(tmp_path / "c.zarr").patterns, colour)
    volumes = ome(tmp_path / "v.zarr", "tzyx", (3, 8, 12, 14))
    ds = va.open_source(tmp_path / "v.zarr")
    assert ds.patterns.dims == ("sample", "z", "y", "x")
    np.testing.assert_array_equal(ds.patterns, volumes)
    one = ome(tmp_path / "o.zarr", "yx", (12, 14))
    np.testing.assert_array_equal(va.open_source(tmp_path / "o.zarr").patterns[0], one)
    ome(tmp_path / "b.zarr", "tczyx", (2, 3, 4, 12, 14))
    with pytest.raises(DataError, match="volumes of 3 channels"):
        va.open_source(tmp_path / "b.zarr")


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
