"""What the page shows, without a browser: samples, regions, layers, what is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vaearr.app import state as s
from vaearr.app.page import Explorer
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.store import open_store


@pytest.fixture
def state(trained_template: Path) -> s.State:
    return s.open_state(trained_template)


def numbers(state: s.State, *places: tuple[int, ...]) -> np.ndarray:
    return np.ravel_multi_index(np.array(places).T, state.nav_shape)


def test_a_sample_is_the_stored_one(state: s.State, trained_template: Path) -> None:
    ds = open_store(trained_template)
    found = s.sample(state, numbers(state, (13, 9)))
    assert found.stored is not None
    np.testing.assert_array_equal(found.stored[0], ds["patterns"].values[13, 9])
    np.testing.assert_array_equal(found.base, ds["latents"].values[13, 9])
    assert found.words == "y = 6.5 µm, x = 4.5 µm"
    missing = np.flatnonzero(~ds["present"].values.ravel())
    assert s.sample(state, missing[:1]).stored is None
    assert not set(s.some_of(state, np.arange(1400), 2000)) & set(missing)


def test_a_region_is_the_mean_of_its_samples(state: s.State, trained_template: Path) -> None:
    ds = open_store(trained_template)
    indices = numbers(state, *((20, x) for x in range(5, 9)))
    indices = indices[ds["present"].values.ravel()[indices]]
    found = s.sample(state, indices)
    assert found.stored is not None
    flat = ds["patterns"].values.reshape(-1, 9, 11)
    np.testing.assert_allclose(found.stored[0], flat[indices].astype("f4").mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.latents, state.latents[indices].mean(0))
    outside = np.flatnonzero(~np.isfinite(state.latents).all(1))
    with pytest.raises(UsageError, match="none of the chosen samples has latents"):
        s.sample(state, outside)


def test_those_alike_are_the_nearest(state: s.State) -> None:
    index = int(np.flatnonzero(np.isfinite(state.latents).all(1))[7])
    away = np.linalg.norm((state.latents - state.latents[index]) / state.spread, axis=1)
    found = s.alike(state, state.latents[index], 5)
    assert found[0] == index
    np.testing.assert_allclose(away[found], np.sort(away[np.isfinite(away)])[:5], rtol=1e-5)


def test_layers_are_those_of_the_store(state: s.State, trained_template: Path) -> None:
    ds = open_store(trained_template)
    np.testing.assert_array_equal(s.layer(state, "latent:1"), ds["latents"].values[..., 1])
    np.testing.assert_array_equal(s.layer(state, s.layers(state)["band contrast"]), ds["BC"].values)
    with pytest.raises(UsageError, match="no layer 'map:patterns'"):
        s.layer(state, "map:patterns")
    with pytest.raises(NoInputError, match="vea"):
        s.open_state(trained_template, "vea")


def test_points_in_an_outline() -> None:
    corners = np.array([[0, 0], [4, 0], [4, 4], [2, 1], [0, 4]], float)  # a notch from above
    points = np.array([[1, 1], [2, 3], [3, 2], [5, 1], [np.nan, 1]])
    assert s.in_polygon(points, corners).tolist() == [True, False, True, False, False]


def test_large_pictures_are_shown_in_blocks() -> None:
    values = np.array([[1, 3, 5], [np.nan, 2, np.nan], [np.nan, np.nan, 7]], np.float32)
    np.testing.assert_allclose(s.reduced(values, 2), [[2, 5], [np.nan, 7]])


def test_spatial_latents_keep_their_pattern(spatial_path: Path) -> None:
    state = s.open_state(spatial_path)
    base = s.base_of(state, 5)
    same = s.decode(state, base.reshape(2, -1).mean(1)[None], base)
    np.testing.assert_allclose(same, s.rebuilt(state, [5]), atol=1e-4)
    moved = s.moved(state, state.mean[None], base)[0]
    np.testing.assert_allclose(moved.reshape(2, -1).mean(1), state.mean, atol=1e-5)
    pattern = base - base.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(moved - moved.mean((1, 2), keepdims=True), pattern, atol=1e-5)


def test_slices_of_a_scan_without_a_network(layered_path: Path) -> None:
    state = s.open_state(layered_path, "own")
    with pytest.raises(DataError, match="no network"):
        s.decode(state, np.zeros((1, 4)))
    page = Explorer(state)
    assert "no network" in str(page.message.object)
    page.places[0].value = 2
    rows, columns = (place.value for place in page.places[1:])
    assert page.chosen.tolist() == numbers(state, (2, rows, columns)).tolist()
    known = open_store(layered_path)["latents_own"].values[2, ..., 1]
    np.testing.assert_array_equal(page.slice_of(s.layer(state, "latent:1")), known)
