"""What a training leaves to be looked at: history over epochs, decoded samples as it goes on, and TensorBoard."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr.artifacts import TrainedModel
from vaearr.batching import PatternBatches
from vaearr.errors import UsageError, did_you_mean, need
from vaearr.models.files import read_tensors, write_tensors
from vaearr.store.folders import replace_file

N_SAMPLES = 8
FOLDER = "sheets"
LOGGERS = ("tensorboard",)

History = dict[str, float]

UNITS = {
    "loss": (
        "reconstruction_nll (+ amplitude_nll) + beta * kl, with all further terms times weight",
        "nats per sample",
    ),
    "reconstruction_nll": ("negative log likelihood of the pattern", "nats per sample"),
    "amplitude_nll": (
        "negative log likelihood of the own pattern at the decoded size; learned from after the warm-up",
        "nats per sample",
    ),
    "kl": ("KL divergence, posterior against prior", "nats per sample"),
    "perceptual": ("distance of decoded patterns in the features of a frozen network", "1"),
    "adversarial": ("adversarial loss of decoded patterns, of the updates with a discriminator", "1"),
    "critic": ("loss of the discriminator, of the updates with one", "1"),
    "label_nll": ("cross entropy of the labels, mean over all samples", "nats per sample"),
    "label_accuracy": ("share of the labelled samples that the head names right", "1"),
    "val_loss": ("loss on the validation points, at the final beta", "nats per sample"),
    "val_reconstruction_nll": ("negative log likelihood on the validation points", "nats per sample"),
    "val_amplitude_nll": ("amplitude_nll on the validation points", "nats per sample"),
    "val_kl": ("KL divergence on the validation points", "nats per sample"),
    "val_perceptual": ("perceptual distance on the validation points", "1"),
    "val_label_nll": ("cross entropy of the labels of validation points", "nats per sample"),
    "val_label_accuracy": ("share of the labelled validation points that the head names right", "1"),
    "beta": ("weight of the KL divergence at the end of the epoch", "1"),
    "capacity": ("nats that the KL divergence is held at, at the end of the epoch", "nats per sample"),
    "learning_rate": ("learning rate of the epoch's last update", "1"),
    "seconds": ("time of the epoch, validation included", "s"),
}


def write_history(rows: list[History], folder: Path) -> None:
    """history.csv and history.json of a training so far; what is not finite is empty in the latter."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["epoch", *rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": i, **row} for i, row in enumerate(rows, 1))
    replace_file(folder / "history.csv", text.getvalue().encode(), durable=False)
    plain = [{key: value if math.isfinite(value) else None for key, value in row.items()} for row in rows]
    replace_file(folder / "history.json", json.dumps(plain).encode(), durable=False)


def history_dataset(rows: list[History]) -> xr.Dataset:
    """The same over `epoch`, counted from 1, with long_name and units."""
    variables = {
        key: (n.EPOCH, [row[key] for row in rows], {"long_name": UNITS[key][0], "units": UNITS[key][1]})
        for key in rows[0]
    }
    return xr.Dataset(variables, coords={n.EPOCH: range(1, len(rows) + 1)})


@torch.inference_mode()
def write_sheet(model: TrainedModel, batches: PatternBatches, folder: Path, epoch: int, *, seed: int) -> None:
    """Write what the model makes of the first patterns of `batches` and of draws from the prior, after an epoch."""
    model.eval()
    stored = _first(batches)
    draws = torch.randn(len(stored), *model.latent_shape, generator=torch.Generator().manual_seed(seed))
    at_once = model.fitting(len(stored))
    sheet = {
        "input": model.preprocess(stored),
        "reconstruction": torch.cat([model.decode_batch(model.encode_batch(s)[0]) for s in stored.split(at_once)]),
        "prior": torch.cat([model.decode_batch(some) for some in draws.split(at_once)]),
    }
    (folder / FOLDER).mkdir(exist_ok=True)
    write_tensors(folder / FOLDER / f"epoch-{epoch:05d}.safetensors", sheet, {"epoch": epoch})


def _first(batches: PatternBatches) -> torch.Tensor:
    """The first patterns, from as many batches as it takes."""
    parts: list[torch.Tensor] = []
    for batch in batches.epoch(0):
        parts.append(batch.patterns)
        if sum(map(len, parts)) >= N_SAMPLES:
            break
    return torch.cat(parts)[:N_SAMPLES]


def read_sheets(folder: Path, signal_dims: tuple[str, ...]) -> xr.Dataset | None:
    """All sheets of a training: `input (sample, …)`, `reconstruction` and `prior (epoch, sample, …)`; None without."""
    read = [read_tensors(file) for file in sorted((folder / FOLDER).glob("epoch-*.safetensors"))]
    if not read:
        return None
    shape = read[0][0]["input"].shape[-len(signal_dims) :]
    dims = (n.EPOCH, n.SAMPLE, *signal_dims)

    def all_epochs(name: str) -> np.ndarray:
        return np.stack([tensors[name].numpy().reshape(-1, *shape) for tensors, _ in read])

    return xr.Dataset(
        {
            "input": (dims[1:], all_epochs("input")[0], {"long_name": "pattern as the network sees it"}),
            "reconstruction": (dims, all_epochs("reconstruction"), {"long_name": "decoded posterior mean"}),
            "prior": (dims, all_epochs("prior"), {"long_name": "decoded draw from the prior"}),
        },
        coords={n.EPOCH: [header["epoch"] for _, header in read]},
    )


def check_loggers(names: tuple[str, ...]) -> None:
    """Raise UsageError for an unknown name, MissingExtraError (how to install it) where its package is missing."""
    for name in names:
        if name not in LOGGERS:
            raise UsageError(f"there is no logger {name!r}.{did_you_mean(name, list(LOGGERS))}")
        need(name, "vaearr[loggers]", f"logging to {name}")


@contextmanager
def logging_to(
    names: tuple[str, ...], folder: Path, run: str, settings: Mapping[str, Any]
) -> Iterator[Callable[[int, History], None]]:
    """What takes the row of the history after each epoch (counted from 1): to TensorBoard, if that is asked for."""
    check_loggers(names)
    if not names:
        yield lambda epoch, row: None
        return
    from torch.utils.tensorboard import SummaryWriter

    folder.mkdir(parents=True, exist_ok=True)
    with SummaryWriter(str(folder / "tensorboard" / run)) as writer:
        writer.add_text("settings", f"```{settings}```")

        def log(epoch: int, row: History) -> None:
            for name, value in row.items():
                writer.add_scalar(name, value, epoch)
            writer.flush()

        yield log
