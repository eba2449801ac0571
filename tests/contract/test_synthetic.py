"""Data with known truth for tests of one's own: scans, volumes, random numbers, and checks on
Datasets.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr import testing

from .harness import vaearr, zarr

SMALL = {"nx": 20, "ny": 14, "pattern_shape": (24, 28), "n_grains": 6}


@pytest.fixture(scope="module")
def scan() -> xr.Dataset:
    return testing.synthetic_scan(nx=32, ny=24, pattern_shape=(40, 40), n_grains=10, seed=1)


def test_a_scan_means_what_it_says(scan: xr.Dataset) -> None:
    assert scan.patterns.dims == ("y", "x", "dy", "dx")
    assert scan.patterns.dtype == np.uint8
    np.testing.assert_array_equal(scan.x, 0.25 * scan.x_index)
    np.testing.assert_allclose(scan.elements.sum("element"), 100, rtol=1e-5)
    inner, bcc = scan.own_grain_fraction.values > 0.999, scan.true_phase.values == 1
    assert scan.elements.sel(element="Fe").values[bcc & inner].mean() > 60
    assert scan.elements.sel(element="Ni").values[~bcc & inner].mean() > 40
    unknown = scan.phase.values == -1
    assert 0 < unknown.mean() < 0.02
    np.testing.assert_array_equal(scan.phase.values[~unknown], scan.true_phase.values[~unknown])
    on, off = scan.true_scratch.values > 0.8, scan.true_scratch.values < 0.05
    assert scan.BC.values[on].mean() < 0.5 * scan.BC.values[off].mean()
    truth = (scan.true_quality * scan.own_grain_fraction).values
    assert np.corrcoef(scan.BC.values.ravel(), truth.ravel())[0, 1] > 0.85


def test_the_same_arguments_give_the_same_scan() -> None:
    first, again, other = (testing.synthetic_scan(**SMALL, seed=seed) for seed in (5, 5, 6))
    xr.testing.assert_identical(first, again)
    assert not first.true_grain.equals(other.true_grain)
    clean = testing.synthetic_scan(**{**SMALL, "pattern_shape": (8, 8)}, seed=5, noise=False)
    xr.testing.assert_identical(clean.true_grain, first.true_grain)
    grains = [
        int(testing.synthetic_scan(**SMALL, n_twins=count).true_grain.max()) for count in (0, 2)
    ]
    assert grains == [5, 7]
    for nx, ny, count in ((1, 1, 1), (7, 1, 1), (3, 2, 20)):
        assert testing.synthetic_scan(
            nx=nx, ny=ny, pattern_shape=(3, 2), n_grains=count
        ).patterns.shape == (
            ny,
            nx,
            3,
            2,
        )


def test_patterns_show_the_grain() -> None:
    """Without noise alike within a grain and unlike between grains; with noise, about as strong as
    the bands.
    """
    options = {**SMALL, "pattern_shape": (40, 40), "scratch": False}
    clean, noisy = (testing.synthetic_scan(**options, noise=noise) for noise in (False, True))
    inner = clean.own_grain_fraction.values > 0.999
    patterns = clean.patterns.values[inner].reshape(inner.sum(), -1).astype(float)
    correlation = np.corrcoef(patterns - patterns.mean(axis=0))
    same = clean.true_grain.values[inner][:, None] == clean.true_grain.values[inner][None]
    assert correlation[same].min() > 0.8
    assert correlation[~same].max() < 0.5
    noise = noisy.patterns.values.astype(float) - clean.patterns.values
    assert 0.5 < (patterns - patterns.mean(axis=0)).std() / noise.std() < 3
    assert abs(noise.mean()) < 0.2


def test_files_of_a_scan_come_back(scan: xr.Dataset, tmp_path: Path) -> None:
    few = scan.isel(y=slice(0, 9), x=slice(0, 13))
    present = few.x_index + 13 * few.y_index != 29
    files = testing.write_scan_files(few.assign(present=present), tmp_path / "new" / "files")
    maps = ("--bc", files["BC"], "--elements", files["elements"], "--phases", files["phase"])
    vaearr("ingest", files["patterns"], tmp_path / "a.zarr", *maps, "--step", 0.25)
    ds = zarr(tmp_path / "a.zarr")
    there = ds.present.values
    assert [tuple(point) for point in np.argwhere(~there)] == [(2, 3)]
    for name in ("patterns", "BC", "phase"):
        np.testing.assert_array_equal(ds[name].values[there], few[name].values[there])
    np.testing.assert_allclose(
        ds.elements.values[:, there], few.elements.values[:, there], atol=6e-4
    )
    only = testing.write_scan_files(few.drop_vars(["elements", "phase"]), tmp_path / "two")
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [
        "bandcontrast.csv",
        "scan.h5",
    ]
    assert set(only) == {"patterns", "BC"}


def test_volumes_and_their_files(tmp_path: Path) -> None:
    made = testing.synthetic_volumes(3, (10, 14, 10), spacing=14.0)
    xr.testing.assert_identical(
        made.isel(sample=slice(0, 4)), testing.synthetic_volumes(2, (10, 14, 10), spacing=14.0)
    )
    assert (made.true_ventricle.values[1::2] > 1.1 * made.true_ventricle.values[::2]).all()
    np.testing.assert_array_equal(made.true_size.values[1::2], made.true_size.values[::2])
    vaearr("ingest", testing.write_volume_files(made, tmp_path / "files"), tmp_path / "a.zarr")
    ds = va.open_store(tmp_path / "a.zarr")
    np.testing.assert_array_equal(ds.patterns.values, made.patterns.values)
    assert ds.subject.values.tolist() == ["s000", "s000", "s001", "s001", "s002", "s002"]
    np.testing.assert_allclose(ds.true_shear, made.true_shear, rtol=1e-5)
    image = nibabel.load(tmp_path / "files" / "follow_up" / "s001.nii.gz")
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    np.testing.assert_array_equal(np.asarray(image.dataobj), made.patterns.values[3].T)


def test_factors_show_in_the_voxels() -> None:
    """The brain grows with its size, its upper half leans with the shear, noise is Rician."""
    made = testing.synthetic_volumes(40, (14, 18, 14), spacing=10.0, noise=0.0)
    x = made.x.values
    image = made.patterns.values / np.exp(
        made.true_bias.values[:, None, None, None] * (0.6 * x + 0.8 * made.y.values[:, None]) / 180
    )
    upper, lower = (
        (image[:, part] * x).sum((1, 2, 3)) / image[:, part].sum((1, 2, 3))
        for part in (slice(9, 14), slice(5))
    )
    assert np.corrcoef(upper - lower, made.true_shear)[0, 1] > 0.95
    assert np.corrcoef((image > 100).sum((1, 2, 3)), made.true_size)[0, 1] > 0.9
    quiet, noisy = (
        testing.synthetic_volumes(1, noise=noise).patterns.values[0] for noise in (0.0, 0.03)
    )
    assert noisy[quiet == 0].mean() == pytest.approx(30 * np.sqrt(np.pi / 2), rel=0.05)


WRONG = {
    "synthetic_scan": [{"nx": 0}, {"pattern_shape": (0, 4)}, {"dose": 0}, {"step": -1.0}],
    "synthetic_volumes": [{"n_subjects": 0}, {"shape": (4, 4)}, {"spacing": 0}, {"noise": -1}],
}


@pytest.mark.parametrize(
    ("name", "options"), [(name, row) for name, rows in WRONG.items() for row in rows], ids=str
)
def test_impossible_arguments(name: str, options: dict[str, object]) -> None:
    from vaearr.errors import UsageError

    with pytest.raises(UsageError, match=next(iter(options))):
        getattr(testing, name)(**options)
