"""Borders as points and as lines."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vaearr.clustering import boundaries, boundary_segments
from vaearr.errors import SchemaError, UsageError

CODES = hnp.arrays(np.int16, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=st.integers(-2, 2))


def _map(values: object, **coords: object) -> xr.DataArray:
    array = np.asarray(values)
    return xr.DataArray(array, dims=("z", "y", "x")[-array.ndim :], coords=coords, name="clusters")


@settings(max_examples=60, deadline=None)
@given(codes=CODES, connectivity=st.sampled_from([4, 8]))
def test_every_point_against_its_neighbours(codes: np.ndarray, connectivity: int) -> None:
    found = boundaries(_map(codes), connectivity)  # type: ignore[arg-type]
    expected = np.zeros(codes.shape, bool)
    for place in np.ndindex(codes.shape):
        for step in np.ndindex(*(3,) * codes.ndim):
            move = np.array(step) - 1
            if (connectivity == 4 and np.abs(move).sum() != 1) or not move.any():
                continue
            other = tuple(np.array(place) + move)
            if all(0 <= i < size for i, size in zip(other, codes.shape, strict=True)):
                expected[place] |= codes[place] != codes[other] and min(codes[place], codes[other]) >= 0
    np.testing.assert_array_equal(found, expected)
    assert found.dims == _map(codes).dims


@settings(max_examples=60, deadline=None)
@given(codes=hnp.arrays(np.int16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(-2, 2)))
def test_segments_are_as_long_as_the_border(codes: np.ndarray) -> None:
    segments = boundary_segments(_map(codes))
    length = np.abs(segments[:, 2] - segments[:, 0]).sum() + np.abs(segments[:, 3] - segments[:, 1]).sum()
    pairs = [(codes[1:], codes[:-1]), (codes[:, 1:], codes[:, :-1])]
    assert length == sum(((a != b) & (a >= 0) & (b >= 0)).sum() for a, b in pairs)
    assert segments.shape[1] == 4


def test_segments_lie_between_the_cells_in_coordinate_units() -> None:
    labels = _map([[0, 1], [0, 1], [0, -1]], y=[1.0, 1.5, 2.0], x=[10, 14])
    np.testing.assert_allclose(boundary_segments(labels), [[12, 0.75, 12, 1.75]])
    np.testing.assert_allclose(boundary_segments(labels.transpose("x", "y")), [[12, 0.75, 12, 1.75]])
    np.testing.assert_allclose(boundary_segments(_map([[0], [1]])), [[-0.5, 0.5, 0.5, 0.5]])


def test_outside_makes_no_boundary() -> None:
    assert not boundaries(_map([[0, -1, 1], [0, -2, 1]])).any()
    assert not boundaries(_map([[0.0, np.nan, 1.0]])).any()
    assert boundaries(_map([[0, -1], [-1, 1]]), 8).values.tolist() == [[True, False], [False, True]]


def test_refusals() -> None:
    with pytest.raises(UsageError, match="4 \\(shared edges\\) or 8"):
        boundaries(_map([[0, 1]]), 6)  # type: ignore[arg-type]
    with pytest.raises(SchemaError, match="a map over y and x"):
        boundaries(xr.DataArray([0, 1], dims="sample"))
    with pytest.raises(SchemaError, match="fractions"):
        boundaries(_map([[0.5, 1]]))
    with pytest.raises(UsageError, match="select one slice"):
        boundary_segments(_map(np.zeros((2, 2, 2), int)))
