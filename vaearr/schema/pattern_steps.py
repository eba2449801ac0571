"""Steps on patterns before anything is learned: crop, bin, average over neighbours.

Each takes patterns, or a Dataset, whose patterns it replaces together with their coordinates. It is lazy where the
patterns are, finds its axes by `navigation_dims` and `signal_dims`, keeps the coordinates right and adds itself to the
attribute `steps`. Static and dynamic background: `vaearr.models.preprocess.preprocess` with `normalise="none"`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import xarray as xr

from vaearr.errors import SchemaError, UsageError, did_you_mean
from vaearr.names import CHANNEL, NAVIGATION_DIMS, PATTERNS, PROVENANCE, SAMPLE, SHA256_OF, SIGNAL_DIMS, X, Y
from vaearr.schema.grid import laid_over

STEPS = "steps"
OF_THE_VALUES = ("value_min", "value_max", "n_constant", "n_masked", "sha256", SHA256_OF, "preprocess", PROVENANCE)

Window = tuple[float | None, float | None]
Given = TypeVar("Given", xr.DataArray, xr.Dataset)
P = ParamSpec("P")


def _of_datasets(
    step: Callable[Concatenate[xr.DataArray, P], xr.DataArray],
) -> Callable[Concatenate[Given, P], Given]:
    """The same step on a Dataset: to `ds.assign(patterns=…)` xarray would align coordinates of the old patterns."""

    @wraps(step)
    def wrapped(given: Given, *args: P.args, **kwargs: P.kwargs) -> Given:
        if isinstance(given, xr.DataArray):
            return step(given, *args, **kwargs)
        return _without_patterns(given).assign({PATTERNS: step(given[PATTERNS], *args, **kwargs)})

    return wrapped


def _without_patterns(ds: xr.Dataset) -> xr.Dataset:
    signal = {*_dims(ds[PATTERNS])[1]}
    return ds.drop_vars([PATTERNS, *(name for name, coord in ds.coords.items() if signal & {*coord.dims})])


@_of_datasets
def crop(patterns: xr.DataArray, **windows: Window) -> xr.DataArray:
    """A window of the detector: `crop(patterns, dy=(5, 55), dx=(0, 60))`.

    windows: per signal dim the half-open interval `start <= coordinate < stop`, in coordinate units (detector pixels);
    None for no limit. Coordinates of what is left stay as they are, a projection centre no longer holds and goes.
    Raises UsageError for a dim that is not one of the detector's and for a window without pixels.
    """
    _known(windows, _dims(patterns)[1])
    bounds: dict[str, slice] = {}
    for dim, (start, stop) in windows.items():
        places = patterns[dim].values
        kept = np.flatnonzero(
            (places >= (-np.inf if start is None else start)) & (places < (np.inf if stop is None else stop))
        )
        if not kept.size or np.ptp(kept) + 1 != kept.size:
            raise UsageError(
                f"the window {dim}=({start}, {stop}) holds no detector pixels in a row; {dim} runs from "
                f"{places.min()} to {places.max()}."
            )
        bounds[dim] = slice(int(kept[0]), int(kept[-1]) + 1)
    attrs = _attrs(patterns, {"step": "crop", **{dim: list(window) for dim, window in windows.items()}})
    attrs = {key: value for key, value in attrs.items() if not key.startswith("projection_centre")}
    return patterns.isel(bounds).drop_attrs(deep=False).assign_attrs(attrs)


@_of_datasets
def bin_patterns(patterns: xr.DataArray, size: int | Mapping[str, int] = 2) -> xr.DataArray:
    """Detector pixels joined in blocks of `size`, their mean in float32; channels stay apart.

    size: one number for all detector dims or one per dim. A coordinate becomes the mean of its block. Raises UsageError
    where a side is not a multiple of the block (crop first).
    """
    _, signal = _dims(patterns)
    detector = [dim for dim in signal if dim != CHANNEL]
    sizes = _sides(size, detector, detector)
    for dim, side in sizes.items():
        length = patterns.sizes[dim]
        if side < 1 or length % side:
            hint = f"crop to {length // side * side} first" if 1 <= side <= length else "use a number from 1 to it"
            raise UsageError(f"{dim!r} has {length} pixels, which is not a multiple of {side}; {hint}.")
    left = {dim: patterns.sizes[dim] // sizes.get(dim, 1) for dim in signal}
    along = {name: coord for name, coord in patterns.coords.items() if set(coord.dims) & set(signal)}
    result: xr.DataArray = xr.apply_ufunc(
        joined,
        _whole(patterns, signal).drop_vars(along),
        kwargs={"sides": [sizes.get(dim, 1) for dim in signal]},
        input_core_dims=[signal],
        output_core_dims=[signal],
        exclude_dims=set(signal),
        dask="parallelized",
        output_dtypes=["f4"],
        dask_gufunc_kwargs={"output_sizes": left},
    )
    coords = {
        name: coord.variable.coarsen({dim: sizes.get(dim, 1) for dim in coord.dims}, "mean")
        for name, coord in along.items()
        if coord.dtype.kind in "iuf" and coord.ndim == 1
    }
    attrs = _attrs(patterns, {"step": "bin", "size": sizes})
    ordered = result.transpose(*patterns.dims).assign_coords(coords).rename(patterns.name)
    return ordered.drop_attrs(deep=False).assign_attrs(attrs)


def joined(patterns: np.ndarray, sides: Sequence[int]) -> np.ndarray:
    """Means over blocks of pixels along the last axes, float32: `(…, H, W) -> (…, H // side, W // side)`.

    sides: of the blocks, one for each of these axes; what is left over at the far ends is cut off. Pattern by pattern,
    so that sums stay in the processor's cache.
    """
    signal, small = patterns.shape[-len(sides) :], patterns.dtype == np.uint8 and math.prod(sides) < 2**8
    sums = np.dtype("u2" if small else "i8" if patterns.dtype.kind in "iu" else "f8")
    left = tuple(size // side for size, side in zip(signal, sides, strict=True))
    flat = patterns.reshape(-1, *signal)
    out = np.empty((len(flat), *left), np.float32)
    for pattern, place in zip(flat, out, strict=True):
        whole = pattern[tuple(slice(0, n * side) for n, side in zip(left, sides, strict=True))]
        for axis, side in enumerate(sides):
            parts = np.moveaxis(
                whole.reshape(*whole.shape[:axis], left[axis], side, *whole.shape[axis + 1 :]), axis + 1, 0
            )
            whole = parts[0].astype(sums)
            for part in parts[1:]:
                whole += part
        np.divide(whole, math.prod(sides), out=place, casting="same_kind")
    return out.reshape(*patterns.shape[: -len(sides)], *left)


@_of_datasets
def neighbour_average(
    patterns: xr.DataArray, window: int | Mapping[str, int] = 3, *, roi: xr.DataArray | None = None
) -> xr.DataArray:
    """Each pattern averaged with those of neighbouring scan points, float32.

    window: scan points per side, odd; one number for y and x, or one per navigation dim; all weigh alike. roi: boolean
    map of the points that count (`present` or a region of interest). Points outside it, and patterns with NaN, neither
    contribute nor get a value, which is NaN then.

    Under dask each chunk is computed with a rim of half a window from its neighbours, so memory stays that of a row of
    chunks. Raises UsageError for a window that is even or lies along a dim without a grid, SchemaError for a map of
    another grid.
    """
    nav, signal = _dims(patterns)
    sides = _sides(window, [dim for dim in nav if dim in (Y, X)] or nav, nav)
    for dim, side in sides.items():
        if side < 1 or side % 2 == 0 or (dim == SAMPLE and side > 1):
            raise UsageError(f"the window is {side} along {dim!r}; use an odd number of scan points of a scan.")
    profiles = [np.ones(sides.get(dim, 1), "f4") for dim in nav]
    shape = tuple(patterns.sizes[dim] for dim in nav)
    inside = np.ones(shape, bool) if roi is None else laid_over(patterns, roi, tuple(nav)).values
    inside = inside.reshape(*shape, *[1] * len(signal))
    ordered = patterns.transpose(*nav, *signal)
    if patterns.chunks:
        data = _averaged_lazily(_whole(ordered, signal).data, inside, profiles)
    else:
        data = _averaged(ordered.values, inside, profiles)
    step = {"step": "neighbour_average", "window": sides, "roi": None if roi is None else str(roi.name or "given")}
    attrs = _attrs(patterns, step)
    return xr.DataArray(data, ordered.coords, ordered.dims, patterns.name, attrs).transpose(*patterns.dims)


def _averaged_lazily(data: Any, inside: np.ndarray, profiles: Sequence[np.ndarray]) -> Any:
    import dask.array as da

    n_nav, n_signal = len(profiles), data.ndim - len(profiles)
    depth = {axis: min(len(profile) // 2, data.shape[axis] - 1) for axis, profile in enumerate(profiles)}
    return da.map_overlap(
        _averaged,
        data,
        da.from_array(inside, chunks=(*data.chunks[:n_nav], *[1] * n_signal)),
        profiles=profiles,
        depth=depth | dict.fromkeys(range(n_nav, data.ndim), 0),
        boundary="none",
        dtype=np.float32,
        meta=np.empty((0,) * data.ndim, np.float32),
    )


def _averaged(block: np.ndarray, mask: np.ndarray, profiles: Sequence[np.ndarray]) -> np.ndarray:
    """Normalised convolution along the leading axes: sum of w m x over sum of w m, NaN where m is false."""
    from scipy.ndimage import correlate1d

    values = block.astype(np.float32)
    if block.dtype.kind == "f":
        mask = mask & np.isfinite(values).all(tuple(range(len(profiles), block.ndim)), keepdims=True)
    values = np.where(mask, values, np.float32(0))
    weight = mask.astype(np.float32)
    for axis, profile in enumerate(profiles):
        if len(profile) > 1:
            values = correlate1d(values, profile, axis, mode="constant")  # nothing comes from beyond the edge
            weight = correlate1d(weight, profile, axis, mode="constant")
    with np.errstate(invalid="ignore", divide="ignore"):
        values /= weight
    return np.where(mask, values, np.float32(np.nan))


def _sides(given: int | Mapping[str, int], dims: Sequence[str], known: Sequence[str]) -> dict[str, int]:
    """A number for each of `dims`, or those that are given. Raises UsageError for other dims and no whole numbers."""
    numbers = dict(given) if isinstance(given, Mapping) else dict.fromkeys(dims, given)
    _known(numbers, known)
    if not all(isinstance(number, int | np.integer) and not isinstance(number, bool) for number in numbers.values()):
        raise UsageError(f"{given!r} is no whole number; give one, or one for each dimension.")
    return {str(dim): int(number) for dim, number in numbers.items()}


def _dims(patterns: xr.DataArray) -> tuple[list[str], list[str]]:
    """Navigation and signal dims. Raises SchemaError for an array that does not say which are which."""
    nav, signal = ([str(dim) for dim in patterns.attrs.get(key, ())] for key in (NAVIGATION_DIMS, SIGNAL_DIMS))
    if not signal or not set(signal) <= set(patterns.dims):
        raise SchemaError(
            f"the array has dims {patterns.dims} and its attribute {SIGNAL_DIMS!r} says {signal}; pass the `patterns` "
            "of a store or source."
        )
    return [dim for dim in nav if dim in patterns.dims], signal


def _known(given: Mapping[str, Any], dims: Sequence[str]) -> None:
    for dim in given:
        if dim not in dims:
            raise UsageError(f"{dim!r} is not a dimension for this step.{did_you_mean(dim, list(dims))}")


def _whole(patterns: xr.DataArray, signal: Sequence[str]) -> xr.DataArray:
    return patterns.chunk(dict.fromkeys(signal, -1)) if patterns.chunks else patterns


def _attrs(patterns: xr.DataArray, step: dict[str, Any]) -> dict[str, Any]:
    """Attributes without what described the old values, with the step that was done."""
    kept = {key: value for key, value in patterns.attrs.items() if key not in OF_THE_VALUES}
    before = kept.get(STEPS, [])  # a store keeps it as JSON text
    return kept | {STEPS: [*(json.loads(before) if isinstance(before, str) else before), step]}
