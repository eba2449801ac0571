"""How far two activations are apart: sums that are taken at once, numbers from the sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

MEASURES = ("l2", "rms", "relative_l2", "cosine", "mean_abs", "rms_a", "rms_b")
LONG_NAMES = {
    "l2": "L2 norm of the difference a - b",
    "rms": "root mean square of the difference a - b",
    "relative_l2": "L2 norm of the difference over that of a",
    "cosine": "cosine similarity",
    "mean_abs": "mean absolute difference",
    "rms_a": "root mean square of a",
    "rms_b": "root mean square of b",
}
N_SUMS = 5
PIECE, DEVICE_PIECE = 2**18, 2**24  # values in float64 at once: as many as stay in a CPU's cache, or fill a GPU
MOST_POSITIONS = 2**20  # of a difference map; larger ones are averaged down


def sums(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sums of a^2, b^2, a b, (a - b)^2 and |a - b| over all values: `2 x (…) -> (5,)`, float64 where the device can.

    They stay on the device, so that nothing waits for it.
    """
    wide = torch.float32 if a.device.type == "mps" else torch.float64
    total = torch.zeros(N_SUMS, dtype=wide, device=a.device)
    piece = PIECE if a.device.type == "cpu" else DEVICE_PIECE
    for x, y in zip(a.reshape(-1).split(piece), b.reshape(-1).split(piece), strict=True):
        x, y = x.to(wide), y.to(wide)
        off = x - y
        parts = (x.square(), y.square(), x * y, off.square(), off.abs())
        total += torch.stack([part.sum() for part in parts])
    return total


def measures(found: np.ndarray, n_values: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers of `MEASURES` from such sums: `(…, 5), (…) -> (…)` each, float64.

    l2 = |a - b|; rms = l2 / sqrt(n); relative_l2 = l2 / |a|; cosine = a.b / (|a| |b|), the cosine of their angle;
    mean_abs; rms_a and rms_b = |a| / sqrt(n), |b| / sqrt(n). Where a and b are equal, zeros too, relative_l2 is 0 and
    cosine 1. Where only a is all zeros relative_l2 is NaN, and where one of them is cosine is.
    """
    aa, bb, ab, dd, absolute = np.moveaxis(np.asarray(found, np.float64), -1, 0)
    same = dd == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(same, 0.0, np.sqrt(dd) / np.sqrt(aa))
        cosine = np.where(same, 1.0, np.clip(ab / (np.sqrt(aa) * np.sqrt(bb)), -1.0, 1.0))
    root = np.sqrt(n_values)
    values = (
        np.sqrt(dd),
        np.sqrt(dd) / root,
        np.where(np.isinf(relative), np.nan, relative),
        cosine,
        absolute / n_values,
        np.sqrt(aa) / root,
        np.sqrt(bb) / root,
    )
    return dict(zip(MEASURES, values, strict=True))


def squared_map(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean of (a - b)^2 over channels at each position: `2 x (C, *spatial) -> spatial`, float32 on the host.

    A map of more than 2^20 positions is averaged down to at most that.
    """
    squares = (a.float() - b.float()).square().mean(0)
    if squares.numel() > MOST_POSITIONS:
        shrink = (MOST_POSITIONS / squares.numel()) ** (1 / squares.ndim)
        size = tuple(max(1, math.floor(side * shrink)) for side in squares.shape)
        pool: Any = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[squares.ndim]
        squares = pool(squares[None], size)[0]
    return squares.cpu()
