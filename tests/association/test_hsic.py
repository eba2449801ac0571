"""HSIC and its variants: ranges, and what they are for the same and for independent columns."""

from __future__ import annotations

import numpy as np
import pytest

from vaearr.association.columns import columns_of
from vaearr.association.hsic import hsic, hsic_normalised, hsic_unbiased, self_traces, sums

from .reference import KINDS, column


@pytest.fixture(scope="module")
def every() -> np.ndarray:
    return np.stack([column(kind) for kind in KINDS], axis=1)


def test_a_column_goes_wholly_with_itself(every: np.ndarray) -> None:
    columns = columns_of(every)
    values = hsic_normalised(columns, columns)
    np.testing.assert_allclose(np.diag(values), 1, atol=1e-9)
    assert values.max() <= 1
    assert values.min() > 0
    np.testing.assert_allclose(self_traces(columns), np.diag(sums(columns, columns).centred), rtol=1e-12)


def test_independent_columns_give_none_on_average() -> None:
    rng = np.random.default_rng(0)
    x, y = columns_of(rng.normal(size=(60, 60))), columns_of(rng.normal(size=(60, 60)))
    unbiased, biased = hsic_unbiased(x, y), hsic(x, y)
    assert abs(unbiased.mean()) < 0.02 * biased.mean()
    assert biased.min() > 0
    assert 0.1 < 60 * biased.mean() < 1  # about 1/n


def test_blocks_of_points_add_up() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20_000, 1))
    y = x**2 + rng.normal(size=x.shape)
    whole, repeated = columns_of(x), columns_of(np.tile(x, (2, 1)))
    other, twice = columns_of(y), columns_of(np.tile(y, (2, 1)))
    once = sums(whole, other)
    # tr(KHLH) of every point taken twice is four times as large, but for the median without zero distances
    assert sums(repeated, twice).centred.item() == pytest.approx(4 * once.centred.item(), rel=1e-6)


def test_columns_far_narrower_than_any_kernel_have_no_normalised_value() -> None:
    values = np.random.default_rng(2).normal(size=(40, 2))
    assert np.isfinite(hsic_normalised(columns_of(values * 1e-7), columns_of(values))).all()
    for unit in (1e-200, 1e-310):
        found = hsic_normalised(columns_of(values * unit), columns_of(values))
        assert np.isnan(found).all()
