"""Do the latents know the grains better than principal components do? Printed, on a simulated scan with known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

import vaearr as va
from vaearr.preprocess import preprocess
from vaearr.store import create_store
from vaearr.testing import synthetic_scan

pytestmark = pytest.mark.benchmarks

SEEDS = (0, 1, 2)


def grain_score(features: np.ndarray, grains: np.ndarray, interior: np.ndarray) -> tuple[float, float]:
    """Adjusted Rand index of k-means (true k, n_init 5, mean of 3 seeds) over all points and over grain interiors."""
    k = len(np.unique(grains))
    labels = [KMeans(k, n_init=5, random_state=seed).fit_predict(features) for seed in SEEDS]
    everywhere = np.mean([adjusted_rand_score(grains, found) for found in labels])
    inside = np.mean([adjusted_rand_score(grains[interior], found[interior]) for found in labels])
    return float(everywhere), float(inside)


@pytest.mark.parametrize("seed", SEEDS)
def test_grains_by_latents_and_by_principal_components(seed: int, tmp_path: Path) -> None:
    scan = synthetic_scan(nx=64, ny=48, n_grains=72, n_twins=10, seed=seed)
    grains = scan.true_grain.values.ravel()
    interior = (scan.own_grain_fraction > 0.95).values.ravel()
    seen = preprocess(scan.patterns).values.reshape(len(grains), -1)
    components = PCA(32, random_state=0).fit_transform(seen)
    path = create_store(scan, tmp_path / "scan.zarr")
    run = va.train(path, seed=seed)
    latents = va.encode(path).latents.values.reshape(len(grains), -1)
    for what, features in (("32 principal components", components), ("32 latents", latents)):
        everywhere, inside = grain_score(features, grains, interior)
        print(f"\nscan {seed}: grains by k-means on {what:24} ARI {everywhere:.3f}, interiors {inside:.3f}", end="")
    seconds = float(run.history.seconds.sum())
    print(f"\nscan {seed}: {run.health.attrs['n_active']} of 32 active, trained in {seconds:.0f} s", end="")
