"""What a training says of itself after every epoch, as files and as a Dataset."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import xarray as xr

from vaearr import names as n
from vaearr.store.folders import replace_file

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
