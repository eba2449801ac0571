"""What the page shows, without a browser."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vaearr.app import state as s
from vaearr.app.serve import explore, is_loopback
from vaearr.errors import NoInputError, UsageError
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


def test_runs_without_latents_are_refused(tmp_path: Path, trained_template: Path) -> None:
    with pytest.raises(NoInputError, match="vea"):
        s.open_state(trained_template, "vea")
    with pytest.raises(NoInputError):
        s.open_state(create_store(random_patterns_dataset(), tmp_path / "plain.zarr"))


def test_targets_are_those_of_the_table(state: s.State, trained_template: Path) -> None:
    assert s.associations(state) is None
    ds = open_store(trained_template)
    np.testing.assert_array_equal(s.target(state, "BC"), ds["BC"].values)


def test_texts_are_layers_where_they_are_few(hostile_path: Path) -> None:
    state = s.open_state(hostile_path, "own")
    name = next(v for v in s.layers(state).values() if v == "map:kind")
    found = s.layer(state, name)
    assert found.attrs["flag_values"] == [0, 1]
    assert found.values[:4].tolist() == [0, 1, 0, 1]


def test_a_store_written_anew_is_opened_anew(trained_store: Path) -> None:
    state = s.open_state(trained_store)
    assert s.current(state) is state
    (trained_store / "runs/vae/zarr.json").touch()
    found = s.current(state)
    assert found is not state
    assert s.current(found) is found


def test_words_say_what_made_the_latents(state: s.State, layered_path: Path) -> None:
    sha = str(state.manifest["weights_sha256"])
    assert s.origin_words(state).startswith(f"weights {sha[:8]}, 20")
    assert "elsewhere" in s.origin_words(s.open_state(layered_path, "own"))


def test_hosts_and_ports() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("localhost")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")


def test_ports_that_cannot_be(trained_template: Path) -> None:
    with pytest.raises(UsageError, match="port 70000"):
        explore(trained_template, port=70000, show=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot listen"):
            explore(trained_template, port=taken.getsockname()[1], show=False)
    with pytest.raises(UsageError, match="cannot listen"):
        explore(trained_template, host="192.0.2.1", show=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_closes_the_page(trained_template: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "vaearr", "explore", str(trained_template), "--no-show"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stderr is not None
        lines = [server.stderr.readline(), server.stderr.readline()]
        assert "http://127.0.0.1:" in lines[1], lines
        server.send_signal(number)
        assert server.stderr.read().strip() == "closed"
        assert server.wait(20) == 0
