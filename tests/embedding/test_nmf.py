"""Batched non-negative least squares: equal to scipy's, one row at a time; refusals; shares."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls as one_by_one

from vaearr.embedding import abundance_share, nnls
from vaearr.errors import DataError, SchemaError


def both(ends: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return nnls(ends @ ends.T, rows @ ends.T), np.stack([one_by_one(ends.T, row)[0] for row in rows])


@settings(max_examples=60, deadline=None)
@given(
    k=st.integers(1, 9),
    seed=st.integers(0, 2**31),
    pedestal=st.sampled_from([0.0, 1.0, 5.0]),
    size=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_equal_to_scipy(k: int, seed: int, pedestal: float, size: float) -> None:
    rng = np.random.default_rng(seed)
    ends = rng.random((k, 24)) + pedestal
    rows = size * np.concatenate(
        [
            rng.dirichlet(np.full(k, 0.3), 20) @ ends + 0.3 * rng.normal(size=(20, 24)),
            rng.normal(size=(20, 24)),
            rng.dirichlet(np.full(k, 0.3), 3) @ ends,
            np.zeros((1, 24)),
            -np.ones((1, 24)),
            ends[:1],
        ]
    )
    found, wanted = both(ends, rows)
    assert (found >= 0).all()
    np.testing.assert_allclose(found, wanted, atol=1e-8 * size * max(1, np.abs(wanted).max() / size))
    slope = found @ (ends @ ends.T) - rows @ ends.T  # Karush, Kuhn and Tucker
    scale = size * 24 * (1 + pedestal) ** 2 * k
    assert (slope > -1e-9 * scale).all()
    assert (np.abs(slope * (found > 0)) < 1e-9 * scale).all()


def test_many_endmembers_with_many_free_sets() -> None:
    rng = np.random.default_rng(3)
    ends = rng.random((40, 90))
    found, wanted = both(ends, rng.normal(size=(150, 90)) + 0.5)
    np.testing.assert_allclose(found, wanted, atol=1e-8)


def test_endmembers_of_very_different_size() -> None:
    rng = np.random.default_rng(4)
    ends = rng.random((4, 30)) * np.array([1e-4, 1, 1e3, 1e6])[:, None]
    found, wanted = both(ends, rng.dirichlet(np.ones(4), 30) @ rng.random((4, 30)))
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("limit", [0, 1], ids=["at once", "after some exchanges"])
def test_rows_that_pivoting_does_not_settle(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaearr.embedding import nmf

    rng = np.random.default_rng(5)
    ends = rng.random((20, 60))
    rows = rng.normal(size=(40, 60)) + 0.5
    monkeypatch.setattr(nmf, "EXCHANGES_PER_ENDMEMBER", limit)
    found, wanted = both(ends, rows)
    np.testing.assert_allclose(found, wanted, atol=1e-8)


@pytest.mark.parametrize("pedestal", [5.0, 50.0])
def test_mixtures_without_noise_end(pedestal: float) -> None:
    rng = np.random.default_rng(6)  # every bound is met with slope zero, to rounding
    ends = rng.random((9, 24)) + pedestal
    amounts = np.where(rng.random((300, 9)) < 0.5, 0, rng.random((300, 9)))
    found = nnls(ends @ ends.T, amounts @ ends @ ends.T)
    np.testing.assert_allclose(found, amounts, atol=1e-6)


def test_no_rows() -> None:
    assert nnls(np.eye(3), np.empty((0, 3))).shape == (0, 3)


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        (np.array([[1.0, 2, 3], [2, 4, 6]]), "the 2 endmembers depend on each other"),
        (np.array([[1.0, 2, 3], [0, 0, 0]]), "an endmember is zero"),
        (np.array([[1.0, 2, 3], [np.nan, 0, 0]]), "not finite"),
    ],
    ids=["alike", "zero", "nan"],
)
def test_refused_endmembers(ends: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        nnls(ends @ ends.T, np.ones((2, 2)))


def test_shares_add_up_to_one() -> None:
    amounts = xr.DataArray(
        [[[1.0, 3.0], [0.0, 0.0], [np.nan, np.nan]]], dims=("y", "x", "nmf_component"), attrs={"long_name": "amount"}
    )
    share = abundance_share(amounts)
    np.testing.assert_array_equal(share.values, [[[0.25, 0.75], [np.nan, np.nan], [np.nan, np.nan]]])
    assert share.attrs["long_name"] == "share of the endmember"
    assert abundance_share(amounts.chunk(x=1)).chunks is not None
    with pytest.raises(SchemaError, match="expected one component dim"):
        abundance_share(amounts.rename(nmf_component="other"))
