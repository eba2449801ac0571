"""What the page shows, without a browser: samples, regions, layers, what is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from vaearr.app.page import Explorer
from vaearr.app.state import State, coloured, in_polygon
from vaearr.errors import NoInputError, UsageError
from vaearr.store import open_store


@pytest.fixture
def state(trained_template: Path) -> State:
    return State(trained_template)


def numbers(state: State, *places: tuple[int, ...]) -> np.ndarray:
    return np.ravel_multi_index(np.array(places).T, state.grid)


def test_a_sample_is_the_stored_one_and_a_region_the_mean(state: State, trained_template: Path) -> None:
    ds = open_store(trained_template)
    found = state.sample(numbers(state, (13, 9)))
    assert found.stored is not None
    np.testing.assert_array_equal(found.stored[0], ds["patterns"].values[13, 9])
    np.testing.assert_array_equal(found.base, ds["latents"].values[13, 9])
    assert found.words == "y = 6.5 µm, x = 4.5 µm"
    present = ds["present"].values.ravel()
    assert state.sample(np.flatnonzero(~present)[:1]).stored is None
    indices = numbers(state, *((20, x) for x in range(5, 9)))
    found = state.sample(indices)
    assert found.stored is not None
    flat = ds["patterns"].values.reshape(-1, 9, 11)
    np.testing.assert_allclose(found.stored[0], flat[indices[present[indices]]].astype("f4").mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.latents, state.latents[indices[present[indices]]].mean(0))
    with pytest.raises(UsageError, match="none of the chosen samples has latents"):
        state.sample(np.flatnonzero(~np.isfinite(state.latents).all(1)))


def test_those_alike_are_the_nearest(state: State) -> None:
    index = int(state.known[7])
    away = np.linalg.norm((state.latents - state.latents[index]) / state.spread, axis=1)
    found = state.alike(state.latents[index], 5)
    assert found[0] == index
    np.testing.assert_allclose(away[found], np.sort(away[np.isfinite(away)])[:5], rtol=1e-5)


def test_layers_are_those_of_the_store(state: State, trained_template: Path) -> None:
    ds = open_store(trained_template)
    np.testing.assert_array_equal(state.layers["latent 1"], ds["latents"].values[..., 1])
    np.testing.assert_array_equal(state.layers["band contrast"], ds["BC"].values)
    with pytest.raises(NoInputError, match="vea"):
        State(trained_template, "vea")


def test_points_in_an_outline() -> None:
    corners = np.array([[0, 0], [4, 0], [4, 4], [2, 1], [0, 4]], float)  # a notch from above
    points = np.array([[1, 1], [2, 3], [3, 2], [5, 1], [np.nan, 1]])
    assert in_polygon(points, corners).tolist() == [True, False, True, False, False]


def test_spatial_latents_keep_their_pattern(spatial_path: Path) -> None:
    state = State(spatial_path)
    base = state.bases(np.array([5])).values[0]
    same = state.at(base.reshape(2, -1).mean(1), base)
    np.testing.assert_allclose(same, state.rebuilt(np.array([5])), atol=1e-4)
    moved = state.moved(state.mean[None], base)[0]
    np.testing.assert_allclose(moved.reshape(2, -1).mean(1), state.mean, atol=1e-5)
    pattern = base - base.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(moved - moved.mean((1, 2), keepdims=True), pattern, atol=1e-5)


def test_slices_of_a_scan_without_a_network(layered_path: Path) -> None:
    state = State(layered_path, "own")
    with pytest.raises(NoInputError, match="no network"):
        state.at(np.zeros(4), np.zeros(4))
    page = Explorer(state)
    assert "no network" in str(page.message.object)
    page.places[0].value = 2
    rows, columns = (place.value for place in page.places[1:])
    assert page.chosen.tolist() == numbers(state, (2, rows, columns)).tolist()
    known = open_store(layered_path)["latents_own"].values[2, ..., 1]
    np.testing.assert_array_equal(page.slice_of(state.layers["latent 1"]), known)


@pytest.mark.parametrize("span", [1e-3, 0.7, 3, 10.5, 15, 19.9, 20, 150, 210, 6e4])
def test_a_colour_bar_has_few_even_ticks(span: float) -> None:
    ticks = coloured(xr.DataArray(np.linspace(-span / 3, 2 * span / 3, 500)))["ticks"]
    assert 2 <= len(ticks) <= 11
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0])
