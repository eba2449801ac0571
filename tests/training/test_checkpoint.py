"""An interrupted training is resumed bit for bit, from any step; a checkpoint of another training is
refused with instructions.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr

import vaearr as va
from vaearr import names as n
from vaearr.config import TrainConfig
from vaearr.errors import DataError, NoInputError, TrainingError, UsageError
from vaearr.models.tensors import read_header, read_tensors, write_tensors
from vaearr.store import create_store, open_table, run_folder, run_names
from vaearr.training import checkpoint, joined_processes
from vaearr.training.checkpoint import CHECKPOINT

from ..conftest import SMALL_NETWORK, TINY_TRAINING
from ..data import random_patterns_dataset

CONFIG = TINY_TRAINING.replace(epochs=2)
STREAMED = 60 * 9 * 11 / 2**30  # GiB: 60 patterns, so that several buffers are needed
SELF = {"target": "self", "input_noise": 0.0}
CRITIC = {
    "discriminator": "conv",
    "options": {"channels": 8, "layers": 2},
    "kind": "wgan-gp",
    "start": 0.3,
}

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
BATCH_NORM = {
    "latent_dim": 3,
    "options": {**SMALL_NETWORK, "norm": "batch"},
}  # whose running means must agree
MANY = TINY_TRAINING.replace(
    epochs=20, patience=20, checkpoint_minutes=1e-6, checkpoint_every=20, model=BATCH_NORM
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return _scan(tmp_path)


def _scan(folder: Path) -> Path:
    ds = random_patterns_dataset({"y": 16, "x": 16}, {"dy": 9, "dx": 11})
    return create_store(ds, folder / "scan.zarr")


@pytest.fixture(scope="module")
def whole_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scan with a run `whole`, trained without an interruption, with a checkpoint of each
    epoch.
    """
    path = _scan(tmp_path_factory.mktemp("whole"))
    va.train(path, run="whole", config=CONFIG.replace(checkpoint_every=1))
    return path


@pytest.fixture
def whole_store(whole_template: Path, tmp_path: Path) -> Path:
    """A copy of `whole_template` to change."""
    return Path(shutil.copytree(whole_template, tmp_path / "scan.zarr"))


def _staged(store: Path) -> Path:
    return store.parent / f".{store.name}.staging" / "run-cut" / n.MODEL


def _interrupted(store: Path, config: TrainConfig = CONFIG, at: int = 20, times: int = 1) -> None:
    """The run `cut`, stopped by a signal during a step."""

    def interrupt(epoch: int, step: int) -> None:
        assert step <= at + 1
        if step == at:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
            assert times == 1, "the second signal did not end the training"

    with pytest.raises(KeyboardInterrupt):
        va.train(store, run="cut", config=config, on_step=interrupt)


