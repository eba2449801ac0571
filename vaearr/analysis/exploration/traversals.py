"""What classes, single latent dimensions and planes of two decode to: latents moved away from a base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr.analysis.exploration.points import CLASS, classes_of, dimensions, filled, known_rows, named, open_encoded
from vaearr.errors import DataError, NoInputError, UsageError, did_you_mean
from vaearr.run import Run, StoreOrRun
from vaearr.run.draw import decoded_array, stored_sample
from vaearr.run.statistics import latent_sums

PROTOTYPE = "prototype:"
STD, ABSOLUTE = "std", "absolute"
LATENT_DIM, STEP = "latent_dim", "step"
ROW, COLUMN = "row", "column"

Base = str | int | Path | Mapping[str, Any] | Sequence[float] | np.ndarray
Span = tuple[float, float]


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

    def values(self, dims: Sequence[int], span: Span, steps: int, unit: str) -> np.ndarray:
        """Values `(len(dims), steps)` over a span: of standard deviations from the base, or as they are."""
        if unit not in (STD, ABSOLUTE):
            raise UsageError(f"there is no unit {unit!r}.{did_you_mean(unit, [STD, ABSOLUTE])}")
        low, high = (float(end) for end in span)
        if steps < 2 or not (np.isfinite([low, high]).all() and low < high):
            raise UsageError(
                f"span {low:g} to {high:g} in {steps} steps cannot be; give low < high and two steps or more."
            )
        offsets, where = np.linspace(low, high, steps), list(dims)
        if unit == ABSOLUTE:
            return np.tile(offsets, (len(where), 1))
        return np.asarray(self.centre[where, None] + offsets * self.std[where, None])


def start(run: Run, base: Base, by: str | None = None) -> Start:
    """What to begin with, see `traverse`. Raises UsageError or NoInputError for a base that is not there."""
    sums = latent_sums(run)
    std = np.sqrt(np.maximum(np.diag(sums.covariance), 0) + sums.variance / sums.count)
    if isinstance(base, str):
        return _of_word(run, base, by, std)
    if isinstance(base, int | np.integer | Mapping | Path):
        return _of_sample(run, base, std)
    z, shape = np.asarray(base, np.float64), run.latent_shape
    if z.shape == shape[:1]:  # a vector for a spatial latent holds at all positions
        z = np.broadcast_to(z.reshape(-1, *(1,) * (len(shape) - 1)), shape).copy()
    if z.shape != shape or not np.isfinite(z).all():
        raise UsageError(f"latents of shape {z.shape} were given; they must be {shape} finite numbers.")
    return Start(z, std, "given latents")


def _of_word(run: Run, base: str, by: str | None, std: np.ndarray) -> Start:
    name, codes = "mean of all samples", np.zeros(int(np.prod(run.grid)), int)
    if base.startswith(PROTOTYPE):
        classes = classes_of(run.ds, by, [base.removeprefix(PROTOTYPE)])
        codes, name = classes.codes, f"mean of {classes.by} {classes.names[0]}"
    elif base != "mean":
        raise UsageError(f"there is no base {base!r}; give 'mean', 'prototype:NAME', a sample or a vector of latents.")
    mean, _, count = class_means(run, codes, 1)
    if not count[0]:
        raise NoInputError(f"no encoded sample is there for the {name}; choose another class.")
    return Start(filled(run, mean)[0], std, name)


def _of_sample(run: Run, point: Any, std: np.ndarray) -> Start:
    """Posterior mean of a sample of the store, encoded or not, or of a file."""
    stored = stored_sample(run, point).reshape(1, *run.model.input_shape)
    z: np.ndarray = run.model.encode_batch(torch.from_numpy(stored))[0].cpu().numpy()[0].astype("f8")
    if not np.isfinite(z).all():
        raise DataError("the sample holds values that are not finite; choose another one.")
    if isinstance(point, Mapping):
        return Start(z, std, "sample at " + ", ".join(f"{dim} {value}" for dim, value in point.items()))
    return Start(z, std, point.name if isinstance(point, Path) else f"sample {point}")


def class_means(run: Run, codes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and standard deviation `(count, *shape)` float64 of the latents of each class, and its samples `(count,)`.

    codes: of every sample of the grid, below 0 for none. A position that is known in no sample of its class is NaN.
    """
    import pandas as pd

    numbers, rows = known_rows(run)
    inside = codes[numbers] >= 0
    own, flat = codes[numbers][inside], rows.reshape(len(rows), -1)[inside].astype("f8")
    groups, shape = pd.DataFrame(flat).groupby(own), (count, *run.latent_shape)
    mean, std = (found.reindex(range(count)).to_numpy().reshape(shape) for found in (groups.mean(), groups.std(ddof=0)))
    return mean, std, np.bincount(own, minlength=count)


def decoded(run: Run, z: np.ndarray, dims: tuple[str, ...], sizes: tuple[int, ...]) -> xr.Dataset:
    """Latents `(k, *latent_shape)` over `dims`, k = the product of sizes, and what they decode to, batch by batch.

    `latents (*dims, latent[, lz, ly, lx])` and `decoded (*dims, [channel,] dy, dx)`, with the run's attributes.
    """
    flat = decoded_array(run, z, "flat")
    images, vectors = flat.values.reshape(*sizes, *flat.shape[1:]), z.reshape(*sizes, *z.shape[1:])
    data = {
        "decoded": ((*dims, *flat.dims[1:]), images, flat.attrs),
        "latents": named((*dims, *n.latent_dims(z.ndim - 1)), vectors, "latents that were decoded"),
    }
    return xr.Dataset(data, {**flat.coords, n.LATENT: np.arange(z.shape[1])}, run.attrs)


