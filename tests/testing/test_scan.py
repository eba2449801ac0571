"""synthetic_scan(): schema, determinism, and maps that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from vaearr import schema
from vaearr.errors import UsageError
from vaearr.testing import assert_valid, image_quality, synthetic_scan

SMALL = {"nx": 20, "ny": 14, "pattern_shape": (24, 28), "n_grains": 6}


@pytest.fixture(scope="module")
def scan() -> xr.Dataset:
    return synthetic_scan(nx=32, ny=24, pattern_shape=(40, 40), n_grains=10, seed=1)


def test_layout(scan):
    assert_valid(scan)
    assert schema.navigation_dims(scan) == ("y", "x")
    assert scan.patterns.dtype == np.uint8
    assert scan.patterns.shape == (24, 32, 40, 40)
    assert scan.x.attrs["units"] == "um"
    np.testing.assert_array_equal(scan.x, 0.25 * scan.x_index)
    np.testing.assert_array_equal(scan.y, 0.25 * scan.y_index)
    assert {"BC", "elements", "phase", "true_grain", "true_phase", "true_quality", "own_grain_fraction"} <= set(scan)


def test_same_seed_same_scan_other_seed_another():
    first, again, other = (synthetic_scan(**SMALL, seed=seed) for seed in (5, 5, 6))
    xr.testing.assert_identical(first, again)
    assert not first.patterns.equals(other.patterns)
    assert not first.true_grain.equals(other.true_grain)


def test_microstructure_does_not_depend_on_detector_or_noise():
    first = synthetic_scan(**SMALL)
    other = synthetic_scan(**{**SMALL, "pattern_shape": (8, 8)}, noise=False)
    xr.testing.assert_identical(first.true_grain, other.true_grain)
    xr.testing.assert_identical(first.true_quality, other.true_quality)


def test_chunks_change_nothing_but_laziness():
    plain, lazy = synthetic_scan(**SMALL), synthetic_scan(**SMALL, chunks={"y": 4})
    assert lazy.patterns.chunksizes["y"] == (4, 4, 4, 2)
    xr.testing.assert_identical(plain, lazy.load())


def test_noise_free_patterns_are_alike_within_a_grain_and_differ_between_grains():
    ds = synthetic_scan(**{**SMALL, "pattern_shape": (40, 40)}, noise=False, scratch=False)
    inner = ds.own_grain_fraction.values > 0.999
    patterns = ds.patterns.values[inner].reshape(inner.sum(), -1).astype(float)
    patterns -= patterns.mean(axis=0)
    correlation = np.corrcoef(patterns)
    same = ds.true_grain.values[inner][:, None] == ds.true_grain.values[inner][None]
    np.fill_diagonal(same, False)
    assert correlation[same].min() > 0.8
    assert correlation[~same & ~np.eye(len(same), dtype=bool)].max() < 0.5


def test_noise_dominates_a_single_pixel(scan):
    clean = synthetic_scan(nx=32, ny=24, pattern_shape=(40, 40), n_grains=10, seed=1, noise=False)
    noise = (scan.patterns.astype(float) - clean.patterns).values
    bands = clean.patterns.values - clean.patterns.values.mean(axis=(0, 1))
    assert 0.5 < bands.std() / noise.std() < 3
    assert abs(noise.mean()) < 0.2
    assert (scan.patterns.values == 255).mean() < 1e-3


def test_band_contrast_is_low_on_the_scratch_and_follows_quality(scan):
    assert float(scan.BC.min()) == 0
    assert float(scan.BC.max()) == 255
    assert scan.BC.dtype == np.float32
    on, off = scan.true_scratch.values > 0.8, scan.true_scratch.values < 0.05
    assert on.any()
    assert scan.BC.values[on].mean() < 0.5 * scan.BC.values[off].mean()
    truth = (scan.true_quality * scan.own_grain_fraction).values
    assert np.corrcoef(scan.BC.values.ravel(), truth.ravel())[0, 1] > 0.85


def test_elements_sum_to_100_and_follow_the_phase(scan):
    np.testing.assert_allclose(scan.elements.sum("element"), 100, rtol=1e-5)
    iron, nickel = (scan.elements.sel(element=name).values for name in ("Fe", "Ni"))
    bcc = scan.true_phase.values == 1
    inner = scan.own_grain_fraction.values > 0.999
    assert iron[bcc & inner].mean() > 60
    assert nickel[~bcc & inner].mean() > 40
    assert np.corrcoef(iron.ravel(), bcc.ravel())[0, 1] > 0.8


def test_phase_is_true_or_not_indexed(scan):
    unknown = scan.phase.values == -1
    assert scan.phase.dtype == np.int16
    assert 0 < unknown.mean() < 0.02
    np.testing.assert_array_equal(scan.phase.values[~unknown], scan.true_phase.values[~unknown])
    assert set(np.unique(scan.true_phase)) == {0, 1}
    assert len(scan.phase.attrs["flag_values"]) == len(scan.phase.attrs["flag_meanings"].split())


def test_a_grain_has_one_phase_and_the_boundary_mixes(scan):
    for grain in np.unique(scan.true_grain):
        assert len(np.unique(scan.true_phase.values[scan.true_grain.values == grain])) == 1
    right = scan.true_grain.values[:, 1:] != scan.true_grain.values[:, :-1]
    assert scan.own_grain_fraction.values[:, 1:][right].max() < 0.999
    assert float(scan.own_grain_fraction.max()) == pytest.approx(1, abs=1e-6)


def test_grains_can_be_found_again(scan):
    """32 principal components and k-means know most of the grains: neither trivial nor hopeless."""
    cluster = pytest.importorskip("sklearn.cluster")
    decomposition = pytest.importorskip("sklearn.decomposition")
    metrics = pytest.importorskip("sklearn.metrics")
    flat = scan.patterns.values.reshape(-1, 40 * 40).astype(np.float32)
    flat /= flat.mean(axis=0)
    flat = (flat - flat.mean(axis=1, keepdims=True)) / flat.std(axis=1, keepdims=True)
    components = decomposition.PCA(32, svd_solver="randomized", random_state=0).fit_transform(flat)
    truth = scan.true_grain.values.ravel()
    labels = cluster.KMeans(len(np.unique(truth)), n_init=3, random_state=0).fit_predict(components)
    assert 0.7 < metrics.adjusted_rand_score(truth, labels) < 0.99


def test_twins_are_further_grains():
    without, with_twins = (synthetic_scan(**SMALL, n_twins=n_twins) for n_twins in (0, 2))
    assert int(without.true_grain.max()) == 5
    assert int(with_twins.true_grain.max()) == 7


def test_roi_is_a_disc():
    ds = synthetic_scan(**SMALL, roi="disc")
    assert ds.roi.dtype == bool
    assert not ds.roi[0, 0]
    assert ds.roi[7, 10]
    assert_valid(ds)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 1)], ids=str)
def test_tiny_scans_work(size):
    ny, nx = size
    assert_valid(synthetic_scan(nx=nx, ny=ny, pattern_shape=(3, 2), n_grains=1))


def test_more_grains_than_scan_points_work():
    assert_valid(synthetic_scan(nx=3, ny=2, pattern_shape=(4, 4), n_grains=20))


@pytest.mark.parametrize(
    "wrong",
    [{"nx": 0}, {"n_grains": 0}, {"pattern_shape": (0, 4)}, {"roi": "star"}, {"dose": 0}, {"step": -1.0}],
    ids=str,
)
def test_impossible_arguments_are_usage_errors(wrong):
    with pytest.raises(UsageError):
        synthetic_scan(**{"nx": 3, "ny": 3, "pattern_shape": (4, 4), "n_grains": 2, **wrong})


def test_image_quality_ranks_bands_above_noise():
    rng = np.random.default_rng(0)
    noise = rng.normal(100, 10, (64, 32, 32))
    bands = noise + 40 * (np.abs(np.arange(32) - rng.uniform(5, 27, (64, 1))) < 4)[:, None, :]
    quality = image_quality(np.concatenate([noise, bands]))
    assert abs(quality[:64].mean()) < 0.05
    assert quality[64:].min() > quality[:64].max()
