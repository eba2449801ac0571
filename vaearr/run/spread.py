"""Distributions of the encoded samples along latent dimensions and in planes, by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr.errors import NoInputError, UsageError
from vaearr.run import Run
from vaearr.run.points import POINT, latent_points, subset
from vaearr.schema.classes import CLASS

N_PAIRED = 6  # dimensions of a pair plot by default
MIN_BINS, MAX_BINS = 5, 50


def histograms(
    run: Run,
    by: str | None,
    classes: Sequence[str] | None,
    dims: int | Sequence[int] | None,
    bins: int | None,
) -> xr.Dataset:
    """Count samples along each latent dimension, see `Run.histograms`."""
    points = latent_points(run, by, classes, dims)
    vectors = points["vectors"].values
    n_bins = bins or int(np.clip(round(2 * len(vectors) ** 0.5), MIN_BINS, MAX_BINS))
    edges = [np.histogram_bin_edges(column, n_bins) for column in vectors.T]
    result = xr.Dataset({"edges": ((n.LATENT, "edge"), edges)}, {n.LATENT: points[n.LATENT]})
    result.attrs = points.attrs
    if CLASS not in points.coords:
        return result.assign(counts=n.named((n.LATENT, "bin"), _counts(vectors, edges), "samples"))
    names = points[CLASS].attrs["flag_meanings"][1:]
    codes = points[CLASS].values
    counts = [_counts(vectors[codes == code], edges) for code in range(len(names))]
    result[CLASS] = CLASS, names, {"long_name": points.attrs["by"]}
    return result.assign(counts=n.named((CLASS, n.LATENT, "bin"), counts, "samples"))


def _counts(vectors: np.ndarray, edges: Sequence[np.ndarray]) -> np.ndarray:
    """Samples in each bin of each dimension, `(latent, bin)`."""
    counts = []
    for column, column_edges in zip(vectors.T, edges, strict=True):
        counts.append(np.histogram(column, column_edges)[0])
    return np.stack(counts)


def pairs(
    run: Run, by: str | None, dims: Sequence[int] | None, max_points: int, seed: int
) -> xr.Dataset:
    """Collect samples and correlations for a pair plot, see `Run.pairs`."""
    points = latent_points(run, by, dims=dims)
    if dims is None:
        by_variance = np.argsort(-points["vectors"].values.var(0), kind="stable")
        points = points.isel({n.LATENT: np.sort(by_variance[:N_PAIRED])})
    if points.sizes[n.LATENT] < 2:
        raise UsageError("pairs need two dimensions or more.")
    result = subset(points, max_points, seed)
    result["other"] = points[n.LATENT].values
    matrix = pd.DataFrame(points["vectors"].values).corr()
    result["correlation"] = n.named((n.LATENT, "other"), matrix, "correlation")
    return result.assign_attrs(seed=seed)


def activations(
    run: Run,
    by: str | None,
    classes: Sequence[str] | None,
    dims: int | Sequence[int] | None,
    max_points: int,
    seed: int,
) -> xr.Dataset:
    """Sort the latents of samples by class, see `Run.activations`."""
    points = latent_points(run, by, classes, dims).rename(vectors="activation")
    if CLASS not in points.coords:
        return subset(points, max_points, seed).assign_attrs(seed=seed)
    points = points.isel({POINT: np.flatnonzero(points[CLASS] >= 0)})
    if not points.sizes[POINT]:
        raise NoInputError(
            f"no encoded sample has a class by {points.attrs['by']!r}; choose another map."
        )
    codes = points[CLASS].values
    groups = pd.DataFrame(points["activation"].values).groupby(codes)
    names = [points[CLASS].attrs["flag_meanings"][code + 1] for code in np.unique(codes)]
    result = subset(points, max_points, seed).sortby(CLASS).rename({CLASS: "class_of_point"})
    result[CLASS] = CLASS, names, {"long_name": points.attrs["by"]}
    result["class_mean"] = n.named((CLASS, n.LATENT), groups.mean(), "mean")
    result["n"] = n.named(CLASS, groups.size(), "samples")
    return result.assign_attrs(n=points.sizes[POINT], seed=seed, classes=names)
