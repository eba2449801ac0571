"""`fit`: the only training loop."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import nn

from vaearr import names as n
from vaearr.artifacts import TrainedModel, load_weights, save_weights
from vaearr.batching import PatternBatches
from vaearr.config import ObjectiveConfig, TrainConfig
from vaearr.device import autocast, pick_precision
from vaearr.errors import TrainingError
from vaearr.objectives import beta_at, corrupt, gaussian_nll, kl_divergence, kl_penalty, optimal_sigma_nll
from vaearr.store.commit import replace_file

BEST, LAST = "best.safetensors", "last.safetensors"

BETAS = (0.9, 0.99)
RATE_RISE, RATE_END = 0.15, 0.001

History = dict[str, float]
OnEpoch = Callable[[int, History], None]
OnStep = Callable[[int, int], None]

UNITS = {
    "loss": ("loss = reconstruction_nll + beta * kl", "nats per sample"),
    "reconstruction_nll": ("negative log likelihood of the pattern", "nats per sample"),
    "kl": ("KL divergence, posterior against prior", "nats per sample"),
    "val_loss": ("loss on the validation points, beta as configured", "nats per sample"),
    "val_reconstruction_nll": ("negative log likelihood on the validation points", "nats per sample"),
    "val_kl": ("KL divergence on the validation points", "nats per sample"),
    "beta": ("weight of the KL divergence at the end of the epoch", "1"),
    "learning_rate": ("learning rate at the end of the epoch", "1"),
    "seconds": ("time of the epoch, validation included", "s"),
}


@dataclass(frozen=True)
class Fit:
    """What a training leaves: the history over epochs, the best epoch (both counted from 1), and why it ended."""

    history: xr.Dataset
    best_epoch: int
    stopped_early: bool


def fit(
    model: TrainedModel,
    train: PatternBatches,
    validation: PatternBatches | None,
    config: TrainConfig,
    folder: Path,
    *,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
) -> Fit:
    """Train in place; leaves the best weights in the model and `best`, `last` and history.csv in `folder`.

    The best epoch is the one with the lowest validation loss, beta as configured (without validation, the last). Each
    epoch is written to history.csv when it ends. Raises TrainingError as soon as an epoch's loss is not finite; the
    weights of the best epoch so far are then still in `folder`.
    """
    device = model.device
    precision = pick_precision(config.precision, device)
    model.network.to(memory_format=_memory_format(model))
    optimizer = torch.optim.AdamW(
        model.network.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=BETAS,
        fused=True,
    )
    steps = max(1, len(train) * config.epochs)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: rate_at(done, steps))
    rows: list[History] = []
    best, best_epoch, step = np.inf, -1, 0
    with seeded(config.seed, device):
        for epoch in range(config.epochs):
            began = time.perf_counter()
            model.train()
            totals = torch.zeros(3, device=device)
            for x, target in _pairs(model, train, config.objective):
                beta = beta_at(step, steps, config.objective.beta, config.objective.warmup)
                with autocast(device, precision):
                    terms = loss_terms(model, x, target, config.objective)
                nll, kl, penalty = terms
                loss = nll + beta * penalty
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(model.network.parameters(), config.clip)
                optimizer.step()
                schedule.step()
                totals += torch.stack([loss, nll, kl]).detach() * len(x)
                step += 1
                if on_step:
                    on_step(epoch, step)
            row = _row(totals.tolist(), train.n_samples)
            if validation is not None:
                row |= evaluate(model, validation, config.objective)
            rate = float(schedule.get_last_lr()[0])
            row |= {"beta": beta, "learning_rate": rate, "seconds": time.perf_counter() - began}
            rows.append(row)
            _check_finite(row, epoch, folder, best_epoch)
            save_weights(model, folder / LAST)
            _write_history(rows, folder)
            score = row.get("val_loss", -float(epoch))
            if score < best:
                best, best_epoch = score, epoch
                save_weights(model, folder / BEST)
            if on_epoch:
                on_epoch(epoch, row)
            if epoch - best_epoch >= config.patience:
                break
    load_weights(model, folder / BEST)
    return Fit(_history(rows), best_epoch + 1, stopped_early=len(rows) < config.epochs)


def loss_terms(
    model: TrainedModel, x: torch.Tensor, target: torch.Tensor, config: ObjectiveConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Batch means in nats per sample: reconstruction_nll, kl, and the kl as the loss punishes it (free bits)."""
    seen = model.preprocess(x)
    wanted = seen if target is x else model.preprocess(target)
    recon, mean, logvar = model.network(corrupt(seen, config.input_noise) if model.training else seen)
    likelihood = optimal_sigma_nll if config.likelihood == "optimal_sigma" else gaussian_nll
    kl = kl_divergence(mean.float(), logvar.float())
    nll = likelihood(wanted, recon.float()).mean()
    return nll, kl.sum(1).mean(), kl_penalty(kl, config.free_bits)


