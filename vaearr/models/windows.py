"""Samples larger than memory allows, through a network with spatial latents window by window, the overlaps blended.

Windows lie on the grid of latent positions, evenly spread so that neighbours share at least the overlap that is asked
for. Where they share pixels, their results are averaged with weights that rise linearly from the border of a window
over its overlap, and sum to one everywhere. What a convolution sees beyond the border of a window is its padding, and
norms and attention know the window alone, so results differ from those of the whole; wider overlaps hide the seams.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from vaearr.errors import UsageError


@torch.inference_mode()
def encode_windows(
    network: Any, x: torch.Tensor, window: Sequence[int], overlap: float = 0.25
) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior mean and log-variance `2 x (B, *latent_shape)` of samples `(B, *input_shape)`, blended from windows.

    network: one with spatial latents, made for the whole samples; `network.resized(window)` is run. window: pixels per
    spatial dim, a multiple of the network's stride; where the sample is smaller, all of it. overlap: share of a window,
    0 <= overlap < 1. Samples and results stay on the device of x, one window at a time goes to the network's. Raises
    UsageError for a network with vector latents, another sample, or windows that do not fit.
    """
    sides = _sides(network, window, overlap)
    _check_shape("samples", x, network.input_shape)
    edges = [(before, whole - before - size) for before, whole, size in zip(*_placing(network), strict=True)]
    whole = F.pad(x, [side for pair in reversed(edges) for side in pair], mode="replicate")
    tile = network.resized(tuple(side * step for side, step in zip(sides, network.stride, strict=True)))
    mean, logvar = _blended(network, tile.encode, whole, sides, overlap, network.stride, [1] * len(sides))
    return mean, logvar


@torch.inference_mode()
def decode_windows(network: Any, z: torch.Tensor, window: Sequence[int], overlap: float = 0.25) -> torch.Tensor:
    """Samples `(B, *input_shape)` expected for latents `(B, *latent_shape)`, blended from windows.

    window: in pixels of the sample; for the rest see `encode_windows`.
    """
    sides = _sides(network, window, overlap)
    _check_shape("latents", z, network.latent_shape)
    tile = network.resized(tuple(side * step for side, step in zip(sides, network.stride, strict=True)))
    (whole,) = _blended(network, lambda z: (tile.decode(z),), z, sides, overlap, [1] * len(sides), network.stride)
    for dim, (before, _, size) in enumerate(zip(*_placing(network), strict=True), start=2):
        whole = whole.narrow(dim, before, size)
    return whole.contiguous()


def _placing(network: Any) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Along each spatial dim: pixels added in front of a sample, pixels with all that are added, pixels of a sample."""
    padded = [size * step for size, step in zip(network.latent_shape[1:], network.stride, strict=True)]
    return network.pad_before, padded, network.input_shape[1:]


def _blended(
    network: Any,
    make: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    given: torch.Tensor,
    sides: Sequence[int],
    overlap: float,
    read: Sequence[int],
    written: Sequence[int],
) -> list[torch.Tensor]:
    """Sums of what windows make, weighted. read, written: values per latent position in what is given and made."""
    weight_of = next(network.parameters(), given)
    grid = network.latent_shape[1:]
    out: list[torch.Tensor] = []
    axes = [_windows(*axis, overlap) for axis in zip(grid, sides, written, strict=True)]
    for parts in itertools.product(*axes):
        cut = given
        for dim, ((start, _), side, step) in enumerate(zip(parts, sides, read, strict=True), start=2):
            cut = cut.narrow(dim, start * step, side * step)
        made = [part.to(given.device).float() for part in make(cut.to(weight_of.device))]
        if not out:
            whole = [size * step for size, step in zip(grid, written, strict=True)]
            out = [torch.zeros((*part.shape[:2], *whole), device=given.device) for part in made]
        weights = torch.from_numpy(reduce(np.multiply.outer, [row for _, row in parts]).astype(np.float32))
        places = [
            slice(start * step, (start + side) * step)
            for (start, _), side, step in zip(parts, sides, written, strict=True)
        ]
        for total, part in zip(out, made, strict=True):
            total[(slice(None), slice(None), *places)] += part * weights.to(given.device)
    return out


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


def _sides(network: Any, window: Sequence[int], overlap: float) -> tuple[int, ...]:
    """Sides of a window in latent positions, at most those of the sample."""
    if len(network.latent_shape) == 1:
        raise UsageError("windows need a network with spatial latents, such as 'autoencoder-kl'; leave window out.")
    stride, grid = tuple(network.stride), tuple(network.latent_shape[1:])
    if len(window) != len(stride):
        raise UsageError(f"window {tuple(window)} has {len(window)} sides, samples have {len(stride)} spatial dims.")
    if any(side < 1 or side % step for side, step in zip(window, stride, strict=True)):
        raise UsageError(f"window {tuple(window)} must be positive multiples of the network's stride {stride}.")
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap is {overlap}; it is a share of a window, from 0 to below 1.")
    return tuple(min(side // step, size) for side, step, size in zip(window, stride, grid, strict=True))


def _check_shape(what: str, given: torch.Tensor, shape: Sequence[int]) -> None:
    if tuple(given.shape[1:]) != tuple(shape):
        raise UsageError(f"{what} have shape {tuple(given.shape[1:])}, the network's are {tuple(shape)}.")
