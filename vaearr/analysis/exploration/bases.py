"""Where to begin: the latents that a traversal, plane or path moves away from, and how far each dimension reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr.analysis.exploration.points import classes_of, filled, known_rows, named
from vaearr.errors import DataError, NoInputError, UsageError, did_you_mean
from vaearr.run import Run
from vaearr.run.draw import decoded_array, stored_sample
from vaearr.run.statistics import latent_sums

PROTOTYPE = "prototype:"
STD, ABSOLUTE = "std", "absolute"

Base = str | int | Path | Mapping[str, Any] | Sequence[float] | np.ndarray


@dataclass(frozen=True, eq=False)
class Start:
    """A base. latents `(L[, lz, ly, lx])` float64; std `(L,)`, of the aggregate posterior; name in words."""

    latents: np.ndarray
    std: np.ndarray
    name: str

    @property
    def centre(self) -> np.ndarray:
        """Value of each dimension `(L,)`: of a spatial latent the mean over its positions."""
        return self.latents.reshape(len(self.latents), -1).mean(1)

    def moved(self, dims: Sequence[int], values: np.ndarray) -> np.ndarray:
        """Copies where `dims` have other values: `(k, len(dims)) -> (k, L[, …])`, float32; all else is unchanged.

        A channel of a spatial latent keeps its pattern and is shifted as a whole until its mean is the value.
        """
        z, where = np.repeat(self.latents[None], len(values), axis=0), list(dims)
        pattern = (self.latents.T - self.centre).T[where]  # exactly zero for vectors
        z[:, where] = pattern + values.reshape(*values.shape, *(1,) * (self.latents.ndim - 1))
        return z.astype(np.float32)


def class_means(encoded: Run, codes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and standard deviation `(count, *shape)` float64 of the latents of each class, and its samples `(count,)`.

    codes: of every sample of the grid, below 0 for none. A position that is known in no sample of its class is NaN.
    """
    import pandas as pd

    numbers, rows = known_rows(encoded)
    inside = codes[numbers] >= 0
    own, flat = codes[numbers][inside], rows.reshape(len(rows), -1)[inside].astype("f8")
    groups, shape = pd.DataFrame(flat).groupby(own), (count, *encoded.latent_shape)
    mean, std = (found.reindex(range(count)).to_numpy().reshape(shape) for found in (groups.mean(), groups.std(ddof=0)))
    return mean, std, np.bincount(own, minlength=count)


def start(encoded: Run, opened: Run, base: Base, by: str | None = None) -> Start:
    """What to begin with, see `traverse`. Raises UsageError or NoInputError for a base that is not there."""
    sums = latent_sums(encoded)
    std = np.sqrt(np.maximum(np.diag(sums.covariance), 0) + sums.variance / sums.count)
    if isinstance(base, str):
        z, name = _named(encoded, base, by)
    elif isinstance(base, int | np.integer | Mapping | Path):
        z, name = _of_sample(opened, base)
    else:
        z, name = _of_vector(encoded, base), "given latents"
    return Start(z, std, name)


def _named(encoded: Run, base: str, by: str | None) -> tuple[np.ndarray, str]:
    name = "mean of all samples"
    codes = np.zeros(int(np.prod(encoded.grid)), int)
    if base.startswith(PROTOTYPE):
        classes = classes_of(encoded.ds, by, [base.removeprefix(PROTOTYPE)])
        codes, name = classes.codes, f"mean of {classes.by} {classes.names[0]}"
    elif base != "mean":
        raise UsageError(f"there is no base {base!r}; give 'mean', 'prototype:NAME', a sample or a vector of latents.")
    mean, _, count = class_means(encoded, codes, 1)
    if not count[0]:
        raise NoInputError(f"no encoded sample is there for the {name}; choose another class.")
    return filled(encoded, mean)[0], name


def _of_sample(opened: Run, point: Any) -> tuple[np.ndarray, str]:
    """Posterior mean of a sample of the store, encoded or not, or of a file, and its name."""
    stored = stored_sample(opened, point).reshape(1, *opened.model.input_shape)
    z: np.ndarray = opened.model.encode_batch(torch.from_numpy(stored))[0].cpu().numpy()[0].astype("f8")
    if not np.isfinite(z).all():
        raise DataError("the sample holds values that are not finite; choose another one.")
    if isinstance(point, Mapping):
        return z, "sample at " + ", ".join(f"{dim} {value}" for dim, value in point.items())
    return z, point.name if isinstance(point, Path) else f"sample {point}"


def _of_vector(encoded: Run, base: Any) -> np.ndarray:
    """Given latents; a vector for a spatial latent holds at all positions."""
    z, shape = np.asarray(base, np.float64), encoded.latent_shape
    if z.shape == shape[:1]:
        z = np.broadcast_to(z.reshape(-1, *(1,) * (len(shape) - 1)), shape).copy()
    if z.shape != shape or not np.isfinite(z).all():
        raise UsageError(f"latents of shape {z.shape} were given; they must be {shape} finite numbers.")
    return z


def values_along(begin: Start, dims: Sequence[int], span: tuple[float, float], steps: int, unit: str) -> np.ndarray:
    """Values `(len(dims), steps)` of dimensions over a span: of standard deviations from the base, or as they are."""
    if unit not in (STD, ABSOLUTE):
        raise UsageError(f"there is no unit {unit!r}.{did_you_mean(unit, [STD, ABSOLUTE])}")
    low, high = (float(end) for end in span)
    if steps < 2 or not (np.isfinite([low, high]).all() and low < high):
        raise UsageError(f"span {low:g} to {high:g} in {steps} steps cannot be; give low < high and two steps or more.")
    offsets = np.linspace(low, high, steps)
    if unit == ABSOLUTE:
        return np.tile(offsets, (len(dims), 1))
    where = list(dims)
    return np.asarray(begin.centre[where, None] + offsets * begin.std[where, None])


def decoded(opened: Run, z: np.ndarray, dims: tuple[str, ...], sizes: tuple[int, ...]) -> xr.Dataset:
    """Latents `(k, *latent_shape)` over `dims`, k = the product of sizes, and what they decode to, batch by batch.

    `latents (*dims, latent[, lz, ly, lx])` and `decoded (*dims, [channel,] dy, dx)`, with the run's attributes.
    """
    flat = decoded_array(opened, z, "flat")
    coords = {str(name): coord for name, coord in flat.coords.items() if coord.dims != ("flat",)}
    images = flat.values.reshape(*sizes, *flat.shape[1:])
    vectors = z.reshape(*sizes, *z.shape[1:])
    data = {
        "decoded": ((*dims, *flat.dims[1:]), images, flat.attrs),
        "latents": named((*dims, *n.latent_dims(z.ndim - 1)), vectors, "latents that were decoded"),
    }
    return xr.Dataset(data, {**coords, n.LATENT: np.arange(z.shape[1])}, opened.attrs)
