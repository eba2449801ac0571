"""Ranks, and pairs in other order."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vaearr.association.columns import columns_of
from vaearr.association.ranks import average_ranks, codes, tau_b

from .reference import KINDS, column


@pytest.mark.parametrize("kind", KINDS)
def test_average_ranks_are_scipys(kind: str) -> None:
    values = np.stack([column(kind), -column(kind)], axis=1)
    np.testing.assert_array_equal(average_ranks(columns_of(values)), scipy.stats.rankdata(values, axis=0))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=120))
def test_tau_is_scipys_with_many_ties(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, float).T
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    found = tau_b(columns_of(x[:, None]), columns_of(y[:, None])).item()
    assert found == pytest.approx(scipy.stats.kendalltau(x, y).statistic, rel=1e-12, abs=1e-15)


def test_opposite_order_is_minus_one() -> None:
    values = columns_of(np.arange(1000.0)[:, None])
    assert tau_b(values, columns_of(-values.values)).item() == -1
    assert tau_b(values, values).item() == 1


def test_codes_number_the_distinct_values() -> None:
    (code,) = codes(columns_of(np.array([[2.0], [0.5], [2.0], [7.0]])))
    assert code.code.tolist() == [1, 0, 1, 2]
    assert code.start.tolist() == [0, 1, 3]
    assert code.n_tied_pairs == 1
