"""Latents and targets as columns of numbers at the points of a region."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.targets import TARGET, columns, stack
from vaearr.errors import RoiError, SchemaError
from vaearr.schema.grid import align_samples, checked_map


class Points(NamedTuple):
    """Values at the points of a region."""

    latents: np.ndarray  # (n, L)
    targets: np.ndarray  # (n, T)
    positions: np.ndarray  # (n, d) coordinates
    inside: np.ndarray  # the region, over the complete grid
    latent_labels: xr.DataArray  # the latents' further coordinate, as `latent`
    target_labels: list[str]


def navigation_of(data: xr.Dataset | xr.DataArray) -> tuple[str, ...]:
    """Navigation dims: those a Dataset with patterns declares, else those named z, y, x or sample.

    In this order, however the features are transposed. Raises SchemaError if there is none.
    """
    if isinstance(data, xr.Dataset) and n.PATTERNS in data:
        return schema.navigation_dims(data)
    if n.SAMPLE in data.dims:
        return (n.SAMPLE,)
    dims = tuple(dim for dim in n.SCAN_DIMS if dim in data.dims)
    if not dims:
        raise SchemaError(
            f"the data has dims {[str(dim) for dim in data.dims]} and none of y, x, z or sample, "
            "so no scan points; rename its dims."
        )
    return dims


def latent_dims(latents: xr.DataArray) -> tuple[str, tuple[str, ...]]:
    """The one dim that is no navigation dim, and the navigation dims.

    Raises SchemaError unless there is exactly one of the former and at least one of the latter.
    """
    nav = navigation_of(latents)
    further = [str(dim) for dim in latents.dims if dim not in nav]
    if len(further) != 1:
        raise SchemaError(
            f"latents have dims {latents.dims}; expected the navigation dims {nav} and one further "
            f"dimension such as {n.LATENT!r}."
        )
    if 0 in latents.shape:
        raise SchemaError(f"the latents are empty: their sizes are {dict(latents.sizes)}.")
    return further[0], nav


def gather(
    latents: xr.DataArray,
    target: xr.DataArray | xr.Dataset,
    roi: xr.DataArray | None,
    what: str = "the target",
) -> Points:
    """Values of latents and targets at the points of the ROI, read from disk in one pass.

    Raises SchemaError for different grids, RoiError for an empty region.
    """
    import dask

    latent_dim, dims = latent_dims(latents)
    targets = stack(columns(align_samples(latents, target, what), dims), dims)
    inside = np.ones([latents.sizes[dim] for dim in dims], bool)
    if roi is not None:
        inside = checked_map(latents, roi, dims).values
    if not inside.any():
        raise RoiError("the region of interest holds no scan point; widen it.")
    try:
        latents, targets = xr.align(latents, targets, join="exact", copy=False)
    except ValueError as error:
        raise SchemaError(
            f"latents and targets do not lie on the same grid: {error} Select the same points of "
            "each first."
        ) from None
    latent_values, target_values = dask.compute(
        latents.transpose(*dims, latent_dim).data, targets.transpose(*dims, TARGET).data
    )
    used = slice(None) if inside.all() else inside.ravel()  # all points are not copied
    labels = latents[latent_dim].values
    return Points(
        latent_values.reshape(-1, latents.sizes[latent_dim])[used],
        target_values.reshape(-1, targets.sizes[TARGET])[used],
        _positions(latents, dims)[used],
        inside,
        xr.DataArray(labels, dims=n.LATENT, attrs=n.ATTRS[n.LATENT]),
        targets[TARGET].values.tolist(),
    )


def _positions(latents: xr.DataArray, dims: tuple[str, ...]) -> np.ndarray:
    """Coordinates `(points, d)` of all points; for samples of a scan, those of the scan."""
    sample_coords = [name for name, axis in latents.coords.items() if axis.dims == (n.SAMPLE,)]
    names = [name for name in n.SCAN_DIMS if name in sample_coords] or dims
    grids = xr.broadcast(*[_axis(latents, name) for name in names])
    coordinates = [grid.transpose(*dims).values.ravel() for grid in grids]
    return np.stack(coordinates, axis=1)


def _axis(latents: xr.DataArray, name: str) -> xr.DataArray:
    """A coordinate as numbers; the index where it has none."""
    if name in latents.coords and latents[name].dtype.kind in "iuf":
        axis = latents[name].astype("f8")
    else:
        axis = xr.DataArray(np.arange(float(latents.sizes[name])), dims=name)
    if not np.isfinite(axis).all():
        raise SchemaError(
            f"coordinate {name!r} is not finite everywhere; a position is needed for each point."
        )
    return axis.drop_vars(axis.coords)


def spacing_of(array: xr.DataArray, dims: Sequence[Hashable]) -> np.ndarray | None:
    """Distance of neighbouring points along each dim; None of samples, which have no neighbours.

    1 for a dim without a numeric coordinate.
    """
    if n.SAMPLE in dims:
        return None
    spacing = np.ones(len(dims))
    for i, dim in enumerate(dims):
        axis = _axis(array, str(dim)).values
        if len(axis) > 1:
            spacing[i] = np.median(np.abs(np.diff(axis))) or 1.0
    return spacing
