"""How the samples spread along single latent dimensions, and over pairs of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.analysis.exploration.points import (
    POINT,
    all_vectors,
    class_coords,
    classes_of,
    dimensions,
    kept_classes,
    open_encoded,
    point_coords,
    some,
)
from vaearr.errors import NoInputError, UsageError
from vaearr.run.statistics import correlations

BIN, EDGE, CLASS, PAIR = "bin", "edge", "class", "pair"
MOST_DIMS = 6  # of a pair plot, unless asked for
LEAST_BINS, MOST_BINS = 5, 50
SHOWN = 2000  # samples that come with a pair plot


def histograms(
    store: str | Path,
    run: str = n.DEFAULT_RUN,
    by: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    dims: int | list[int] | None = None,
    bins: int | None = None,
) -> xr.Dataset:
    """Histogram of each latent dimension, by class where `by` names a map: `counts ([class,] latent, bin)`.

    `edges (latent, edge)`: `bins` equal bins (None: twice the root of the number of samples, 5 to 50) from the least to
    the largest value; of a constant dimension half a unit to either side. With `by`, samples without a class are
    counted in `unclassified (latent, bin)`. classes: only these of `by` (None: of label, phase or clusters); all other
    samples are left out. Of a spatial latent a sample's value is the mean over its positions. Raises NoInputError for a
    run not encoded, a map that is not there or classes without samples, UsageError for a class, dimension or number of
    bins that cannot be.
    """
    encoded = open_encoded(store, run)
    chosen = dimensions(dims, encoded.latent_shape[0])
    _check_bins(bins)
    numbers, values = all_vectors(encoded)
    values, found = values[:, chosen], None
    if classes is not None:
        found = kept_classes(encoded.ds, by, classes)
        kept = found.codes[numbers] >= 0
        if not kept.any():
            raise NoInputError(f"no encoded sample has one of the classes {', '.join(classes)}; choose others.")
        numbers, values = numbers[kept], values[kept]
    elif by is not None:
        found = classes_of(encoded.ds, by)
    bins = bins or _bins_for(len(values))
    edges, place = _binned(values, bins)
    coords: dict[str, Any] = {n.LATENT: (n.LATENT, chosen, dict(n.ATTRS[n.LATENT]))}
    words = {"long_name": "samples", "units": "1"}
    if found is None:
        data: dict[str, Any] = {"counts": ((n.LATENT, BIN), _counts(place, bins), words)}
    else:
        codes = found.codes[numbers]
        parts = [_counts(place[codes == code], bins) for code in range(len(found.names))]
        counts = np.stack(parts) if parts else np.zeros((0, len(chosen), bins), int)
        data = {
            "counts": ((CLASS, n.LATENT, BIN), counts, words),
            "unclassified": ((n.LATENT, BIN), _counts(place[codes < 0], bins), words),
        }
        coords[CLASS] = (CLASS, np.asarray(found.names, dtype=str), {"long_name": found.by})
    data["edges"] = ((n.LATENT, EDGE), edges, {"long_name": "edges of the bins", "units": "1"})
    return xr.Dataset(data, coords=coords, attrs={**encoded.attrs, "n": len(values), "by": found and found.by})


def pairs(
    store: str | Path,
    run: str = n.DEFAULT_RUN,
    dims: list[int] | tuple[int, ...] | None = None,
    *,
    bins: int | None = None,
    by: str | None = None,
    max_points: int = SHOWN,
    seed: int = 0,
) -> xr.Dataset:
    """What a pair plot shows: densities of every two dimensions, histograms of each, correlations, some samples.

    dims: two dimensions or more; None for the six of largest variance. `density (pair, bin_y, bin_x)`, samples per unit
    area as a share of all, so that it integrates to 1; coordinates `x_dim`, `y_dim` of each pair; `counts (latent,
    bin)` and `edges (latent, edge)`, shared by the densities; `correlation (latent, other)`, Pearson, NaN of a
    constant dimension; `vectors (point, latent)`, of at most `max_points` samples by the seed, with their coordinates
    and, with `by`, their `class_of_point`, beside `class_counts (class, latent, bin)` of all samples that have one.
    Raises UsageError for fewer than two dimensions, and as `histograms`.
    """
    encoded = open_encoded(store, run)
    _check_bins(bins)
    if max_points < 1:
        raise UsageError(f"max_points is {max_points}; it must be at least 1.")
    numbers, values = all_vectors(encoded)
    if dims is None:
        most = np.argsort(-values.var(0), kind="stable")[:MOST_DIMS]
        dims = sorted(map(int, most))
    chosen = dimensions(list(dims), encoded.latent_shape[0])
    if len(chosen) < 2:
        raise UsageError(f"pairs need two dimensions or more, {len(chosen)} is there: {chosen}.")
    values = values[:, chosen]
    bins = bins or _bins_for(len(values))
    edges, place = _binned(values, bins)
    both = list(combinations(range(len(chosen)), 2))
    density, off = _densities(edges, place, both), values - values.mean(0)
    picked = some(len(numbers), max_points, seed)
    coords = point_coords(encoded, numbers[picked])
    by_class: dict[str, Any] = {}
    if by is not None:
        classes = classes_of(encoded.ds, by)
        codes = classes.codes[numbers]
        there = np.unique(codes[codes >= 0])
        parts = [_counts(place[codes == code], bins) for code in there]
        if parts:
            words = {"long_name": "samples of each class", "units": "1"}
            by_class["class_counts"] = ((CLASS, n.LATENT, BIN), np.stack(parts), words)
            coords[CLASS] = (CLASS, [classes.names[code] for code in there], {"long_name": by})
        coords["class_of_point"] = class_coords(classes, numbers[picked])["class"]
    return xr.Dataset(
        {
            **by_class,
            "density": (
                (PAIR, "bin_y", "bin_x"),
                density,
                {"long_name": "share of samples per area", "units": "1"},
            ),
            "counts": ((n.LATENT, BIN), _counts(place, bins), {"long_name": "samples", "units": "1"}),
            "edges": ((n.LATENT, EDGE), edges, {"long_name": "edges of the bins", "units": "1"}),
            "correlation": ((n.LATENT, "other"), correlations(off.T @ off), {"long_name": "correlation", "units": "1"}),
            "vectors": ((POINT, n.LATENT), values[picked], {"long_name": "latents of some samples", "units": "1"}),
        },
        coords={
            n.LATENT: (n.LATENT, chosen, dict(n.ATTRS[n.LATENT])),
            "other": chosen,
            "x_dim": (PAIR, [chosen[i] for i, _ in both]),
            "y_dim": (PAIR, [chosen[j] for _, j in both]),
            **coords,
        },
        attrs={**encoded.attrs, "n": len(values), "by": by, "seed": seed},
    )


def _densities(edges: np.ndarray, place: np.ndarray, both: list[tuple[int, int]]) -> np.ndarray:
    """Share of the samples per area `(pair, bin_y, bin_x)`, by the bins `(k, L)` of each sample."""
    count, bins = len(place), edges.shape[1] - 1
    width = np.diff(edges, axis=1)[:, 0]
    return np.stack(
        [
            np.bincount(place[:, j] * bins + place[:, i], minlength=bins * bins).reshape(bins, bins)
            / (count * width[i] * width[j])
            for i, j in both
        ]
    )


def _check_bins(bins: int | None) -> None:
    if bins is not None and bins < 1:
        raise UsageError(f"bins is {bins}; it must be at least 1.")


def _bins_for(count: int) -> int:
    """Bins of a dimension for so many samples: twice the root, 5 to 50."""
    return int(np.clip(round(2 * count**0.5), LEAST_BINS, MOST_BINS))


def _binned(values: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges `(L, bins + 1)` of equal bins over each column, and the bin of each value `(k, L)`."""
    low, high = values.min(0), values.max(0)
    flat = ~(high > low)
    low, high = np.where(flat, low - 0.5, low), np.where(flat, high + 0.5, high)
    edges = np.linspace(low, high, bins + 1, axis=1)
    place = np.stack([np.searchsorted(e, v, side="right") - 1 for e, v in zip(edges, values.T, strict=True)], axis=1)
    return edges, np.clip(place, 0, bins - 1)


def _counts(place: np.ndarray, bins: int) -> np.ndarray:
    """Values in each bin, `(k, L) -> (L, bins)`."""
    return np.stack([np.bincount(column, minlength=bins) for column in place.T])
