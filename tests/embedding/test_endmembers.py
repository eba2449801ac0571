"""Where endmembers come from: places, classes, and windows found by projection."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from vaearr.embedding.endmembers import at_coordinates, check_amounts, of_classes, successive_projection
from vaearr.errors import DataError, UsageError
from vaearr.testing import random_patterns_dataset


@pytest.fixture
def ds() -> xr.Dataset:
    return random_patterns_dataset({"y": 6, "x": 8}, step=0.5)


def test_windows_around_places(ds: xr.Dataset) -> None:
    inside = np.ones((6, 8), bool)
    inside[2, 3] = False
    members = at_coordinates(ds, inside, ((1.0, 1.5), (0.1, 0.0)))
    assert members.described == [{"x": 1.0, "y": 1.5, "n": 8}, {"x": 0.0, "y": 0.0, "n": 4}]
    assert np.argwhere(members.chosen[1]).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert not members.chosen[0, 2, 3]


@pytest.mark.parametrize(
    ("place", "message"),
    [((9.0, 0.0), "x = 9 is on no scan point; x runs from 0 to 3.5 um"), ((1.5, 1.0), "outside the region")],
    ids=["off the grid", "outside"],
)
def test_places_that_cannot_be_meant(ds: xr.Dataset, place: tuple[float, float], message: str) -> None:
    inside = np.ones((6, 8), bool)
    inside[2, 3] = False
    with pytest.raises(UsageError, match=message):
        at_coordinates(ds, inside, (place,))


def test_places_need_a_flat_scan() -> None:
    volume = random_patterns_dataset({"z": 2, "y": 3, "x": 3})
    with pytest.raises(UsageError, match=r"need a scan over \('y', 'x'\)"):
        at_coordinates(volume, np.ones((2, 3, 3), bool), ((0.0, 0.0),))


def test_classes_of_a_map(ds: xr.Dataset) -> None:
    phase = np.full((6, 8), -1)
    phase[:2], phase[4:] = 0, 1
    ds["phase"] = ds.phase.copy(data=phase)
    inside = np.ones((6, 8), bool)
    inside[0] = False
    members = of_classes(ds, inside, "phase")
    assert [(item["class"], item["name"], item["n"]) for item in members.described] == [(0, "fcc", 8), (1, "bcc", 16)]
    assert not members.chosen[:, 2:4].any()
    with pytest.raises(UsageError, match="has 1 class"):
        of_classes(ds, phase == 1, "phase")


def test_projection_takes_the_corners_of_a_triangle() -> None:
    rng = np.random.default_rng(0)
    corners = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 8.0]])
    means = rng.dirichlet(np.ones(3), (12, 12)) @ corners * 0.9
    places = [(1, 1), (1, 9), (9, 4)]
    for place, corner in zip(places, corners, strict=True):
        means[place] = corner
    found = successive_projection(means - means.mean((0, 1)), np.ones((12, 12), bool), 3)
    assert sorted(found) == sorted(places)


def test_windows_do_not_overlap() -> None:
    means = np.random.default_rng(1).normal(size=(2, 9, 9, 12))
    found = successive_projection(means, np.ones((2, 9, 9), bool), 10)
    for i, a in enumerate(found):
        for b in found[:i]:
            assert a[0] != b[0] or max(abs(a[1] - b[1]), abs(a[2] - b[2])) > 2


def test_too_few_different_windows() -> None:
    flat = np.zeros((9, 9, 3))
    with pytest.raises(UsageError, match="only 1 different reference windows were found, 3 are"):
        successive_projection(flat, np.ones((9, 9), bool), 3)
    with pytest.raises(UsageError, match="only 0 different"):
        successive_projection(flat, np.zeros((9, 9), bool), 1)


def test_values_that_are_no_amounts() -> None:
    check_amounts(0.0, "patterns")
    with pytest.raises(DataError, match=r"patterns go down to -0\.5; use method='pca'"):
        check_amounts(-0.5, "patterns")
    with pytest.raises(DataError, match="NaN or infinite"):
        check_amounts(float("nan"), "patterns")
