"""Surrogate maps: the right values, the right smoothness, any grid and region, deterministic by seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vaearr.association.surrogates import (
    Neighbourhood,
    _through_ties,
    block_side,
    block_surrogates,
    correlation_length,
    covariance_weights,
    effective_points,
    field_surrogates,
    fit_map,
    neighbourhood,
    normal_scores,
    semivariograms,
    spectrum,
)

from .null_maps import gaussian_maps, irregular_region, two_classes

SEED = np.random.SeedSequence(3)


def _pairs(values: np.ndarray, mask: np.ndarray, dy: int, dx: int) -> float:
    """Semivariogram at one lag, pair by pair."""
    grid = np.full(mask.shape, np.nan)
    grid[mask] = values
    ny, nx = mask.shape
    a = grid[max(0, -dy) : ny - max(0, dy), max(0, -dx) : nx - max(0, dx)]
    b = grid[max(0, dy) : ny + min(0, dy), max(0, dx) : nx + min(0, dx)]
    return float(np.nanmean((a - b) ** 2) / 2)


def test_semivariogram_is_that_of_the_pairs() -> None:
    mask = irregular_region((17, 23))
    values = gaussian_maps(np.random.default_rng(0), 1, 2, shape=mask.shape)[0][mask] + 5
    near = neighbourhood(mask)
    gamma = semivariograms(near, values[:, None])[0]
    for lag in ((1, 0), (0, 1), (1, 1), (1, -1), (0, 2)):  # short lags have a bin of their own
        (found,) = gamma[np.isclose(gamma, _pairs(values, mask, *lag), rtol=1e-9)]
        assert found > 0


@pytest.mark.parametrize("mask", [np.ones((48, 64), bool), irregular_region()], ids=["full", "irregular"])
@pytest.mark.parametrize("length", [1.0, 4.0])
def test_surrogates_are_as_smooth_as_the_map(mask: np.ndarray, length: float) -> None:
    maps = gaussian_maps(np.random.default_rng(1), 30, length)[:, mask]
    near = neighbourhood(mask)
    true = np.median(semivariograms(near, maps.T), axis=0)
    seeds = SEED.spawn(len(maps))
    drawn = [next(field_surrogates(near, values, 1, seed)) for values, seed in zip(maps, seeds, strict=True)]
    found = np.median(semivariograms(near, np.array(drawn).T), axis=0)
    close = near.distance < 12
    np.testing.assert_allclose(found[close], true[close], rtol=0.35)


def test_values_are_the_maps_own() -> None:
    mask = irregular_region()
    values = np.round(gaussian_maps(np.random.default_rng(2), 1, 3)[0][mask], 1)
    drawn = list(field_surrogates(neighbourhood(mask), values, 3, SEED))
    assert len(drawn) == 3
    for one in drawn:
        np.testing.assert_array_equal(np.sort(one), np.sort(values))
    assert not np.array_equal(drawn[0], drawn[1])
    again = field_surrogates(neighbourhood(mask), values, 5, SEED)
    np.testing.assert_array_equal(np.array(drawn), np.array(list(itertools.islice(again, 3))))


def test_spectrum_is_the_covariance_and_never_negative() -> None:
    near = neighbourhood(np.ones((20, 30), bool))
    weights = np.zeros(near.design.shape[1])
    weights[[3, 8, 40, -1]] = 0.5, 1.0, 0.7, 0.3
    power = spectrum(near, weights)
    assert power.min() >= 0
    covariance = np.fft.ifftn(power).real
    assert covariance.flat[0] == pytest.approx(2.5)
    gamma = 2.5 - np.bincount(near.bins, covariance.ravel()[near.lags] * _lag_pairs(near)) / near.pairs
    np.testing.assert_allclose(gamma, near.design @ weights, atol=1e-9)
    np.testing.assert_allclose(covariance_weights(near, gamma[None])[0] @ near.design.T, gamma, rtol=1e-3)


def _lag_pairs(near: Neighbourhood) -> np.ndarray:
    pairs = np.fft.irfft2(np.abs(np.fft.rfft2(near.mask.astype(float), near.torus)) ** 2, near.torus)
    return np.rint(pairs.ravel()[near.lags])


def test_effective_points_equal_the_matrix_formula() -> None:
    mask = irregular_region((9, 11))
    near = neighbourhood(mask)
    weights = np.zeros((2, near.design.shape[1]))
    weights[0, [4, 30]], weights[1, [6, -1]] = (1.0, 0.5), (2.0, 0.4)
    points = np.argwhere(mask)
    lag = (points[:, None] - points[None]) % near.torus
    centre = np.eye(near.n) - 1 / near.n
    a, b = (centre @ np.fft.ifftn(spectrum(near, w)).real[tuple(lag.transpose(2, 0, 1))] for w in weights)
    wanted = 1 + np.trace(a) * np.trace(b) / np.trace(a @ b)
    assert effective_points(near, weights[:1], weights[1:])[0, 0] == pytest.approx(wanted, rel=1e-9)
    white = np.zeros_like(weights[:1])
    white[0, -1] = 3.0
    assert effective_points(near, white, weights[1:])[0, 0] == pytest.approx(near.n, rel=1e-9)


def test_effective_points_predict_the_variance_of_r() -> None:
    maps = gaussian_maps(np.random.default_rng(4), 200, 3).reshape(200, -1)
    near = neighbourhood(np.ones((48, 64), bool))
    r = [np.corrcoef(maps[2 * i], maps[2 * i + 1])[0, 1] for i in range(100)]
    weights = covariance_weights(near, semivariograms(near, maps[:20].T))
    found = effective_points(near, weights[:10], weights[10:])
    assert np.median(found) == pytest.approx(1 + 1 / np.mean(np.square(r)), rel=0.35)
    assert np.median(found) == pytest.approx(3072 / (np.pi * 9), rel=0.25)  # theory for an endless map


@pytest.mark.parametrize("levels", [2, 5])
def test_ties_are_seen_through(levels: int) -> None:
    maps = gaussian_maps(np.random.default_rng(5), 20, 4)
    near = neighbourhood(np.ones(maps.shape[1:], bool))
    cuts = np.quantile(maps, np.arange(1, levels) / levels)
    ratios = []
    for one in maps.reshape(20, -1):
        tied = np.digitize(one, cuts).astype(float)
        scores = normal_scores(tied)
        through = _through_ties(tied, semivariograms(near, scores[:, None]), float(scores.var()))
        ratios.append(through[0, :12] / semivariograms(near, normal_scores(one)[:, None])[0, :12])
    np.testing.assert_allclose(np.median(ratios, axis=0), 1, atol=0.25)


def test_normal_scores_of_ties_are_means_over_their_ranks() -> None:
    scores = normal_scores(np.array([0.0, 0.0, 5.0, 5.0]))
    np.testing.assert_allclose(scores, np.sqrt(2 / np.pi) * np.array([-1, -1, 1, 1]))
    assert normal_scores(np.array([3.0, 1e9, -2.0])).tolist() == pytest.approx([0, 0.967, -0.967], abs=1e-3)


def test_blocks_keep_their_inside_and_the_side_follows_the_length() -> None:
    mask = np.ones((40, 50), bool)
    values = np.arange(2000.0)
    one = next(block_surrogates(neighbourhood(mask), values, 1, SEED, 8)).reshape(40, 50)
    assert np.mean(np.diff(one, axis=1) == 1) > 0.75
    assert np.isin(one, values).all()
    smooth, rough = (gaussian_maps(np.random.default_rng(6), 9, length).reshape(9, -1) for length in (3, 1))
    near = neighbourhood(np.ones((48, 64), bool))
    assert block_side(near, smooth[0]) > block_side(near, rough[0]) >= 2
    lengths = [correlation_length(near, fit_map(near, one)) for one in smooth]
    assert np.median(lengths) == pytest.approx(3 * np.sqrt(2 * np.log(10)), rel=0.35)


@example(shape=[5], share=0.5, seed=21, spacing=1.0)  # points of one value
@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    share=st.floats(0.3, 1.0),
    seed=st.integers(0, 100),
    spacing=st.floats(0.2, 5),
)
def test_any_grid_gives_finite_surrogates(shape: list[int], share: float, seed: int, spacing: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < share
    mask.flat[0] = True
    values = np.round(rng.normal(size=int(mask.sum())), 1)
    near = neighbourhood(mask, np.array([spacing, *np.ones(len(shape) - 1)]))
    for one in field_surrogates(near, values, 3, SEED):
        np.testing.assert_array_equal(np.sort(one), np.sort(values))
    for one in block_surrogates(near, values, 2, SEED, 3):
        assert np.isin(one, values).all()
    assert 1 <= block_side(near, values) <= max(shape)


def test_class_maps_stay_patchy() -> None:
    mask = irregular_region()
    values = two_classes(gaussian_maps(np.random.default_rng(8), 1, 4))[0][mask]
    near = neighbourhood(mask)
    own = semivariograms(near, values[:, None])[0, 0]
    drawn = np.array(list(field_surrogates(near, values, 20, SEED)))
    assert semivariograms(near, drawn.T)[:, 0].mean() == pytest.approx(own, rel=0.35)
