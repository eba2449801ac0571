"""The encoded samples of a run: their latents, positions and classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.clustering.methods import subsample
from vaearr.errors import NoInputError, UsageError
from vaearr.run import Run
from vaearr.schema.classes import CLASS, classes_of
from vaearr.store import read_block

POINT, LATENT_DIM = "point", "latent_dim"


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
    grid.attrs = dict(run.result_attrs)
    if codes is not None:
        grid.coords[CLASS] = codes
        grid.attrs["by"] = codes.attrs["long_name"]
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
    return points.assign_attrs(n=points.sizes[POINT])


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
    numbers = np.flatnonzero(np.isfinite(latents).all(1).any(1))
    if not len(numbers):
        raise NoInputError(
            f"run {run.name!r} of {run.path} has no point with known latents; encode it again."
        )
    latents = latents[numbers]
    if len(shape) > 1:
        channel_means = np.nanmean(latents, axis=2, keepdims=True)
        latents = np.where(np.isfinite(latents), latents, channel_means)
    return numbers, latents.reshape(-1, *shape)


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
