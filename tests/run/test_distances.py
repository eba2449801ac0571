"""Distances of distributions: against other formulas, in closed form, unbiased, and with an error that is right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from vaearr.errors import DataError, UsageError
from vaearr.run.judge import frechet_distance, kernel_distance


def frechet_by_roots(a: np.ndarray, b: np.ndarray) -> float:
    """As it is written, with a root of the product of the covariances."""
    first, second = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    root = sqrtm(first @ second).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root))


def kernel_by_loops(a: np.ndarray, b: np.ndarray, each: int = 1, is_paired: bool = False) -> float:
    def mean(x: np.ndarray, y: np.ndarray, leave_own: bool) -> float:
        values = [
            (float(x[i] @ y[j]) / x.shape[1] + 1) ** 3
            for i in range(len(x))
            for j in range(len(y))
            if not (leave_own and i // each == j // each)
        ]
        return float(np.mean(values))

    return mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, is_paired)


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 60), st.integers(20, 60), st.integers(1, 8), st.integers(0, 99))
def test_frechet_equals_the_root_of_the_product(n: int, m: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)), rng.normal(1, 2, size=(m, d))
    assert frechet_distance(a, b) == pytest.approx(frechet_by_roots(a, b), rel=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 30), st.integers(0, 99))
def test_frechet_with_fewer_samples_than_features(n: int, m: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    covariances = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    values, vectors = np.linalg.eigh(covariances[0])
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariances[1] @ root), 0)).sum()
    want = ((a.mean(0) - b.mean(0)) ** 2).sum() + sum(np.trace(c) for c in covariances) - 2 * shared
    assert frechet_distance(a, b) == pytest.approx(want, rel=1e-5, abs=1e-5)


def test_frechet_in_closed_form() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(50, 4))
    shift = np.array([3.0, 0, -4, 0])
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(a, a + shift) == pytest.approx(25)
    spread = np.trace(np.cov(a.T))  # of a scaled by s: (s - 1)^2 of the variance, about the same mean
    assert frechet_distance(a - a.mean(0), 3 * (a - a.mean(0))) == pytest.approx(4 * spread)
    wide = rng.normal(size=(5, 300))
    assert frechet_distance(wide, wide) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(wide, wide + 2) == pytest.approx(1200)
    far = a * 1e-3 + 1e6
    assert frechet_distance(far, far + 1) == pytest.approx(4)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 25), st.integers(2, 25), st.integers(1, 5), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_kernel_distance_equals_its_sums(n: int, m: int, d: int, each: int, is_paired: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = n if is_paired else m
    a, b = rng.normal(size=(n * each, d)), rng.normal(0.3, 1, size=(m * each, d))
    value, error = kernel_distance(a, b, each=each, is_paired=is_paired)
    assert value == pytest.approx(kernel_by_loops(a, b, each, is_paired), rel=1e-9, abs=1e-9)
    assert np.isnan(error) == (min(n, m) < 3)


def test_kernel_distance_is_unbiased_and_its_error_right() -> None:
    rng = np.random.default_rng(1)
    alike = np.array([kernel_distance(*rng.normal(size=(2, 12, 3))) for _ in range(200)])
    assert abs(alike[:, 0].mean()) < 3 * alike[:, 0].std() / np.sqrt(200)
    apart = np.array([kernel_distance(rng.normal(size=(60, 3)), rng.normal(1, 1, (60, 3))) for _ in range(120)])
    assert np.sqrt((apart[:, 1] ** 2).mean()) == pytest.approx(apart[:, 0].std(), rel=0.3)


def test_slices_of_one_sample_do_not_count_as_independent() -> None:
    rng = np.random.default_rng(2)

    def volumes() -> np.ndarray:
        return np.repeat(rng.normal(size=(8, 1, 3)), 5, axis=1).reshape(40, 3)

    values = np.array([kernel_distance(volumes(), volumes(), each=5)[0] for _ in range(120)])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(120)
    plain = np.array([kernel_distance(volumes(), volumes())[0] for _ in range(120)])
    assert plain.mean() > 5 * plain.std() / np.sqrt(120)


def test_refusals() -> None:
    a = np.ones((4, 3))
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(UsageError, match=r"expected \(n, d\) and \(m, d\)"):
            distance(a, np.ones((4, 2)))
        with pytest.raises(DataError, match="4 and 1 rows"):
            distance(a, a[:1])
        with pytest.raises(DataError, match="not finite"):
            distance(a, a * np.nan)
    with pytest.raises(UsageError, match="samples of 3 rows"):
        kernel_distance(np.ones((7, 2)), np.ones((6, 2)), each=3)
    with pytest.raises(UsageError, match="pairs of samples"):
        kernel_distance(a, np.ones((5, 3)), is_paired=True)
