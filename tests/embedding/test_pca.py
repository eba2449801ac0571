"""Streamed principal components: equal to the textbook's, whatever the batches; one sign; knee; refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from vaearr.embedding import broken_stick, fit_pca, pca_reconstruct
from vaearr.errors import DataError, RoiError, SchemaError, UsageError


def rows_of(n: int = 200, p: int = 30, rank: int = 6, offset: float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    strong = rng.normal(size=(n, rank)) * np.linspace(9, 3, rank)
    return strong @ np.linalg.qr(rng.normal(size=(p, rank)))[0].T + 0.1 * rng.normal(size=(n, p)) + offset


def passes(rows: np.ndarray, cuts: list[int] | None = None):
    parts = np.split(rows, cuts or [])
    return lambda: (torch.from_numpy(part.copy()) for part in parts if len(part))


def fit(rows: np.ndarray, k: int | None, cuts: list[int] | None = None, **further):
    return fit_pca(passes(rows, cuts), n_samples=len(rows), n_values=rows.shape[1], n_components=k, **further)


def assert_same(found, rows: np.ndarray, k: int, tolerance: float = 1e-9) -> None:
    wanted = PCA(k, svd_solver="full").fit(rows)
    signs = np.sign((wanted.components_ * found.components).sum(1))
    np.testing.assert_allclose(found.components, wanted.components_ * signs[:, None], atol=tolerance)
    np.testing.assert_allclose(found.variance, wanted.explained_variance_, rtol=tolerance)
    np.testing.assert_allclose(found.ratio, wanted.explained_variance_ratio_, rtol=tolerance)
    np.testing.assert_allclose(found.mean, wanted.mean_, atol=tolerance * max(1, np.abs(rows).max()))


@pytest.mark.parametrize("offset", [0.0, 1e5], ids=["centred", "far from zero"])
def test_equal_to_scikit_learn(offset: float) -> None:
    rows = rows_of(offset=offset)
    assert_same(fit(rows, 5, [3, 90, 91]), rows, 5)


def test_lanczos_equal_to_scikit_learn() -> None:
    rows = rows_of(500, 300, 10)
    assert_same(fit(rows, 8, [100, 333]), rows, 8, 1e-8)


def test_fewer_rows_than_values() -> None:
    rows = rows_of(12, 40)
    assert_same(fit(rows, 6), rows, 6)


def test_randomised_equal_to_scikit_learn() -> None:
    rows = rows_of(400, 120, 8, offset=20.0)
    found = fit(rows, 6, [50, 222], exact_values=10)
    assert found.facts["algorithm"] == "randomised subspace iteration"
    assert found.facts["residual"] < 1e-4
    assert found.facts["passes"] <= 8
    assert_same(found, rows, 6, 1e-4)
    again = fit(rows, 6, [50, 222], exact_values=10)
    np.testing.assert_array_equal(again.components, found.components)


def test_randomised_says_how_far_it_got() -> None:
    noise = np.random.default_rng(0).normal(size=(300, 200))  # a flat spectrum converges slowly
    found = fit(noise, 5, exact_values=10)
    assert found.facts["passes"] == 8
    assert 1e-4 < found.facts["residual"] < 1


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 60), max_size=6).map(sorted),
    order=st.permutations(range(4)),
    exact=st.booleans(),
)
def test_batches_and_their_order_do_not_matter(cuts: list[int], order: list[int], exact: bool) -> None:
    rows = rows_of(60, 15, 4, offset=3.0)
    limit = 100 if exact else 5
    whole = fit(rows, 3, exact_values=limit)
    blocks = np.array_split(rows, 4)
    moved = np.concatenate([blocks[i] for i in order])
    cut = fit(moved, 3, cuts, exact_values=limit)
    np.testing.assert_allclose(cut.components, whole.components, atol=1e-6)
    np.testing.assert_allclose(cut.variance, whole.variance, rtol=1e-6)
    assert cut.total == pytest.approx(whole.total)


def test_largest_loading_is_positive() -> None:
    for seed in range(3):
        found = fit(rows_of(seed=seed), 6).components
        assert (found[np.arange(6), np.abs(found).argmax(1)] > 0).all()


def test_ratio_is_of_all_the_variance() -> None:
    rows = rows_of()
    found = fit(rows, 2)
    assert found.total == pytest.approx(rows.var(0, ddof=1).sum())
    assert fit(rows, 30).ratio.sum() == pytest.approx(1)


@pytest.mark.parametrize("exact_values", [100, 5], ids=["covariance", "randomised"])
def test_knee_finds_the_strong_components(exact_values: int) -> None:
    found = fit(rows_of(400, 60, 4), None, exact_values=exact_values)
    assert len(found.variance) == 4
    assert found.facts["knee"] == "broken stick"
    assert not found.facts["knee_at_bound"]


def test_broken_stick_by_hand() -> None:
    expected = [(1 + 1 / 2 + 1 / 3) / 3, (1 / 2 + 1 / 3) / 3, 1 / 9]
    assert broken_stick(np.add(expected, [0.01, -0.01, 0]), 3) == 1
    assert broken_stick(np.array([0.7, 0.29, 0.01]), 3) == 2
    assert broken_stick(np.array([0.4, 0.3, 0.3]), 3) == 1


def test_refusals() -> None:
    rows = rows_of(20, 30)
    with pytest.raises(UsageError, match="n_components is 20; 20 scan points with 30 values each have at most 19"):
        fit(rows, 20)
    with pytest.raises(RoiError, match="at least two scan points"):
        fit(rows[:1], 1)
    for exact_values in (100, 5):
        with pytest.raises(DataError, match="all patterns of the region are alike"):
            fit(np.ones((20, 30)), 2, exact_values=exact_values)
        with pytest.raises(DataError, match="NaN or infinite"):
            fit(np.where(rows == rows[3, 4], np.nan, rows), 2, exact_values=exact_values)


@pytest.mark.parametrize("chunks", [None, {"y": 2}], ids=["plain", "dask"])
def test_reconstruct(chunks: dict[str, int] | None) -> None:
    rows = rows_of(12, 20, 3)
    found = fit(rows, 11)
    scores = xr.DataArray(
        ((rows - found.mean) @ found.components.T).reshape(3, 4, 11),
        dims=("y", "x", "pca_component"),
        coords={"y": [0.0, 1.0, 2.0], "x": np.arange(4.0), "pca_component": np.arange(11)},
    )
    scores[0, 0] = np.nan
    scores = scores.chunk(chunks) if chunks else scores
    components = xr.DataArray(
        found.components.reshape(11, 4, 5), dims=("pca_component", "dy", "dx"), coords={"pca_component": np.arange(11)}
    )
    mean = xr.DataArray(found.mean.reshape(4, 5), dims=("dy", "dx"))
    back = pca_reconstruct(scores, components, mean)
    assert back.dims == ("y", "x", "dy", "dx")
    assert back.attrs["signal_dims"] == ["dy", "dx"]
    assert (back.chunks is None) == (chunks is None)
    np.testing.assert_allclose(back.values[1:], rows.reshape(3, 4, 4, 5)[1:], atol=1e-9)
    assert np.isnan(back.values[0, 0]).all()
    with pytest.raises(SchemaError, match="select the same components of both"):
        pca_reconstruct(scores.isel(pca_component=slice(3)), components, mean)
    with pytest.raises(SchemaError, match="must share one component dim"):
        pca_reconstruct(scores.rename(pca_component="other"), components, mean)
