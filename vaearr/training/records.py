"""Records of a training: history over epochs, sheets of decoded samples, TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr.config import TrainConfig
from vaearr.models.quality import ACTIVE_VARIANCE
from vaearr.models.tensors import read_tensors, write_tensors
from vaearr.recipe import as_json
from vaearr.store.folders import replace_file
from vaearr.training.objective import ADVERSARIAL, DISCRIMINATOR, KL
from vaearr.training.state import Row, Training

SHEETS = "sheets"  # folder of the files
SHEET_DIM = "sheet_"
N_SAMPLES = 8
LONG_NAMES = {
    "input": "preprocessed pattern",
    "reconstruction": "decoded posterior mean",
    "prior": "decoded sample of the prior",
}

PER_VALUE = ("reconstruction_nll", KL)
NATS = "nats per sample"
# long name and units of terms of the loss, and of other columns
COLUMNS = {
    "loss": ("sum of the terms times their weights", NATS),
    "reconstruction_nll": ("negative log likelihood of the pattern", NATS),
    "amplitude_nll": ("negative log likelihood of the own pattern at the decoded size", NATS),
    KL: ("KL divergence, posterior against prior", NATS),
    "perceptual": ("distance of decoded patterns in the features of a frozen network", "1"),
    ADVERSARIAL: (
        "adversarial loss of decoded patterns, of the updates with a discriminator",
        "1",
    ),
    "label_nll": ("cross entropy of the labels, mean over the labelled samples", NATS),
    "label_accuracy": (
        "share of the labelled samples that the head classifies correctly",
        "1",
    ),
    DISCRIMINATOR: ("loss of the discriminator, of the updates with one", "1"),
    "beta": ("weight of the KL divergence at the end of the epoch", "1"),
    "learning_rate": ("learning rate of the epoch's last update", "1"),
    "seconds": ("time of the epoch, validation included", "s"),
    "active_units": (
        f"latent dimensions whose posterior mean varies (variance > {ACTIVE_VARIANCE})",
        "1",
    ),
    "latent_kl": ("KL divergence of each latent dimension", NATS),
}


def history_dataset(state: Training) -> xr.Dataset:
    """Return the history over `epoch`, counted from 1, with long_name and units.

    Each term of the loss has its final `weight` as an attribute: their weighted sum is the
    validation loss (without free bits, where all samples are labelled). Reconstruction and KL are
    added per value of a preprocessed sample (nats/dim).
    """
    n_values = math.prod(state.model.preprocess.shape)
    weights = {term.name: term.weight for term in state.loss_step.terms}
    variables: dict[str, Any] = {}
    for name in state.rows[0]:
        term = name.removeprefix("val_")
        long_name, units = COLUMNS[term]
        if term != name:
            long_name += " (validation points)"
        attrs: dict[str, Any] = {"long_name": long_name, "units": units}
        if term in weights:
            attrs["weight"] = weights[term]
        column = [row[name] for row in state.rows]
        dims = (n.EPOCH, n.LATENT) if name == "latent_kl" else n.EPOCH
        variables[name] = (dims, column, attrs)
        if term in PER_VALUE:
            per_value = {
                "long_name": f"{long_name}, per value of the pattern",
                "units": "nats per value",
            }
            variables[f"{name}_per_value"] = (n.EPOCH, np.divide(column, n_values), per_value)
    epochs = range(1, len(state.rows) + 1)
    return xr.Dataset(variables, coords={n.EPOCH: epochs})


def write_history(state: Training) -> None:
    """Write the history as CSV (numbers only) and JSON into the folder."""
    table = history_dataset(state).drop_dims(n.LATENT).to_dataframe()
    csv = table.to_csv(lineterminator="\n")
    rows = json.dumps(as_json(state.rows))
    replace_file(state.folder / "history.csv", csv.encode(), durable=False)
    replace_file(state.folder / "history.json", rows.encode(), durable=False)


@torch.inference_mode()
def write_sheet(state: Training) -> None:
    """Write reconstructions of the first patterns and samples of the prior after an epoch."""
    model = state.model.eval()
    samples = state.validation or state.train
    n_batches = math.ceil(N_SAMPLES / (samples.n_samples // len(samples)))
    patterns = [batch.patterns for batch in islice(samples.epoch(0), n_batches)]
    stored = torch.cat(patterns)[:N_SAMPLES]
    generator = torch.Generator().manual_seed(state.config.seed)
    latents = torch.randn(len(stored), *model.latent_shape, generator=generator)
    size = model.fitting(len(stored))
    means = [model.encode_batch(batch)[0] for batch in stored.split(size)]
    sheet = {
        "input": model.preprocess(stored),
        "reconstruction": torch.cat([model.decode_batch(mean) for mean in means]),
        "prior": torch.cat([model.decode_batch(z) for z in latents.split(size)]),
    }
    folder = state.folder / SHEETS
    folder.mkdir(exist_ok=True)
    file = folder / f"epoch-{state.epoch:05d}.safetensors"
    write_tensors(file, sheet, {"epoch": state.epoch})


def read_sheets(folder: Path, signal_dims: tuple[str, ...]) -> dict[str, xr.Dataset]:
    """Read the table of all sheets, if any: `input (sheet_sample, …)`, `reconstruction` and `prior
    (epoch, …)`.

    Its dims have different names: their sizes differ from those of the store's `sample, y, x`.
    """
    files = sorted((folder / SHEETS).glob("epoch-*.safetensors"))
    if not files:
        return {}
    epochs = []
    values: dict[str, list[np.ndarray]] = {name: [] for name in LONG_NAMES}
    for file in files:
        tensors, header = read_tensors(file)
        epochs.append(header["epoch"])
        shape = tensors["input"].shape[-len(signal_dims) :]
        for name in LONG_NAMES:
            values[name].append(tensors[name].reshape(-1, *shape).numpy())
    ds = xr.Dataset(coords={n.EPOCH: epochs})
    sheet_dims = [f"{SHEET_DIM}{dim}" for dim in (n.SAMPLE, *signal_dims)]
    for name, long_name in LONG_NAMES.items():
        ds[name] = ((n.EPOCH, *sheet_dims), np.stack(values[name]), {"long_name": long_name})
    ds["input"] = ds["input"].isel({n.EPOCH: 0}, drop=True)
    return {n.SHEETS: ds}


@contextmanager
def tensorboard(
    folder: Path, run: str, settings: TrainConfig
) -> Iterator[Callable[[int, Row], object]]:
    """Yield a function that writes the row of an epoch to TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard" / run)) as writer:
        writer.add_text("settings", f"```{settings.to_attrs()}```")

        def log(epoch: int, row: Row) -> None:
            for name, value in row.items():
                if name == "latent_kl":
                    writer.add_histogram(name, np.asarray(value), epoch)
                else:
                    writer.add_scalar(name, value, epoch)
            writer.flush()

        yield log
