"""Decoded samples as training goes on: the same patterns and the same prior draws every time, kept as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr.artifacts import TrainedModel
from vaearr.batching import PatternBatches
from vaearr.models.files import read_tensors, write_tensors

N_SAMPLES = 8
FOLDER = "sheets"


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