def prototypes(store: StoreOrRun, run: str = n.DEFAULT_RUN, by: str | None = None) -> xr.Dataset:
    """Prototype of each class: the mean of its samples' latents, decoded.

    by: map or coordinate with a class for each sample, such as label, phase, clusters; None for the first of these
    three that is there. Classes without an encoded sample are left out; the attribute `empty` names them. `latents`,
    `std` `(class, latent[, lz, ly, lx])`, mean and standard deviation over the samples; `n (class)`; `distance
    (class, other)`, Euclidean, of prototypes; `decoded (class, [channel,] dy, dx)`, in the units its `scale` says.
    Positions that a mask left out of all samples are NaN in `latents`; to decode, they get their channel's mean.
    Raises NoInputError for a run not encoded or a map that is not there, UsageError for one that holds no classes.
    """
    from scipy.spatial.distance import cdist

    opened = open_encoded(store, run)
    classes = classes_of(opened.ds, by)
    mean, std, count = class_means(opened, classes.codes, len(classes.names))
    kept = np.flatnonzero(count)
    if not len(kept):
        raise NoInputError(f"no encoded sample has a class by {classes.by!r}; choose another map.")
    opened, whole = open_encoded(opened, decodes=True), filled(opened, mean[kept])
    rows, names = whole.reshape(len(kept), -1), [classes.names[i] for i in kept]
    dims = (CLASS, *n.latent_dims(mean.ndim - 1))
    found = decoded(opened, whole.astype("f4"), (CLASS,), (len(kept),)).assign(
        latents=named(dims, mean[kept].astype("f4"), f"mean latent of the {classes.by}"),
        std=named(dims, std[kept].astype("f4"), "standard deviation in the class"),
        n=named(CLASS, count[kept], "samples"),
        distance=named((CLASS, "other"), cdist(rows, rows), "distance of prototypes"),
    )
    found = found.assign_coords({CLASS: (CLASS, names, {"long_name": classes.by}), "other": names})
    return found.assign_attrs(by=classes.by, empty=[name for name in classes.names if name not in names])


def traverse(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    dims: int | list[int] | tuple[int, ...] | None = None,
    base: Base = "mean",
    span: Span = (-3.0, 3.0),
    steps: int = 9,
    *,
    unit: str = STD,
    by: str | None = None,
) -> xr.Dataset:
    """One dimension after another moved away from a base, decoded; the other dimensions keep the base's values.

    dims: one dimension, several, or None for all. base: `mean` of all samples; `prototype:NAME` of a class by the map
    `by` (None: label, phase or clusters); a sample, as a number or `{"x": …, "y": …}`, or a Path, of a file; or latents
    `(L[, lz, ly, lx])`. span: in unit `std`, standard deviations of the aggregate posterior to either side of the
    base's own value; in unit `absolute`, values of the dimension. A channel of a spatial latent is shifted as a whole,
    its value is the mean over positions.

    Returns `decoded (latent_dim, step, [channel,] dy, dx)`, `latents (latent_dim, step, latent[, …])`, `value
    (latent_dim, step)` and `base (latent[, …])`.
    Raises UsageError for a base, dimension or span that cannot be meant, NoInputError for a run not encoded.
    """
    opened, each = open_encoded(store, run, decodes=True), (LATENT_DIM, STEP)
    chosen, begin = dimensions(dims, opened.latent_shape[0]), start(opened, base, by)
    values = begin.values(chosen, span, steps, unit)
    z = np.concatenate([begin.moved([dim], row[:, None]) for dim, row in zip(chosen, values, strict=True)])
    found = decoded(opened, z, each, values.shape)
    found["base"] = named(n.latent_dims(begin.latents.ndim), begin.latents.astype("f4"), begin.name)
    axes = {
        LATENT_DIM: (LATENT_DIM, chosen, dict(n.ATTRS[n.LATENT])),
        STEP: np.arange(steps),
        "value": named(each, values, "value of the dimension"),
    }
    return found.assign_coords(axes).assign_attrs(base=begin.name, unit=unit, span=list(map(float, span)))


def manifold(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    dims: tuple[int, int] = (0, 1),
    span: Span = (-3.0, 3.0),
    steps: int = 15,
    *,
    base: Base = "mean",
    unit: str = STD,
    by: str | None = None,
) -> xr.Dataset:
    """A plane of two dimensions, decoded on a grid: `decoded (row, column, [channel,] dy, dx)`.

    dims: the dimension along the columns (to the right) and the one along the rows (upwards: the first row is the
    lowest and holds the least value). The coordinates `column` and `row` are the values of the two dimensions. base,
    span, unit, by: as of `traverse`; all other dimensions keep the base's values. Also `latents (row, column,
    latent[, …])`. Raises as `traverse`, and UsageError unless there are two dimensions that vary.
    """
    opened = open_encoded(store, run, decodes=True)
    chosen, begin = dimensions(dims, opened.latent_shape[0], 2), start(opened, base, by)
    across, up = begin.values(chosen, span, steps, unit)
    if not (np.ptp(across) > 0 and np.ptp(up) > 0):
        raise UsageError(f"one of {chosen} does not vary over the data; choose others, or unit='absolute'.")
    rows, columns = np.meshgrid(up, across, indexing="ij")
    z = begin.moved(chosen, np.stack([columns.ravel(), rows.ravel()], 1))
    axes = {
        ROW: named(ROW, up, f"latent {chosen[1]}", latent_dim=chosen[1]),
        COLUMN: named(COLUMN, across, f"latent {chosen[0]}", latent_dim=chosen[0]),
    }
    about = {"base": begin.name, "unit": unit, "span": list(map(float, span)), "dims": chosen}
    return decoded(opened, z, (ROW, COLUMN), (steps, steps)).assign_coords(axes).assign_attrs(about)