def rate_at(step: int, n_steps: int) -> float:
    """Share of the highest learning rate at a step: a linear rise, then a cosine down to almost 0."""
    rise = max(1, round(RATE_RISE * n_steps))
    if step < rise:
        return (step + 1) / rise
    done = min(1.0, (step - rise) / max(1, n_steps - rise))
    return RATE_END + (1 - RATE_END) * 0.5 * (1 + math.cos(math.pi * done))


@torch.inference_mode()
def evaluate(model: TrainedModel, batches: PatternBatches, config: ObjectiveConfig) -> History:
    """Validation terms, posterior mean decoded, beta as configured; weights and random state stay as they are."""
    model.eval()
    totals = torch.zeros(3, device=model.device)
    for x, target in _pairs(model, batches, config):
        nll, kl, penalty = loss_terms(model, x, target, config)
        totals += torch.stack([nll + config.beta * penalty, nll, kl]) * len(x)
    return {f"val_{key}": value for key, value in _row(totals.tolist(), batches.n_samples).items()}


def _pairs(
    model: TrainedModel, batches: PatternBatches, config: ObjectiveConfig
) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """Input and target patterns of an epoch."""
    return batches.pairs(model.preprocess) if config.target == "neighbour" else ((x, x) for x in batches)


def _row(totals: list[float], n_samples: int) -> History:
    return {key: value / n_samples for key, value in zip(("loss", "reconstruction_nll", "kl"), totals, strict=True)}


def _check_finite(row: Mapping[str, float], epoch: int, folder: Path, best_epoch: int) -> None:
    if all(np.isfinite(value) for value in row.values()):
        return
    kept = f"the weights of epoch {best_epoch + 1} are in {folder / BEST}" if best_epoch >= 0 else "nothing was kept"
    raise TrainingError(
        f"the loss is not finite in epoch {epoch + 1} (loss {row['loss']:g}); {kept}. Lower learning_rate, use "
        "precision='float32' or check the patterns for extreme values."
    )


def _memory_format(model: TrainedModel) -> torch.memory_format:
    return torch.channels_last if len(model.input_shape) == 3 else torch.contiguous_format


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch inside the block and give the caller's random state back after it."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, enabled=True):
        torch.manual_seed(seed)
        yield


def _write_history(rows: list[History], folder: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["epoch", *rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": i, **row} for i, row in enumerate(rows, 1))
    replace_file(folder / "history.csv", text.getvalue().encode())
    replace_file(folder / "history.json", json.dumps(rows).encode())


def _history(rows: list[History]) -> xr.Dataset:
    variables = {
        key: (n.EPOCH, [row[key] for row in rows], {"long_name": UNITS[key][0], "units": UNITS[key][1]})
        for key in rows[0]
    }
    return xr.Dataset(variables, coords={n.EPOCH: np.arange(1, len(rows) + 1)})
