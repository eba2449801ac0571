"""Gaussian kernels as series: widths, sums, and columns whose tails the series leaves out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vaearr.association.columns import columns_of
from vaearr.association.gaussian import kernels, median_distance, row_sums
from vaearr.association.hsic import sums

from .reference import KINDS, column, gram

FLOATS = st.floats(-1e6, 1e6, allow_subnormal=False)


def _median(values: np.ndarray) -> float:
    distances = np.abs(np.subtract.outer(values, values))[np.triu_indices(values.size, 1)]
    return float(np.median(distances[distances > 0]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(FLOATS, st.integers(-3, 3).map(float)), min_size=3, max_size=40))
def test_median_distance_is_the_median_of_positive_distances(values: list[float]) -> None:
    ordered = np.sort(values)
    assume(ordered[0] < ordered[-1])
    assert median_distance(ordered) == pytest.approx(_median(ordered), rel=1e-15)


@pytest.mark.parametrize("n", [500, 501, 502])
@pytest.mark.parametrize("kind", KINDS)
def test_median_distance_of_many(kind: str, n: int) -> None:
    values = np.sort(column(kind, n))
    assert median_distance(values) == pytest.approx(_median(values), rel=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_row_sums_are_those_of_the_matrix(kind: str) -> None:
    values = column(kind, 700)
    np.testing.assert_allclose(row_sums(columns_of(values[:, None]), 0), gram(values).sum(axis=0), rtol=1e-11)


@pytest.mark.parametrize("one", ["heavy tails", "two scales", "random", "binary"])
@pytest.mark.parametrize("other", ["other tails", "two scales", "dependent"])
def test_sums_with_points_outside_the_series(one: str, other: str) -> None:
    x, y = column(one, 1000), column(other, 1000)
    found = sums(columns_of(x[:, None]), columns_of(y[:, None]))
    k, l = gram(x), gram(y)  # noqa: E741
    assert found.products.item() == pytest.approx(float((k * l).sum()), rel=1e-12)
    assert found.rows.item() == pytest.approx(float(k.sum(axis=0) @ l.sum(axis=0)), rel=1e-12)
    assert found.ours.item() == pytest.approx(float(k.sum()), rel=1e-12)


def test_far_points_do_not_lengthen_the_series() -> None:
    near = columns_of(column("random", 4000)[:, None])
    far = columns_of(np.r_[column("random", 4000), np.logspace(3, 9, 50), -np.logspace(3, 9, 50)][:, None])
    (plain,), (tailed,) = near.made(kernels), far.made(kernels)
    assert plain is not None
    assert tailed is not None
    assert plain.outside is None
    assert plain.length < 60
    assert tailed.length < 220
    assert tailed.outside is not None
    assert 50 < tailed.outside.sum() <= 100


def test_few_values_need_short_vectors() -> None:
    (kernel,) = columns_of(column("binary")[:, None]).made(kernels)
    assert kernel is not None
    assert kernel.length == 2
    assert kernels(columns_of(np.ones((5, 1)))) == [None]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(3, 60), spread=st.sampled_from([1.0, 5.0, 50.0]))
def test_products_are_those_of_the_matrices(seed: int, n: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = np.sinh(rng.normal(size=n) * np.log1p(spread)), rng.integers(0, 4, n).astype(float)
    assume(np.ptp(y) > 0)
    found = sums(columns_of(x[:, None]), columns_of(y[:, None]))
    assert found.products.item() == pytest.approx(float((gram(x) * gram(y)).sum()), rel=1e-12)
    assert all(a >= b for a, b in pairwise([n**2 * 1.0, found.ours.item() * (1 - 1e-12), 0.0]))
