"""What classes, single latent dimensions and planes of two decode to: latents moved away from a base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError, NoInputError, UsageError, did_you_mean
from vaearr.run import Run, StoreOrRun
from vaearr.run.draw import decoded_array, stored_sample
from vaearr.run.exploration.points import CLASS, classes_of, dimensions, named, open_encoded
from vaearr.run.nearest import Samples, filled, known_rows, typical_index
from vaearr.run.statistics import latent_sums
from vaearr.schema.grid import find_point

TYPICAL, MEAN, PROTOTYPE = "typical", "mean", "prototype"
STD, ABSOLUTE = "std", "absolute"
LATENT_DIM, STEP = "latent_dim", "step"
ROW, COLUMN = "row", "column"

Base = str | int | Path | Mapping[str, Any] | Sequence[float] | np.ndarray
Span = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Start:
    """The latents that a picture starts from.

    latents `(L[, lz, ly, lx])` float64; std `(L,)`, of the aggregate posterior; name in words;
    place: where the sample lies along each navigation dim, empty where the base is no sample of the store.
    """

    latents: np.ndarray
    std: np.ndarray
    name: str
    place: Mapping[str, int] = field(default_factory=dict)

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
    """Find what to start from, see `traverse`. Raises UsageError or NoInputError for a base that does not exist."""
    sums = latent_sums(run)
    std = np.sqrt(np.maximum(np.diag(sums.covariance), 0) + sums.variance / sums.count)
    if isinstance(base, str):
        return _start_of_word(run, base, by, std)
    if isinstance(base, int | np.integer | Mapping | Path):
        return _start_of_sample(run, base, std)
    z = np.asarray(base, np.float64)
    shape = run.latent_shape
    if z.shape == shape[:1]:  # a vector for a spatial latent holds at all positions
        z = np.broadcast_to(z.reshape(-1, *(1,) * (len(shape) - 1)), shape).copy()
    if z.shape != shape or not np.isfinite(z).all():
        raise UsageError(f"latents of shape {z.shape} were given; they must be {shape} finite numbers.")
    return Start(z, std, "given latents")


def _start_of_word(run: Run, base: str, by: str | None, std: np.ndarray) -> Start:
    """A base such as `typical`, `mean`, `typical:NAME` or `prototype:NAME`."""
    word, _, class_name = base.partition(":")
    words = [TYPICAL, MEAN] if not class_name else [TYPICAL, PROTOTYPE]
    if word not in words:
        raise UsageError(
            f"there is no base {base!r}; give 'typical', 'mean', 'typical:NAME' or 'prototype:NAME' of a class, a "
            "sample or a vector of latents."
        )
    whose = "all samples"
    codes = np.zeros(int(np.prod(run.grid)), int)
    if class_name:
        classes = classes_of(run.ds, by, [class_name])
        codes = classes.codes
        whose = f"{classes.by} {classes.names[0]}"
    means, _, counts = class_means(run, codes, 1)
    if not counts[0]:
        raise NoInputError(f"no encoded sample is of {whose}; choose another class.")
    if word != TYPICAL:
        return Start(filled(run, means)[0], std, f"mean of {whose}")
    numbers, latents = typical_samples(run, codes, means)
    place = place_of(run, numbers[0])
    return Start(latents[0].astype("f8"), std, f"{sample_words(run, place)}, typical of {whose}", place)


def _start_of_sample(run: Run, point: Any, std: np.ndarray) -> Start:
    """Posterior mean of a sample of the store, encoded or not, or of a file."""
    stored = stored_sample(run, point).reshape(1, *run.model.input_shape)
    z: np.ndarray = run.model.encode_batch(torch.from_numpy(stored))[0].cpu().numpy()[0].astype("f8")
    if not np.isfinite(z).all():
        raise DataError("the sample holds values that are not finite; choose another one.")
    if isinstance(point, Path):
        return Start(z, std, point.name)
    place = find_point(run.ds, point)
    return Start(z, std, sample_words(run, place), place)


def place_of(run: Run, number: int) -> dict[str, int]:
    """Where a sample lies along each navigation dim."""
    indices = np.unravel_index(number, run.grid)
    return {dim: int(index) for dim, index in zip(schema.navigation_dims(run.ds), indices, strict=True)}


def sample_words(run: Run, place: Mapping[str, int]) -> str:
    """A sample in words, such as `sample at x 1.5, y 0.25` or `sample 12`."""
    values = {dim: run.ds[dim].values[index] for dim, index in place.items()}
    if n.SAMPLE in values:
        return f"sample {values[n.SAMPLE]}"
    in_order = (dim for dim in n.SCAN_DIMS[::-1] if dim in values)
    return "sample at " + ", ".join(f"{dim} {values[dim]:g}" for dim in in_order)


def class_means(run: Run, codes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and standard deviation `(count, *shape)` float64 of the latents of each class, and its samples `(count,)`.

    codes: of every sample of the grid, below 0 for none. A position that is known in no sample of its class is NaN.
    """
    import pandas as pd

    numbers, rows = known_rows(run)
    has_class = codes[numbers] >= 0
    class_of_row = codes[numbers][has_class]
    flat = rows.reshape(len(rows), -1)[has_class].astype("f8")
    groups = pd.DataFrame(flat).groupby(class_of_row)
    shape = (count, *run.latent_shape)
    mean = groups.mean().reindex(range(count)).to_numpy().reshape(shape)
    std = groups.std(ddof=0).reindex(range(count)).to_numpy().reshape(shape)
    return mean, std, np.bincount(class_of_row, minlength=count)


