"""What the page shows, without a browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from vaearr.app import state as s
from vaearr.app.serve import explore, is_loopback
from vaearr.errors import DataError, NoInputError, UsageError
from vaearr.store import create_store, open_store
from vaearr.testing import random_patterns_dataset


@pytest.fixture
def state(trained_template: Path) -> s.State:
    return s.open_state(trained_template)


def test_latents_and_layers_are_those_of_the_store(state: s.State, trained_template: Path) -> None:
    ds = open_store(trained_template)
    np.testing.assert_array_equal(state.latents, ds["latents"].values.reshape(-1, 3))
    np.testing.assert_array_equal(s.layer(state, "latent:1"), ds["latents"].values[..., 1])
    np.testing.assert_array_equal(s.layer(state, s.layers(state)["band contrast"]), ds["BC"].values)
    with pytest.raises(UsageError, match="no layer 'map:patterns'"):
        s.layer(state, "map:patterns")
    assert "run 'vae'" in s.summary(state)
    assert "40 × 35 scan points" in s.summary(state)


def test_sample_is_the_stored_one(state: s.State, trained_template: Path) -> None:
    ds = open_store(trained_template)
    index = s.flat_index(state, (13, 9))
    sample = s.sample_at(state, index)
    assert sample.stored is not None
    np.testing.assert_array_equal(sample.stored, ds["patterns"].values[13, 9])
    np.testing.assert_array_equal(sample.base, ds["latents"].values[13, 9])
    assert sample.words == "y = 6.5 µm, x = 4.5 µm"
    with pytest.raises(UsageError, match="is not one of"):
        s.flat_index(state, (40, 0))


def test_missing_samples_have_no_picture(state: s.State, trained_template: Path) -> None:
    missing = np.flatnonzero(~open_store(trained_template)["present"].values.ravel())
    assert s.sample_at(state, int(missing[0])).stored is None


def test_region_is_the_mean_of_its_samples(state: s.State, trained_template: Path) -> None:
    ds = open_store(trained_template)
    indices = np.array([s.flat_index(state, (20, x)) for x in range(5, 9)])
    indices = indices[ds["present"].values.ravel()[indices]]
    found = s.region(state, indices)
    flat = ds["patterns"].values.reshape(-1, 9, 11)
    np.testing.assert_allclose(found.stored, flat[indices].astype("f4").mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.latents, state.latents[indices].mean(0))
    outside = np.flatnonzero(~np.isfinite(state.latents).all(1))
    with pytest.raises(UsageError, match="none of the chosen samples has latents"):
        s.region(state, outside)


def test_decoding_is_batched_and_traversals_move_one_dimension(state: s.State) -> None:
    offsets, found = s.traversal(state, state.mean, [2, 0], steps=5, reach=2.0)
    assert found.shape == (2, 5, 9, 11)
    assert offsets.tolist() == [-2, -1, 0, 1, 2]
    alone = s.decode(state, state.mean[None])[0]
    np.testing.assert_allclose(found[0, 2], alone, atol=1e-5)
    np.testing.assert_allclose(found[1, 2], alone, atol=1e-5)
    moved = state.mean.copy()
    moved[0] += state.spread[0]
    np.testing.assert_allclose(found[1, 3], s.decode(state, moved[None])[0], atol=1e-5)
    assert state.is_ready


def test_manifold_ascends_on_both_axes(state: s.State) -> None:
    xs, ys, found = s.manifold(state, state.mean, 0, 1, steps=3)
    corner = state.mean.copy()
    corner[0], corner[1] = xs[2], ys[0]
    np.testing.assert_allclose(found[0, 2], s.decode(state, corner[None])[0], atol=1e-5)
    with pytest.raises(UsageError, match="needs two dimensions"):
        s.manifold(state, state.mean, 1, 1)


def test_vectors_of_another_length_are_refused(state: s.State) -> None:
    with pytest.raises(DataError, match="expected \\(k, 3\\)"):
        s.decode(state, np.zeros((1, 4)))


def test_runs_without_latents_are_refused(tmp_path: Path, trained_template: Path) -> None:
    with pytest.raises(NoInputError, match="vea"):
        s.open_state(trained_template, "vea")
    with pytest.raises(NoInputError):
        s.open_state(create_store(random_patterns_dataset(), tmp_path / "plain.zarr"))


def test_ranking_puts_the_strongest_first() -> None:
    table = xr.DataArray(
        [[[0.1], [-0.9], [np.nan], [0.5]]],
        dims=("metric", "latent", "target"),
        coords={"metric": ["pearson"], "target": ["BC"]},
    )
    assert [i for i, _ in s.ranking(table, "pearson", "BC")] == [1, 3, 0, 2]


def test_hosts_and_ports() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("localhost")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")


def test_ports_that_cannot_be(trained_template: Path) -> None:
    with pytest.raises(UsageError, match="port 70000"):
        explore(trained_template, port=70000, show=False)
