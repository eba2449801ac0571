"""A scan whose shards do not follow the row-major order gives what its latents give in one piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.decomposition import PCA

import vaearr as va
from vaearr.attaching import attach
from vaearr.store import create_store, store_blocks
from vaearr.testing import random_patterns_dataset

explore = va.explore
NY, NX, L = 40, 70, 5


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    """Latents `(2800, 5)` with gaps, float32."""
    rng = np.random.default_rng(2)
    z = rng.normal(size=(NY * NX, L)) @ rng.normal(size=(L, L))
    z[rng.random(len(z)) < 0.1] = np.nan
    return z.astype("f4")


@pytest.fixture(scope="module")
def store(values: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scan; it has several shards beside each other."""
    ds = random_patterns_dataset({"y": NY, "x": NX}, {"dy": 4, "dx": 4})
    path = create_store(ds, tmp_path_factory.mktemp("shards") / "scan.zarr")
    attach(path, values, run="own")
    assert len({region["x"].start for region in store_blocks(path)}) > 1
    return path


def test_tables(store: Path, values: np.ndarray) -> None:
    known = np.flatnonzero(np.isfinite(values).all(1))
    table = explore.activation_table(store, "own", ["BC", "phase"])
    np.testing.assert_array_equal(table["number"], known)
    np.testing.assert_array_equal(table[[f"latent_{i}" for i in range(L)]], values[known])
    ds = va.open_store(store, chunks=None)
    np.testing.assert_array_equal(table["BC"], ds["BC"].values.ravel()[known])
    np.testing.assert_allclose(table["x"], ds["x"].values[known % NX])
    want = pd.DataFrame(values.astype("f8")).dropna().describe().T
    np.testing.assert_allclose(explore.latent_table(store, "own")["summary"], want, rtol=1e-6)


def test_choices_and_components(store: Path, values: np.ndarray) -> None:
    some = explore.embedding(store, "own", "pca", max_points=500, color=["latent:1"])
    np.testing.assert_array_equal(some["amount"][0], values[some["number"], 1])
    whole = values[np.isfinite(values).all(1)].astype("f8")
    own = PCA().fit(whole)
    found = explore.latent_pca(store, "own")
    np.testing.assert_allclose(found["explained_variance"], own.explained_variance_, rtol=1e-6)
    np.testing.assert_allclose(abs(found["components"]), abs(own.components_), atol=1e-6)
    np.testing.assert_allclose(found["explained_variance_ratio"], own.explained_variance_ratio_, rtol=1e-6)


def test_distances_and_health(store: Path, values: np.ndarray) -> None:
    whole = values[np.isfinite(values).all(1)].astype("f8")
    inverse = np.linalg.inv(np.cov(whole.T, bias=True))
    off = values.astype("f8") - whole.mean(0)
    want = np.sqrt(np.einsum("ij,jk,ik->i", off, inverse, off)).reshape(NY, NX)
    maps = explore.out_of_distribution(store, "own")
    np.testing.assert_allclose(maps["distance"], want, rtol=1e-6)
    np.testing.assert_allclose(maps["p_value"], stats.chi2.sf(want**2, L), rtol=1e-4, atol=1e-12)
    farthest = explore.unusual(store, "own", 20)
    np.testing.assert_array_equal(farthest["number"], np.argsort(-np.nan_to_num(want.ravel()), kind="stable")[:20])
    health = explore.health(store, "own")
    np.testing.assert_allclose(health["correlation"], np.corrcoef(whole.T), atol=1e-9)
    for i in range(L):
        assert float(health["kolmogorov"][i]) == pytest.approx(stats.kstest(whole[:, i], "norm").statistic)


def test_counts(store: Path, values: np.ndarray) -> None:
    known = np.isfinite(values).all(1)
    phase = va.open_store(store, chunks=None)["phase"].values.ravel()
    found = explore.histograms(store, "own", "phase", bins=11)
    for i in range(L):
        edges = found["edges"].values[i]
        for code in (0, 1):
            want = np.histogram(values[known & (phase == code), i].astype("f8"), edges)[0]
            np.testing.assert_array_equal(found["counts"][code, i], want)
    means = explore.activations(store, "own", "phase")["class_mean"]
    np.testing.assert_allclose(means[1], values[known & (phase == 1)].astype("f8").mean(0), rtol=1e-6)
