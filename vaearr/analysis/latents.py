"""Arrays of latents: typical samples, even choices of samples, shifted copies, structure, distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_SAMPLES = 10_000  # samples between which distances are computed
N_NEIGHBOURS = 5
MAX_REFERENCES = 5000  # samples from which the distance of other latents is measured
MAX_REFERENCE_VALUES = 2**25  # their latents, together
FAR_QUANTILE = 0.99


def typical_index(latents: np.ndarray, mean: np.ndarray) -> int:
    """Find the sample that represents samples `(k, …)` with this mean.

    It is the sample nearest the mean, among the half of the samples with the closest neighbours.
    The mean of several orientations lies where no sample does; the sample nearest to it overall is
    often a pattern without contrast.
    """
    from sklearn.neighbors import NearestNeighbors

    candidates = evenly_spaced(len(latents), MAX_SAMPLES)
    vectors = latents[candidates].reshape(len(candidates), -1)
    n_neighbours = min(N_NEIGHBOURS, len(vectors) - 1)
    if n_neighbours:
        distances, _ = NearestNeighbors().fit(vectors).kneighbors(n_neighbors=n_neighbours)
        farthest = distances[:, -1]
        is_close = farthest <= np.median(farthest)
        candidates = candidates[is_close]
        vectors = vectors[is_close]
    squares = (vectors - mean.reshape(1, -1)) ** 2
    nearest = squares.sum(1).argmin()
    return int(candidates[nearest])


def distances_to_data(
    latents: np.ndarray, samples: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, float]:
    """Distances `(k,)` of latents `(k, L[, …])` from the nearest sample, and the limit of far ones.

    The distances are Euclidean, with each dimension divided by its `scale` `(L,)`, and in units of
    the typical distance of samples: the median distance from a sample to its nearest neighbour.
    Of that distance 99 % of the samples stay below the limit. Of many samples, evenly spaced ones
    are used. NaN without two different samples.
    """
    from sklearn.neighbors import NearestNeighbors

    unit = _units(scale, samples.ndim)
    vectors = (references_of(samples) / unit).reshape(-1, samples[0].size)
    points = (latents / unit).reshape(len(latents), -1)
    unknown = np.full(len(points), np.nan), np.nan
    if len(vectors) < 2:
        return unknown
    neighbours = NearestNeighbors(n_neighbors=1).fit(vectors)
    between_samples = neighbours.kneighbors()[0][:, 0]
    is_different = between_samples > 0
    if not is_different.any():
        return unknown
    typical = np.median(between_samples[is_different])
    distances = neighbours.kneighbors(points)[0][:, 0]
    return distances / typical, float(np.quantile(between_samples, FAR_QUANTILE) / typical)


def references_of(samples: np.ndarray) -> np.ndarray:
    """Evenly spaced samples, so few that their distances are computed at once."""
    n_references = min(MAX_REFERENCES, max(2, MAX_REFERENCE_VALUES // samples[0].size))
    return samples[evenly_spaced(len(samples), n_references)]


def _units(scale: np.ndarray, ndim: int) -> np.ndarray:
    """Scale `(L,)` of latents of `ndim` dims, to divide them by; 1 for a dimension without."""
    return np.where(scale > 0, scale, 1.0).reshape(-1, *[1] * (ndim - 2))


def samples_along(
    base: np.ndarray, samples: np.ndarray, scale: np.ndarray, dim: int, values: np.ndarray
) -> np.ndarray:
    """For each value `(n,)` of a dimension, the sample of `(k, L[, …])` most similar to the base.

    The values are as many between the same ends, within the range of the samples. Of the samples
    for which a value is the closest one, it is the nearest in the other dimensions, each divided by
    its `scale` `(L,)`. For a value without such samples, it is that with the closest value.
    """
    sample_values = samples.reshape(*samples.shape[:2], -1).mean(2)[:, dim]
    first, last = np.clip(values[[0, -1]], sample_values.min(), sample_values.max()).tolist()
    differences = abs(sample_values[:, None] - np.linspace(first, last, len(values)))
    step_of_sample = differences.argmin(1)
    squares = ((samples - base) / _units(scale, samples.ndim)) ** 2
    squares[:, dim] = 0
    distances = squares.reshape(len(samples), -1).sum(1)
    chosen = differences.argmin(0)
    for step in np.unique(step_of_sample):
        members = np.flatnonzero(step_of_sample == step)
        chosen[step] = members[distances[members].argmin()]
    return samples[chosen]


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """At most `most` of the numbers below `count`, evenly spaced."""
    numbers = np.linspace(0, count - 1, min(count, most))
    return np.unique(numbers.astype(int))


def shifted(latents: np.ndarray, dims: Sequence[int], values: np.ndarray) -> np.ndarray:
    """Copies `(k, L[, …])` float32 of latents `(L[, …])` with values `(k, len(dims))` of `dims`.

    A channel of a spatial latent is shifted as a whole until its mean is the value.
    """
    selected = list(dims)
    shift = values - channel_means(latents)[selected]
    position_axes = tuple(range(2, 1 + latents.ndim))
    copies = np.repeat(latents[None].astype("f8"), len(values), axis=0)
    copies[:, selected] += np.expand_dims(shift, position_axes)
    return copies.astype(np.float32)


def channel_means(latents: np.ndarray) -> np.ndarray:
    """Value `(L,)` of each dimension of latents `(L[, …])`: the mean over its positions."""
    means: np.ndarray = latents.reshape(len(latents), -1).mean(1)
    return means


def spatial_structure(maps: np.ndarray) -> np.ndarray:
    """How much the maps `(*grid, L)` of latents show, `(L,)` between 0 and 1; NaN is left out.

    It is the product of the autocorrelation at a distance of one point, 1 - C of Geary, "The
    contiguity ratio", 1954, and of the interquartile range as a share of the range of 98 % of the
    values. The latter is small where all but a few points have the same value.
    """
    vectors = maps.reshape(-1, maps.shape[-1])
    low, first, third, high = np.nanpercentile(
        vectors[evenly_spaced(len(vectors), MAX_SAMPLES)], (1, 25, 75, 99), axis=0
    )
    contrast = (third - first) / np.maximum(high - low, np.finfo("f4").tiny)
    total = np.zeros(maps.shape[-1])
    n_pairs = np.zeros(maps.shape[-1])
    for axis in range(maps.ndim - 1):
        squares = (np.diff(maps, axis=axis) ** 2).reshape(-1, maps.shape[-1])
        total += np.nansum(squares, axis=0)
        n_pairs += np.isfinite(squares).sum(0)
    variance = np.maximum(np.nanvar(vectors, axis=0), np.finfo("f4").tiny)
    contiguity = total / np.maximum(n_pairs, 1) / (2 * variance)
    return np.asarray(np.clip(1 - contiguity, 0, 1) * contrast)
