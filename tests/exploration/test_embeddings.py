"""Embeddings are repeatable, clamp what few points cannot bear, and keep neighbours together."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import vaearr as va
from vaearr.errors import NoInputError, UsageError

embedding = va.explore.embedding


def test_repeatable_with_coordinates_and_classes(scan_path: Path) -> None:
    found = embedding(scan_path, max_points=80, seed=2)
    assert found["position"].shape == (80, 2)
    np.testing.assert_array_equal(found["position"], embedding(scan_path, max_points=80, seed=2)["position"])
    assert {"x", "y", "number", "class"} <= set(found.coords)
    assert found["class"].attrs["long_name"] == "phase"
    assert found.attrs["perplexity"] == pytest.approx(79 / 3)


def test_few_samples_lower_the_perplexity(spatial_path: Path) -> None:
    found = embedding(spatial_path, max_points=5)
    assert found.attrs["perplexity"] == pytest.approx(4 / 3)
    assert np.isfinite(found["position"]).all()


def test_pca_positions_are_projections(scan_path: Path) -> None:
    found = embedding(scan_path, method="pca", max_points=10**6)
    own = np.linalg.svd(_latents(scan_path), full_matrices=False)
    np.testing.assert_allclose(abs(found["position"]), abs(own[0][:, :2] * own[1][:2]), atol=1e-5)


def _latents(path: Path) -> Any:
    z = va.open_store(path)["latents"].values.reshape(-1, 3).astype("f8")
    z = z[np.isfinite(z).all(1)]
    return z - z.mean(0)


def test_umap_is_asked_with_the_seed(scan_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Stand:
        def __init__(self, **options: Any) -> None:
            asked.update(options)

        def fit_transform(self, values: np.ndarray) -> np.ndarray:
            return values[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Stand, __spec__=__spec__))
    found = embedding(scan_path, method="umap", max_points=10, seed=7)
    assert (asked["random_state"], asked["n_neighbors"], asked["n_components"]) == (7, 9, 2)
    assert found["position"].shape == (10, 2)


def test_refusals(scan_path: Path) -> None:
    with pytest.raises(UsageError, match="no embedding 'tnse'"):
        embedding(scan_path, method="tnse")
    with pytest.raises(UsageError, match="must be positive"):
        embedding(scan_path, perplexity=0)
    with pytest.raises(NoInputError, match="4 samples or more"):
        embedding(scan_path, max_points=3)
    with pytest.raises(UsageError, match="does not hold one class"):
        embedding(scan_path, method="pca", by="BC")


@pytest.mark.long
def test_the_real_umap(scan_path: Path) -> None:
    pytest.importorskip("umap", exc_type=ImportError)
    found = embedding(scan_path, method="umap", max_points=40, seed=1)
    assert found["position"].shape == (40, 2)
    assert np.isfinite(found["position"]).all()
    np.testing.assert_array_equal(
        found["position"], embedding(scan_path, method="umap", max_points=40, seed=1)["position"]
    )
    assert len(np.unique(found["position"].values.round(3), axis=0)) == 40
