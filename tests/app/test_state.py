"""What the page shows, without a browser: the typical sample of a selection, spatial latents, planes of a volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from vaearr.app.page import Explorer
from vaearr.app.state import State, coloured
from vaearr.errors import UsageError
from vaearr.store import open_store


def test_a_selection_shows_its_most_typical_sample(trained_template: Path) -> None:
    state = State(trained_template)
    selected = state.known[10:40]
    latents = state.latents[selected]
    apart = np.linalg.norm(latents[:, None] - latents, axis=2)
    fifth = np.sort(apart, axis=1)[:, 5]  # of each sample, the distance to its fifth neighbour
    crowded = np.flatnonzero(fifth <= np.median(fifth))
    distance = np.linalg.norm(latents[crowded] - latents.mean(0), axis=1)
    assert state.typical(selected) == selected[crowded[distance.argmin()]]
    with pytest.raises(UsageError, match="none of the selected samples has latents"):
        state.typical(np.flatnonzero(~state.has_latents))


def test_spatial_latents_keep_their_pattern(spatial_path: Path) -> None:
    state = State(spatial_path)
    base = state.bases(np.array([5]))[0]
    vector = state.mean + 1
    moved = state.moved(vector, base)
    np.testing.assert_allclose(moved.mean((1, 2)), vector, atol=1e-5)
    np.testing.assert_allclose(np.ptp(moved - base, axis=(1, 2)), 0, atol=1e-5)


def test_the_map_of_a_volume_shows_the_chosen_plane(layered_path: Path) -> None:
    page = Explorer(State(layered_path, "own"))
    page.level.value = 2
    shown = page.plane_of(page.state.layers["latent 1"])
    np.testing.assert_array_equal(shown, open_store(layered_path)["latents_own"].values[2, ..., 1])


@pytest.mark.parametrize("span", [1e-3, 0.7, 3, 10.5, 15, 19.9, 20, 150, 210, 6e4])
def test_a_colour_bar_has_few_even_ticks(span: float) -> None:
    ticks = coloured(xr.DataArray(np.linspace(-span / 3, 2 * span / 3, 500)))["ticks"]
    assert 2 <= len(ticks) <= 11
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0])
