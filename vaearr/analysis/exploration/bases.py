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
from vaearr.analysis.exploration.points import classes_of
from vaearr.errors import DataError, NoInputError, UsageError, did_you_mean
from vaearr.run import Run
from vaearr.run.draw import decoded_array, find_point
from vaearr.run.statistics import latent_sums
from vaearr.sources.single import read_single
from vaearr.store import read_block

PROTOTYPE = "prototype:"
STD, ABSOLUTE = "std", "absolute"
UNITS = (STD, ABSOLUTE)

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
        z = np.repeat(self.latents[None], len(values), axis=0)
        shifts = values - self.centre[list(dims)]
        z[:, list(dims)] += shifts.reshape(*shifts.shape, *(1,) * (self.latents.ndim - 1))
        if self.latents.ndim == 1:
            z[:, list(dims)] = values  # free of rounding
        return z.astype(np.float32)


def class_means(encoded: Run, codes: np.ndarray | None, count: int) -> tuple[np.ndarray, ...]:
    """Mean and standard deviation `(count, *shape)` float64 of the latents of each class, and its samples `(count,)`.

    codes: of every sample of the grid, None for one class of all. Welford's sums, so that no digits are lost. A
    position that is known in no sample of its class is NaN.
    """
    shape = encoded.latent_shape
    known, n_samples = np.zeros((count, *shape)), np.zeros(count, int)
    mean, square = np.zeros((count, *shape)), np.zeros((count, *shape))
    for numbers, rows in encoded.latent_blocks():
        own = np.zeros(len(numbers), int) if codes is None else codes[numbers]
        for code in np.unique(own[own >= 0]):
            part = rows[own == code].astype("f8")
            finite = np.isfinite(part)
            size = finite.sum(0)
            total = known[code] + size
            safe = np.maximum(total, 1)
            part_mean = np.where(finite, part, 0).sum(0) / np.maximum(size, 1)
            off = np.where(finite, part - part_mean, 0)
            delta = part_mean - mean[code]
            square[code] += (off**2).sum(0) + delta**2 * known[code] * size / safe
            mean[code] += delta * size / safe
            known[code] = total
            n_samples[code] += len(part)
    empty = known == 0
    mean[empty], square[empty] = np.nan, np.nan
    return mean, np.sqrt(square / np.maximum(known, 1)), n_samples


def filled(encoded: Run, mean: np.ndarray) -> np.ndarray:
    """Means `(…, L[, lz, ly, lx])` fit to decode: values known nowhere (a mask) get their channel's mean."""
    if np.isfinite(mean).all():
        return mean
    flat = mean.reshape(-1, encoded.latent_shape[0], int(np.prod(encoded.latent_shape[1:])))
    known = np.isfinite(flat)
    count = known.sum(2, keepdims=True)
    if (count == 0).any():
        raise NoInputError(f"a class of run {encoded.name!r} has no known latents; encode it again.")
    return np.where(known, flat, np.where(known, flat, 0).sum(2, keepdims=True) / count).reshape(mean.shape)


def start(encoded: Run, opened: Run, base: Base, by: str | None = None) -> Start:
    """What to begin with, see `traverse`. Raises UsageError or NoInputError for a base that is not there."""
    sums = latent_sums(encoded)
    std = np.sqrt(np.maximum(np.diag(sums.covariance), 0) + sums.variance / sums.count)
    if isinstance(base, str):
        z, name = _named(encoded, base, by)
    elif isinstance(base, int | np.integer | Mapping | Path):
        z, name = _of_sample(opened, base if isinstance(base, Mapping | Path) else int(base)), _sample_name(base)
    else:
        z, name = _of_vector(encoded, base), "given latents"
    return Start(z, std, name)


def _named(encoded: Run, base: str, by: str | None) -> tuple[np.ndarray, str]:
    if base == "mean":
        return filled(encoded, class_means(encoded, None, 1)[0])[0], "mean of all samples"
    if not base.startswith(PROTOTYPE):
        raise UsageError(f"there is no base {base!r}; give 'mean', 'prototype:NAME', a sample or a vector of latents.")
    classes = classes_of(encoded.ds, by)
    name = base.removeprefix(PROTOTYPE)
    if name not in classes.names:
        raise UsageError(f"{classes.by!r} has no class {name!r}.{did_you_mean(name, classes.names)}")
    codes = np.where(classes.codes == classes.names.index(name), 0, -1)
    mean, _, count = class_means(encoded, codes, 1)
    if not count[0]:
        raise NoInputError(f"no encoded sample has {classes.by} {name!r}; choose another class.")
    return filled(encoded, mean)[0], f"mean of {classes.by} {name}"


def _sample_name(base: Any) -> str:
    if isinstance(base, Mapping):
        return "sample at " + ", ".join(
            f"{dim} {value:g}" if isinstance(value, int | float) else f"{dim} {value}" for dim, value in base.items()
        )
    return base.name if isinstance(base, Path) else f"sample {base}"


def _of_sample(opened: Run, point: int | Path | Mapping[str, Any]) -> np.ndarray:
    """Posterior mean of a sample of the store, encoded or not, or of a file."""
    if isinstance(point, Path):
        stored = read_single(opened.ds, point).values
    else:
        place = find_point(opened.ds, point)
        stored = read_block(opened.ds[n.PATTERNS], {d: slice(i, i + 1) for d, i in place.items()})
    stored = stored.reshape(1, *opened.model.input_shape)
    raw = torch.from_numpy(stored.astype(stored.dtype.newbyteorder("="), copy=False))
    z: np.ndarray = opened.model.encode_batch(raw)[0].cpu().numpy()[0].astype("f8")
    if not np.isfinite(z).all():
        raise DataError("the sample holds values that are not finite; choose another one.")
    return z


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
    if unit not in UNITS:
        raise UsageError(f"there is no unit {unit!r}.{did_you_mean(unit, list(UNITS))}")
    low, high = (float(end) for end in span)
    if steps < 2 or not (np.isfinite([low, high]).all() and low < high):
        raise UsageError(f"span {low:g} to {high:g} in {steps} steps cannot be; give low < high and two steps or more.")
    offsets = np.linspace(low, high, steps)
    if unit == ABSOLUTE:
        return np.tile(offsets, (len(dims), 1))
    where = list(dims)
    return np.asarray(begin.centre[where, None] + offsets * begin.std[where, None])


def decoded_grid(opened: Run, z: np.ndarray, dims: tuple[str, ...], sizes: tuple[int, ...]) -> xr.DataArray:
    """Latents `(k, *latent_shape)` decoded, batch by batch, and laid out over `dims` with k = the product of sizes."""
    flat = decoded_array(opened, z, "flat")
    coords = {str(name): coord for name, coord in flat.coords.items() if coord.dims != ("flat",)}
    values = flat.values.reshape(*sizes, *flat.shape[1:])
    return xr.DataArray(values, dims=(*dims, *flat.dims[1:]), coords=coords, name="decoded", attrs=flat.attrs)
