"""Spatial trends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr.association.columns import columns_of
from vaearr.association.metrics import METRICS, apply
from vaearr.association.spatial import polynomials, residuals
from vaearr.errors import UsageError


def _grid(*sizes: int) -> np.ndarray:
    return np.stack([axis.ravel() for axis in np.indices(sizes)], axis=1).astype(float)


@pytest.mark.parametrize(("degree", "n_terms"), [(1, 3), (2, 6), (3, 10)])
def test_basis_is_orthonormal_far_from_the_origin(degree: int, n_terms: int) -> None:
    basis = polynomials(columns_of(_grid(15, 11) * [1e-3, 40.0] + 1e6), degree)
    assert basis.shape == (165, n_terms)
    np.testing.assert_allclose(basis.T @ basis, np.eye(n_terms), atol=1e-12)


@pytest.mark.parametrize(("degree", "n_terms"), [(1, 4), (2, 10)])
def test_three_axes(degree: int, n_terms: int) -> None:
    assert polynomials(columns_of(_grid(4, 5, 6)), degree).shape[1] == n_terms


def test_a_line_of_points_has_a_trend_along_it_only() -> None:
    assert polynomials(columns_of(_grid(1, 9)), 2).shape[1] == 3


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), degree=st.integers(1, 3))
def test_residuals_hold_no_trend_and_ignore_one(seed: int, degree: int) -> None:
    rng = np.random.default_rng(seed)
    where = columns_of(_grid(9, 8))
    values, trend = rng.normal(size=(72, 2)), polynomials(where, degree) @ rng.normal(size=(len(_terms(degree)), 2))
    left = residuals(columns_of(values, where), degree)
    np.testing.assert_allclose(polynomials(where, degree).T @ left, 0, atol=1e-11)
    np.testing.assert_allclose(residuals(columns_of(values + 50 * trend, where), degree), left, atol=1e-10)


def _terms(degree: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]


def test_a_map_that_is_all_trend_has_no_correlation() -> None:
    where = _grid(20, 20)
    plane, noise = where @ [0.1, -0.7] + 1e4, np.random.default_rng(0).normal(size=400)
    values, _ = apply([METRICS["partial_pearson"]], plane[:, None], noise[:, None], where)
    assert np.isnan(values.item())


def test_a_common_trend_is_no_association() -> None:
    rng = np.random.default_rng(0)
    where = _grid(40, 40)
    x, y = (where.sum(axis=1) + rng.normal(size=1600) for _ in range(2))
    chosen = [METRICS[name] for name in ("pearson", "partial_pearson", "partial_pearson_2", "partial_pearson_3")]
    values = apply(chosen, x[:, None], y[:, None], where)[0].ravel()
    assert values[0] > 0.99
    assert np.abs(values[1:]).max() < 0.1


def test_positions_are_asked_for() -> None:
    with pytest.raises(UsageError, match="positions"):
        residuals(columns_of(np.eye(5)), 1)
