"""Down-sampling: windows, blocks, thinning, sheets."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vaearr.app.raster import block_mean, cells, in_polygon, raster, sheet, thinned


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 200), st.data())
def test_raster_covers_the_window_within_the_budget(height: int, width: int, most: int, data: st.DataObject) -> None:
    values = np.arange(height * width, dtype=np.float32).reshape(height, width)
    rows = sorted(data.draw(st.tuples(st.floats(-5, height + 5), st.floats(-5, height + 5))))
    columns = sorted(data.draw(st.tuples(st.floats(-5, width + 5), st.floats(-5, width + 5))))
    found = raster(values, (rows[1], rows[0]), (columns[0], columns[1]), most=most)
    assert 0 <= found.top <= np.clip(np.floor(rows[0]), 0, height - 1)
    assert min(height, np.ceil(rows[1])) <= found.bottom <= height
    shape = [-(-(b - a) // found.factor) for a, b in ((found.top, found.bottom), (found.left, found.right))]
    assert list(found.values.shape) == shape
    assert found.values.size <= most + sum(shape) + 1  # whole blocks at both ends of the window
    if found.factor == 1:
        np.testing.assert_array_equal(found.values, values[found.top : found.bottom, found.left : found.right])


def test_blocks_are_means_of_what_is_there() -> None:
    values = np.array([[1, 3, 5], [np.nan, 2, np.nan], [np.nan, np.nan, 7]], np.float32)
    np.testing.assert_allclose(block_mean(values, 2), [[2, 5], [np.nan, 7]])


def test_codes_are_not_averaged() -> None:
    values = np.array([[0, 9], [9, 9]], np.float32)
    assert raster(values, (0, 2), (0, 2), most=1, mean=False).values.item() == 0


def test_thinned_keeps_the_budget_and_the_ends() -> None:
    inside = np.ones(1000, bool)
    inside[0] = False
    found = thinned(inside, most=10)
    assert len(found) == 10
    assert found[[0, -1]].tolist() == [1, 999]
    assert len(thinned(inside, most=2000)) == 999


def test_sheet_places_every_picture() -> None:
    pictures = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    found = sheet(pictures)
    assert found.shape == (8, 15)
    np.testing.assert_array_equal(found[4:8, 5:10], pictures[1, 1])
    large = np.zeros((1, 2, 300, 200, 3))
    assert sheet(large).shape == (60, 80, 3)


def test_gaps_are_told_from_what_is_missing() -> None:
    found = sheet(np.full((1, 2, 2, 3), np.nan), gap=1, fill=np.inf)
    assert found.shape == (3, 8)
    assert np.isnan(found[:2, :3]).all()
    assert np.isinf(found[2]).all()


def test_cells_hold_means_or_the_most_frequent() -> None:
    points = np.array([[0.1, 0.1], [0.4, 0.4], [0.2, 0.3], [1.5, 1.5], [9, 9], [np.nan, 0]])
    window, shape = (0.0, 2.0, 0.0, 2.0), (2, 2)
    found = cells(points, np.array([1, 2, 6, 5, 7, 8.0]), window, shape)
    np.testing.assert_allclose(found, [[3, np.nan], [np.nan, 5]])
    found = cells(points, np.array([4, 0, 4, 1, 1, 1.0]), window, shape, mean=False)
    np.testing.assert_allclose(found, [[4, np.nan], [np.nan, 1]])
    assert np.isnan(cells(points[4:], np.ones(2), window, shape, mean=False)).all()


def test_points_in_an_outline() -> None:
    corners = np.array([[0, 0], [4, 0], [4, 4], [2, 1], [0, 4]], float)  # a notch from above
    points = np.array([[1, 1], [2, 3], [3, 2], [5, 1], [np.nan, 1]])
    assert in_polygon(points, corners).tolist() == [True, False, True, False, False]
