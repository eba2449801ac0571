"""Every metric against scipy, scikit-learn or its formula with matrices of pairs; missing values, constants, ties."""

from __future__ import annotations

from functools import cache

import dask
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vaearr.association.columns import Columns
from vaearr.association.metrics import LATENTS_AT_ONCE, METRICS, MIN_POINTS, Metric, apply, choose, metric
from vaearr.errors import UsageError

from .reference import KINDS, PAIRWISE, column, partial_pearson

N = 240
POSITIONS = np.stack(np.divmod(np.arange(N), 20), axis=1) * [0.5, 0.25]
PARTIAL = {"partial_pearson": 1, "partial_pearson_2": 2, "partial_pearson_3": 3}
SEVEN = [
    "pearson",
    "spearman",
    "kendall",
    "mutual_information",
    "distance_correlation",
    "hsic",
    "partial_pearson",
]


@cache
def _table() -> np.ndarray:
    """All metrics of all kinds of columns with one another."""
    data = np.stack([column(kind, N) for kind in KINDS], axis=1)
    return apply(list(METRICS.values()), data, data, POSITIONS)[0]


def _close(name: str, value: float, expected: float, biased: float = 0.0) -> None:
    if name == "mutual_information":
        assert value == expected  # bit for bit
    else:  # the unbiased HSIC is a difference and may be any small number: measured against the biased one
        assert value == pytest.approx(expected, rel=1e-9, abs=1e-9 * abs(biased) if biased else 1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", list(PAIRWISE))
def test_agrees_with_its_formula(name: str, kind: str) -> None:
    row = _table()[list(METRICS).index(name)]
    i = KINDS.index(kind)
    for j in range(i % 3, len(KINDS), 3):  # a third of the pairs, each kind with itself among them
        biased = float(_table()[list(METRICS).index("hsic"), i, j]) if name == "hsic_unbiased" else 0.0
        _close(name, row[i, j], PAIRWISE[name](column(kind, N), column(KINDS[j], N)), biased)


@pytest.mark.parametrize("name", list(PARTIAL))
def test_partial_correlation_agrees_with_least_squares(name: str) -> None:
    row = _table()[list(METRICS).index(name)]
    for i, kind in enumerate(KINDS):
        expected = partial_pearson(column(kind, N), column("dependent", N), POSITIONS, PARTIAL[name])
        _close(name, row[i, 1], expected)


@pytest.mark.parametrize("name", list(METRICS))
def test_symmetric(name: str) -> None:
    row = _table()[list(METRICS).index(name)]
    if name == "mutual_information":  # latent and target get other noise, which decides where values are equal
        untied = [i for i, kind in enumerate(KINDS) if kind not in ("tied", "binary", "far from zero")]
        np.testing.assert_allclose(row[np.ix_(untied, untied)], row[np.ix_(untied, untied)].T, atol=1e-6)
    elif name == "hsic_unbiased":
        np.testing.assert_allclose(row, row.T, atol=1e-12)
    else:
        np.testing.assert_allclose(row, row.T, rtol=1e-9)


@pytest.mark.parametrize("name", list(METRICS))
def test_missing_points_are_dropped_pair_by_pair(name: str) -> None:
    rng = np.random.default_rng(2)
    latents = np.stack([column(kind, N) for kind in ("dependent", "tied", "heavy tails")], axis=1)
    targets = np.stack([column(kind, N) for kind in ("binary", "random")], axis=1)
    latents[rng.random(latents.shape) < 0.2] = np.nan
    targets[rng.random(targets.shape) < 0.3] = np.nan
    targets[0, 0] = np.inf
    values, count = apply([METRICS[name]], latents, targets, POSITIONS)
    for i in range(latents.shape[1]):
        for j in range(targets.shape[1]):
            keep = np.isfinite(latents[:, i]) & np.isfinite(targets[:, j])
            x, y = latents[keep, i], targets[keep, j]
            expected = apply([METRICS[name]], x[:, None], y[:, None], POSITIONS[keep])[0].item()
            assert values[0, i, j] == pytest.approx(expected, rel=1e-12)
            assert count[j] == (np.isfinite(latents).any(axis=1) & np.isfinite(targets[:, j])).sum()


@pytest.mark.parametrize("name", list(METRICS))
def test_constant_gives_nan_without_a_warning(name: str) -> None:
    values = np.sin(np.arange(20.0) ** 2)
    latents = np.column_stack([np.full(20, 0.1), values])
    targets = np.column_stack([values, np.full(20, 0.3)])
    found = apply([METRICS[name]], latents, targets, POSITIONS[:20])[0][0]
    np.testing.assert_array_equal(np.isnan(found), [[True, True], [False, True]])


@pytest.mark.parametrize("name", list(METRICS))
@pytest.mark.parametrize("n", range(2, 9))
def test_few_points_give_a_number_or_nan(name: str, n: int) -> None:
    values = np.array([0.3, 2.0, -1.0, 0.5, 4.0, 0.0, 1.0, 9.0])[:n, None]
    found = apply([METRICS[name]], values, values[::-1], POSITIONS[:n] ** 2)[0].item()
    least = {"mutual_information": 8, "hsic_unbiased": 4}.get(name, MIN_POINTS)
    if name not in PARTIAL:
        assert np.isfinite(found) == (n >= least)


def test_n_counts_points_where_target_and_any_latent_are_finite() -> None:
    latents = np.array([[1.0, np.nan], [2.0, 5.0], [np.nan, np.nan], [4.0, 1.0], [0.0, 2.0]])
    targets = np.array([[1.0], [2.0], [3.0], [np.nan], [np.inf]])
    values, n = apply(choose("pearson"), latents, targets)
    assert n.tolist() == [2]
    assert np.isnan(values).all()  # fewer than MIN_POINTS
    assert MIN_POINTS == 3


@pytest.mark.parametrize("name", [name for name in METRICS if name != "mutual_information"])
@settings(max_examples=10, deadline=None)
@given(
    scale=st.floats(1e-2, 1e3),
    shift=st.floats(-1e3, 1e3),
    sign=st.sampled_from([-1, 1]),
    seed=st.integers(0, 1000),
)
def test_affine_change_of_latents_changes_only_the_sign(
    name: str, scale: float, shift: float, sign: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    latents, targets = rng.integers(-9, 9, (30, 3)).astype(float), rng.integers(0, 5, (30, 2)).astype(float)
    before = apply([METRICS[name]], latents, targets, POSITIONS[:30])[0]
    after = apply([METRICS[name]], sign * scale * latents + shift, targets, POSITIONS[:30])[0]
    np.testing.assert_allclose(after, (sign if METRICS[name].signed else 1) * before, atol=1e-7)


@pytest.mark.parametrize("name", list(METRICS))
@settings(max_examples=8, deadline=None)
@given(n=st.integers(9, 200), kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=2), seed=st.integers(0, 99))
def test_order_of_points_does_not_matter(name: str, n: int, kinds: list[str], seed: int) -> None:
    x, y = (column(kind, n)[:, None] for kind in kinds)
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    turn = np.random.default_rng(seed).permutation(n)
    before = apply([METRICS[name]], x, y, POSITIONS[:n])[0]
    after = apply([METRICS[name]], x[turn], y[turn], POSITIONS[:n][turn])[0]
    if name == "mutual_information":  # the noise stays with the place
        np.testing.assert_allclose(after, before, atol=0.3)
    else:
        np.testing.assert_allclose(after, before, rtol=1e-8, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(9, 120),
    n_latents=st.integers(1, 3 * LATENTS_AT_ONCE),
    n_targets=st.integers(1, 20),
    scheduler=st.sampled_from(["synchronous", "threads"]),
)
def test_company_and_scheduler_do_not_matter(n: int, n_latents: int, n_targets: int, scheduler: str) -> None:
    rng = np.random.default_rng(n)
    latents, targets = rng.normal(size=(n, n_latents)), rng.normal(size=(n, n_targets))
    chosen = choose("all")
    with dask.config.set(scheduler=scheduler):
        values, _ = apply(chosen, latents, targets, POSITIONS[:n])
    assert values.shape == (7, n_latents, n_targets)
    alone, _ = apply(chosen, latents[:, -1:], targets[:, -1:], POSITIONS[:n])
    np.testing.assert_allclose(values[:, -1, -1], alone[:, 0, 0], rtol=1e-10, atol=1e-13)


def test_all_means_the_seven_and_variants_are_named() -> None:
    assert [item.name for item in choose("all")] == SEVEN
    assert [item.name for item in choose(["all", "hsic_normalised", "hsic"])] == [*SEVEN, "hsic_normalised"]
    assert set(METRICS) - set(SEVEN) == {
        "partial_pearson_2",
        "partial_pearson_3",
        "hsic_normalised",
        "hsic_unbiased",
    }


def test_unknown_metric_names_the_close_one() -> None:
    with pytest.raises(UsageError, match="'pearson'"):
        choose("pearsn")
    with pytest.raises(UsageError, match="no metric"):
        choose(())


def test_missing_positions_are_told() -> None:
    with pytest.raises(UsageError, match="partial_pearson need the positions"):
        apply(choose(["pearson", "partial_pearson"]), np.eye(4), np.eye(4))


def test_a_new_metric_is_one_function() -> None:
    try:

        @metric(signed=False, formula="max", reference="none", higher="larger")
        def largest(latents: Columns, targets: Columns) -> np.ndarray:
            return np.maximum.outer(latents.values.max(axis=0), targets.values.max(axis=0))

        assert isinstance(METRICS["largest"], Metric)
        values, _ = apply(choose(["largest"]), np.array([[1.0], [7.0], [np.nan], [3.0]]), np.ones((4, 1)))
        assert values.item() == 7
    finally:
        METRICS.pop("largest", None)


@pytest.mark.parametrize("n", [5, 40, 300])
def test_a_large_offset_costs_no_digits_of_pearson(n: int) -> None:
    rng = np.random.default_rng(n)
    a = rng.normal(size=n)
    x, y = a * 1e-3 + 1e9, (a + rng.normal(size=n)) * 1e-2 - 1e8
    exact = [v.astype(np.longdouble) - v.astype(np.longdouble).mean() for v in (x, y)]
    wanted = (exact[0] @ exact[1]) / np.sqrt((exact[0] @ exact[0]) * (exact[1] @ exact[1]))
    found = apply(choose("pearson"), x[:, None], y[:, None])[0]
    assert found.item() == pytest.approx(float(wanted), abs=1e-12)
