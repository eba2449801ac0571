"""The posteriors of a run as rows, whether their standard deviations are known or not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vaearr import names as n
from vaearr import schema
from vaearr.exploration.points import Encoded
from vaearr.run.statistics import Sums, latent_sums
from vaearr.store import read_ahead, read_block, store_blocks


def posteriors(encoded: Encoded) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Means and standard deviations of the known posteriors, shard by shard, `(k, L)` float64 each.

    Each position of a spatial latent is a row. Latents that came without standard deviations have 0.
    """
    nav = schema.navigation_dims(encoded.ds)
    latent = encoded.variable.dims[encoded.grid_ndim]
    positions = encoded.variable.dims[encoded.grid_ndim + 1 :]
    names = [n.run_name(name, encoded.run) for name in (n.LATENTS, n.LATENTS_STD)]
    variables = [encoded.ds[name].transpose(*nav, *positions, latent) for name in names if name in encoded.ds]
    for arrays in read_ahead(lambda region: [read_block(v, region) for v in variables], store_blocks(encoded.path)):
        mean = arrays[0].reshape(-1, arrays[0].shape[-1]).astype("f8")
        std = arrays[1].reshape(mean.shape).astype("f8") if len(arrays) > 1 else np.zeros_like(mean)
        known = np.isfinite(mean).all(1)
        if known.any():
            yield mean[known], std[known]


def has_posterior(encoded: Encoded) -> bool:
    """Whether standard deviations were written beside the latents."""
    return n.run_name(n.LATENTS_STD, encoded.run) in encoded.ds


def sums_of(encoded: Encoded) -> Sums:
    """Sums over the posteriors; latents without standard deviations are taken as points."""
    if has_posterior(encoded):
        return latent_sums(encoded.path, encoded.run)
    sums = Sums()
    for mean, std in posteriors(encoded):
        sums.add(mean, std)
    sums.n_samples = sum(len(numbers) for numbers, _ in encoded.blocks())
    return sums


def correlations(covariance: np.ndarray) -> np.ndarray:
    """Correlations of covariances, NaN of a dimension without variance."""
    scale = np.sqrt(np.maximum(np.diag(covariance), 0))
    product = np.outer(scale, scale)
    found = np.divide(covariance, product, out=np.full_like(covariance, np.nan), where=product > 0)
    return np.asarray(np.clip(found, -1, 1))
