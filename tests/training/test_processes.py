"""Two processes started by torchrun learn what one learns, publish one run, and go on after an interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import vaearr as va
from vaearr import names as n
from vaearr.config import TrainConfig
from vaearr.errors import UsageError
from vaearr.models.files import read_tensors
from vaearr.store import create_store, open_table, run_folder, run_manifest, run_names
from vaearr.training.checkpoint import CHECKPOINT
from vaearr.training.processes import Processes, joined

from ..conftest import SMALL_NETWORK, TINY_TRAINING
from ..data import random_patterns_dataset


@pytest.fixture
def store(tmp_path: Path) -> Path:
    ds = random_patterns_dataset({"y": 16, "x": 16}, {"dy": 9, "dx": 11})
    return create_store(ds, tmp_path / "scan.zarr")


def _torchrun(store: Path, run: str, config: TrainConfig) -> list[str]:
    file = store.parent / f"{run}.json"
    file.write_text(config.model_dump_json())
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "vaearr",
        "--",
    ]
    return [*start, "train", str(store), "--run", run, "--config", str(file)]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stderr


def test_two_processes_learn_what_one_learns(store: Path) -> None:
    """Without noise the averaged gradient of two halves is that of the whole: the same weights but for rounding."""
    config = TINY_TRAINING.replace(
        model={"name": "conv_ae", "latent_dim": 3, "options": SMALL_NETWORK},
        objective={"likelihood": "gaussian", "input_noise": 0.0, "target": "self"},
        split={"fraction": 0.0},
        epochs=4,
        batch_size=128,
        optimizer="adam",
        checkpoint_every=2,
    )
    one = va.train(store, run="one", config=config.replace(batch_size=256))
    said = _run(_torchrun(store, "two", config))
    assert said.count("training conv_ae") == 1
    assert "2 processes" in said
    assert not (store / n.MODEL).exists()
    manifest = run_manifest(store, "two")
    assert (manifest["processes"], manifest["n_train"]) == (2, 256)
    two = open_table(store, "two", n.HISTORY)
    np.testing.assert_allclose(two.loss, one.history.loss, rtol=1e-5)
    a, b = (read_tensors(run_folder(store, run) / n.MODEL / "weights.safetensors")[0] for run in ("one", "two"))
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=1e-4)
    begun = run_folder(store, "two") / n.MODEL / "checkpoint-0002.safetensors"
    with pytest.raises(UsageError, match="processes 2 and 1"):
        va.train(store, run="other", config=config, resume=begun)


@pytest.mark.long
def test_two_processes_are_interrupted_and_go_on(store: Path) -> None:
    model = {"latent_dim": 3, "options": {**SMALL_NETWORK, "norm": "batch"}}  # whose running means must agree
    config = TINY_TRAINING.replace(epochs=20, patience=20, checkpoint_minutes=1e-6, model=model)
    _run(_torchrun(store, "whole", config))
    command = _torchrun(store, "cut", config)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    checkpoint = store.parent / f".{store.name}.staging" / "run-cut" / n.MODEL / CHECKPOINT
    end = time.monotonic() + 120
    while not checkpoint.exists():
        assert process.poll() is None, "it ended before it could be interrupted"
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert run_names(store) == ["whole"]
    assert "going on from" in _run(command)
    first, second = (open_table(store, run, n.HISTORY).drop_vars("seconds") for run in ("whole", "cut"))
    xr.testing.assert_allclose(first, second, rtol=1e-6)  # an epoch's sums are added up in another order
    a, b = (read_tensors(run_folder(store, run) / n.MODEL / "weights.safetensors")[0] for run in ("whole", "cut"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_one_process_needs_no_group() -> None:
    team, values = Processes(), torch.tensor([1.0, 2.0])
    assert team.is_first
    assert torch.equal(team.total(values), values)
    assert torch.equal(team.highest(values), values)
    assert team.first_does(lambda: "x") == "x"
    layer = torch.nn.Linear(1, 1)
    assert team.share(layer, torch.device("cpu")) is layer


def test_an_error_in_two_processes_is_told_once(trained_store: Path) -> None:
    result = subprocess.run(
        _torchrun(trained_store, "vae", TINY_TRAINING.replace(epochs=9)),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
    )
    assert result.returncode != 0
    assert result.stderr.count("already has a run 'vae'") == 1
    assert "internal error" not in result.stderr


def test_processes_cannot_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("vaearr.training.processes.pick_device", lambda name: torch.device("cuda:0"))
    with pytest.raises(UsageError, match="2 processes cannot share cuda:0"), joined("cuda:0"):
        pass
