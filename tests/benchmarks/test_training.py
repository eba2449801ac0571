"""Training and encoding speed against the bare step and the devices: `make bench`.

Both sides of a ratio take turns inside one run, epoch by epoch, so that a busy machine slows both.
Nothing here can fail on speed. VAEARR_BENCH_SIGNAL=400x500, VAEARR_BENCH_POINTS and
VAEARR_BENCH_EPOCHS set the size; a GPU is used where there is one.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vaearr as va
from vaearr.computing.device import pick_device
from vaearr.config import TrainConfig
from vaearr.models import for_training
from vaearr.models.artifacts import TrainedModel
from vaearr.run.train import decide_settings, train
from vaearr.store import open_store
from vaearr.training.step import Step, make_optimizer

pytestmark = pytest.mark.benchmarks

SIDE = int(int(os.environ.get("VAEARR_BENCH_POINTS", "4096")) ** 0.5)
HEIGHT, WIDTH = map(int, os.environ.get("VAEARR_BENCH_SIGNAL", "60x60").split("x"))
EPOCHS = int(os.environ.get("VAEARR_BENCH_EPOCHS", "20"))
LINES: list[str] = [f"{SIDE * SIDE} patterns of {HEIGHT}x{WIDTH}"]


def row(what: str, ours: float, against: str, other: float, target: str) -> None:
    LINES.append(
        f"{what:34} {ours:9.0f} patterns/s   {against:38} {other:9.0f} patterns/s   ratio {ours / other:5.2f}  {target}"
    )


def wait() -> None:
    """Until the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def bare_epoch(store: Path, config: TrainConfig) -> Callable[[], float]:
    """The same step on tensors in memory, on the device, with nothing around it: seconds of an
    epoch.
    """
    device = pick_device("auto")
    ds = open_store(store, chunks=None)
    held = torch.from_numpy(ds.patterns.values.reshape(-1, 1, HEIGHT, WIDTH)).to(device)
    model = TrainedModel(
        model=for_training(
            config.model, likelihood="optimal_sigma", normalise=config.preprocess.normalise
        ),
        preprocess=config.preprocess,
        input_shape=(1, HEIGHT, WIDTH),
        signal_dims=("dy", "dx"),
        input_dtype="uint8",
    ).to(device)
    model.network.to(memory_format=torch.channels_last)
    model.train()
    step = Step(model, config)
    optimizer = make_optimizer(model.parameters(), config)
    weights = torch.tensor([term.weight for term in step.terms], device=device)
    other = held.roll(1, 0) if config.objective.target == "neighbour" else None

    def epoch() -> float:
        wait()
        began = time.perf_counter()
        for i in range(0, len(held), config.batch_size):
            part = slice(i, i + config.batch_size)
            optimizer.zero_grad(set_to_none=True)
            step(held[part], None if other is None else other[part], None, weights).loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
        wait()
        return time.perf_counter() - began

    return epoch


def test_training_against_the_bare_step(store: Path) -> None:
    """Whole epochs of `va.train` (data, loop, history; no validation part) and bare epochs in turn,
    and the whole call (reading, background, neighbours, health, publishing) against the bare
    epochs.
    """
    config = decide_settings(
        TrainConfig(epochs=EPOCHS, split={"fraction": 0.0}, objective={"target": "neighbour"}),
        open_store(store, chunks=None),
    )
    epoch = bare_epoch(store, config)
    epoch()
    bare: list[float] = []
    began = time.perf_counter()
    run = train(store, run="bare", config=config, progress=lambda *_: bare.append(epoch()))
    whole = time.perf_counter() - began - sum(bare)
    n_points, ours = SIDE * SIDE, [float(value) for value in run.history.seconds][1:]
    other = statistics.median(bare)
    row(
        "training, epochs",
        n_points / statistics.median(ours),
        "bare step, tensors in memory",
        n_points / other,
        "(0.95)",
    )
    row(
        f"training, whole call of {EPOCHS} epochs",
        EPOCHS * n_points / whole,
        "bare step, tensors in memory",
        n_points / other,
        "(0.95)",
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU to compare with the CPU")
def test_gpu_agrees_with_cpu(store: Path) -> None:
    train(store, run="agree", config=TrainConfig(epochs=2))
    patterns = open_store(store, chunks=None).patterns[:8, :8].values
    latents = [
        va.load_model(store, "agree", device=device).encode(patterns) for device in ("cpu", "cuda")
    ]
    off = float(np.abs(latents[0] - latents[1]).max() / latents[0].std())
    LINES.append(
        f"latents, GPU against CPU, float32: largest difference {off:.1e} of their standard deviation"
    )
    assert off < 1e-2
