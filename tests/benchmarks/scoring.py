"""The measures of `test_quality.py`, the same for every method: features `(point, dim)`, patterns
`(point, …)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from vaearr import schema
from vaearr.config import PreprocessConfig
from vaearr.models.preprocess import Preprocess, binned_patterns, decide_preprocess

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

SEEDS = (0, 1, 2)
ACTIVE_VARIANCE = 0.01  # as in vaearr.models.quality
BLOCK = 8  # side of a spatial block in scan points
GRAIN_POINTS, GRAIN_SPREAD = 40, 0.15  # of grains that are looked into: inner points, degrees


def preprocessed(
    ds: xr.Dataset, config: PreprocessConfig | None = None, background: Floats | None = None
) -> Floats:
    """Patterns as the network sees them, `(sample, values)`; background: by default their mean."""
    config = decide_preprocess(config or PreprocessConfig(), ds.patterns)
    values = binned_patterns(ds.patterns, config).values
    shape = (schema.input_shape(ds)[0], *values.shape[-len(schema.input_shape(ds)[1:]) :])
    stored = torch.from_numpy(values.reshape(-1, *shape))
    still = (
        stored.double().mean(0)
        if background is None
        else torch.from_numpy(background).reshape(shape)
    )
    preprocess = Preprocess(config, schema.input_shape(ds))
    preprocess.background.copy_(still.float())
    return preprocess(stored).flatten(1).numpy()


def grain_score(
    features: Floats, grains: Integers, interior: NDArray[np.bool_]
) -> tuple[float, float]:
    """Adjusted Rand index of k-means (true k, n_init 5, mean of 3 seeds) over all points and over
    grain interiors.
    """
    k = len(np.unique(grains))
    labels = [KMeans(k, n_init=5, random_state=seed).fit_predict(features) for seed in SEEDS]
    everywhere = np.mean([adjusted_rand_score(grains, found) for found in labels])
    inside = np.mean([adjusted_rand_score(grains[interior], found[interior]) for found in labels])
    return float(everywhere), float(inside)


def rotation_score(
    features: Floats, rotations: Rotation, grains: Integers, interior: NDArray[np.bool_]
) -> float:
    """Share of the rotation inside grains that the features explain, all grains together.

    For each grain of 40 inner points and 0.15 degrees of spread: the rotation vector from its mean
    orientation, by ridge regression on ten principal components of the grain's features, five folds
    of points; 1 - residual / total sum of squares.
    """
    residual = total = 0.0
    for grain in np.unique(grains):
        mine = (grains == grain) & interior
        if mine.sum() < GRAIN_POINTS:
            continue
        vectors = np.degrees((rotations[mine] * rotations[mine].mean().inv()).as_rotvec())
        if np.sqrt((vectors**2).sum(1).mean()) < GRAIN_SPREAD:
            continue
        few = PCA(min(10, features.shape[1])).fit_transform(features[mine])
        few /= few.std(0).max()
        found = cross_val_predict(
            RidgeCV(np.logspace(-3, 3, 13)), few, vectors, cv=KFold(5, shuffle=True, random_state=0)
        )
        residual += ((vectors - found) ** 2).sum()
        total += ((vectors - vectors.mean(0)) ** 2).sum()
    return float(1 - residual / total) if total else float("nan")


def phase_score(features: Floats, phase: Integers, groups: Integers) -> float:
    """Accuracy of 5 nearest neighbours, five folds that never part a group; chance is the largest
    phase's share.
    """
    folds = GroupKFold(5)
    found = cross_val_predict(KNeighborsClassifier(5), features, phase, groups=groups, cv=folds)
    return float(np.mean(found == phase))


def blocks(shape: tuple[int, int]) -> Integers:
    """Number of the spatial block of each point of a scan, `(y * x,)`."""
    y, x = np.indices(shape) // BLOCK
    return (y * (shape[1] // BLOCK + 1) + x).ravel()


def best_correlation(features: Floats, values: Floats) -> float:
    """Largest |Pearson r| of a single dimension with `values`; a constant dimension has none."""
    spread = features.std(axis=0)
    varies = features[:, spread > 1e-12 * max(float(np.abs(features).max()), 1e-300)].astype(
        np.float64
    )
    if varies.shape[1] == 0:
        return 0.0
    return float(np.abs(np.corrcoef(varies.T, values)[-1, :-1]).max())


def zscored(patterns: Floats) -> NDArray[np.float32]:
    """Each pattern `(point, …)` with mean 0 and standard deviation 1 over its pixels; a constant
    one becomes zeros.
    """
    flat = patterns.reshape(len(patterns), -1).astype(np.float32)
    flat = flat - flat.mean(axis=1, keepdims=True)
    spread = flat.std(axis=1, keepdims=True)
    return np.where(spread > 1e-6, flat / np.maximum(spread, 1e-6), 0.0).astype(np.float32)


def psnr(reconstruction: Floats, reference: Floats) -> float:
    """Mean over patterns of 10 log10(range^2 / MSE) in dB, up is better; both z-scored, the range
    the reference's.

    Z-scored on both sides it judges the shape only: a reconstruction that is too faint does not pay
    for it, and the MSE is 2 (1 - r), with r their correlation. About 15 dB, for Kikuchi patterns,
    is a reconstruction that knows nothing.
    """
    found, true = zscored(reconstruction), zscored(reference)
    error = np.square(found - true, dtype=np.float32).mean(axis=1)
    return float(np.mean(10 * np.log10(np.ptp(true, axis=1) ** 2 / np.maximum(error, 1e-12))))


def n_active(features: Floats) -> int:
    """Dimensions whose posterior mean varies over the data by more than 0.01."""
    return int((features.var(axis=0) > ACTIVE_VARIANCE).sum())


def kl_nats(mean: Floats, std: Floats) -> float:
    """KL(N(mean, std^2) || N(0, 1)), summed over dimensions, averaged over points, in nats."""
    variance = np.square(std.astype(np.float64))
    return float(0.5 * (np.square(mean) + variance - 1 - np.log(variance)).sum(axis=1).mean())
