"""Vectors decoded for the page agree with `vaearr.explore`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vaearr import exploration
from vaearr.app import decoding as d
from vaearr.app.samples import flat_index
from vaearr.app.state import State, base_of, open_state
from vaearr.errors import DataError, UsageError


@pytest.fixture
def state(trained_template: Path) -> State:
    return open_state(trained_template)


def test_traversal_is_that_of_explore(state: State, trained_template: Path) -> None:
    vector = base_of(state, flat_index(state, (13, 9)))
    found = d.traversal(state, vector, [2, 0], steps=5, reach=2.0)
    known = exploration.traverse(trained_template, dims=[2, 0], base=vector, span=(-2, 2), steps=5)
    np.testing.assert_allclose(found.values, known["value"], rtol=1e-5)
    np.testing.assert_allclose(found.decoded.values.reshape(known["decoded"].shape), known["decoded"], atol=1e-4)
    assert found.offsets.tolist() == [-2, -1, 0, 1, 2]


def test_plane_is_that_of_explore(state: State, trained_template: Path) -> None:
    found = d.plane(state, state.origin.centre, 1, 0, steps=3)
    known = exploration.manifold(trained_template, dims=(1, 0), steps=3)
    np.testing.assert_allclose(found.across, known["column"], rtol=1e-6)
    np.testing.assert_allclose(found.up, known["row"], rtol=1e-6)
    np.testing.assert_allclose(found.decoded.values.reshape(known["decoded"].shape), known["decoded"], atol=1e-4)


def test_what_cannot_be_meant_is_refused(state: State) -> None:
    with pytest.raises(UsageError, match="different whole numbers"):
        d.plane(state, state.mean, 1, 1)
    with pytest.raises(DataError, match=r"expected \(k, 3\)"):
        d.decode(state, np.zeros((1, 4)))
    with pytest.raises(DataError, match=r"expected \(3,\)"):
        d.begin(state, np.zeros(4))


def test_spatial_latents_keep_their_pattern(spatial_path: Path) -> None:
    state = open_state(spatial_path)
    base = base_of(state, 5)
    same = d.decode(state, base.reshape(2, -1).mean(1)[None], base=base)
    np.testing.assert_allclose(same, d.rebuilt(state, [5]), atol=1e-4)
    moved = d.begin(state, state.mean, base).latents
    np.testing.assert_allclose(moved.reshape(2, -1).mean(1), state.mean, atol=1e-5)
    np.testing.assert_allclose(
        moved - moved.mean((1, 2), keepdims=True), base - base.mean((1, 2), keepdims=True), atol=1e-5
    )


def test_a_run_without_a_network_is_refused(attached_path: Path) -> None:
    state = open_state(attached_path, "own")
    assert not state.has_model
    state.load_aside()
    assert "no network" in state.problem
    with pytest.raises(DataError, match="no network"):
        d.decode(state, np.zeros((1, 4)))


@pytest.mark.parametrize("tunes", [False, True])
def test_threads_are_set_only_where_the_process_is_ours(
    state: State, monkeypatch: pytest.MonkeyPatch, tunes: bool
) -> None:
    import torch

    before, given = torch.get_num_threads(), []
    kept = torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda count: (given.append(count), kept(count)))
    state.tunes = tunes
    d.warm(state)
    assert bool(given) is tunes
    assert torch.get_num_threads() == before
    assert state.seconds > 0


def test_the_network_is_loaded_aside(state: State) -> None:
    assert not state.is_ready
    state.load_aside()
    assert state._thread is not None
    state._thread.join(60)
    assert state.is_ready
    assert state.problem == ""
    seen = d.seen(state, [flat_index(state, (13, 9))])
    assert seen.shape == (1, 9, 11)
