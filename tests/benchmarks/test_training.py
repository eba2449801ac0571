"""Training and encoding speed against the bare step, the first seed's loop, the tiers, the devices: `make bench`.

Both sides of a ratio take turns inside one run, epoch by epoch, so that a busy machine slows both. Nothing here can
fail on speed. VAEARR_BENCH_SIGNAL=400x500, VAEARR_BENCH_POINTS and VAEARR_BENCH_EPOCHS set the size; a GPU is used
where there is one.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import vaearr as va
from vaearr.computing.device import autocast, pick_device, pick_precision
from vaearr.config import TrainConfig
from vaearr.models import MODELS, for_training
from vaearr.models.artifacts import TrainedModel
from vaearr.run.train import settled, train
from vaearr.store import create_store, open_store
from vaearr.testing import synthetic_scan
from vaearr.training.step import Step, make_optimizer

from .rivals import SeedVAE

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
    """The same step on tensors in memory, on the device, with nothing around it: seconds of an epoch."""
    device = pick_device("auto")
    ds = open_store(store, chunks=None)
    held = torch.from_numpy(ds.patterns.values.reshape(-1, 1, HEIGHT, WIDTH)).to(device)
    model = TrainedModel(
        model=for_training(config.model, likelihood="optimal_sigma", normalise=config.preprocess.normalise),
        preprocess=config.preprocess,
        input_shape=(1, HEIGHT, WIDTH),
        signal_dims=("dy", "dx"),
        input_dtype="uint8",
    ).to(device)
    model.network.to(memory_format=torch.channels_last)
    model.train()
    step: nn.Module = Step(model, config)
    if config.compile != "off":
        step.compile(mode=config.compile, dynamic=False)
    optimizer = make_optimizer(model.parameters(), config)
    weights = torch.tensor([1.0, 1.0, 0.0], device=device)
    other = held.roll(1, 0) if config.objective.target == "neighbour" else None

    def epoch() -> float:
        wait()
        began = time.perf_counter()
        for i in range(0, len(held), config.batch_size):
            part = slice(i, i + config.batch_size)
            optimizer.zero_grad(set_to_none=True)
            step(held[part], None if other is None else other[part], None, weights)[0][0].backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
        wait()
        return time.perf_counter() - began

    return epoch


@pytest.mark.parametrize("mode", ["off", *(["default", "reduce-overhead"] if torch.cuda.is_available() else [])])
def test_training_against_the_bare_step(store: Path, mode: str) -> None:
    """Whole epochs of `va.train` (data, loop, history; no validation part) and bare epochs in turn, and the whole call
    (reading, background, neighbours, health, publishing) against the bare epochs."""
    config = settled(
        TrainConfig(epochs=EPOCHS, split={"fraction": 0.0}, objective={"target": "neighbour"}, compile=mode),
        open_store(store, chunks=None),
    )
    epoch = bare_epoch(store, config)
    epoch()
    bare: list[float] = []
    began = time.perf_counter()
    run = train(store, run=f"bare_{mode.replace('-', '_')}", config=config, progress=lambda *_: bare.append(epoch()))
    whole = time.perf_counter() - began - sum(bare)
    n_points, ours = SIDE * SIDE, [float(value) for value in run.history.seconds][1:]
    other = statistics.median(bare)
    row(
        f"training, epochs ({mode})",
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


class SeedNetwork(SeedVAE):
    """The first seed's network with our interface, so that the loops and not the networks are compared."""

    is_deterministic = False

    def __init__(self, input_shape: tuple[int, int, int], latent_dim: int = 32) -> None:
        super().__init__(*input_shape[1:], latent_dim)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean, logvar = self.encode(x.contiguous(memory_format=torch.channels_last))
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean) if self.training else mean
        return self.decode(z), mean, logvar


def seed_loop(file: Path, n_patterns: int) -> float:
    """Patterns per second of the first seed's loop: an HDF5 read and a min-max per sample, float32, loss values read
    back at every step."""

    class Samples(torch.utils.data.Dataset[torch.Tensor]):
        def __init__(self) -> None:
            self.images = h5py.File(file)["images"]

        def __len__(self) -> int:
            return n_patterns

        def __getitem__(self, i: int) -> torch.Tensor:
            pattern = self.images[i].astype("f4")
            return torch.from_numpy((pattern - pattern.min()) / (pattern.max() - pattern.min()))

    device = pick_device("auto")
    network = SeedNetwork((1, HEIGHT, WIDTH)).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loader = torch.utils.data.DataLoader(Samples(), batch_size=256, shuffle=True)
    began = time.perf_counter()
    for batch in loader:
        x = batch.to(device)
        recon, mean, logvar = network(x)
        kl = -0.5 * torch.mean(1 + logvar - mean.square() - logvar.exp())
        loss = nn.functional.mse_loss(recon, x) + kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    return n_patterns / (time.perf_counter() - began)


