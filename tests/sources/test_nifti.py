"""NIfTI: every value at its place in millimetres, whatever the file's axes, the cut, the padding or
the resampling.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sources.refusals import refused
from vaearr import schema
from vaearr.errors import DataError, UsageError
from vaearr.ingestion.ingest import ingest
from vaearr.sources import detect, open_source

SHAPE = (7, 8, 9)  # x, y, z
AFFINE = np.array([[2.0, 0, 0, -5], [0, 2, 0, -6], [0, 0, 3, -7], [0, 0, 0, 1]])
RNG = np.random.default_rng(2)
VALUES = RNG.integers(0, 900, SHAPE).astype(np.int16)


def write(
    path: Path, values: np.ndarray = VALUES, affine: np.ndarray = AFFINE, codes: str = "RAS"
) -> Path:
    """The volume, given in RAS, as a file with these axis codes."""
    image = nib.Nifti1Image(values, affine)
    wanted = nib.orientations.axcodes2ornt(codes)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(
        image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(affine), wanted)),
        path,
    )
    return path


@pytest.mark.parametrize(
    ("codes", "suffix"), [("RAS", ".nii"), ("LPS", ".nii.gz"), ("SAL", ".nii"), ("PIR", ".nii.gz")]
)
def test_one_volume(codes: str, suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{suffix}", codes=codes)
    assert detect(path).format == "nifti"
    ds = open_source(path)
    schema.validate(ds)
    assert ds.patterns.dims == ("sample", "z", "y", "x")
    assert ds.patterns.dtype == np.int16
    np.testing.assert_array_equal(ds.patterns[0], VALUES.T)
    np.testing.assert_allclose(ds.affine[0], AFFINE)
    np.testing.assert_allclose(ds.x, -5 + 2 * np.arange(7))
    np.testing.assert_allclose(ds.z, -7 + 3 * np.arange(9))
    assert ds.z.attrs["units"] == "mm"
    np.testing.assert_array_equal(ds.patterns[0, 2:5, ::2, 3], VALUES.T[2:5, ::2, 3])


def centre(ds: xr.Dataset, i: int = 0) -> np.ndarray:
    """Centre of mass of a volume, mm, by its affine."""
    values = ds.patterns[i].values.astype(float)
    z, y, x = np.indices(values.shape)
    weighted = [float((axis * values).sum() / values.sum()) for axis in (x, y, z)]
    return np.asarray(ds.affine[i].values @ [*weighted, 1.0])[:3]


@settings(max_examples=25, deadline=None)
@given(size=st.tuples(*[st.integers(7, 14)] * 3), fit=st.sampled_from(["pad", "crop"]))
def test_cut_and_padded_voxels_stay_in_place(
    tmp_path_factory: pytest.TempPathFactory, size: tuple[int, int, int], fit: str
) -> None:
    values = np.zeros(SHAPE, np.int16)
    values[3, 4, 4] = 5  # in the middle: no cut loses it
    path = write(tmp_path_factory.mktemp("n") / "a.nii", values)
    if fit == "pad" and any(a > b for a, b in zip(SHAPE[::-1], size, strict=True)):
        refused(
            path, r"voxels \(z, y, x\), more than size .*; use fit='crop' or 'squash'", size=size
        )
        return
    ds = open_source(path, size=size, fit=fit)
    assert ds.patterns.shape == (1, *size)
    assert ds.patterns.dtype == np.int16
    assert int(ds.patterns.sum()) == 5
    np.testing.assert_allclose(centre(ds), (AFFINE @ [3, 4, 4, 1])[:3], atol=1e-9)


@pytest.mark.parametrize(
    "given", [{"spacing": (1.5, 1.0, 1.0)}, {"size": (18, 16, 21), "fit": "squash"}]
)
def test_resampling_finer_keeps_a_ramp(given: dict[str, Any], tmp_path: Path) -> None:
    x, y, z = np.indices(SHAPE)
    mm = np.moveaxis(np.stack([x, y, z, np.ones(SHAPE)]), 0, -1) @ AFFINE.T
    weights = np.array([1.0, -2.0, 3.0])
    ds = open_source(write(tmp_path / "a.nii", (mm[..., :3] @ weights).astype(np.float32)), **given)
    zz, yy, xx = np.indices(ds.patterns.shape[1:])
    places = np.moveaxis(np.stack([xx, yy, zz, np.ones(zz.shape)]), 0, -1) @ ds.affine[0].values.T
    inside = (slice(2, -2),) * 3
    np.testing.assert_allclose(
        ds.patterns[0].values[inside], (places[..., :3] @ weights)[inside], atol=1e-3
    )
    assert ds.patterns.dtype == np.float32


def test_bad_volumes_are_named_together(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name in ("good", "cut", "many"):
        write(folder / f"{name}.nii.gz")
    whole = (folder / "cut.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[:-300])
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 6), np.int16), AFFINE), folder / "many.nii.gz")
    (folder / "text.nii").write_text("no volume")
    for name, start, stop, values in (
        ("lying.nii.gz", 42, 48, np.array([30000] * 3, "<i2")),  # the shape
        ("negative.nii", 42, 44, np.array([-3], "<i2")),
        ("flat.nii", 280, 296, np.zeros(16, "u1")),  # one row of the affine
    ):
        header = bytearray(gzip.decompress(whole))
        header[start:stop] = values.tobytes()
        (folder / name).write_bytes(gzip.compress(header) if name.endswith("gz") else header)
    values = VALUES.astype(np.float32)
    values[0, 1, 2] = np.inf
    nib.save(
        nib.Nifti1Image(values[..., None], AFFINE), folder / "inf.nii"
    )  # the axis of one does no harm
    with pytest.raises(DataError) as caught:
        ingest(folder, tmp_path / "a.zarr")
    for part in (
        "7 of 8 files cannot be used",
        "cut.nii.gz: cannot be read as NIfTI",
        "many.nii.gz: holds 6 volumes (its shape is (4, 4, 4, 6)); expected one volume",
        "negative.nii: holds int16 of shape (-3, 8, 9)",
        "flat.nii: has an affine that maps no volume to millimetres",
        "text.nii: cannot be read as NIfTI",
        "lying.nii.gz: declares 54000000000352 bytes, more than its",
        "inf.nii: has NaN or infinite values; correct it",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "a.zarr").exists()
    refused(folder, "must be three numbers", UsageError, size=(4, 4))
    refused(folder, "a value above 0", UsageError, spacing=(1, 1, 0))
