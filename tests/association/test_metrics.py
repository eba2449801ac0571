"""Pearson and Spearman against scipy; missing values, constants, ties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr.association import METRICS
from vaearr.association.metrics import MIN_POINTS, Metric, apply, choose, metric
from vaearr.errors import UsageError

SCIPY: dict[str, Callable[..., Any]] = {"pearson": scipy.stats.pearsonr, "spearman": scipy.stats.spearmanr}


def _data(kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    latents, targets = rng.normal(size=(200, 5)), rng.normal(size=(200, 3))
    targets[:, 1] += 2 * latents[:, 0]
    if kind == "tied":
        latents, targets = np.round(latents), np.round(targets)
    elif kind == "missing":
        latents[rng.random(latents.shape) < 0.2] = np.nan
        targets[rng.random(targets.shape) < 0.3] = np.nan
        targets[0, 0] = np.inf
    elif kind == "far from zero":
        latents = latents * 1e-3 + 1e4
    return latents, targets


@pytest.mark.parametrize("kind", ["random", "tied", "missing", "far from zero"])
@pytest.mark.parametrize("name", list(SCIPY))
def test_agrees_with_scipy(name: str, kind: str) -> None:
    latents, targets = _data(kind)
    values, _ = apply([METRICS[name]], latents, targets)
    for i in range(latents.shape[1]):
        for j in range(targets.shape[1]):
            keep = np.isfinite(latents[:, i]) & np.isfinite(targets[:, j])
            expected = SCIPY[name](latents[keep, i], targets[keep, j]).statistic
            assert values[0, i, j] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", list(SCIPY))
def test_constant_gives_nan_without_a_warning(name: str) -> None:
    latents = np.column_stack([np.full(20, 0.1), np.arange(20.0)])
    targets = np.column_stack([np.arange(20.0), np.full(20, 0.3)])
    values, _ = apply([METRICS[name]], latents, targets)
    np.testing.assert_array_equal(np.isnan(values[0]), [[True, True], [False, True]])
    assert values[0, 1, 0] == 1


def test_n_counts_points_where_target_and_any_latent_are_finite() -> None:
    latents = np.array([[1.0, np.nan], [2.0, 5.0], [np.nan, np.nan], [4.0, 1.0], [0.0, 2.0]])
    targets = np.array([[1.0], [2.0], [3.0], [np.nan], [np.inf]])
    values, n = apply(choose("pearson"), latents, targets)
    assert n.tolist() == [2]
    assert np.isnan(values).all()  # fewer than MIN_POINTS
    assert MIN_POINTS == 3


@settings(max_examples=40, deadline=None)
@given(
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-1e3, 1e3),
    sign=st.sampled_from([-1, 1]),
    seed=st.integers(0, 1000),
)
def test_affine_change_of_latents_changes_only_the_sign(scale: float, shift: float, sign: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    latents, targets = rng.integers(-9, 9, (30, 3)).astype(float), rng.integers(0, 5, (30, 2)).astype(float)
    before, _ = apply(list(METRICS.values()), latents, targets)
    after, _ = apply(list(METRICS.values()), sign * scale * latents + shift, targets)
    np.testing.assert_allclose(after, sign * before, atol=1e-8)


def test_unknown_metric_names_the_close_one() -> None:
    with pytest.raises(UsageError, match="'pearson'"):
        choose("pearsn")
    with pytest.raises(UsageError, match="no metric"):
        choose(())


def test_a_new_metric_is_one_function() -> None:
    try:

        @metric(signed=False, formula="max", reference="none", higher="larger")
        def largest(latents: np.ndarray, target: np.ndarray) -> np.ndarray:
            return latents.max(axis=0)

        assert isinstance(METRICS["largest"], Metric)
        values, _ = apply(choose(["largest"]), np.array([[1.0], [7.0], [np.nan], [3.0]]), np.ones((4, 1)))
        assert values.item() == 7
    finally:
        METRICS.pop("largest", None)
