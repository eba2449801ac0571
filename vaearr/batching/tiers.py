"""Where patterns wait until their batch: on the device, in RAM, or on disk with two buffers in RAM."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

GIB, MIB = 2**30, 2**20
FEWEST_PIECES, MOST_PIECES = 4, 64
MOST_DECODES = 4  # of a chunk in an epoch
FREE_SHARE = 0.7  # of the device's free memory; the rest is the model's

Tier = Literal["device", "memory", "streamed"]

# torch lacks most operations for unsigned types; the bytes are moved as these
MOVED_AS = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def piece_samples(capacity: int, chunk: int) -> int:
    """Samples of a piece at most: a buffer of `capacity` samples is filled from several places of the grid.

    Batches from few places teach little: on a simulated scan of 3072 points, buffers of 384 samples from 4, 24 and 64
    places ended 16, 5 and 3 % of the loss's fall behind training in memory. Pieces smaller than a chunk are decoded
    more than once, at most `MOST_DECODES` times where that leaves a buffer `FEWEST_PIECES`; larger buffers, which hold
    many places anyway, are read in whole chunks.
    """
    pieces = FEWEST_PIECES if capacity >= 4096 else min(MOST_PIECES, 32768 // capacity)
    return max(1, capacity // pieces, min(chunk // MOST_DECODES, capacity // FEWEST_PIECES))


def pick_tier(nbytes: int, memory: float, device_memory: float, device: torch.device) -> Tier:
    """The fastest place that holds `nbytes` of patterns; the allowances are in GiB."""
    if device.type != "cpu" and nbytes <= min(device_memory * GIB, FREE_SHARE * _free(device)):
        return "device"
    return "memory" if nbytes <= memory * GIB else "streamed"


def _free(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return float(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return float("inf")


def in_words(tier: Tier, nbytes: int, allowed: float, buffer_bytes: int) -> str:
    """Such as `in memory (11 MiB of 2 GiB)`; `allowed` in GiB."""
    if tier == "streamed":
        return f"streamed ({size(nbytes)} through two buffers of {size(buffer_bytes)})"
    place = "on the device" if tier == "device" else "in memory"
    return f"{place} ({size(nbytes)} of {size(allowed * GIB)})"


def size(nbytes: float) -> str:
    """Bytes in words: `11 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1024
    return f"{nbytes:.3g} GiB"


def host_tensor(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Empty memory of the host; pinned where it is copied to a CUDA device, so that the copy need not wait."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def pick_rows(held: torch.Tensor, index: torch.Tensor, out: torch.Tensor) -> None:
    """`out[:] = held[index]`, for every dtype; on the CPU by one thread, as the others decode."""
    if held.device.type == "cpu":
        np.take(held.numpy(), index.numpy(), axis=0, out=out.numpy(), mode="clip")
        return
    moved = MOVED_AS.get(held.dtype, held.dtype)
    torch.index_select(held.view(moved), 0, index, out=out.view(moved))