def _assert_same_training(store: Path, one: str, other: str) -> None:
    a, b = (open_table(store, run, n.HISTORY).drop_vars("seconds") for run in (one, other))
    assert a.identical(b)
    first, second = (
        read_tensors(run_folder(store, run) / n.MODEL / n.MODEL_WEIGHTS)[0] for run in (one, other)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


OPTIONS: dict[
    str, tuple[int, dict[str, Any]]
] = {  # step at which it is interrupted, of 14 or so in an epoch
    "streamed": (17, {"memory": STREAMED}),
    "sgd": (18, {"optimizer": "sgd", "learning_rate": 1e-4}),
    "batch-norm": (
        25,
        {"model": {"latent_dim": 3, "options": {"norm": "batch", "dropout": 0.2, "width": 8}}},
    ),
    "adversarial": (17, {"objective": {**SELF, "adversarial": CRITIC}}),
    "augmented": (12, {"augment": {"flip_x": True, "rotate": 9.0, "noise": 0.3}}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_interrupted_training_is_resumed_bit_for_bit(
    store: Path, name: str, said: list[str]
) -> None:
    at, options = OPTIONS[name]
    config = CONFIG.replace(**options)
    va.train(store, run="whole", config=config)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    _interrupted(store, config, at)
    assert said[-1].startswith("saved after ")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert run_names(store) == ["whole"]
    va.train(store, run="cut", config=config)
    assert f"resuming {CHECKPOINT}" in said
    _assert_same_training(store, "whole", "cut")
    assert not _staged(store).exists()


def test_a_second_signal_ends_at_once_and_the_last_checkpoint_is_resumed(whole_store: Path) -> None:
    config = CONFIG.replace(checkpoint_minutes=1e-9)
    _interrupted(whole_store, config, times=2)
    state = read_header(_staged(whole_store) / CHECKPOINT)["state"]
    assert (state["epoch"], state["batch"]) < (1, 6)  # nothing was saved for the signal
    va.train(whole_store, run="cut", config=config)
    _assert_same_training(whole_store, "whole", "cut")


def test_checkpoints_of_other_trainings_are_refused_and_kept(
    whole_store: Path, tmp_path: Path
) -> None:
    store = whole_store
    kept = run_folder(store, "whole") / n.MODEL / "checkpoint-0001.safetensors"
    _interrupted(store)
    before = (_staged(store) / CHECKPOINT).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    write_tensors(tmp_path / "plain.safetensors", {"a": torch.zeros(1)})
    for resume, changes, error, said in (
        (
            None,
            {"learning_rate": 0.5},
            UsageError,
            r"learning_rate=0\.002, requested: .*learning_rate=0\.5.*--restart",
        ),
        (
            None,
            {"memory": STREAMED},
            UsageError,
            r"settings\.memory.*streamed=False.*requested.*streamed=True",
        ),
        (tmp_path / "nowhere", {}, NoInputError, "nowhere"),
        (tmp_path / "cut.safetensors", {}, DataError, "not a complete safetensors file"),
        (tmp_path / "plain.safetensors", {}, DataError, "not a checkpoint"),
        (kept, {}, UsageError, "an interrupted training of this run is at"),
    ):
        with pytest.raises(error, match=f"(?s){said}"):
            va.train(store, run="cut", config=CONFIG.replace(**changes), resume=resume)
        assert (_staged(store) / CHECKPOINT).read_bytes() == before
    va.train(store, run="cut", config=CONFIG, resume=kept, restart=True)
    _assert_same_training(store, "whole", "cut")


def test_weights_that_are_not_finite_do_not_replace_a_checkpoint(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupted(store)
    before = (_staged(store) / CHECKPOINT).read_bytes()
    monkeypatch.setattr(
        checkpoint, "_weights", lambda state: {"weights.a": torch.tensor([torch.nan])}
    )
    monkeypatch.setattr("vaearr.training.loop.load_checkpoint", lambda *_: None)
    with pytest.raises(TrainingError, match="no checkpoint was written"):
        va.train(store, run="cut", config=CONFIG)
    assert (_staged(store) / CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize(
    "broken", ["vaearr.training.train.latent_health", "vaearr.run.train.finish_run"]
)
def test_a_failure_after_the_last_epoch_repeats_no_training(
    whole_store: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    store = whole_store

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(broken, full)
        with pytest.raises(OSError, match="No space left"):
            va.train(store, run="cut", config=CONFIG)
    assert run_names(store) == ["whole"]
    steps: list[int] = []
    va.train(store, run="cut", config=CONFIG, on_step=lambda epoch, step: steps.append(step))
    assert steps == []
    _assert_same_training(store, "whole", "cut")
    assert not (run_folder(store, "cut") / n.MODEL / CHECKPOINT).exists()


def _two(store: Path, run: str) -> subprocess.Popen[str]:
    file = store.parent / f"{run}.json"
    file.write_text(MANY.model_dump_json())
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "vaearr",
    ]
    command = [*start, "--", "train", str(store), "--run", run, "--config", str(file)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


@pytest.mark.long
def test_two_processes_are_interrupted_and_resumed(store: Path) -> None:
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
    assert "resuming checkpoint" in _two(store, "cut").communicate(timeout=300)[1]
    first, second = (
        open_table(store, run, n.HISTORY).drop_vars("seconds") for run in ("whole", "cut")
    )
    xr.testing.assert_allclose(
        first, second, rtol=1e-6
    )  # an epoch's sums are added up in another order
    a, b = (
        read_tensors(run_folder(store, run) / n.MODEL / n.MODEL_WEIGHTS)[0]
        for run in ("whole", "cut")
    )
    assert all(torch.equal(a[key], b[key]) for key in a)
    begun = run_folder(store, "cut") / n.MODEL / "checkpoint-0020.safetensors"
    with pytest.raises(UsageError, match="stored: processes=2, requested: processes=1"):
        va.train(store, run="other", config=MANY, resume=begun)


def test_an_error_in_two_processes_is_reported_once(trained_store: Path) -> None:
    process = _two(trained_store, "vae")
    error = process.communicate(timeout=300)[1]
    assert process.returncode != 0
    assert error.count("already has a run 'vae'") == 1
    assert "internal error" not in error


def test_processes_cannot_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(
        "vaearr.training.processes.pick_device", lambda name: torch.device("cuda:0")
    )
    with (
        pytest.raises(UsageError, match="2 processes cannot share cuda:0"),
        joined_processes("cuda:0"),
    ):
        pass
