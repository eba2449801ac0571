"""The numbers of a difference, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr.layers import measures as m


def _measures(a: torch.Tensor, b: torch.Tensor) -> dict[str, float]:
    found = m.measures(m.sums(a, b).numpy(), np.array(a.numel()))
    return {name: float(value) for name, value in found.items()}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 10**6), st.sampled_from([1e-4, 1.0, 1e4]))
def test_numbers_by_their_definitions(shape: list[int], seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = (scale * rng.normal(size=(2, *shape))).astype("f4")
    found = _measures(torch.from_numpy(a), torch.from_numpy(b))
    a, b = a.astype("f8").ravel(), b.astype("f8").ravel()
    l2 = np.linalg.norm(a - b)
    want = {
        "l2": l2,
        "rms": l2 / np.sqrt(a.size),
        "relative_l2": l2 / np.linalg.norm(a),
        "cosine": a @ b / np.linalg.norm(a) / np.linalg.norm(b),
        "mean_abs": np.abs(a - b).mean(),
        "rms_a": np.sqrt((a**2).mean()),
        "rms_b": np.sqrt((b**2).mean()),
    }
    assert found == pytest.approx(want, rel=1e-9)


def test_many_pieces_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.arange(10.0), torch.ones(10)
    whole = m.sums(a, b)
    monkeypatch.setattr(m, "PIECE", 3)
    assert whole.dtype == torch.float64
    torch.testing.assert_close(m.sums(a, b), whole)


def test_where_nothing_can_be_divided_by() -> None:
    zero, one = torch.zeros(4), torch.ones(4)
    both = _measures(zero, zero)
    assert both["relative_l2"] == 0
    assert both["cosine"] == 1
    only_a = _measures(zero, one)
    assert np.isnan(only_a["relative_l2"])
    assert np.isnan(only_a["cosine"])
    only_b = _measures(one, zero)
    assert only_b["relative_l2"] == 1
    assert np.isnan(only_b["cosine"])
    same = _measures(one * 0.1, one * 0.1)
    assert same["cosine"] == 1
    assert _measures(one, -one)["cosine"] == -1


def test_map_is_the_mean_square_over_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.randn(2, 3, 4, 6)
    squares = m.squared_map(a, b)
    torch.testing.assert_close(squares, ((a - b) ** 2).mean(0))
    assert float(squares.mean()) == pytest.approx(_measures(a, b)["rms"] ** 2, rel=1e-5)
    monkeypatch.setattr(m, "MOST_POSITIONS", 6)
    small = m.squared_map(a, b)
    assert small.shape == (2, 3)
    torch.testing.assert_close(small.mean(), squares.mean())
    assert m.squared_map(torch.randn(2, 5, 4, 3), torch.zeros(2, 5, 4, 3)).numel() <= 6
