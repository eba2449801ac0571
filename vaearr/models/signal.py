"""How much of the patterns is noise, and how much of the signal a model explains.

Detector noise differs from point to point and the crystal does not: the difference of a pattern and
a similar neighbour is noise, and what a model decodes from a pattern is compared with the pattern
of the neighbour, whose noise it cannot contain.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from vaearr.batching.partners import neighbour_positions

MIN_PAIRS = 16  # samples with a neighbour, for an estimate
MAX_PAIRS = 1024  # changes the noise by less than 2 % and the explained signal by less than 0.01
MIN_SIGNAL = 0.02  # share of the variance below which signal is lost in noise
STRIPE = 2  # rows of pixels; adjacent ones may share noise


class Patterns(NamedTuple):
    """Preprocessed patterns `(n, C, …)` on the grid points `(n, n_nav)`.

    spread: size of one preprocessed unit of each pattern `(n,)`, see `Preprocess.spread`.
    """

    values: torch.Tensor
    spread: torch.Tensor
    points: np.ndarray


class Pairs(NamedTuple):
    """Samples `(n,)` with the similar neighbours that they are compared with, and their noise.

    halves: boolean pixels `(values,)`, and the partner of each sample `(n,)`, which the other
    pixels chose. noise: variance of the noise of each sample, in preprocessed units, `(n,)`.
    """

    samples: torch.Tensor
    halves: list[tuple[torch.Tensor, torch.Tensor]]
    noise: torch.Tensor


class Shares(NamedTuple):
    """Shares of the signal that decoded patterns explain.

    signal: of the neighbours' patterns, error: its standard error. own: of the patterns that were
    encoded, in which noise that a model reproduces counts as signal.
    """

    signal: float
    error: float
    own: float


def similar_pairs(patterns: Patterns) -> Pairs | None:
    """Find similar neighbours of evenly spaced samples, and estimate the noise by their difference.

    The most similar of the adjacent samples is chosen on one half of the pixels and compared on the
    other, as choosing would select its noise. The variance of the noise is half the mean squared
    difference, in the units before each pattern was scaled by itself, in which it differs little
    between samples; its median over the samples, so that the few without a similar neighbour do not
    count. Divided by the squared scale of a pattern it is that of the preprocessed pattern.

    Parameters
    ----------
    patterns : Patterns
        The patterns.

    Returns
    -------
    Pairs or None
        None for fewer than 16 samples with a neighbour, and for patterns of one or two rows.
    """
    is_second = torch.arange(patterns.values.shape[2]) // STRIPE % 2 == 1
    if not is_second.any() or not len(patterns.points):
        return None
    adjacent = torch.from_numpy(neighbour_positions(patterns.points).astype(np.int64))
    is_usable = patterns.spread > 0
    is_missing = (adjacent < 0) | ~is_usable[adjacent.clamp_min(0)]
    samples = torch.nonzero(is_usable & ~is_missing.all(1)).flatten()
    if len(samples) < MIN_PAIRS:
        return None
    n_pairs = min(len(samples), MAX_PAIRS)
    samples = samples[torch.linspace(0, len(samples) - 1, n_pairs).long()]
    candidates = adjacent[samples].masked_fill(is_missing[samples], -1)
    rows = is_second.view(1, -1, *[1] * (patterns.values.ndim - 3))
    second = rows.expand(patterns.values.shape[1:]).flatten()
    values = _unscaled(patterns)
    halves = []
    noise = torch.zeros(len(samples))
    for pixels in (second, ~second):
        partner = _most_similar(values[:, ~pixels], samples, candidates)
        compared = values[:, pixels]
        difference = compared[samples] - compared[partner]
        noise += difference.square().mean(1) / 4
        halves.append((pixels, partner))
    scale = patterns.spread[samples].square()
    return Pairs(samples, halves, noise.median() / scale)


def _unscaled(patterns: Patterns) -> torch.Tensor:
    """Patterns in the units that they had before each was scaled by itself, flat."""
    return patterns.values.flatten(1) * patterns.spread[:, None]


def _most_similar(
    values: torch.Tensor, samples: torch.Tensor, candidates: torch.Tensor
) -> torch.Tensor:
    """The one of the candidates `(n, k)`, -1 for none, that differs least from each sample."""
    distance = torch.empty(candidates.shape)
    for column, candidate in enumerate(candidates.T):
        difference = values[samples] - values[candidate]
        distance[:, column] = difference.square().mean(1)
    distance[candidates < 0] = torch.inf
    return candidates.gather(1, distance.argmin(1, keepdim=True)).flatten()


def explained_signal(patterns: Patterns, pairs: Pairs, decoded: torch.Tensor) -> Shares | None:
    """Measure which share of the signal decoded patterns explain.

    1 - (R - N) / (T - N): R is the mean squared difference of a decoded pattern and the pattern of
    the similar neighbour, in the units of the sample, N the variance of the noise, T the variance
    of the patterns about their common mean value. A model that reproduces noise gains nothing, as
    the neighbour has other noise. Real differences between neighbours lower the share.

    Parameters
    ----------
    patterns : Patterns
        Patterns that the model was not trained on.
    pairs : Pairs
        Their similar neighbours.
    decoded : torch.Tensor
        Decoded patterns of the samples of `pairs`, `(n, C, …)` or flat, in preprocessed units.

    Returns
    -------
    Shares or None
        At most 1; None if less than 2 % of the variance are signal. The error takes the samples as
        independent.
    """
    x = patterns.values.flatten(1)[pairs.samples]
    explained = decoded.flatten(1)
    variance = (x - x.mean()).square().mean(1)
    signal = variance - pairs.noise
    if signal.mean() <= MIN_SIGNAL * variance.mean():
        return None
    values = _unscaled(patterns)
    spread = patterns.spread[pairs.samples, None]
    residual = torch.zeros(len(x))
    for pixels, partner in pairs.halves:
        neighbour = values[:, pixels][partner] / spread
        residual += (neighbour - explained[:, pixels]).square().mean(1) / 2
    missed = residual - pairs.noise
    missed_share = missed.mean() / signal.mean()
    error = (missed - missed_share * signal).std() / len(x) ** 0.5 / signal.mean()
    own = ((x - explained).square().mean(1) - pairs.noise).mean() / signal.mean()
    return Shares(min(1.0, 1 - float(missed_share)), float(error), 1 - float(own))