def typical_samples(run: Run, codes: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the typical sample of each class, see `typical_index`.

    Returns numbers `(k,)`, and latents `(k, *shape)` as the decoder takes them.

    codes: as of `class_means`; means: of the classes 0, 1, …, each of which has a sample.
    """
    numbers, rows = known_rows(run)
    latents = filled(run, rows)
    chosen = []
    for code, mean in enumerate(filled(run, means)):
        members = np.flatnonzero(codes[numbers] == code)
        chosen.append(members[typical_index(latents[members], mean)])
    return numbers[chosen], latents[chosen]


def decoded(run: Run, z: np.ndarray, dims: tuple[str, ...], sizes: tuple[int, ...]) -> xr.Dataset:
    """Decode latents `(k, *latent_shape)` over `dims`, k = the product of sizes, batch by batch.

    Returns `latents (*dims, latent[, lz, ly, lx])`, `decoded (*dims, [channel,] dy, dx)` and `sample_distance
    (*dims)`, how far each of the latents lies from the nearest encoded sample, with the run's attributes; the
    attributes `usual_distance`, of a sample to its nearest neighbour (median), and `warnings` about latents far from
    every sample.
    """
    flat = decoded_array(run, z, "flat")
    images = flat.values.reshape(*sizes, *flat.shape[1:])
    samples = Samples(run)
    _, distances = samples.nearest(z)
    data = {
        "decoded": ((*dims, *flat.dims[1:]), images, flat.attrs),
        "latents": named(
            (*dims, *n.latent_dims(z.ndim - 1)), z.reshape(*sizes, *z.shape[1:]), "latents that were decoded"
        ),
        "sample_distance": named(dims, distances.reshape(sizes), "distance to the nearest sample"),
    }
    decoded = xr.Dataset(data, flat.coords, run.attrs)
    decoded = decoded.assign_coords({n.LATENT: np.arange(z.shape[1])})
    return decoded.assign_attrs(
        usual_distance=samples.usual_distance,
        warnings=samples.warnings(distances),
    )


def base_coords(run: Run, begin: Start) -> dict[str, Any]:
    """Coordinates of the sample that is the base, such as `base_x` and `base_y`; none where it is no sample."""
    return {f"base_{dim}": run.ds[dim][index].reset_coords(drop=True).variable for dim, index in begin.place.items()}


def prototypes(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    by: str | None = None,
    *,
    classes: Sequence[str] | None = None,
) -> xr.Dataset:
    """Find a typical sample of each class, and the mean of its latents; decode both.

    The typical sample is the one nearest the mean, of the half that have the closest neighbours.
    The mean of a class of several orientations or shapes lies where no sample does, so that it
    decodes to none of them; `mean_distance` states how far that is.

    Parameters
    ----------
    store, run
        Store or Run, and the name of an encoded run.
    by
        Map or coordinate with a class for each sample; None for the first of label, phase and clusters that exists.
    classes
        Names of the classes to show; None for all. Those without an encoded sample are left out, and named by the
        attribute `empty`.

    Returns
    -------
    xarray.Dataset
        `decoded (class, [channel,] dy, dx)` of the typical sample, with its coordinates `number` and `x_of_sample`,
        …; `decoded_mean` of the mean, in the same units, which the attribute `scale` states; `latents`, `std`
        `(class, latent[, lz, ly, lx])`, mean and standard deviation over the samples (NaN at positions that a mask
        left out of all); `n (class)`; `mean_distance (class)` of the mean to the nearest sample of any class;
        `distance (class, other)`, Euclidean, of the means. The attribute `usual_distance` is that of a sample to its
        nearest neighbour (median).

    Raises
    ------
    NoInputError
        For a run that is not encoded, a map that does not exist, classes without samples.
    UsageError
        For a map that holds no classes, or not those asked for.
    """
    from scipy.spatial.distance import cdist

    opened = open_encoded(store, run)
    found_classes = classes_of(opened.ds, by, classes)
    means, stds, counts = class_means(opened, found_classes.codes, len(found_classes.names))
    kept = np.flatnonzero(counts)
    if not len(kept):
        raise NoInputError(f"no encoded sample has a class by {found_classes.by!r}; choose another map.")
    codes = np.full_like(found_classes.codes, -1)
    for number, code in enumerate(kept):
        codes[found_classes.codes == code] = number
    opened = open_encoded(opened, decodes=True)
    numbers, sample_latents = typical_samples(opened, codes, means[kept])
    mean_latents = filled(opened, means[kept])
    flat_means = mean_latents.reshape(len(kept), -1)
    names = [found_classes.names[code] for code in kept]
    dims = (CLASS, *n.latent_dims(means.ndim - 1))
    of_means = decoded(opened, mean_latents.astype("f4"), (CLASS,), (len(kept),))
    of_samples = decoded_array(opened, sample_latents, CLASS).drop_vars(CLASS, errors="ignore")
    found = of_means.rename(decoded="decoded_mean", sample_distance="mean_distance").assign(
        decoded=of_samples,
        latents=named(dims, means[kept].astype("f4"), f"mean latent of the {found_classes.by}"),
        std=named(dims, stds[kept].astype("f4"), "standard deviation in the class"),
        sample_latents=named(dims, sample_latents.astype("f4"), "latents of the typical sample"),
        n=named(CLASS, counts[kept], "samples"),
        distance=named((CLASS, "other"), cdist(flat_means, flat_means), "distance of the class means"),
    )
    places = np.unravel_index(numbers, opened.grid)
    coords: dict[str, Any] = {
        CLASS: (CLASS, names, {"long_name": found_classes.by}),
        "other": names,
        "number": (CLASS, numbers, {"long_name": "number of the typical sample, row-major"}),
    }
    for dim, indices in zip(schema.navigation_dims(opened.ds), places, strict=True):
        coords[f"{dim}_of_sample"] = (CLASS, opened.ds[dim].values[indices], opened.ds[dim].attrs)
    empty = [name for name in found_classes.names if name not in names]
    return found.assign_coords(coords).assign_attrs(by=found_classes.by, empty=empty)


def traverse(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    dims: int | list[int] | tuple[int, ...] | None = None,
    base: Base = TYPICAL,
    span: Span = (-3.0, 3.0),
    steps: int = 9,
    *,
    unit: str = STD,
    by: str | None = None,
) -> xr.Dataset:
    """One dimension after another moved away from a base, decoded; the other dimensions keep the base's values.

    dims: one dimension, several, or None for all. base: `typical`, of the half of the samples that have the
    closest neighbours the one nearest the mean of all; `typical:NAME`,
    the same of a class by the map `by` (None: label, phase or clusters); `mean` of all samples, `prototype:NAME` of a
    class, which may lie where no sample does; a sample, as a number or `{"x": …, "y": …}`, or a Path, of a file; or
    latents `(L[, lz, ly, lx])`.

    span: in unit `std`, standard deviations of the aggregate posterior to either side of the
    base's own value; in unit `absolute`, values of the dimension. A channel of a spatial latent is shifted as a whole,
    its value is the mean over positions.

    Returns `decoded (latent_dim, step, [channel,] dy, dx)`, `latents (latent_dim, step, latent[, …])`, `value
    (latent_dim, step)`, `base (latent[, …])` and `sample_distance (latent_dim, step)`, of each picture's latents to the
    nearest sample; where the base is a sample of the store, its coordinates as `base_x`, …; the attributes `base` in
    words, `usual_distance` and `warnings` where latents lie far from every sample.
    Raises UsageError for a base, dimension or span that cannot be meant, NoInputError for a run not encoded.
    """
    opened = open_encoded(store, run, decodes=True)
    chosen = dimensions(dims, opened.latent_shape[0])
    begin = start(opened, base, by)
    values = begin.values(chosen, span, steps, unit)
    moved = [begin.moved([dim], row[:, None]) for dim, row in zip(chosen, values, strict=True)]
    found = decoded(opened, np.concatenate(moved), (LATENT_DIM, STEP), values.shape)
    found["base"] = named(n.latent_dims(begin.latents.ndim), begin.latents.astype("f4"), begin.name)
    coords = {
        LATENT_DIM: (LATENT_DIM, chosen, dict(n.ATTRS[n.LATENT])),
        STEP: np.arange(steps),
        "value": named((LATENT_DIM, STEP), values, "value of the dimension"),
        **base_coords(opened, begin),
    }
    return found.assign_coords(coords).assign_attrs(base=begin.name, unit=unit, span=list(map(float, span)))


def manifold(
    store: StoreOrRun,
    run: str = n.DEFAULT_RUN,
    dims: tuple[int, int] = (0, 1),
    span: Span = (-3.0, 3.0),
    steps: int = 15,
    *,
    base: Base = TYPICAL,
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
    chosen = dimensions(dims, opened.latent_shape[0], 2)
    begin = start(opened, base, by)
    across, up = begin.values(chosen, span, steps, unit)
    if not (np.ptp(across) > 0 and np.ptp(up) > 0):
        raise UsageError(f"one of {chosen} does not vary over the data; choose others, or unit='absolute'.")
    rows, columns = np.meshgrid(up, across, indexing="ij")
    z = begin.moved(chosen, np.stack([columns.ravel(), rows.ravel()], 1))
    coords = {
        ROW: named(ROW, up, f"latent {chosen[1]}", latent_dim=chosen[1]),
        COLUMN: named(COLUMN, across, f"latent {chosen[0]}", latent_dim=chosen[0]),
        **base_coords(opened, begin),
    }
    attrs = {"base": begin.name, "unit": unit, "span": list(map(float, span)), "dims": chosen}
    return decoded(opened, z, (ROW, COLUMN), (steps, steps)).assign_coords(coords).assign_attrs(attrs)
