"""An interrupted training goes on bit for bit, from any place; a kill leaves the last checkpoint whole."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import vaearr as va
from vaearr import names as n
from vaearr.config import TrainConfig
from vaearr.errors import DataError, NoInputError, TrainingError, UsageError
from vaearr.models.files import read_header, read_tensors, write_tensors
from vaearr.store import create_store, open_table, run_folder, run_names
from vaearr.training import checkpoint
from vaearr.training.checkpoint import CHECKPOINT, Due, differences

from ..conftest import TINY_TRAINING
from ..data import random_patterns_dataset

CONFIG = TINY_TRAINING.replace(epochs=3)
STREAMED = 60 * 9 * 11 / 2**30  # GiB: 60 patterns, so that several buffers are needed


@pytest.fixture
def store(tmp_path: Path) -> Path:
    ds = random_patterns_dataset({"y": 16, "x": 16}, {"dy": 9, "dx": 11})
    return create_store(ds, tmp_path / "scan.zarr")


def _staged(store: Path, run: str = n.DEFAULT_RUN) -> Path:
    return store.parent / f".{store.name}.staging" / f"run-{run}" / n.MODEL


def _weights(store: Path, run: str) -> dict[str, torch.Tensor]:
    return read_tensors(run_folder(store, run) / n.MODEL / "weights.safetensors")[0]


def _assert_same_training(store: Path, one: str, other: str) -> None:
    a, b = (open_table(store, run, n.HISTORY).drop_vars("seconds") for run in (one, other))
    assert a.identical(b)
    first, second = _weights(store, one), _weights(store, other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "streamed": {"memory": STREAMED},
    "average": {"ema": 0.95},
    "sgd-accumulated": {"optimizer": "sgd", "learning_rate": 1e-4, "accumulate": 3},
    "batch-norm": {"model": TINY_TRAINING.model.replace(options={"norm": "batch", "dropout": 0.2}).to_attrs()},
    "adversarial": {
        "objective": {
            **TINY_TRAINING.objective.to_attrs(),
            "adversarial": {
                "discriminator": "conv",
                "options": {"channels": 8, "layers": 2},
                "kind": "wgan-gp",
                "start": 0.3,
            },
        }
    },
    "augmented": {"augment": {"flip_x": True, "rotate": 9.0, "noise": 0.3}},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(
    "at", [3, pytest.param(12, marks=pytest.mark.long), 17, pytest.param(31, marks=pytest.mark.long)]
)
def test_an_interrupted_training_goes_on_bit_for_bit(store: Path, options: dict[str, Any], at: int) -> None:
    config = CONFIG.replace(**options)

    def interrupt(epoch: int, step: int) -> None:
        if step == at:
            signal.raise_signal(signal.SIGINT)

    said: list[str] = []
    va.train(store, run="whole", config=config)
    with pytest.raises(KeyboardInterrupt):
        va.train(store, run="cut", config=config, on_step=interrupt, say=said.append)
    assert run_names(store) == ["whole"]
    assert (_staged(store, "cut") / CHECKPOINT).exists()
    assert said[-1].startswith("saved after ")
    va.train(store, run="cut", config=config, say=said.append)
    assert f"going on from {CHECKPOINT}" in said
    _assert_same_training(store, "whole", "cut")
    assert not _staged(store, "cut").exists()


def test_kept_checkpoints_can_be_gone_on_from(store: Path) -> None:
    config = CONFIG.replace(checkpoint_every=1)
    va.train(store, run="whole", config=config)
    kept = sorted(path.name for path in (run_folder(store, "whole") / n.MODEL).glob("checkpoint-*"))
    assert kept == [f"checkpoint-{epoch:04d}.safetensors" for epoch in (1, 2, 3)]
    va.train(store, run="again", config=config, resume=run_folder(store, "whole") / n.MODEL / kept[0])
    _assert_same_training(store, "whole", "again")


def test_other_settings_are_refused_and_restart_throws_away(store: Path) -> None:
    def interrupt(epoch: int, step: int) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        va.train(store, config=CONFIG, on_step=interrupt)
    before = (_staged(store) / CHECKPOINT).read_bytes()
    with pytest.raises(UsageError, match=r"(?s)other settings.*settings\.learning_rate 0\.002 and 0\.5.*--restart"):
        va.train(store, config=CONFIG, learning_rate=0.5)
    assert (_staged(store) / CHECKPOINT).read_bytes() == before
    va.train(store, config=CONFIG.replace(checkpoint_minutes=7.0), epochs=1, restart=True)
    assert open_table(store, n.DEFAULT_RUN, n.HISTORY).sizes["epoch"] == 1


def test_checkpoints_that_do_not_fit_are_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="there is no checkpoint"):
        va.train(store, config=CONFIG, resume=tmp_path / "nowhere")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(DataError, match="not a whole safetensors file"):
        va.train(store, config=CONFIG, resume=tmp_path / "cut.safetensors")
    write_tensors(tmp_path / "plain.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(DataError, match="not a checkpoint"):
        va.train(store, config=CONFIG, resume=tmp_path / "plain.safetensors")
    assert run_names(store) == []


@pytest.mark.long
def test_a_signal_saves_and_then_takes_its_course(store: Path) -> None:
    command = _command(store, "cut")
    va.train(store, run="whole", config=_cli_config())
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    _wait_for(_staged(store, "cut") / "history.csv", process)
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert error.strip().splitlines()[-2].startswith("saved after ")
    assert error.strip().splitlines()[-1].startswith("vaearr: terminated")
    assert "Traceback" not in error
    subprocess.run(command, check=True, capture_output=True)
    _assert_same_training(store, "whole", "cut")


def test_asked_twice_it_ends_at_once_and_goes_on_from_the_last_checkpoint(store: Path) -> None:
    config = CONFIG.replace(checkpoint_minutes=1e-9)
    ended: list[int] = []

    def on_step(epoch: int, step: int) -> None:
        ended.append(step)
        if step == 20:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second one was waited with")

    va.train(store, run="whole", config=config)
    with pytest.raises(KeyboardInterrupt):
        va.train(store, run="cut", config=config, on_step=on_step)
    assert ended[-1] == 20
    assert read_header(_staged(store, "cut") / CHECKPOINT)["state"]["step"] < 20  # nothing was saved for the signal
    assert run_names(store) == ["whole"]
    va.train(store, run="cut", config=config)
    _assert_same_training(store, "whole", "cut")


def test_other_threads_or_versions_are_said_and_recorded(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(Exception):
        pass

    def on_step(epoch: int, step: int) -> None:
        if step in (9, 25):
            raise Cut

    told: list[str] = []
    config = CONFIG.replace(checkpoint_minutes=1e-9)
    here = checkpoint.surroundings()
    others = [{**here, "threads": here["threads"] + 3}, {**here, "torch": "1.0"}, here]
    for other in others[:2]:
        monkeypatch.setattr(checkpoint, "surroundings", lambda other=other: other)
        with pytest.raises(Cut):
            va.train(store, config=config, on_step=on_step, say=told.append)
    monkeypatch.setattr(checkpoint, "surroundings", lambda: here)
    run = va.train(store, config=config, say=told.append)
    threads = f"threads {here['threads'] + 3} and {here['threads']}, torch {here['torch']} and 1.0"
    wanted = [threads, f"torch 1.0 and {here['torch']}"]
    assert [line for line in told if "warning: it goes on with" in line] == [
        f"warning: it goes on with {found}; the last digits may differ from an undisturbed training's"
        for found in wanted
    ]
    assert run.manifest["resumed_with"] == wanted
    assert "resumed_with" not in va.train(store, run="b", config=CONFIG).manifest


@pytest.mark.long
def test_kill_leaves_the_last_checkpoint_whole(store: Path) -> None:
    """Killed again and again, wherever that is, until the training gets through: the result is the same."""
    va.train(store, run="whole", config=_cli_config())
    epochs: list[int] = []
    for delay in (0.0, 0.15, 0.4):
        process = subprocess.Popen(_command(store, "cut"), stderr=subprocess.DEVNULL)
        checkpoint = _staged(store, "cut") / CHECKPOINT
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        _wait_for(checkpoint, process, after=before)
        time.sleep(delay)
        process.kill()
        process.wait()
        _, header = read_tensors(checkpoint)  # whole
        epochs.append(header["state"]["step"])
        assert run_names(store) == ["whole"]
    assert epochs == sorted(set(epochs)), "each start went on where the last one was killed"
    subprocess.run(_command(store, "cut"), check=True, capture_output=True)
    _assert_same_training(store, "whole", "cut")


CLI_EPOCHS = 60


def _cli_config() -> TrainConfig:
    return CONFIG.replace(epochs=CLI_EPOCHS, patience=CLI_EPOCHS)


def _command(store: Path, run: str) -> list[str]:
    config = store.parent / "train.json"
    config.write_text(_cli_config().replace(checkpoint_minutes=1e-6).model_dump_json())
    return [sys.executable, "-m", "vaearr", "train", str(store), "--run", run, "--config", str(config)]


def _wait_for(path: Path, process: subprocess.Popen[Any], *, after: int = 0) -> None:
    end = time.monotonic() + 60
    while not (path.exists() and path.stat().st_mtime_ns > after):
        assert process.poll() is None, "the training ended before it could be interrupted"
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.005)


def test_slow_writes_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    due = Due(1.0)
    assert not due
    now[0] += 61
    assert due
    with due.writing():
        now[0] += 6  # at most 2 % of the time: not again for 300 s
    now[0] += 299
    assert not due
    now[0] += 2
    assert due
    with due.writing():
        now[0] += 0.1  # fast again
    now[0] += 61
    assert due


def test_differences_are_named() -> None:
    one, other = {"a": 1, "b": {"c": (1, 2), "d": "x"}}, {"a": 1, "b": {"c": [1, 2], "d": "y"}, "e": None}
    assert differences(one, other) == "b.d x and y"
    assert differences(one, one) == ""
    assert differences({"a": 1}, {"a": 2, "z": 3}) == "a 1 and 2, z None and 3"


def test_callers_handlers_come_back(store: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    va.train(store, config=CONFIG.replace(epochs=1))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def _interrupted(store: Path, config: TrainConfig = CONFIG, at: int = 20) -> None:
    def interrupt(epoch: int, step: int) -> None:
        if step == at:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        va.train(store, run="cut", config=config, on_step=interrupt)


@pytest.mark.parametrize("broken", ["vaearr.training.job.latent_health", "vaearr.run.train.publish_run"])
def test_what_fails_after_the_last_epoch_is_done_again_and_the_training_is_not(
    store: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    va.train(store, run="whole", config=CONFIG)
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


def test_a_wrong_resume_leaves_an_interrupted_training_alone(store: Path, tmp_path: Path) -> None:
    va.train(store, run="other", config=CONFIG.replace(checkpoint_every=1))
    kept = run_folder(store, "other") / n.MODEL / "checkpoint-0001.safetensors"
    _interrupted(store)
    before = (_staged(store, "cut") / CHECKPOINT).read_bytes()
    text = tmp_path / "notes.txt"
    text.write_text("no checkpoint")
    for wrong, config in (
        (text, CONFIG),
        (tmp_path, CONFIG),
        (kept, CONFIG.replace(learning_rate=0.1)),
        (kept, CONFIG),
    ):
        with pytest.raises((UsageError, DataError, NoInputError)):
            va.train(store, run="cut", config=config, resume=wrong)
        assert (_staged(store, "cut") / CHECKPOINT).read_bytes() == before
    va.train(store, run="cut", config=CONFIG, resume=kept, restart=True)
    _assert_same_training(store, "other", "cut")


def test_kept_checkpoints_are_gone_on_from_after_a_kill(store: Path) -> None:
    config = CONFIG.replace(checkpoint_every=1)

    def fail(epoch: int, step: int) -> None:
        if epoch == 2:
            raise RuntimeError("power cut")

    va.train(store, run="whole", config=config)
    with pytest.raises(RuntimeError, match="power cut"):
        va.train(store, run="cut", config=config, on_step=fail)
    (_staged(store, "cut") / ".checkpoint.safetensors.deadbeef").write_bytes(b"half of it")
    said: list[str] = []
    va.train(store, run="cut", config=config, say=said.append)
    assert "going on from checkpoint-0002.safetensors" in said
    _assert_same_training(store, "whole", "cut")
    assert not list((run_folder(store, "cut") / n.MODEL).glob(".*"))


def test_a_damaged_checkpoint_says_how_to_go_on(store: Path) -> None:
    _interrupted(store)
    (_staged(store, "cut") / CHECKPOINT).write_bytes(b"half of it")
    with pytest.raises(DataError, match="--restart"):
        va.train(store, run="cut", config=CONFIG)
    va.train(store, run="cut", config=CONFIG, restart=True)


def test_weights_that_are_not_finite_do_not_replace_a_checkpoint(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _interrupted(store)
    path = _staged(store, "cut") / CHECKPOINT
    before = path.read_bytes()
    monkeypatch.setattr(checkpoint, "weights_of", lambda module: {"a": torch.tensor([torch.nan])})
    with pytest.raises(TrainingError, match="no checkpoint was written"):
        va.train(store, run="cut", config=CONFIG)
    assert path.read_bytes() == before


def test_a_checkpoint_of_other_labels_or_another_tier_is_refused(store: Path) -> None:
    _interrupted(store)
    with pytest.raises(UsageError, match=r"settings\.memory"):
        va.train(store, run="cut", config=CONFIG.replace(memory=STREAMED))
    about = dict(read_tensors(_staged(store, "cut") / CHECKPOINT)[1]["about"])
    assert about["streamed"] is False
    assert differences(about, {**about, "streamed": True}) == "streamed False and True"
