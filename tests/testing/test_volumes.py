"""synthetic_volumes(), write_volume_files(): factors that show in the voxels, and files that come back as they went."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import xarray as xr

from vaearr import schema
from vaearr.errors import SchemaError, UsageError
from vaearr.ingestion import ingest
from vaearr.testing import assert_valid, random_patterns_dataset, synthetic_volumes, write_volume_files
from vaearr.testing.volumes import FLUID, LARGEST, RANGES, brain

SMALL = {"shape": (10, 14, 10), "spacing": 14.0}
GRID = [(np.arange(size) - (size - 1) / 2) * 5.0 for size in (28, 36, 28)]
MEAN = {"true_ventricle": 1.0, "true_size": 1.0, "true_shear": 0.0, "true_contrast": 0.3, "true_bias": 0.0}
NO_FOLDS = np.zeros((1, 3)), np.zeros(1)


def clean(**changed: float) -> np.ndarray:
    return brain(GRID, MEAN | changed, NO_FOLDS, border=5.0)


@pytest.fixture(scope="module")
def volumes() -> xr.Dataset:
    return synthetic_volumes(3)


def test_layout(volumes):
    assert_valid(volumes)
    assert schema.navigation_dims(volumes) == ("sample",)
    assert volumes.patterns.dims == ("sample", "z", "y", "x")
    assert volumes.patterns.dtype == np.int16
    assert {volumes[dim].attrs["units"] for dim in "zyx"} == {"mm"}
    assert volumes.label.values.tolist() == [0, 1] * 3
    assert volumes.subject.values.tolist() == ["s000", "s000", "s001", "s001", "s002", "s002"]
    for name, (low, high, words, whose) in RANGES.items():
        assert volumes[name].attrs["long_name"] == words
        first = volumes[name].values[::2]
        assert ((first >= low) & (first <= high)).all()
        assert (whose == "person") == np.array_equal(first, volumes[name].values[1::2])
    assert (volumes.true_ventricle.values[1::2] > 1.1 * volumes.true_ventricle.values[::2]).all()


def test_same_seed_same_volumes_and_a_subject_does_not_depend_on_their_number():
    first, again, other, more = (
        synthetic_volumes(count, **SMALL, seed=seed) for count, seed in ((2, 5), (2, 5), (2, 6), (4, 5))
    )
    xr.testing.assert_identical(first, again)
    assert not first.patterns.equals(other.patterns)
    xr.testing.assert_identical(first, more.isel(sample=slice(0, 4)))


def test_ventricles_have_the_volume_that_was_asked_for():
    small, large = ((clean(true_ventricle=v) < 0.3)[8:20, 8:26, 9:19].sum() for v in (0.8, 1.6))
    assert large / small == pytest.approx(2, rel=0.3)


def test_shear_moves_the_top_to_one_side_and_the_bottom_to_the_other():
    def middle(image: np.ndarray, z: int) -> float:
        return float((image[z].sum(0) * GRID[2]).sum() / image[z].sum())

    straight, sheared = clean(), clean(true_shear=0.2)
    for z in (5, 22):
        assert middle(straight, z) == pytest.approx(0, abs=0.1)
        assert middle(sheared, z) == pytest.approx(0.2 * GRID[0][z], abs=0.5)


def test_contrast_size_and_bias_do_what_they_say():
    low, high = clean(true_contrast=0.2), clean(true_contrast=0.4)
    grey = 14, 3, 14  # in front of the fissure, between the hemispheres' white matter and the rim
    white = 17, 18, 20
    assert low[white] == high[white] == pytest.approx(0.9)
    assert (low[grey] / 0.9, high[grey] / 0.9) == (pytest.approx(0.8), pytest.approx(0.6))
    inside = [(clean(true_size=size) > FLUID).sum() for size in (0.95, 1.05)]
    assert inside[1] / inside[0] == pytest.approx((1.05 / 0.95) ** 3, rel=0.05)
    gain = clean(true_bias=0.4) / np.maximum(clean(), 1e-9)
    x, y = GRID[2][20], GRID[1][18]
    assert gain[white] == pytest.approx(np.exp(0.4 * (0.6 * x + 0.8 * y) / 180))


def test_noise_is_rician():
    quiet, noisy = (synthetic_volumes(1, noise=noise).patterns.values[0] for noise in (0.0, 0.03))
    empty = quiet == 0
    assert noisy[empty].mean() == pytest.approx(0.03 * LARGEST * np.sqrt(np.pi / 2), rel=0.05)
    bright = quiet > 0.5 * LARGEST
    assert (noisy - quiet)[bright].std() == pytest.approx(0.03 * LARGEST, rel=0.05)


def test_files_come_back_as_they_went(volumes, tmp_path):
    manifest = write_volume_files(volumes, tmp_path / "files")
    ds = ingest(manifest, tmp_path / "store.zarr")
    np.testing.assert_array_equal(ds.patterns.values, volumes.patterns.values)
    np.testing.assert_array_equal(ds.label.values, volumes.label.values)
    assert ds.label.attrs["flag_meanings"] == "unknown baseline follow_up"
    assert ds.subject.values.tolist() == volumes.subject.values.tolist()
    for dim in "zyx":
        np.testing.assert_allclose(ds[dim], volumes[dim])
        assert ds[dim].attrs["units"] == "mm"
    for name in RANGES:
        np.testing.assert_allclose(ds[name], volumes[name], rtol=1e-5)
    image = nib.load(tmp_path / "files" / "follow_up" / "s001.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    np.testing.assert_array_equal(np.asarray(image.dataobj), volumes.patterns.values[3].T)


@pytest.mark.parametrize(
    "wrong",
    [{"n_subjects": 0}, {"shape": (0, 4, 4)}, {"shape": (4, 4)}, {"spacing": 0}, {"noise": -1}],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        synthetic_volumes(**wrong)


def test_other_data_is_not_written(tmp_path):
    with pytest.raises(SchemaError, match="give one made by synthetic_volumes"):
        write_volume_files(random_patterns_dataset({"sample": 4}), tmp_path / "files")
    assert not (tmp_path / "files").exists()
