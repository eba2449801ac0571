"""Gaussian mixtures and k-means against scikit-learn, and how they choose k."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from vaearr.clustering import mixture
from vaearr.clustering.mixture import gmm, kmeans
from vaearr.errors import UsageError


def _points(n_points: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, n_points, p=[0.5, 0.3, 0.2])
    values = np.array([[-2.0, 0], [1, 2], [2, -2]])[truth] + rng.normal(0, [0.2, 0.4], (n_points, 2))
    return values, truth


@pytest.mark.parametrize("covariance", mixture.COVARIANCES)
def test_gmm_is_scikit_learns_maximum(covariance: mixture.Covariance) -> None:
    values, truth = _points()
    labels, info = gmm(values, k=3, covariance=covariance)
    floor = mixture.REGULARISATION * values.var(axis=0).mean()
    theirs = GaussianMixture(3, covariance_type=covariance, reg_covar=floor, n_init=5, random_state=1).fit(values)
    assert adjusted_rand_score(theirs.predict(values), labels) == 1.0
    assert info["scores"][3] == pytest.approx(theirs.bic(values), rel=1e-4)
    assert info["regularisation"] == pytest.approx(floor)
    assert adjusted_rand_score(truth, labels) > 0.99
    assert (np.diff(np.bincount(labels)) <= 0).all()


@pytest.mark.parametrize("criterion", mixture.CRITERIA)
def test_gmm_finds_k(criterion: mixture.Criterion) -> None:
    values, _ = _points()
    _, info = gmm(values, k_range=(2, 6), criterion=criterion)
    assert list(info["scores"]) == [2, 3, 4, 5, 6]
    if criterion != "aic":  # which is known to take too many
        assert (info["k"], info["k_at_bound"], info["warnings"]) == (3, False, [])


def test_k_at_its_bounds_is_told() -> None:
    values, _ = _points()
    _, info = gmm(values, k_range=(1, 2))
    assert info["k_at_bound"]
    assert "Raise k_max" in info["warnings"][0]
    one = np.random.default_rng(0).normal(size=(300, 2))
    _, info = gmm(one, k_range=(2, 4))
    assert (info["k"], info["k_at_bound"]) == (2, True)
    assert "Lower k_min" in info["warnings"][0]
    _, info = gmm(one, k_range=(1, 4))
    assert (info["k"], info["k_at_bound"]) == (1, False)
    _, info = kmeans(values, k_range=(2, 3))
    assert (info["k"], info["k_at_bound"]) == (3, True)
    assert not gmm(values, k=3)[1]["k_at_bound"]


def test_one_dimension() -> None:
    values, truth = _points()
    labels, info = gmm(values[:, :1], k_range=(1, 5))
    assert info["k"] == 3
    assert adjusted_rand_score(truth, labels) > 0.9


def test_levels_of_eight_bits_do_not_become_components() -> None:
    rng = np.random.default_rng(0)
    levels = np.round(rng.normal(120, 30, 3000))[:, None]
    assert gmm((levels - levels.mean()) / levels.std(), k_range=(1, 6))[1]["k"] == 1


def test_kmeans_is_scikit_learns() -> None:
    values, _ = _points()
    labels, info = kmeans(values, k=3)
    theirs = KMeans(3, n_init=10, random_state=3).fit(values)
    assert adjusted_rand_score(theirs.labels_, labels) == 1.0
    assert info["inertia"] == pytest.approx(theirs.inertia_)
    _, chosen = kmeans(values, k_range=(2, 6))
    assert (chosen["k"], chosen["criterion"]) == (3, "silhouette")


@pytest.mark.parametrize("method", [gmm, kmeans])
def test_sub_sample_is_seeded_and_labels_all(method: type) -> None:
    values, truth = _points(3000)
    labels, info = method(values, k=3, max_points=300, seed=4)
    assert info["n_fitted"] == 300
    assert "300 of 3000" in info["approximation"]
    assert adjusted_rand_score(truth, labels) > 0.99
    np.testing.assert_array_equal(labels, method(values, k=3, max_points=300, seed=4)[0])
    assert method(values, k=3)[1]["approximation"] == ""


def test_more_clusters_than_different_points_are_refused() -> None:
    with pytest.raises(UsageError, match="5 different points"):
        gmm(np.repeat([[0.0], [1.0]], 50, axis=0), k=5)
    with pytest.raises(UsageError, match="2 different values"):
        kmeans(np.repeat([[0.0], [1.0]], 50, axis=0))
    with pytest.raises(UsageError, match="cannot be tried"):
        gmm(np.zeros((5, 1)), k=0)
    with pytest.raises(UsageError, match="2 <= k_min"):
        gmm(_points()[0], k_range=(1, 3), criterion="silhouette")
    assert kmeans(_points()[0], k=1)[1]["k"] == 1


def test_unknown_words_are_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean 'bic'"):
        gmm(np.zeros((5, 1)), criterion="bics")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="Did you mean 'full'"):
        gmm(np.zeros((5, 1)), covariance="ful")  # type: ignore[arg-type]


def test_global_random_numbers_are_left_alone() -> None:
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    gmm(_points()[0], k=2)
    kmeans(_points()[0], k=2)
    assert np.random.rand() == expected  # noqa: NPY002
