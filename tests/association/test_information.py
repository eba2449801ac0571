"""Mutual information: bit for bit scikit-learn's, for one latent at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vaearr.association.columns import columns_of
from vaearr.association.information import mutual_information

from .reference import mutual_information as by_sklearn


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(8, 400),
    levels=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 999),
)
def test_bits_are_sklearns(n: int, levels: tuple[int, int], scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(0, level + 1, n) * scale for level in levels)
    x += rng.integers(0, 2) * rng.normal(size=n) * scale + rng.integers(0, 2) * 10 * y
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    assert mutual_information(columns_of(x[:, None]), columns_of(y[:, None])).item() == by_sklearn(x, y)


@pytest.mark.parametrize("kind", ["float32", "clustered", "sparse"])
def test_bits_are_sklearns_for_a_few_thousand_points(kind: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3000))
    if kind == "float32":
        x, y = x.astype("f4").astype("f8"), (x + y).astype("f4").astype("f8")
    elif kind == "clustered":
        group = rng.integers(0, 5, 3000)
        x, y = x * 1e-3 + group, y + 3 * group
    else:
        y = np.where(rng.random(3000) < 0.6, 0.0, y + x)
    assert mutual_information(columns_of(x[:, None]), columns_of(y[:, None])).item() == by_sklearn(x, y)
