"""The encoded samples of a run: their latents, and which of them is typical."""

from __future__ import annotations

import numpy as np

from vaearr.errors import NoInputError
from vaearr.run import Run
from vaearr.store import read_block

MAX_SAMPLES = 10_000  # that distances are measured to
NEIGHBOURS = 5  # whose distance tells whether samples lie close together


def known_rows(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Numbers `(k,)` in row-major order of the grid, and latents `(k, *shape)` of all encoded
    samples.

    A sample is encoded where all its latents, of a spatial one at any position, are finite.

    Raises NoInputError where none is encoded.
    """
    latents = read_block(run.latents, {}).reshape(-1, *run.latent_shape)
    is_known = np.isfinite(latents).all(1).reshape(len(latents), -1).any(1)
    numbers = np.flatnonzero(is_known)
    if not len(numbers):
        raise NoInputError(
            f"run {run.name!r} of {run.path} has no point with known latents; encode it again."
        )
    return numbers, latents[numbers]


def filled(run: Run, latents: np.ndarray) -> np.ndarray:
    """Latents `(k, *shape)` that can be decoded: positions left out by a mask get their channel's
    mean.
    """
    flat = latents.reshape(-1, run.latent_shape[0], int(np.prod(run.latent_shape[1:])))
    is_known = np.isfinite(flat)
    if not is_known.any(2).all():
        raise NoInputError(f"a class of run {run.name!r} has no known latents; encode it again.")
    return np.where(is_known, flat, np.nanmean(flat, axis=2, keepdims=True)).reshape(latents.shape)


def typical_index(latents: np.ndarray, mean: np.ndarray) -> int:
    """Find the sample that stands for others `(k, *shape)` with this mean.

    Of the half of the samples that have the closest neighbours, it is the one nearest the mean.
    Of all samples it would be a poor one: no crystal lies at the mean of several, patterns without
    contrast do.
    """
    from sklearn.neighbors import NearestNeighbors

    candidates = evenly_chosen(len(latents), MAX_SAMPLES)
    rows = latents[candidates].reshape(len(candidates), -1)
    neighbours = min(NEIGHBOURS, len(rows) - 1)
    if neighbours:
        distances, _ = NearestNeighbors().fit(rows).kneighbors(n_neighbors=neighbours)
        is_close = distances[:, -1] <= np.median(distances[:, -1])
        candidates, rows = candidates[is_close], rows[is_close]
    offsets = rows - mean.reshape(1, -1)
    return int(candidates[(offsets**2).sum(1).argmin()])


def evenly_chosen(count: int, most: int) -> np.ndarray:
    """At most `most` of the numbers below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))
