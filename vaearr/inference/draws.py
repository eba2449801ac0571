"""Latents drawn from the prior or a fitted distribution, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from vaearr import names as n
from vaearr.errors import UsageError, did_you_mean
from vaearr.inference.statistics import latent_statistics, latent_sums
from vaearr.run import Run

SOURCES = ("fitted", "prior")


def check_draws(opened: Run, n_samples: int, source: str) -> None:
    """Raise UsageError for draws that cannot be made."""
    if n_samples < 1:
        raise UsageError(f"n_samples is {n_samples}; it must be at least 1.")
    if source not in SOURCES:
        raise UsageError(f"there is no source {source!r}.{did_you_mean(source, list(SOURCES))}")
    if source == "prior" and opened.model.network.is_deterministic:
        raise UsageError(
            f"run {opened.name!r} is an autoencoder, which has no prior; draw from the fitted distribution of its "
            "latents with source='fitted' (--source fitted)."
        )


def draw_latents(opened: Run, n_samples: int, seed: int, source: str, batch_size: int) -> Iterator[torch.Tensor]:
    """Batches of draws `(k, *latent_shape)`, float32: those of `sample_prior` with the same seed, one after another.

    Raises UsageError for draws that cannot be made, NoInputError for a fitted distribution of a run not encoded.
    """
    check_draws(opened, n_samples, source)
    rng, shape, size = np.random.default_rng(seed), opened.model.latent_shape, opened.model.fitting(batch_size)
    mean, root = np.zeros(shape[0]), np.eye(shape[0])
    if source == "fitted":
        sums = latent_sums(opened.path, opened.name)
        values, vectors = np.linalg.eigh(sums.covariance + np.diag(sums.variance / sums.count))
        mean, root = sums.mean, vectors * np.sqrt(np.maximum(values, 0))
    for start in range(0, n_samples, size):
        draws = rng.standard_normal((min(size, n_samples - start), *shape))
        if source == "fitted":
            draws = np.moveaxis(mean + np.moveaxis(draws, 1, -1) @ root.T, -1, 1)
        yield torch.from_numpy(draws.astype(np.float32))


def draw_warnings(opened: Run, source: str) -> list[str]:
    """Why draws from the prior of an encoded run would not look like its data."""
    if source != "prior" or n.run_name(n.LATENTS, opened.name) not in opened.ds:
        return []
    found: list[str] = latent_statistics(opened.path, opened.name).attrs["warnings"]
    return found
