"""What a training leaves to be looked at: history over epochs, decoded samples as it goes on,
TensorBoard.
"""

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
from vaearr.training.checkpoint import History, Training
from vaearr.training.objective import KL, NATS

SHEETS, SHEET_DIM, N_SAMPLES = "sheets", "sheet_", 8

PER_VALUE = ("reconstruction_nll", KL)
# long name and units of the columns that are no terms of the loss
COLUMNS = {
    "loss": ("sum of the terms times their weights", NATS),
    "critic": ("loss of the discriminator, of the updates with one", "1"),
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
    n_values = math.prod(state.model.seen_shape)
    terms = {term.name: term for term in state.loss_step.terms}
    variables: dict[str, Any] = {}
    for name in state.rows[0]:
        term = terms.get(name.removeprefix("val_"))
        if term is not None:
            attrs = {"long_name": term.long_name, "units": term.units, "weight": term.weight}
        else:
            long_name, units = COLUMNS[name.removeprefix("val_")]
            attrs = {"long_name": long_name, "units": units}
        if name.startswith("val_"):
            attrs["long_name"] = f"{attrs['long_name']} (validation points)"
        column = [row[name] for row in state.rows]
        dims = (n.EPOCH, n.LATENT) if name == "latent_kl" else n.EPOCH
        variables[name] = (dims, column, attrs)
        if name.removeprefix("val_") in PER_VALUE:
            per_value = {
                "long_name": f"{attrs['long_name']}, per value of the pattern",
                "units": "nats per value",
            }
            variables[f"{name}_per_value"] = (n.EPOCH, np.divide(column, n_values), per_value)
    return xr.Dataset(variables, coords={n.EPOCH: range(1, len(state.rows) + 1)})


def write_history(state: Training) -> None:
    """Write the history as CSV (numbers only) and JSON into the folder."""
    csv = history_dataset(state).drop_dims(n.LATENT).to_dataframe().to_csv(lineterminator="\n")
    rows = json.dumps(as_json(state.rows))
    replace_file(state.folder / "history.csv", csv.encode(), durable=False)
    replace_file(state.folder / "history.json", rows.encode(), durable=False)


@torch.inference_mode()
def write_sheet(state: Training) -> None:
    """Write what the model makes of its first patterns and of draws from the prior, after an epoch."""
    model, chosen, epoch = state.model.eval(), state.validation or state.train, state.epoch + 1
    n_batches = -(-N_SAMPLES // (chosen.n_samples // len(chosen)))
    stored = torch.cat([batch.patterns for batch in islice(chosen.epoch(0), n_batches)])[:N_SAMPLES]
    draws = torch.randn(
        len(stored), *model.latent_shape, generator=torch.Generator().manual_seed(state.config.seed)
    )
    at_once = model.fitting(len(stored))
    sheet = {
        "input": model.preprocess(stored),
        "reconstruction": torch.cat(
            [model.decode_batch(model.encode_batch(s)[0]) for s in stored.split(at_once)]
        ),
        "prior": torch.cat([model.decode_batch(some) for some in draws.split(at_once)]),
    }
    (state.folder / SHEETS).mkdir(exist_ok=True)
    write_tensors(state.folder / SHEETS / f"epoch-{epoch:05d}.safetensors", sheet, {"epoch": epoch})


def read_sheets(folder: Path, signal_dims: tuple[str, ...]) -> dict[str, xr.Dataset]:
    """The table of all sheets, if any: `input (sheet_sample, …)`, `reconstruction` and `prior
    (epoch, …)`.

    Its dims have names of their own: their sizes differ from those of the store's `sample, y, x`.
    """
    read = [read_tensors(file) for file in sorted((folder / SHEETS).glob("epoch-*.safetensors"))]
    if not read:
        return {}
    shape = read[0][0]["input"].shape[-len(signal_dims) :]
    dims = (n.EPOCH, *(f"{SHEET_DIM}{dim}" for dim in (n.SAMPLE, *signal_dims)))
    ds = xr.Dataset(coords={n.EPOCH: [header["epoch"] for _, header in read]})
    for name, long_name in (
        ("input", "pattern as the network sees it"),
        ("reconstruction", "decoded posterior mean"),
        ("prior", "decoded draw from the prior"),
    ):
        values = np.stack([tensors[name].numpy().reshape(-1, *shape) for tensors, _ in read])
        ds[name] = (dims, values, {"long_name": long_name})
    return {n.SHEETS: ds.assign(input=ds["input"].isel({n.EPOCH: 0}, drop=True))}


@contextmanager
def tensorboard(
    folder: Path, run: str, settings: TrainConfig
) -> Iterator[Callable[[int, History], object]]:
    """What writes the row of an epoch to TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard" / run)) as writer:
        writer.add_text("settings", f"```{settings.to_attrs()}```")

        def log(epoch: int, row: History) -> None:
            for name, value in row.items():
                if name == "latent_kl":
                    writer.add_histogram(name, np.asarray(value), epoch + 1)
                else:
                    writer.add_scalar(name, value, epoch + 1)
            writer.flush()

        yield log
