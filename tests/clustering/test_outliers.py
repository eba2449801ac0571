"""Mahalanobis distances against scipy, their threshold, noise and small clusters."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.distance import mahalanobis as of_two_points

from vaearr.clustering import cluster, mahalanobis
from vaearr.errors import RoiError, SchemaError, UsageError

Blobs = tuple[xr.DataArray, xr.DataArray]


def test_against_scipy(blobs: Blobs) -> None:
    latents, truth = blobs
    result = mahalanobis(latents, truth)
    for code in range(3):
        own = latents.values[truth.values == code]
        inverse = np.linalg.inv(np.cov(own, rowvar=False))
        expected = [of_two_points(point, own.mean(axis=0), inverse) for point in own]
        np.testing.assert_allclose(result["distance"].values[truth.values == code], expected, rtol=1e-3)
    assert result["is_outlier"].dtype == bool
    np.testing.assert_array_equal(result["is_outlier"], result["distance"] > result.attrs["threshold"])
    assert 0.01 < float(result["is_outlier"].mean()) < 0.1


def test_share_of_outliers_is_the_quantiles() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(100, 100, 4)) @ rng.normal(size=(4, 4))
    maps = xr.DataArray(values, dims=("y", "x", "latent"))
    for quantile in (0.9, 0.99):
        share = float(mahalanobis(maps, quantile=quantile)["is_outlier"].mean())
        assert share == pytest.approx(1 - quantile, abs=0.01)


def test_units_and_dependent_features_do_not_matter(blobs: Blobs) -> None:
    latents, truth = blobs
    expected = mahalanobis(latents, truth)["distance"]
    np.testing.assert_allclose(mahalanobis(latents * [1e5, 1e-4, 3.0] + 2, truth)["distance"], expected, rtol=1e-6)
    twice = xr.concat([latents, latents[..., :1].assign_coords(latent=[9])], "latent")
    assert np.isfinite(mahalanobis(twice, truth)["distance"]).all()


def test_noise_outside_and_small_clusters(blobs: Blobs) -> None:
    latents, truth = blobs
    labels = truth.astype("i4").copy()
    labels[0, 0], labels[0, 1], labels[0, 2] = -1, -2, 7
    roi = xr.ones_like(truth, dtype=bool)
    roi[1, :] = False
    result = mahalanobis(latents, labels, roi=roi)
    distance = result["distance"].values
    assert np.isnan(distance[1]).all()
    assert np.isnan(distance[0, 1:3]).all()
    assert 0 < distance[0, 0] < 10  # the nearest cluster is the one it comes from
    assert not result["is_outlier"].values[1].any()
    assert "[7]" in result.attrs["warnings"][0]
    assert result.attrs["n"] == truth.size - truth.sizes["x"] - 2


def test_a_far_point_is_found(blobs: Blobs) -> None:
    latents, _ = blobs
    latents = latents.copy()
    latents[4, 4] += 8
    result = mahalanobis(latents, cluster(latents, "kmeans", k=3), quantile=0.999)
    assert bool(result["is_outlier"][4, 4])


def test_refusals(blobs: Blobs) -> None:
    latents, truth = blobs
    with pytest.raises(UsageError, match="quantile is 95"):
        mahalanobis(latents, quantile=95)
    with pytest.raises(SchemaError, match="labels lie over"):
        mahalanobis(latents, truth[0])
    with pytest.raises(SchemaError, match="same grid"):
        mahalanobis(latents, truth.assign_coords(x=truth["x"] + 1))
    with pytest.raises(RoiError, match="no cluster has more points"):
        mahalanobis(latents.isel(y=slice(1), x=slice(3)))
