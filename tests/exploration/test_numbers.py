"""PCA, tables, histograms, pair densities and distances agree with plain calculations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import chi2, kstest

import vaearr as va
from vaearr.errors import DataError, ExistsError, NoInputError, UsageError
from vaearr.store import create_store
from vaearr.testing import random_patterns_dataset

explore = va.explore


@pytest.fixture(scope="module")
def z(scan_ds: xr.Dataset) -> np.ndarray:
    """Known latents `(k, 3)`, float64."""
    flat = scan_ds["latents"].values.reshape(-1, 3).astype("f8")
    return flat[np.isfinite(flat).all(1)]


def test_pca_of_the_latents(scan_path: Path, z: np.ndarray) -> None:
    found = explore.latent_pca(scan_path)
    np.testing.assert_allclose(found["loadings"].values.T @ found["loadings"].values, np.cov(z.T), atol=1e-9)
    np.testing.assert_allclose(found["explained_variance"], np.linalg.eigvalsh(np.cov(z.T))[::-1])
    assert float(found["explained_variance_cumulative"][-1]) == pytest.approx(1)
    with pytest.raises(UsageError, match="at most 3"):
        explore.latent_pca(scan_path, n_components=4)
    with pytest.raises(UsageError, match="at least 1"):
        explore.latent_pca(scan_path, n_components=0)


def test_pca_of_spatial_latents(spatial_path: Path) -> None:
    whole, means = explore.latent_pca(spatial_path), explore.latent_pca(spatial_path, pooled=True)
    assert whole["components"].shape == (23, 2, 3, 4)
    assert means["components"].shape == (2, 2)


def test_the_summary_is_that_of_pandas(scan_path: Path, z: np.ndarray) -> None:
    table = explore.latent_table(scan_path)["summary"].to_pandas()
    want = pd.DataFrame(z).describe().T
    assert table.columns.tolist() == want.columns.tolist()
    np.testing.assert_allclose(table.values, want.values, rtol=1e-6)


def test_activations_with_classes_as_files(scan_path: Path, scan_ds: xr.Dataset, tmp_path: Path) -> None:
    table = explore.activation_table(scan_path, by=["phase", "BC"])
    assert list(table) == ["number", "y", "x", "phase", "phase_name", "BC", "latent_0", "latent_1", "latent_2"]
    np.testing.assert_array_equal(table["phase"], scan_ds["phase"].values.ravel()[table["number"]])
    assert (table["phase"] < 0).any()
    saved = explore.save_table(table, tmp_path / "z.csv")
    np.testing.assert_allclose(pd.read_csv(saved)["latent_1"], table["latent_1"], rtol=1e-6)
    with pytest.raises(ExistsError, match="overwrite"):
        explore.save_table(table, saved)
    with pytest.raises(UsageError, match=r"saved as \.csv or \.parquet"):
        explore.save_table(table, tmp_path / "z.txt")
    with pytest.raises(NoInputError, match="no folder"):
        explore.save_table(table, tmp_path / "not" / "z.csv")
    with pytest.raises(NoInputError, match="'phse'"):
        explore.activation_table(scan_path, by=["phse"])
    with pytest.raises(UsageError, match="one value for each"):
        explore.activation_table(scan_path, by=["elements"])


def test_histograms_by_class_add_up(scan_path: Path, z: np.ndarray) -> None:
    whole, parts = explore.histograms(scan_path, bins=7), explore.histograms(scan_path, by="phase", bins=7)
    for i in range(3):
        np.testing.assert_array_equal(whole["counts"][i], np.histogram(z[:, i], whole["edges"].values[i])[0])
    np.testing.assert_array_equal(parts["counts"].sum("class") + parts["unclassified"], whole["counts"])
    with pytest.raises(UsageError, match="bins is 0"):
        explore.histograms(scan_path, bins=0)


def test_pair_densities_integrate_to_one(scan_path: Path, z: np.ndarray) -> None:
    found = explore.pairs(scan_path, dims=[2, 0], bins=9, by="phase", max_points=20, seed=1)
    edges = dict(zip([2, 0], found["edges"].values, strict=True))
    want = np.histogram2d(z[:, 0], z[:, 2], [edges[0], edges[2]], density=True)[0]
    np.testing.assert_allclose(found["density"][0], want, rtol=1e-6)
    assert (int(found["x_dim"][0]), int(found["y_dim"][0])) == (2, 0)
    np.testing.assert_allclose(found["correlation"], np.corrcoef(z[:, [2, 0]].T), atol=1e-9)
    assert found["vectors"].shape == (20, 2)
    assert "class" in found.coords
    assert explore.pairs(scan_path).sizes["pair"] == 3
    with pytest.raises(UsageError, match="two dimensions or more"):
        explore.pairs(scan_path, dims=[1])


def test_distance_to_all_posterior_means(
    scan_path: Path, scan_ds: xr.Dataset, z: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="no latent dimension of run 'vae' varies"):
        explore.out_of_distribution(scan_path)
    monkeypatch.setattr("vaearr.exploration.novelty.ACTIVE_VARIANCE", 0)
    found = explore.out_of_distribution(scan_path)
    active = found.attrs["active"]
    inside = np.isfinite(scan_ds["latents"].values).all(-1)
    covariance = np.cov(z.T, bias=True)
    off = (z - z.mean(0))[:, active]
    squared = (off @ np.linalg.inv(covariance[np.ix_(active, active)]) * off).sum(1)
    np.testing.assert_allclose(found["distance"].values[inside] ** 2, squared, rtol=1e-6)
    np.testing.assert_allclose(found["p_value"].values[inside], chi2.sf(squared, len(active)), rtol=1e-5)
    assert np.isnan(found["distance"].values[~inside]).all()
    assert np.isnan(found["p_value"].values[~inside]).all()


def test_distance_of_spatial_latents_is_a_mean_over_positions(
    spatial_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaearr.exploration.novelty.ACTIVE_VARIANCE", 0)
    found = explore.out_of_distribution(spatial_path)
    assert set(found.data_vars) == {"distance"}
    assert found.attrs["degrees"] == len(found.attrs["active"])
    squares = found["distance"].values ** 2
    assert np.nanmean(squares) == pytest.approx(found.attrs["degrees"], rel=1e-4)  # all positions are known here


def test_p_values_of_gaussian_latents_are_uniform(tmp_path: Path) -> None:
    path = create_store(random_patterns_dataset({"y": 40, "x": 50}, {"dy": 3, "dx": 3}), tmp_path / "scan.zarr")
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 50, 4)) @ rng.normal(size=(4, 4))
    np.save(tmp_path / "z.npy", z)
    va.attach(path, tmp_path / "z.npy", run="own")
    p_values = explore.out_of_distribution(path, "own")["p_value"].values.ravel()
    assert kstest(p_values, "uniform").pvalue > 0.01
