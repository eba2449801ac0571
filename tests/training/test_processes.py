"""Several processes: an interruption is gone on from, errors are told once; what they learn is in the contract."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import xarray as xr

import vaearr as va
from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.models.artifacts import read_tensors
from vaearr.store import create_store, open_table, run_folder, run_names
from vaearr.training import joined
from vaearr.training.checkpoint import CHECKPOINT

from ..conftest import SMALL_NETWORK, TINY_TRAINING
from ..data import random_patterns_dataset

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
BATCH_NORM = {"latent_dim": 3, "options": {**SMALL_NETWORK, "norm": "batch"}}  # whose running means must agree
CONFIG = TINY_TRAINING.replace(epochs=20, patience=20, checkpoint_minutes=1e-6, checkpoint_every=20, model=BATCH_NORM)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    ds = random_patterns_dataset({"y": 16, "x": 16}, {"dy": 9, "dx": 11})
    return create_store(ds, tmp_path / "scan.zarr")


def _two(store: Path, run: str) -> subprocess.Popen[str]:
    file = store.parent / f"{run}.json"
    file.write_text(CONFIG.model_dump_json())
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vaearr"]
    command = [*start, "--", "train", str(store), "--run", run, "--config", str(file)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


@pytest.mark.long
def test_two_processes_are_interrupted_and_go_on(store: Path) -> None:
    whole = _two(store, "whole")
    whole.communicate(timeout=300)
    assert whole.returncode == 0
    process, end = _two(store, "cut"), time.monotonic() + 120
    while not (store.parent / f".{store.name}.staging" / "run-cut" / n.MODEL / CHECKPOINT).exists():
        assert process.poll() is None, "it ended before it could be interrupted"
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert run_names(store) == ["whole"]
    assert "going on from" in _two(store, "cut").communicate(timeout=300)[1]
    first, second = (open_table(store, run, n.HISTORY).drop_vars("seconds") for run in ("whole", "cut"))
    xr.testing.assert_allclose(first, second, rtol=1e-6)  # an epoch's sums are added up in another order
    a, b = (read_tensors(run_folder(store, run) / n.MODEL / n.MODEL_WEIGHTS)[0] for run in ("whole", "cut"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    begun = run_folder(store, "cut") / n.MODEL / "checkpoint-0020.safetensors"
    with pytest.raises(UsageError, match="processes 2 and 1"):
        va.train(store, run="other", config=CONFIG, resume=begun)


def test_an_error_in_two_processes_is_told_once(trained_store: Path) -> None:
    process = _two(trained_store, "vae")
    error = process.communicate(timeout=300)[1]
    assert process.returncode != 0
    assert error.count("already has a run 'vae'") == 1
    assert "internal error" not in error


def test_processes_cannot_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("vaearr.training.processes.pick_device", lambda name: torch.device("cuda:0"))
    with pytest.raises(UsageError, match="2 processes cannot share cuda:0"), joined("cuda:0"):
        pass
