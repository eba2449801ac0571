"""Samples, regions and neighbours, compared with the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vaearr.app import samples as sm
from vaearr.app.state import State, open_state
from vaearr.errors import UsageError
from vaearr.store import open_store


@pytest.fixture
def state(trained_template: Path) -> State:
    return open_state(trained_template)


def test_sample_is_the_stored_one(state: State, trained_template: Path) -> None:
    ds = open_store(trained_template)
    sample = sm.sample_at(state, sm.flat_index(state, (13, 9)))
    assert sample.stored is not None
    np.testing.assert_array_equal(sample.stored[0], ds["patterns"].values[13, 9])
    np.testing.assert_array_equal(sample.base, ds["latents"].values[13, 9])
    assert sample.words == "y = 6.5 µm, x = 4.5 µm"
    assert sm.brief_place(state, sample.index) == "(6.5, 4.5)"
    with pytest.raises(UsageError, match="is not one of"):
        sm.flat_index(state, (40, 0))


def test_missing_samples_have_no_picture(state: State, trained_template: Path) -> None:
    missing = np.flatnonzero(~open_store(trained_template)["present"].values.ravel())
    assert sm.sample_at(state, int(missing[0])).stored is None
    assert not set(sm.some_of(state, np.arange(1400), most=2000)) & set(missing)


def test_region_is_the_mean_of_its_samples(state: State, trained_template: Path) -> None:
    ds = open_store(trained_template)
    indices = np.array([sm.flat_index(state, (20, x)) for x in range(5, 9)])
    indices = indices[ds["present"].values.ravel()[indices]]
    found = sm.region(state, indices)
    flat = ds["patterns"].values.reshape(-1, 9, 11)
    assert found.stored is not None
    np.testing.assert_allclose(found.stored[0], flat[indices].astype("f4").mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.latents, state.latents[indices].mean(0))
    outside = np.flatnonzero(~np.isfinite(state.latents).all(1))
    with pytest.raises(UsageError, match="none of the chosen samples has latents"):
        sm.region(state, outside)


def test_those_alike_are_the_nearest(state: State) -> None:
    index = int(np.flatnonzero(np.isfinite(state.latents).all(1))[7])
    found = sm.alike(state, state.latents[index], most=5)
    away = np.linalg.norm((state.latents - state.latents[index]) / state.spread, axis=1)
    assert found[0] == index
    np.testing.assert_allclose(away[found], np.sort(away[np.isfinite(away)])[:5], rtol=1e-5)


def test_words_of_a_collection(collection_template: Path) -> None:
    state = open_state(collection_template)
    words = sm.where(state, 3)
    assert words.startswith("sample = 3, label = ")
    assert ", path = " in words
    assert sm.brief_place(state, 3) == "3"


def test_mean_of_what_is_known() -> None:
    values = np.array([[1, np.nan, np.nan], [3, 5, np.nan]])
    np.testing.assert_array_equal(sm._known_mean(values), [2, 5, np.nan])
