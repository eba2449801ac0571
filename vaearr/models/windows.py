"""Samples larger than memory allows, through a network with spatial latents window by window, the overlaps blended.

Windows lie on the grid of latent positions, evenly spread so that neighbours share at least the overlap that is asked
for. Where they share pixels, their results are averaged with weights that rise linearly from the border of a window
over its overlap, and sum to one everywhere. What a convolution sees beyond the border of a window is its padding, and
norms and attention know the window alone, so results differ from those of the whole; wider overlaps hide the seams.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from vaearr.errors import UsageError

Starts = list[int]


def plan_windows(size: int, window: int, overlap: float) -> Starts:
    """Where windows of one length begin so that they cover `size` and share at least `overlap` of their length.

    The first begins at 0, the last ends at the end; one window where it covers all.
    """
    if window >= size:
        return [0]
    step = max(1, math.floor(window * (1 - overlap) + 1e-9))
    count = -(-(size - window) // step) + 1
    return [round(i * (size - window) / (count - 1)) for i in range(count)]


def window_weights(size: int, window: int, starts: Sequence[int], overlap: float) -> np.ndarray:
    """Weights `(len(starts), window)` of each window along one dim; at every place those of its windows sum to one.

    They rise by equal steps from each end of the window over its overlap.
    """
    window = min(window, size)
    ramp = max(1, round(window * overlap))
    place = np.arange(window) + 0.5
    rise = np.minimum(1.0, np.minimum(place, window - place) / ramp)
    total = np.zeros(size)
    for start in starts:
        total[start : start + window] += rise
    return np.stack([rise / total[start : start + window] for start in starts])


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
    sides = _checked(network, window, overlap)
    if tuple(x.shape[1:]) != tuple(network.input_shape):
        raise UsageError(f"samples have shape {tuple(x.shape[1:])}, the network takes {tuple(network.input_shape)}.")
    tile = network.resized(tuple(side * step for side, step in zip(sides, network.stride, strict=True)))
    grid = network.latent_shape[1:]

    def crop(corner: tuple[int, ...]) -> torch.Tensor:
        part = x
        for dim, (first, side, step, before) in enumerate(
            zip(corner, sides, network.stride, network.pad_before, strict=True), start=2
        ):
            pixel = torch.arange(first * step - before, (first + side) * step - before, device=x.device)
            part = part.index_select(dim, pixel.clamp(0, x.shape[dim] - 1))  # edge values around the sample
        return part

    device = _device(network, x)
    mean, logvar = _blended(
        lambda corner: tile.encode(crop(corner).to(device)),
        [(len(x), *network.latent_shape)] * 2,
        [(size, side, 1) for size, side in zip(grid, sides, strict=True)],
        overlap,
        x.device,
    )
    return mean, logvar


@torch.inference_mode()
def decode_windows(network: Any, z: torch.Tensor, window: Sequence[int], overlap: float = 0.25) -> torch.Tensor:
    """Samples `(B, *input_shape)` expected for latents `(B, *latent_shape)`, blended from windows.

    window: in pixels of the sample; for the rest see `encode_windows`.
    """
    sides = _checked(network, window, overlap)
    if tuple(z.shape[1:]) != tuple(network.latent_shape):
        raise UsageError(f"latents have shape {tuple(z.shape[1:])}, the network's {tuple(network.latent_shape)}.")
    tile = network.resized(tuple(side * step for side, step in zip(sides, network.stride, strict=True)))

    def decoded(corner: tuple[int, ...]) -> tuple[torch.Tensor]:
        part = z
        for dim, (first, side) in enumerate(zip(corner, sides, strict=True), start=2):
            part = part.narrow(dim, first, side)
        return (tile.decode(part.to(_device(network, z))),)

    padded = [size * step for size, step in zip(network.latent_shape[1:], network.stride, strict=True)]
    plan = [(size, side, step) for size, side, step in zip(padded, sides, network.stride, strict=True)]
    (whole,) = _blended(decoded, [(len(z), network.input_shape[0], *padded)], plan, overlap, z.device)
    for dim, (before, size) in enumerate(zip(network.pad_before, network.input_shape[1:], strict=True), start=2):
        whole = whole.narrow(dim, before, size)
    return whole.contiguous()


def _blended(
    made: Callable[[tuple[int, ...]], Sequence[torch.Tensor]],
    shapes: Sequence[tuple[int, ...]],
    plan: Sequence[tuple[int, int, int]],
    overlap: float,
    device: torch.device,
) -> list[torch.Tensor]:
    """Sums of what windows make, weighted."""
    out = [torch.zeros(shape, device=device) for shape in shapes]
    for corner, places, weights in _windows(plan, overlap):
        where = (slice(None), slice(None), *places)
        weight = torch.from_numpy(weights).to(device)
        for total, part in zip(out, made(corner), strict=True):
            total[where] += part.to(device).float() * weight
    return out


def _windows(
    plan: Sequence[tuple[int, int, int]], overlap: float
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...], np.ndarray]]:
    """Corner in latent positions, place in the result and weights there of every window."""
    axes = []
    for size, side, step in plan:
        starts = plan_windows(size // step, side, overlap)
        rows = window_weights(size, side * step, [start * step for start in starts], overlap)
        axes.append(list(zip(starts, rows, [step] * len(starts), strict=True)))
    for parts in itertools.product(*axes):
        weights = np.ones((1,) * len(parts), np.float64)
        for axis, (_, row, _) in enumerate(parts):
            weights = weights * row.reshape([-1 if i == axis else 1 for i in range(len(parts))])
        places = tuple(slice(start * step, start * step + len(row)) for start, row, step in parts)
        yield tuple(start for start, _, _ in parts), places, weights.astype(np.float32)


def _checked(network: Any, window: Sequence[int], overlap: float) -> tuple[int, ...]:
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


def _device(network: Any, like: torch.Tensor) -> torch.device:
    weight = next(network.parameters(), None)
    return like.device if weight is None else weight.device
