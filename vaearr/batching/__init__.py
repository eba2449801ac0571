"""Patterns as shuffled torch batches: a pure plan of what to read, and a reader that carries it out.

The unit of reading is the shard. Where all chosen samples fit into the memory allowance they are read once and kept in
their own dtype, on the device if that has room; otherwise shards are read in random order, as many at a time as the
allowance holds, mixed in that buffer and cut into batches, while the next buffer is read ahead. Each sample comes
exactly once per epoch either way.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching.partners import Walk
from vaearr.batching.reader import Batch, PatternBatches, Settings, read_samples
from vaearr.errors import RoiError, UsageError
from vaearr.grid import check_map

__all__ = [
    "Batch",
    "PatternBatches",
    "Walk",
    "batches",
    "read_samples",
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
    labels: np.ndarray | None = None,
    balance: np.ndarray | None = None,
) -> PatternBatches:
    """Torch batches `(B, C, …)` of `ds.patterns` in source dtype, shuffled, each sample once per epoch.

    roi: boolean map of the samples to use (default: those `present`). split, part: use only the samples of this part
    of a stored split (`names.TRAIN` or `names.VALIDATION`). memory, device_memory: GiB of RAM and of the device that
    patterns may take; more is streamed. rank, world_size: this process and their number; each gets its own share.
    labels: class of each grid point, handed out with the batches. balance: classes by which samples are drawn, with
    replacement, so that each class comes equally often. Both integer maps over the navigation grid, -1 where missing.

    Deterministic by (seed, epoch). Raises RoiError when nothing is chosen, SchemaError for a Dataset that is not valid.
    """
    schema.validate(ds)
    dims = schema.navigation_dims(ds)
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; it must be at least 1.")
    if balance is not None and not shuffle:
        raise UsageError("balance draws samples at random, so it needs shuffle=True.")
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
        device=torch.device(device),
        rank=rank,
        world_size=world_size,
    )
    return PatternBatches(
        ds,
        inside,
        settings,
        labels=_class_map("labels", labels, inside.shape),
        balance=_class_map("balance", balance, inside.shape),
    )


def _class_map(what: str, values: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    if values is None:
        return None
    if values.shape != shape or values.dtype.kind not in "iu":
        raise UsageError(f"{what} is {values.dtype} of shape {values.shape}; expected integers of shape {shape}.")
    return values.astype(np.int64)
