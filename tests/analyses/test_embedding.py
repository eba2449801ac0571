"""Decompositions: non-negative amounts as scipy's, components whatever the batches; refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import nnls as one_by_one
from sklearn.decomposition import PCA

import vaearr as va
from vaearr.analysis.embedding import embed_store, fit_pca, pca_reconstruct
from vaearr.config import EmbedConfig
from vaearr.errors import DataError, RoiError, UsageError
from vaearr.recipe import nested
from vaearr.store import create_store
from vaearr.testing import synthetic_scan

from ..data import random_patterns_dataset

CPU = {"device": "cpu"}


def rows_of(n: int = 200, p: int = 30, rank: int = 6, offset: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    strong = rng.normal(size=(n, rank)) * np.linspace(9, 3, rank)
    return strong @ np.linalg.qr(rng.normal(size=(p, rank)))[0].T + 0.1 * rng.normal(size=(n, p)) + offset


def fit(rows: np.ndarray, k: int | None, cuts: list[int] | None = None, **further):
    parts = np.split(rows, cuts or [])
    passes = lambda: (torch.from_numpy(part.copy()) for part in parts if len(part))  # noqa: E731
    return fit_pca(passes, n_samples=len(rows), n_values=rows.shape[1], n_components=k, **further)


@pytest.mark.parametrize(
    ("rows", "k", "exact", "tolerance"),
    [
        (rows_of(), 5, 1000, 1e-9),
        (rows_of(offset=1e5), 5, 1000, 1e-9),
        (rows_of(12, 40), 6, 1000, 1e-9),
        (rows_of(500, 300, 10), 8, 1000, 1e-8),
        (rows_of(400, 120, 8, offset=20.0), 6, 10, 1e-4),
    ],
    ids=["plain", "far from zero", "few rows", "lanczos", "randomised"],
)
def test_components_are_scikit_learns(rows: np.ndarray, k: int, exact: int, tolerance: float) -> None:
    found, wanted = fit(rows, k, [3, 5, 11], exact_values=exact), PCA(k, svd_solver="full").fit(rows)
    signs = np.sign((wanted.components_ * found.components).sum(1))
    np.testing.assert_allclose(found.components, wanted.components_ * signs[:, None], atol=tolerance)
    np.testing.assert_allclose(found.variance, wanted.explained_variance_, rtol=tolerance)
    np.testing.assert_allclose(found.ratio, wanted.explained_variance_ratio_, rtol=tolerance)
    assert (found.components[np.arange(k), np.abs(found.components).argmax(1)] > 0).all()


def test_refused_rows_and_the_knee() -> None:
    assert len(fit(rows_of(400, 60, 4), None).variance) == 4
    with pytest.raises(RoiError, match="at least two scan points"):
        fit(rows_of()[:1], 1)
    for exact in (100, 5):
        with pytest.raises(DataError, match="all patterns of the region are alike"):
            fit(np.ones((20, 30)), 2, exact_values=exact)
        with pytest.raises(DataError, match="NaN or infinite"):
            fit(rows_of() * np.nan, 2, exact_values=exact)


# ---- in a store ------------------------------------------------------------------------------------------------------


def test_components_see_what_the_network_sees_and_reconstruct(trained_store: Path) -> None:
    ds = embed_store(trained_store, EmbedConfig(n_components=40, **CPU))
    roi, model = ds.roi.values, va.load_model(trained_store)
    np.testing.assert_array_equal(np.isfinite(ds.pca.values).all(-1), roi)
    np.testing.assert_array_equal(ds.pca_background.values, model.preprocess.background.numpy()[0])
    seen = np.asarray(model.preprocess(torch.from_numpy(ds.patterns.values[roi])[:, None])).reshape(roi.sum(), -1)
    back = pca_reconstruct(ds.pca, ds.pca_components, ds.pca_mean)
    left = back.values[roi].reshape(len(seen), -1) - seen
    explained = 1 - (left**2).sum() / ((seen - seen.mean(0)) ** 2).sum()
    assert explained == pytest.approx(float(ds.pca_explained_variance_cumulative[-1]), abs=1e-5)
    assert back.dims == ("y", "x", "dy", "dx")
    assert np.isnan(back.values[~roi]).all()


def test_nmf_with_elements_weighs_both_and_names_its_windows(tmp_path: Path) -> None:
    data = synthetic_scan(nx=20, ny=14, pattern_shape=(12, 13), n_grains=4, seed=2)
    data["elements"] = data.elements.where(data.elements.x > float(data.x[1]))
    store = create_store(data, tmp_path / "scan.zarr")
    ds = embed_store(store, EmbedConfig(method="nmf", n_components=3, elements=2.0, **CPU))
    there = np.isfinite(ds.elements.values).all(0)
    assert np.isnan(ds.nmf.values[~there]).all()
    assert ds.nmf_elements.attrs["n_missing"] == 28
    seen = (ds.patterns.values[there] / ds.nmf_background.values).reshape(there.sum(), -1)
    content = ds.elements.values[:, there].T.astype(float)
    ends, of_ends = ds.nmf_components.values.reshape(3, -1).astype(float), ds.nmf_elements.values
    scale = np.sqrt(((seen - seen.mean(0)) ** 2).mean() * seen.shape[1])
    weight = np.sqrt(2 / (((content - content.mean(0)) ** 2).mean() * content.shape[1]))
    joined = np.hstack([seen / scale, content * weight])
    wanted = np.stack([one_by_one(np.hstack([ends / scale, of_ends * weight]).T, row)[0] for row in joined])
    np.testing.assert_allclose(ds.nmf.values[there], wanted, atol=1e-4)
    step = 1.1 * float(ds.x[1] - ds.x[0])
    for i, place in enumerate(nested(ds.nmf.attrs, "endmembers")):  # an endmember is the mean of its own window
        window = ds.patterns.sel({dim: slice(place[dim] - step, place[dim] + step) for dim in ("y", "x")})
        own = window.mean(("y", "x"), dtype=float) / ds.nmf_background.values
        np.testing.assert_allclose(own.values, ds.nmf_components[i].values, rtol=1e-4)
    by_class = embed_store(store, EmbedConfig(method="nmf", clusters="phase", name="phases", **CPU))
    mean = ds.patterns.values[ds.phase.values == 0].mean(0, dtype=float) / by_class.phases_background.values
    np.testing.assert_allclose(by_class.phases_components[0].values, mean, rtol=1e-4)


def test_collections_channels_and_negative_patterns(tmp_path: Path) -> None:
    images = create_store(random_patterns_dataset({"sample": 30}), tmp_path / "images.zarr")
    assert embed_store(images, EmbedConfig(n_components=3, **CPU)).pca.dims == ("sample", "pca_component")
    with pytest.raises(UsageError, match="reference windows need a scan"):
        embed_store(images, EmbedConfig(method="nmf", n_components=3, **CPU))
    colour = random_patterns_dataset({"y": 5, "x": 6}, {"channel": 2, "dy": 8, "dx": 9}, dtype="uint16")
    ds = embed_store(create_store(colour, tmp_path / "colour.zarr"), EmbedConfig(n_components=3, **CPU))
    assert ds.pca_components.dims == ("pca_component", "channel", "dy", "dx")
    data = random_patterns_dataset({"y": 8, "x": 8}, dtype="float32")
    data["patterns"] = data.patterns - 0.2
    store = create_store(data, tmp_path / "scan.zarr")
    with pytest.raises(DataError, match="non-negative amounts, but preprocessed patterns go down to -"):
        embed_store(store, EmbedConfig(method="nmf", n_components=2, **CPU))
    few = embed_store(store, EmbedConfig(n_components=3, max_points=100, **CPU))
    assert np.isfinite(few.pca.values).all()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"method": "nmf", "n_components": None}, UsageError, "say how many endmembers"),
        ({"method": "nmf", "n_components": 60}, UsageError, "windows of 3 x 3 scan points, 60 are to be chosen"),
        ({"method": "nmf", "endmembers": [[1.0, 1.0], [1.0, 1.0]]}, DataError, "depend on each other"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_refusals(scan_store: Path, settings: dict[str, object], error: type, message: str) -> None:
    before = sorted(path.name for path in scan_store.iterdir())
    with pytest.raises(error, match=message):
        embed_store(scan_store, EmbedConfig.from_attrs({**CPU, **settings}))
    assert sorted(path.name for path in scan_store.iterdir()) == before
