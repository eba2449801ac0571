"""Samples larger than memory allows, through a network with spatial latents window by window, the overlaps blended.

Windows lie on the grid of latent positions, evenly spread so that neighbours share at least the overlap that is asked
for. Where they share pixels, their results are averaged with weights that rise linearly from the border of a window
over its overlap, and sum to one everywhere. What a convolution sees beyond the border of a window is its padding, and
norms and attention know the window alone, so results differ from those of the whole; wider overlaps hide the seams.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch

from vaearr.errors import UsageError
from vaearr.models.networks import with_edges


@torch.inference_mode()
def encode_windows(
    network: Any, x: torch.Tensor, window: Sequence[int], overlap: float = 0.25
) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior mean and log-variance `2 x (B, *latent_shape)` of samples `(B, *input_shape)`, blended from windows.

    network: one with spatial latents, made for the whole samples; `network.resized(window)` is run. window: pixels per
    spatial dim, a multiple of the network's stride; where the sample is smaller, all of it. overlap: share of a window,
    0 <= overlap < 1. Samples and results stay on the device of x, one window at a time goes to the network's. Raises
    UsageError for a network with vector latents, and for windows that do not fit.
    """
    _check(network, window, overlap)
    each = zip(network.pad_before, network.latent_shape[1:], network.stride, network.input_shape[1:], strict=True)
    padded = with_edges(x, [(before, count * step - before - size) for before, count, step, size in each])
    mean, logvar = _blended(network, "encode", padded, window, overlap)
    return mean, logvar


@torch.inference_mode()
def decode_windows(network: Any, z: torch.Tensor, window: Sequence[int], overlap: float = 0.25) -> torch.Tensor:
    """Samples `(B, *input_shape)` expected for latents `(B, *latent_shape)`, blended from windows.

    window: in pixels of the sample; for the rest see `encode_windows`.
    """
    _check(network, window, overlap)
    (whole,) = _blended(network, "decode", z, window, overlap)
    for dim, (before, size) in enumerate(zip(network.pad_before, network.input_shape[1:], strict=True), start=2):
        whole = whole.narrow(dim, before, size)
    return whole.contiguous()


def _blended(
    network: Any, direction: str, given: torch.Tensor, window: Sequence[int], overlap: float
) -> list[torch.Tensor]:
    """Sums of what windows make, weighted."""
    stride, grid, out = tuple(network.stride), tuple(network.latent_shape[1:]), list[torch.Tensor]()
    sides = [min(side // step, size) for side, step, size in zip(window, stride, grid, strict=True)]
    tile = network.resized(tuple(side * step for side, step in zip(sides, stride, strict=True)))
    both = (stride, (1,) * len(stride))  # values per latent position in what is given and in what is made
    read, written = both if direction == "encode" else both[::-1]
    device = next(network.parameters(), given).device
    for parts in itertools.product(*map(_windows, grid, sides, written, itertools.repeat(overlap))):
        there: Any = (..., *map(_place, parts, sides, read))
        here: Any = (..., *map(_place, parts, sides, written))
        made = getattr(tile, direction)(given[there].to(device))
        made = made if isinstance(made, tuple) else (made,)
        weights = torch.from_numpy(reduce(np.multiply.outer, [row for _, row in parts]).astype(np.float32))
        whole = [size * step for size, step in zip(grid, written, strict=True)]
        out = out or [torch.zeros((*part.shape[:2], *whole), device=given.device) for part in made]
        for total, part in zip(out, made, strict=True):
            total[here] += part.to(given.device).float() * weights.to(given.device)
    return out


def _place(part: tuple[int, Any], side: int, step: int) -> slice:
    return slice(part[0] * step, (part[0] + side) * step)


def _windows(size: int, side: int, step: int, overlap: float) -> list[tuple[int, np.ndarray]]:
    """Where the windows of one dim begin, in latent positions, and their weights there, `step` values per position.

    The first begins at 0, the last ends at the end, neighbours share at least `overlap` of their length. Weights rise
    by equal steps from each end of a window over its overlap; at every place those of its windows sum to one.
    """
    stride = max(1, math.floor(side * (1 - overlap) + 1e-9))
    count = -(-(size - side) // stride) + 1
    starts = [round(i * (size - side) / max(count - 1, 1)) for i in range(count)]
    place = np.arange(side * step) + 0.5
    rise = np.minimum(1.0, np.minimum(place, side * step - place) / max(1, round(side * step * overlap)))
    total = np.zeros(size * step)
    for start in starts:
        total[start * step : (start + side) * step] += rise
    return [(start, rise / total[start * step : (start + side) * step]) for start in starts]


def _check(network: Any, window: Sequence[int], overlap: float) -> None:
    if len(network.latent_shape) == 1:
        raise UsageError("windows need a network with spatial latents, such as 'autoencoder-kl'; leave window out.")
    stride = tuple(network.stride)
    if len(window) != len(stride) or any(side < 1 or side % step for side, step in zip(window, stride, strict=True)):
        raise UsageError(f"window is {tuple(window)}; give {len(stride)} multiples of {stride}, the network's stride.")
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap is {overlap}; it is a share of a window, from 0 to below 1.")
