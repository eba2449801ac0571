"""Encoding of large samples window by window, by `monai.inferers.sliding_window_inference`, for
networks with spatial latents.

Windows lie on the grid of latent positions, so that a position means the same in each of them. A
window does not include anything beyond its border, and its group norms and attention act on the
window only: `window_agreement` measures the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from vaearr.errors import UsageError, need
from vaearr.models import Network
from vaearr.models.networks import with_edges, without_edges

AGREEMENT = 0.99  # correlation with the latents of the undivided sample; users are warned below
# pixels of a sample that is encoded undivided for comparison: some GB of feature maps
REFERENCE_VALUES = 2**20


@torch.inference_mode()
def encode_windows(
    network: Network, samples: torch.Tensor, window: Sequence[int], overlap: float = 0.25
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode samples window by window, and blend the windows.

    Parameters
    ----------
    network
        Network with spatial latents, made for the whole samples.
    samples
        Preprocessed samples `(B, *input_shape)`.
    window
        Pixels per spatial dim, multiples of the network's stride; where the sample is smaller, all
        of it.
    overlap
        Share of a window that it has in common with the next, `0 <= overlap < 1`.

    Returns
    -------
    tuple of torch.Tensor
        Mean and log-variance, each `(B, *latent_shape)`.

    Raises
    ------
    MissingExtraError
        If MONAI is not installed.
    UsageError
        If the network has vector latents, or the window does not fit it.
    """
    sides = _sides(network, _positions(network, window, overlap))
    tile = network.resized(sides)
    padded = with_edges(samples, network.padding)
    mean, logvar = _blended(tile.encode, padded, sides, network.stride, overlap)
    return mean, logvar


@torch.inference_mode()
def decode_windows(
    network: Network, z: torch.Tensor, window: Sequence[int], overlap: float = 0.25
) -> torch.Tensor:
    """Decode latents `(B, *latent_shape)` to samples `(B, *input_shape)` window by window.

    `window` is in pixels of the sample; otherwise as `encode_windows`.
    """
    positions = _positions(network, window, overlap)
    tile = network.resized(_sides(network, positions))
    decoded = _blended(tile.decode, z, positions, [1] * len(positions), overlap)
    return without_edges(decoded, network.padding, network.input_shape[1:])


def _sides(network: Network, positions: Sequence[int]) -> list[int]:
    """Pixels per spatial dim of a window of latent positions."""
    return [count * step for count, step in zip(positions, network.stride, strict=True)]


def _positions(network: Network, window: Sequence[int], overlap: float) -> list[int]:
    """Latent positions of a window per spatial dim."""
    need("monai", "vaearr[monai]", "encoding by windows")
    stride = network.stride
    if not stride:
        raise UsageError(
            "windows need a network with spatial latents, such as 'autoencoder-kl'; leave window "
            "out."
        )
    pairs = list(zip(window, stride, strict=False))
    if len(window) != len(stride) or any(side < step or side % step for side, step in pairs):
        raise UsageError(
            f"window is {tuple(window)}; give {len(stride)} multiples of {stride}, the network's "
            "stride."
        )
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap is {overlap}; it is a share of a window, from 0 to below 1.")
    counts = [side // step for side, step in pairs]
    return list(map(min, counts, network.latent_shape[1:]))


def _blended(
    predict: Callable[[torch.Tensor], Any],
    values: torch.Tensor,
    sides: Sequence[int],
    steps: Sequence[int],
    overlap: float,
) -> Any:
    """Blend the predictions of windows of these sides, which begin at multiples of `steps`."""
    from monai.inferers import sliding_window_inference

    shares = []
    for side, step in zip(sides, steps, strict=True):
        interval = max(step, math.floor(side * (1 - overlap) / step + 1e-9) * step)
        share = 1 - (interval + 0.5) / side  # MONAI rounds the interval down
        shares.append(max(0.0, share))
    return sliding_window_inference(
        values, tuple(sides), 1, predict, overlap=shares, mode="gaussian"
    )


@torch.inference_mode()
def window_agreement(
    network: Network, sample: torch.Tensor, window: Sequence[int], overlap: float
) -> tuple[float, tuple[int, ...]]:
    """Compare latents by windows with those of an undivided sample, away from the borders.

    Parameters
    ----------
    network
        Network with spatial latents, made for the whole sample.
    sample
        One preprocessed sample `(1, *input_shape)`.
    window, overlap
        As of `encode_windows`.

    Returns
    -------
    tuple
        Pearson correlation over all latents, and the sides of the undivided region in pixels: the
        whole sample, or its middle where the sample has more than `REFERENCE_VALUES` pixels.
    """
    positions = _positions(network, window, overlap)
    sides = _sides(network, positions)
    region_sides = _reference_sides(network.input_shape[1:], sides)
    region = sample
    for dim, side in enumerate(region_sides, start=2):
        region = region.narrow(dim, (region.shape[dim] - side) // 2, side)
    resized = network.resized(region_sides)
    undivided = resized.encode(region)[0]
    blended = encode_windows(resized, region, sides, overlap)[0]
    inner = [slice(None), slice(None)]
    for count, length in zip(positions, undivided.shape[2:], strict=True):
        margin = min(count // 4, (length - 1) // 2)
        inner.append(slice(margin, length - margin))
    pair = torch.stack([latents[tuple(inner)].flatten() for latents in (undivided, blended)])
    return float(torch.corrcoef(pair)[0, 1]), region_sides


def _reference_sides(shape: Sequence[int], window_sides: Sequence[int]) -> tuple[int, ...]:
    """Sides of the region that is encoded undivided: all of it, or two windows along the longest
    dim.
    """
    if math.prod(shape) <= REFERENCE_VALUES:
        return tuple(shape)
    sides = np.array(window_sides)
    longest = np.argmax(shape / sides)
    sides[longest] *= 2
    return tuple(np.minimum(shape, sides).tolist())
