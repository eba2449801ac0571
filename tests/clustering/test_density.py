"""DBSCAN and HDBSCAN against the libraries, eps from the curve, sub-samples."""

from __future__ import annotations

import hdbscan as library
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score

from vaearr.clustering import METHODS, density
from vaearr.clustering.density import dbscan, eps_from_curve, hdbscan, k_distance
from vaearr.clustering.points import subsample
from vaearr.config import ClusterConfig
from vaearr.errors import DataError, UsageError


def _moons(n_points: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two half circles that no straight line parts, and as many far points as 4 %."""
    rng = np.random.default_rng(seed)
    turn, which = rng.uniform(0, np.pi, n_points), rng.integers(0, 2, n_points)
    values = np.stack([np.cos(turn), np.sin(turn)], axis=1) * np.where(which, -1, 1)[:, None]
    values += np.where(which[:, None], [1.0, 0.3], [0.0, 0.0]) + rng.normal(0, 0.05, (n_points, 2))
    far = rng.choice(n_points, n_points // 25, replace=False)
    values[far] = rng.uniform(4, 40, (len(far), 2))
    which[far] = -1
    return values, which


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), eps=st.floats(0.05, 0.6), neighbours=st.integers(1, 9))
def test_dbscan_is_scikit_learns(seed: int, eps: float, neighbours: int) -> None:
    values = np.random.default_rng(seed).normal(size=(120, 2))
    labels, info = dbscan(values, eps=eps, min_samples=neighbours)
    theirs = DBSCAN(eps=eps, min_samples=neighbours + 1).fit(values)  # which counts the point itself
    core = theirs.core_sample_indices_
    assert info["n_core"] == len(core)
    np.testing.assert_array_equal(labels == -1, theirs.labels_ == -1)
    assert labels.max() == theirs.labels_.max()
    if len(core):
        assert adjusted_rand_score(theirs.labels_[core], labels[core]) == 1.0


def test_dense_data_is_joined_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    values, _ = _moons()
    whole, _ = dbscan(values, eps=0.15)
    monkeypatch.setattr(density, "PAIRS", 4 * len(values))
    monkeypatch.setattr(density, "BLOCK", 7)
    np.testing.assert_array_equal(dbscan(values, eps=0.15)[0], whole)


def test_eps_from_the_curve() -> None:
    values, truth = _moons()
    distances = k_distance(values, 8)
    brute = np.sort(np.linalg.norm(values[:, None] - values[None], axis=-1), axis=1)[:, 8]
    np.testing.assert_allclose(distances, brute)
    assert eps_from_curve(distances) == pytest.approx(np.quantile(brute, 0.98))
    elbow = eps_from_curve(distances, "elbow")
    assert np.quantile(brute, 0.9) < elbow < np.quantile(brute, 0.98)  # 4 % of the points lie apart
    labels, info = dbscan(values, rule="elbow")
    assert info["eps"] == info["eps_elbow"] == elbow
    assert adjusted_rand_score(truth[truth >= 0], labels[truth >= 0]) > 0.95
    assert eps_from_curve(np.ones(5), "elbow") == 1.0


def test_dbscan_on_a_sub_sample() -> None:
    values, truth = _moons(3000)
    labels, info = dbscan(values, eps=0.2, max_points=600, seed=1)
    assert info["n_fitted"] == 600
    assert info["approximation"]
    known = truth >= 0
    assert adjusted_rand_score(truth[known], labels[known]) > 0.99
    assert (labels[~known] == -1).mean() > 0.9


@pytest.mark.parametrize("min_samples", [None, 4])
def test_hdbscan_is_the_librarys(min_samples: int | None) -> None:
    values, truth = _moons()
    labels, info = hdbscan(values, min_cluster_size=25, min_samples=min_samples)
    model = library.HDBSCAN(min_cluster_size=25, min_samples=min_samples, approx_min_span_tree=False).fit(values)
    np.testing.assert_array_equal(labels == -1, model.labels_ == -1)
    assert adjusted_rand_score(model.labels_, labels) == 1.0
    assert sorted(info["stability"]) == pytest.approx(sorted(model.cluster_persistence_))
    assert adjusted_rand_score(truth[labels >= 0], labels[labels >= 0]) > 0.95


def test_hdbscan_on_a_sub_sample() -> None:
    values, truth = _moons(2000)
    labels, info = hdbscan(values, min_samples=5, max_points=700)
    assert info["n_fitted"] == 700
    assert "min_cluster_size counts those" in info["approximation"]
    inside = (labels >= 0) & (truth >= 0)
    assert inside.mean() > 0.7
    assert adjusted_rand_score(truth[inside], labels[inside]) > 0.95
    again, _ = hdbscan(values, min_samples=5, max_points=700)
    np.testing.assert_array_equal(again, labels)


def test_points_that_were_not_fitted_are_labelled_as_by_the_library() -> None:
    values, _ = _moons(2000)
    labels, _ = hdbscan(values, min_samples=5, max_points=700, seed=2)
    chosen = subsample(len(values), 700, 2)
    model = library.HDBSCAN(20, min_samples=5, approx_min_span_tree=False, prediction_data=True).fit(values[chosen])
    rest = np.setdiff1d(np.arange(len(values)), chosen)
    theirs, _ = library.approximate_predict(model, values[rest])
    agree = (theirs >= 0) == (labels[rest] >= 0)
    assert agree.mean() > 0.95
    both = (theirs >= 0) & (labels[rest] >= 0)
    assert adjusted_rand_score(theirs[both], labels[rest][both]) == 1.0


def test_nothing_found_is_told() -> None:
    values = np.random.default_rng(0).uniform(size=(200, 2))
    labels, info = dbscan(values, eps=1e-6)
    assert (labels == -1).all()
    assert "all points are noise" in info["warnings"][0]
    labels, info = hdbscan(np.random.default_rng(0).normal(size=(60, 2)), min_cluster_size=50, max_points=55)
    assert (labels == -1).all()
    assert info["stability"] == []
    _, info = dbscan(values, eps=1.0)
    assert "one cluster" in info["warnings"][0]
    far = np.concatenate([values * 0.01, np.arange(600.0).reshape(300, 2)])
    assert "60% of the points are noise" in dbscan(far, eps=0.5)[1]["warnings"][-1]


def test_equal_points() -> None:
    values = np.repeat([[0.0, 0.0], [3.0, 1.0], [9.0, 9.0]], [50, 40, 30], axis=0)
    labels, _ = dbscan(values, eps=0.5)
    np.testing.assert_array_equal(labels, np.repeat([0, 1, 2], [50, 40, 30]))
    with pytest.raises(DataError, match="many are equal"):
        dbscan(values)
    labels, _ = hdbscan(values)
    np.testing.assert_array_equal(labels, np.repeat([0, 1, 2], [50, 40, 30]))


def test_too_few_points_are_refused() -> None:
    with pytest.raises(UsageError, match="smaller min_samples"):
        dbscan(np.zeros((5, 2)))
    with pytest.raises(UsageError, match="too few for min_cluster_size=20"):
        hdbscan(np.zeros((15, 2)))
    with pytest.raises(UsageError, match="Did you mean 'elbow'"):
        eps_from_curve(np.ones(3), "elbows")  # type: ignore[arg-type]


def test_rule_for_eps_reaches_the_kernel() -> None:
    values, _ = _moons()
    found = [METHODS["dbscan"].kernel(values, ClusterConfig(eps_rule=rule))[1] for rule in ("quantile", "elbow")]
    assert [info["eps"] for info in found] == [found[0]["eps_quantile"], found[0]["eps_elbow"]]
    assert found[0]["eps"] != found[1]["eps"]
    assert "eps_rule" in METHODS["dbscan"].uses
