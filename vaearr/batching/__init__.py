"""Patterns as shuffled torch batches: a pure plan of what to read, and a reader that carries it out.

The unit of reading is the dask chunk. Where all chosen samples fit into the memory allowance they are read once and
kept in their own dtype, on the device if that has room; otherwise chunks are read in random order, as many at a time as
the allowance holds, mixed in that buffer and cut into batches, while the next buffer is read ahead. Each sample comes
exactly once per epoch either way.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching.partners import Walk
from vaearr.batching.reader import Batch, PatternBatches, Settings
from vaearr.device import pick_device
from vaearr.errors import RoiError, UsageError
from vaearr.grid import check_map

__all__ = [
    "Batch",
    "PatternBatches",
    "Walk",
    "batches",
]


def batches(
    ds: xr.Dataset,
    *,
    batch_size: int = 256,
    roi: xr.DataArray | None = None,
    split: xr.DataArray | None = None,
    part: int = n.TRAIN,
    shuffle: bool = True,
    seed: int = 0,
    memory: float = 2.0,
    device_memory: float = 8.0,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world_size: int = 1,
    labels: np.ndarray | xr.DataArray | None = None,
    balance: np.ndarray | xr.DataArray | None = None,
) -> PatternBatches:
    """Torch batches `(B, C, …)` of `ds.patterns` in source dtype, shuffled, each sample once per epoch.

    ds: with dask chunks of any shape and any lazy steps on them; a Dataset without dask is cut as it would be stored.

    roi: boolean map of the samples to use (default: those `present`). split, part: use only the samples of this part
    of a stored split (`names.TRAIN` or `names.VALIDATION`). memory, device_memory: GiB of RAM and of the device that
    patterns may take; more is streamed. rank, world_size: this process and their number; each gets its own share.
    labels: class of each grid point, handed out with the batches. balance: classes by which samples are drawn, with
    replacement, so that each class comes equally often. Both integer maps over the navigation grid, -1 where missing.

    Deterministic by (seed, epoch). Raises RoiError when nothing is chosen, SchemaError for a Dataset that is not valid.
    """
    schema.validate(ds)
    dims = schema.navigation_dims(ds)
    _check(batch_size=batch_size, memory=memory, device_memory=device_memory, seed=seed)
    if balance is not None and (not shuffle or world_size > 1):
        raise UsageError("balance draws samples at random from the whole scan: shuffle=True, in one process.")
    inside = np.ones(schema.navigation_shape(ds), bool)
    if n.PRESENT in ds:
        inside &= ds[n.PRESENT].transpose(*dims).values
    if roi is not None:
        inside &= check_map(ds, roi).values
    if split is not None:
        inside &= check_map(ds, split, boolean=False).values == part
    if not inside.any():
        raise RoiError("no sample is left by the ROI and the split; widen the ROI.")
    settings = Settings(
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        memory=memory,
        device_memory=device_memory,
        device=pick_device(str(device)),
        rank=rank,
        world_size=world_size,
    )
    return PatternBatches(
        ds,
        inside,
        settings,
        labels=_class_map("labels", labels, ds),
        balance=_class_map("balance", balance, ds),
    )


def _check(*, batch_size: int, memory: float, device_memory: float, seed: int) -> None:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; it must be a whole number, at least 1.")
    if not isinstance(seed, int) or seed < 0:
        raise UsageError(f"seed is {seed}; it must be a whole number, at least 0.")
    if not (math.isfinite(memory) and memory > 0 and device_memory >= 0):
        raise UsageError(f"memory is {memory} and device_memory {device_memory} GiB; they must be positive.")


def _class_map(what: str, values: np.ndarray | xr.DataArray | None, ds: xr.Dataset) -> np.ndarray | None:
    if values is None:
        return None
    shape = schema.navigation_shape(ds)
    plain = check_map(ds, values, boolean=False).values if isinstance(values, xr.DataArray) else values
    if plain.shape != shape or plain.dtype.kind not in "iu":
        raise UsageError(f"{what} is {plain.dtype} of shape {plain.shape}; expected integers of shape {shape}.")
    return plain.astype(np.int64)
