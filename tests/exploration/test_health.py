"""Health of latents agrees with plain calculations, for a run with posteriors, spatial latents and attached ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import vaearr as va
from vaearr.errors import NoInputError, UsageError
from vaearr.exploration.health import (
    aggregate_draws,
    gaussian_total_correlation,
    kolmogorov,
    wasserstein,
)
from vaearr.exploration.points import open_encoded
from vaearr.run.statistics import latent_sums, posteriors

from .conftest import attached_values

health = va.explore.health


def test_distances_from_the_prior_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    drawn = np.sort(rng.normal([0, 0.7], [1, 0.5], (400, 2)), axis=0)
    for i in range(2):
        assert kolmogorov(drawn)[i] == pytest.approx(stats.kstest(drawn[:, i], "norm").statistic)
        grid = stats.norm.ppf((np.arange(400_000) + 0.5) / 400_000)
        assert wasserstein(drawn)[i] == pytest.approx(stats.wasserstein_distance(drawn[:, i], grid), abs=0.01)
    far = np.sort(rng.normal(3, 1, (100_000, 1)), axis=0)
    assert wasserstein(far)[0] == pytest.approx(3, abs=0.02)


def test_total_correlation_of_a_gaussian() -> None:
    r = 0.6
    found = gaussian_total_correlation(np.array([[1, r], [r, 1]]))
    assert found == pytest.approx(-0.5 * np.log(1 - r**2))  # mutual information of two Gaussians
    assert gaussian_total_correlation(np.eye(3)) == 0
    assert gaussian_total_correlation(np.ones((2, 2))) is None
    assert gaussian_total_correlation(np.array([[1, np.nan], [np.nan, np.nan]])) == 0


def test_a_run_with_posteriors(scan_path: Path, scan_ds: xr.Dataset) -> None:
    found = health(scan_path, seed=3)
    known = va.latent_statistics(scan_path)
    for name in ("kl", "aggregate_mean", "aggregate_std", "aggregate_kl", "is_active"):
        np.testing.assert_array_equal(found[name], known[name])
    attrs = found.attrs
    assert attrs["aggregate_kl_total"] == pytest.approx(
        float(found["aggregate_kl"].sum()) + attrs["total_correlation"], rel=1e-6, abs=1e-9
    )
    z = scan_ds["latents"].values.reshape(-1, 3).astype("f8")
    z = z[np.isfinite(z).all(1)]
    np.testing.assert_allclose(found["correlation"], np.corrcoef(z.T), atol=1e-9)
    assert attrs["n_draws"] >= 20_000
    width = np.diff(found["edges"])
    np.testing.assert_allclose((found["density"] * width).sum("bin"), 1, atol=0.01)
    np.testing.assert_allclose((found["prior"] * width).sum(), 1, atol=1e-3)
    xr.testing.assert_identical(found, health(scan_path, seed=3))
    assert not found["kolmogorov"].equals(health(scan_path, seed=4)["kolmogorov"])


def test_draws_have_the_moments_of_the_aggregate(scan_path: Path) -> None:
    encoded = open_encoded(scan_path, "vae")
    sums = latent_sums(encoded)
    draws = aggregate_draws(encoded, sums, 50_000, 0)
    std = np.sqrt(np.diag(sums.covariance) + sums.variance / sums.count)
    np.testing.assert_allclose(draws.mean(0), sums.mean, atol=5 * std.max() / np.sqrt(len(draws)))
    np.testing.assert_allclose(draws.std(0), std, rtol=0.03)
    few = aggregate_draws(encoded, sums, 100, 0)
    assert 50 < len(few) < 150
    assert sum(len(mean) for mean, *_ in posteriors(encoded)) == sums.count


def test_positions_of_spatial_latents_are_rows(spatial_path: Path) -> None:
    found = health(spatial_path)
    assert found["correlation"].shape == (2, 2)
    assert found.attrs["n"] == 24


def test_attached_latents_have_no_kl(attached_path: Path) -> None:
    found = health(attached_path, "own")
    z = attached_values().astype("f8")
    z = z[np.isfinite(z).all(1)]
    assert np.isnan(found["kl"]).all()
    assert found.attrs["kl_total"] is None
    assert found.attrs["n_active"] == 4
    assert found.attrs["n_draws"] == len(z) == found.attrs["n"]
    for i in range(4):
        assert float(found["kolmogorov"][i]) == pytest.approx(stats.kstest(z[:, i], "norm").statistic)
    r = np.corrcoef(z.T)
    assert found.attrs["largest_pair"] == [0, 1]
    assert found.attrs["largest_correlation"] == pytest.approx(r[0, 1])
    assert found.attrs["total_correlation"] == pytest.approx(-0.5 * np.log(np.linalg.det(r)))
    scores = stats.norm.ppf((stats.rankdata(z, axis=0) - 0.5) / len(z))
    want = -0.5 * np.log(np.linalg.det(np.corrcoef(scores.T)))
    assert found.attrs["total_correlation_bound"] == pytest.approx(want - 4 * 3 / (4 * len(z)))
    assert "without standard deviations" in found.attrs["warnings"][0]


def test_refusals(scan_path: Path) -> None:
    with pytest.raises(NoInputError, match="no run 'other'"):
        health(scan_path, "other")
    with pytest.raises(UsageError, match="at least 2"):
        health(scan_path, bins=1)
    with pytest.raises(UsageError, match="at least 2"):
        health(scan_path, max_draws=1)
