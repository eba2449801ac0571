"""The encoded samples of a run: their latents, positions and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.clustering.methods import subsample
from vaearr.errors import NoInputError, UsageError, did_you_mean
from vaearr.run import Run
from vaearr.store import read_block

POINT, CLASS, LATENT_DIM = "point", "class", "latent_dim"
CLASS_VARIABLES = ("label", n.PHASE, n.CLUSTERS)  # the first that exists is the default
MAX_CLASSES = 1000
MAX_SAMPLES = 10_000  # samples between which distances are computed
N_NEIGHBOURS = 5


def latent_points(
    run: Run,
    by: str | None = None,
    classes: Sequence[str] | None = None,
    dims: int | Sequence[int] | None = None,
) -> xr.Dataset:
    """Latents of all encoded samples, `vectors (point, latent)` float64.

    Spatial latents are averaged over their positions. Coordinates over `point`: the navigation
    coordinates, `number` (row-major) and, if there are classes (see `classes_of`), `class`. With
    `classes`, samples of other classes are left out.
    """
    navigation = schema.navigation_dims(run.ds)
    shape = schema.navigation_shape(run.ds)
    latents = schema.vectors(run.latents).reset_coords(drop=True)
    latents = latents.rename({latents.dims[-1]: n.LATENT})
    selected_dims = dimensions(dims, latents.sizes[n.LATENT])
    codes = classes_of(run.ds, by, classes)
    grid = xr.Dataset({"vectors": latents.isel({n.LATENT: selected_dims}).load()})
    grid.coords["number"] = navigation, np.arange(np.prod(shape)).reshape(shape)
    if codes is not None:
        grid.coords[CLASS] = codes
    points = grid.stack({POINT: navigation}, create_index=False).transpose(POINT, ...)
    is_selected = np.isfinite(points["vectors"].values).all(1)
    if classes is not None:
        is_selected &= points[CLASS].values >= 0
    points = points.isel({POINT: np.flatnonzero(is_selected)})
    if not points.sizes[POINT]:
        raise NoInputError(
            f"no encoded sample of run {run.name!r} has one of the classes; choose others."
        )
    points["vectors"] = points["vectors"].astype("f8").assign_attrs(n.ATTRS[n.LATENTS])
    points[n.LATENT] = n.LATENT, selected_dims, n.ATTRS[n.LATENT]
    points.attrs = {**run.result_attrs, "n": points.sizes[POINT]}
    if codes is not None:
        points.attrs["by"] = codes.attrs["long_name"]
    return points


def subset(points: xr.Dataset, max_points: int, seed: int) -> xr.Dataset:
    """A seeded choice of at most `max_points` points, in their order."""
    return points.isel({POINT: subsample(points.sizes[POINT], max_points, seed)})


def encoded_latents(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Row-major numbers `(k,)` and latents `(k, L[, lz, ly, lx])` of all encoded samples.

    Positions of spatial latents that a mask left out get the mean of their channel. Raises
    NoInputError if no sample is encoded.
    """
    shape = run.latent_shape
    latents = read_block(run.latents, {}).reshape(-1, shape[0], int(np.prod(shape[1:])))
    is_encoded = np.isfinite(latents).all(1).any(1)
    numbers = np.flatnonzero(is_encoded)
    if not len(numbers):
        raise NoInputError(
            f"run {run.name!r} of {run.path} has no point with known latents; encode it again."
        )
    latents = latents[numbers]
    if len(shape) > 1:
        channel_means = np.nanmean(latents, axis=2, keepdims=True)
        latents = np.where(np.isfinite(latents), latents, channel_means)
    return numbers, latents.reshape(-1, *shape)


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
        is_close = distances[:, -1] <= np.median(distances[:, -1])
        candidates = candidates[is_close]
        vectors = vectors[is_close]
    offsets = vectors - mean.reshape(1, -1)
    return int(candidates[(offsets**2).sum(1).argmin()])


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """At most `most` of the numbers below `count`, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def shifted(latents: np.ndarray, dims: Sequence[int], values: np.ndarray) -> np.ndarray:
    """Copies `(k, L[, …])` float32 of latents `(L[, …])` with values `(k, len(dims))` of `dims`.

    A channel of a spatial latent is shifted as a whole until its mean is the value.
    """
    selected = list(dims)
    shift = values - channel_means(latents)[selected]
    copies = np.repeat(latents[None].astype("f8"), len(values), axis=0)
    copies[:, selected] += shift.reshape(*shift.shape, *(1,) * (latents.ndim - 1))
    return copies.astype(np.float32)


def channel_means(latents: np.ndarray) -> np.ndarray:
    """Value `(L,)` of each dimension of latents `(L[, …])`: the mean over its positions."""
    means: np.ndarray = latents.reshape(len(latents), -1).mean(1)
    return means


def grid_indices(run: Run, number: Any) -> dict[str, Any]:
    """Indices along each navigation dim of samples with these row-major numbers."""
    shape = schema.navigation_shape(run.ds)
    indices = np.unravel_index(number, shape)
    return dict(zip(schema.navigation_dims(run.ds), indices, strict=True))


def sample_words(run: Run, indices: Mapping[str, int]) -> str:
    """Describe a sample, such as `sample at x 1.5, y 0.25` or `sample 12`."""
    values = {dim: run.ds[dim].values[index] for dim, index in indices.items()}
    if n.SAMPLE in values:
        return f"sample {values[n.SAMPLE]}"
    return "sample at " + ", ".join(f"{dim} {value:g}" for dim, value in reversed(values.items()))


def classes_of(
    ds: xr.Dataset, by: str | None = None, classes: Sequence[str] | None = None
) -> xr.DataArray | None:
    """The class of each sample by a map or coordinate, over the navigation dims.

    Codes are 0, 1, … with names in `flag_meanings`, and -1 for no class. Negative codes and empty
    texts of the variable are no class.

    by: a variable of integers, texts or booleans; None for the first that exists of label, phase
    and clusters; None is returned if there is none. classes: names of the classes to keep. Raises
    NoInputError for an unknown variable, UsageError for one that holds no classes or lacks one.
    """
    if by is None:
        existing = [name for name in CLASS_VARIABLES if name in ds.variables]
        if not existing and classes is None:
            return None
        by = existing[0] if existing else CLASS_VARIABLES[0]
    values = _class_values(ds, by)
    names = _class_names(ds[by], values)
    for name in classes or ():
        if name not in names.values():
            hint = did_you_mean(name, list(names.values()))
            raise UsageError(f"{by!r} has no class {name!r}.{hint}")
    if classes is not None:
        names = {value: name for value, name in names.items() if name in classes}
    if len(names) > MAX_CLASSES:
        raise UsageError(f"{by!r} has {len(names)} classes; at most {MAX_CLASSES} are supported.")
    codes = pd.Index(list(names)).get_indexer(pd.Index(values.ravel()))  # -1 for other values
    attrs = {
        "long_name": by,
        "flag_values": list(range(-1, len(names))),
        "flag_meanings": ["none", *names.values()],
    }
    navigation = schema.navigation_dims(ds)
    return xr.DataArray(codes.reshape(values.shape), dims=navigation, name=CLASS, attrs=attrs)


def _class_values(ds: xr.Dataset, name: str) -> np.ndarray:
    """Values of a variable that holds a class for each sample; everything but integers as text."""
    navigation = schema.navigation_dims(ds)
    if name not in ds.variables:
        candidates = [
            str(other)
            for other, variable in ds.variables.items()
            if set(variable.dims) == set(navigation)
        ]
        raise NoInputError(
            f"there is no map or coordinate {name!r}.{did_you_mean(name, candidates)}"
        )
    variable = ds[name]
    if set(variable.dims) != set(navigation) or variable.dtype.kind not in "biuOUT":
        dims = ", ".join(map(str, variable.dims))
        raise UsageError(
            f"{name!r} ({variable.dtype} over {dims}) does not hold one class for each sample; "
            "name another map, or cluster the samples first."
        )
    values = variable.transpose(*navigation).values
    if values.dtype.kind in "iu":
        return values
    return np.array([str(value) for value in values.ravel()]).reshape(values.shape)


def _class_names(variable: xr.DataArray, values: np.ndarray) -> dict[Any, str]:
    """Value -> name of each class, in the order of the values."""
    if values.dtype.kind in "iu":
        return dict(sorted(schema.categories(variable).items()))
    return {value: str(value) for value in np.unique(values) if value}


def dimensions(dims: int | Sequence[int] | None, count: int) -> list[int]:
    """Latent dimensions as a list, None for all. Raises UsageError unless they exist and differ."""
    if dims is None:
        return list(range(count))
    selected = [dims] if isinstance(dims, int) else list(dims)
    if not selected or len(set(selected)) < len(selected) or set(selected) - set(range(count)):
        raise UsageError(
            f"the dimensions {selected} must be different whole numbers from 0 to {count - 1}."
        )
    return selected
