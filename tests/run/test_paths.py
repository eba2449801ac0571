"""Paths between latents: ends exact, constant speed, lengths kept, no arc where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaearr.errors import UsageError
from vaearr.run.draw import METHODS, lerp, slerp

T = np.linspace(0, 1, 7)


@given(
    size=st.integers(1, 40), seed=st.integers(0, 99), steps=st.integers(2, 9), method=st.sampled_from(sorted(METHODS))
)
def test_ends_are_exact_and_the_way_back_is_the_way(size: int, seed: int, steps: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, size))
    if size == 1:
        b = abs(b) * np.sign(a)
    t = np.linspace(0, 1, steps)
    path = METHODS[method](a, b, t)
    assert path.shape == (steps, size)
    np.testing.assert_allclose(path[[0, -1]], [a, b], atol=1e-9)
    np.testing.assert_allclose(METHODS[method](b, a, t)[::-1], path, atol=1e-9)


@given(size=st.integers(2, 40), seed=st.integers(0, 99))
def test_slerp_turns_at_constant_speed_and_keeps_the_length(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, size))
    b *= np.linalg.norm(a) / np.linalg.norm(b)
    path = slerp(a, b, T)
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), np.linalg.norm(a), rtol=1e-6)
    chords = np.linalg.norm(np.diff(path, axis=0), axis=1)
    np.testing.assert_allclose(chords, chords[0], rtol=1e-5)


def test_slerp_by_hand() -> None:
    half = slerp(np.array([2.0, 0.0]), np.array([0.0, 1.0]), np.array([0.5]))
    np.testing.assert_allclose(half, [[np.sqrt(0.5) * 2, np.sqrt(0.5)]])
    one = np.ones(2)
    np.testing.assert_allclose(slerp(one, 3 * one, T), lerp(one, 3 * one, T))


def test_slerp_refuses_where_there_is_no_one_arc() -> None:
    with pytest.raises(UsageError, match="no one arc between opposite"):
        slerp(np.array([1.0, 2.0]), np.array([-2.0, -4.0]), T)
    with pytest.raises(UsageError, match="all zeros; use lerp"):
        slerp(np.zeros(2), np.array([1.0, 0.0]), T)