def bare_rate(*, fast: bool) -> float:
    """Patterns per second of the bare step of the first seed's network: float32 as it was, or bfloat16 where the
    hardware has it and channels_last. Their ratio is what the hardware lets a loop gain."""
    device = pick_device("auto")
    x = torch.rand(256, 1, HEIGHT, WIDTH, device=device)
    network = SeedNetwork((1, HEIGHT, WIDTH)).to(device)
    if fast:
        network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=fast)
    rates = []
    for _ in range(4):
        wait()
        began = time.perf_counter()
        with autocast(device, pick_precision("auto", device) if fast else torch.float32):
            recon, mean, logvar = network(x)
        kl = -0.5 * torch.mean(1 + logvar - mean.square() - logvar.exp())
        optimizer.zero_grad()
        (nn.functional.mse_loss(recon, x) + kl).backward()
        optimizer.step()
        wait()
        rates.append(len(x) / (time.perf_counter() - began))
    return max(rates)


def test_training_against_the_first_seeds_loop(
    store: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "seed", f"{__name__}:SeedNetwork")
    config = TrainConfig(epochs=2, batch_size=256, model={"name": "seed"}, split={"fraction": 0.0})
    run = train(store, run="seed", config=config)
    ours = SIDE * SIDE / float(run.history.seconds[-1])
    seed = seed_loop(files["patterns"], min(SIDE * SIDE, 2048))
    row("training, the seed's network", ours, "the first seed's loop, float32", seed, "(5, with AMX or a GPU)")
    row(
        "bare step of the seed's network",
        bare_rate(fast=True),
        "float32, as the seed trains",
        bare_rate(fast=False),
        "",
    )
    default = TrainConfig(epochs=2, split={"fraction": 0.0})
    ours = SIDE * SIDE / float(train(store, run="default", config=default).history.seconds[-1])
    row("training, the default network", ours, "the first seed's loop and network", seed, "")


def test_tiers_give_the_same_curve(tmp_path: Path, said: list[str]) -> None:
    """A simulated scan, streamed with an allowance of a quarter of it, in memory, and on the GPU where there is one."""
    store = create_store(synthetic_scan(nx=64, ny=48, n_grains=72, n_twins=10), tmp_path / "scan.zarr")
    quarter = 64 * 48 * 60 * 60 / 4 / 2**30
    tiers = {"in memory": {"device_memory": 0.0}, "streamed, a quarter": {"device_memory": 0.0, "memory": quarter}}
    if torch.cuda.is_available():
        tiers["on the GPU"] = {"device_memory": 64.0}
    curves = {}
    for i, (name, changes) in enumerate(tiers.items()):
        config = TrainConfig(epochs=20, **changes)
        run = train(store, run=f"tier_{i}", config=config)
        curves[name] = run.history.val_loss.values
        rate = run.manifest["n_train"] / float(run.history.seconds[1:].median())
        losses = " ".join(f"{value:.0f}" for value in curves[name])
        LINES.append(f"tier {name:22} {rate:9.0f} patterns/s (validation included)   validation loss {losses}")
    first, *others = curves.values()
    for curve in others:
        span = first.max() - first.min()
        LINES.append(f"     largest difference of the curves: {abs(curve - first).max() / span:.3f} of their span")
        assert np.isfinite(curve).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU to compare with the CPU")
def test_gpu_agrees_with_cpu(store: Path) -> None:
    train(store, run="agree", config=TrainConfig(epochs=2))
    patterns = open_store(store, chunks=None).patterns[:8, :8].values
    latents = [va.load_model(store, "agree", device=device).encode(patterns) for device in ("cpu", "cuda")]
    off = float(np.abs(latents[0] - latents[1]).max() / latents[0].std())
    LINES.append(f"latents, GPU against CPU, float32: largest difference {off:.1e} of their standard deviation")
    assert off < 1e-2
