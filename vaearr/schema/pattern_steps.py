"""Steps on patterns before anything is learned: crop, bin, remove backgrounds, rescale, average
over neighbours.

Each takes patterns, or a Dataset, whose patterns it replaces together with their coordinates. It is
lazy where the patterns are, finds its axes by `navigation_dims` and `signal_dims`, keeps the
coordinates right and adds itself to the attribute `steps`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args

import numpy as np
import xarray as xr

from vaearr.errors import SchemaError, UsageError, did_you_mean
from vaearr.names import CHANNEL, NAVIGATION_DIMS, PATTERNS, PROVENANCE, SAMPLE, SIGNAL_DIMS, X, Y
from vaearr.schema.grid import laid_over

STEPS = "steps"
OF_THE_VALUES = (
    "value_min",
    "value_max",
    "n_constant",
    "n_masked",
    "sha256",
    "sha256_of",
    "preprocess",
    PROVENANCE,
)

DARK = 1e-3  # share of the background's maximum below which a detector pixel holds no signal
Operation = Literal["subtract", "divide"]
Window = tuple[float | None, float | None]
Given = TypeVar("Given", xr.DataArray, xr.Dataset)
P = ParamSpec("P")


def _of_datasets(
    step: Callable[Concatenate[xr.DataArray, P], xr.DataArray],
) -> Callable[Concatenate[Given, P], Given]:
    """A step on patterns that also takes a Dataset."""

    @wraps(step)
    def wrapped(given: Given, *args: P.args, **kwargs: P.kwargs) -> Given:
        if isinstance(given, xr.DataArray):
            return step(given, *args, **kwargs)
        return given.assign({PATTERNS: step(given[PATTERNS], *args, **kwargs)})

    return wrapped


def _of_patterns(
    step: Callable[Concatenate[xr.Dataset, P], xr.Dataset],
) -> Callable[Concatenate[Given, P], Given]:
    """A step on a Dataset, all its variables over the detector, that also takes patterns alone."""

    @wraps(step)
    def wrapped(given: Given, *args: P.args, **kwargs: P.kwargs) -> Given:
        if isinstance(given, xr.Dataset):
            attrs = {
                key: value for key, value in given.attrs.items() if key != "detector"
            }  # it no longer holds
            return step(given.drop_attrs(deep=False).assign_attrs(attrs), *args, **kwargs)
        return step(given.to_dataset(name=PATTERNS), *args, **kwargs)[PATTERNS].rename(given.name)

    return wrapped


@_of_patterns
def crop(ds: xr.Dataset, **windows: Window) -> xr.Dataset:
    """A window of the detector: `crop(patterns, dy=(5, 55), dx=(0, 60))`.

    windows: per signal dim the half-open interval `start <= coordinate < stop`, in coordinate units
    (detector pixels); None for no limit. Coordinates of what is left stay as they are, a projection
    centre no longer holds and goes. Raises UsageError for a dim that is not one of the detector's
    and for a window without pixels.
    """
    patterns = ds[PATTERNS]
    _known(windows, _dims(patterns)[1])
    bounds: dict[str, slice] = {}
    for dim, (start, stop) in windows.items():
        places = patterns[dim].values
        low, high = (-np.inf if start is None else start, np.inf if stop is None else stop)
        kept = np.flatnonzero((places >= low) & (places < high))
        if not kept.size or np.ptp(kept) + 1 != kept.size:
            raise UsageError(
                f"the window {dim}=({start}, {stop}) holds no detector pixels in a row; {dim} runs from "
                f"{places.min()} to {places.max()}."
            )
        bounds[dim] = slice(int(kept[0]), int(kept[-1]) + 1)
    attrs = _attrs(
        patterns, {"step": "crop", **{dim: list(window) for dim, window in windows.items()}}
    )
    result = ds.isel(bounds)
    cropped = result[PATTERNS].copy(deep=False)
    cropped.attrs = {
        key: value for key, value in attrs.items() if not key.startswith("projection_centre")
    }
    return result.assign({PATTERNS: cropped})


@_of_patterns
def bin_patterns(ds: xr.Dataset, size: int | Mapping[str, int] = 2) -> xr.Dataset:
    """Detector pixels joined in blocks of `size`, their mean in float32; channels stay apart.

    size: one number for all detector dims or one per dim. A coordinate becomes the mean of its
    block. Raises UsageError where a side is not a multiple of the block (crop first).
    """
    patterns = ds[PATTERNS]
    _, signal = _dims(patterns)
    detector = [dim for dim in signal if dim != CHANNEL]
    sizes = _sides(size, detector, detector)
    for dim, side in sizes.items():
        length = patterns.sizes[dim]
        if side < 1 or length % side:
            hint = (
                f"crop to {length // side * side} first"
                if 1 <= side <= length
                else "use a number from 1 to it"
            )
            raise UsageError(
                f"{dim!r} has {length} pixels, which is not a multiple of {side}; {hint}."
            )
    along = [name for name, coord in patterns.coords.items() if set(coord.dims) & set(signal)]
    result: xr.DataArray = xr.apply_ufunc(
        joined,
        _whole(patterns.drop_vars(along), signal),
        kwargs={"sides": [sizes.get(dim, 1) for dim in signal]},
        input_core_dims=[signal],
        output_core_dims=[signal],
        exclude_dims=set(signal),
        dask="parallelized",
        output_dtypes=["f4"],
        dask_gufunc_kwargs={
            "output_sizes": {dim: patterns.sizes[dim] // sizes.get(dim, 1) for dim in signal}
        },
    )
    rest = ds.drop_vars(PATTERNS)
    binned = rest.coarsen({dim: side for dim, side in sizes.items() if dim in rest.dims}).mean()
    binned.encoding = dict(ds.encoding)  # says which store it is of
    attrs = _attrs(patterns, {"step": "bin", "size": sizes})
    return binned.assign({PATTERNS: (patterns.dims, result.transpose(*patterns.dims).data, attrs)})


def joined(patterns: np.ndarray, sides: Sequence[int]) -> np.ndarray:
    """Means over blocks of pixels along the last axes, float32: `(…, H, W) -> (…, H // side, W //
    side)`.

    sides: of the blocks, one for each of these axes; what is left over at the far ends is cut off.
    Pattern by pattern, so that sums stay in the processor's cache.
    """
    signal, small = (
        patterns.shape[-len(sides) :],
        patterns.dtype == np.uint8 and math.prod(sides) < 2**8,
    )
    sums = np.dtype("u2" if small else "i8" if patterns.dtype.kind in "iu" else "f8")
    left = tuple(size // side for size, side in zip(signal, sides, strict=True))
    flat = patterns.reshape(-1, *signal)
    out = np.empty((len(flat), *left), np.float32)
    for pattern, place in zip(flat, out, strict=True):
        whole = pattern[tuple(slice(0, n * side) for n, side in zip(left, sides, strict=True))]
        for axis, side in enumerate(sides):
            parts = np.moveaxis(
                whole.reshape(*whole.shape[:axis], left[axis], side, *whole.shape[axis + 1 :]),
                axis + 1,
                0,
            )
            whole = parts[0].astype(sums)
            for part in parts[1:]:
                whole += part
        np.divide(whole, math.prod(sides), out=place, casting="same_kind")
    return out.reshape(*patterns.shape[: -len(sides)], *left)


@_of_datasets
def remove_static_background(
    patterns: xr.DataArray,
    background: xr.DataArray | None = None,
    *,
    operation: Operation = "subtract",
    roi: xr.DataArray | None = None,
) -> xr.DataArray:
    """Remove the background that all patterns share.

    Parameters
    ----------
    patterns : xr.DataArray or xr.Dataset
        Patterns, lazy or not.
    background : xr.DataArray, optional
        Pattern over the signal dims, such as `ds.static_background`. By default the mean of the
        patterns, for which they are read once.
    operation : {"subtract", "divide"}
        Quotients are 1 where the background is below 1e-3 of its maximum.
    roi : xr.DataArray, optional
        Boolean map of the points that count for the mean, such as `ds.present`.

    Returns
    -------
    xr.DataArray or xr.Dataset
        float32.

    Raises
    ------
    SchemaError
        If the background has another shape than a pattern.
    UsageError
        For another operation.
    """
    _refuse_operation(operation)
    nav, signal = _dims(patterns)
    if background is None:
        counted = patterns if roi is None else patterns.where(laid_over(patterns, roi, tuple(nav)))
        values = counted.mean(nav, dtype="f8").values
    else:
        sizes = {dim: patterns.sizes[dim] for dim in signal}
        if dict(background.sizes) != sizes:
            raise SchemaError(
                f"the background has the sizes {dict(background.sizes)}, a pattern has {sizes}."
            )
        values = background.transpose(*signal).values
    kept = {
        "background": "mean" if background is None else str(background.name or "given"),
        "operation": operation,
    }
    step = {"step": "remove_static_background", **kept}
    return _each_pattern(
        _without_static, patterns, step, background=values.astype("f4"), operation=operation
    )


def _without_static(
    patterns: np.ndarray, background: np.ndarray, operation: Operation
) -> np.ndarray:
    values = patterns.astype("f4")
    if operation == "subtract":
        return values - background
    is_lit = background > DARK * background.max()
    return np.where(is_lit, values / np.where(is_lit, background, 1), np.float32(1))


@_of_datasets
def remove_dynamic_background(
    patterns: xr.DataArray, sigma: float = 0.125, *, operation: Operation = "subtract"
) -> xr.DataArray:
    """Remove the slow variation in each pattern: its Gaussian low-pass, renormalised at the edges.

    Parameters
    ----------
    patterns : xr.DataArray or xr.Dataset
        Patterns, lazy or not.
    sigma : float
        Standard deviation of the Gaussian as a share of the smaller side of the detector.
    operation : {"subtract", "divide"}
        Quotients are 1 where the low-pass is 0.

    Returns
    -------
    xr.DataArray or xr.Dataset
        float32.

    Raises
    ------
    UsageError
        For a `sigma` that is not positive, and for another operation.
    """
    _refuse_operation(operation)
    if not sigma > 0:
        raise UsageError(
            f"sigma is {sigma}, expected a positive share of the smaller side of the detector."
        )
    step = {"step": "remove_dynamic_background", "sigma": sigma, "operation": operation}
    return _each_pattern(_without_dynamic, patterns, step, sigma=sigma, operation=operation)


def _without_dynamic(patterns: np.ndarray, sigma: float, operation: Operation) -> np.ndarray:
    values = patterns.astype("f4")
    rows, columns = values.shape[-2:]
    deviation = sigma * min(rows, columns)
    slow = _low_pass(rows, deviation) @ values @ _low_pass(columns, deviation).T
    if operation == "subtract":
        return np.asarray(values - slow)
    is_lit = slow != 0
    return np.where(is_lit, values / np.where(is_lit, slow, 1), np.float32(1))


def _low_pass(size: int, deviation: float) -> np.ndarray:
    """Weights (size, size) of a Gaussian mean along one side; each row sums to 1."""
    position = np.arange(size)
    weights = np.exp(-0.5 * ((position[:, None] - position) / deviation) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


@_of_datasets
def rescale_intensity(
    patterns: xr.DataArray, out_range: tuple[float, float] = (0.0, 1.0)
) -> xr.DataArray:
    """Rescale each pattern so that its least and largest value become those of `out_range`.

    Parameters
    ----------
    patterns : xr.DataArray or xr.Dataset
        Patterns, lazy or not.
    out_range : (float, float)
        Least and largest value of each rescaled pattern; a constant pattern becomes the least one.

    Returns
    -------
    xr.DataArray or xr.Dataset
        float32; patterns with NaN stay NaN.

    Raises
    ------
    UsageError
        If the range is empty.
    """
    low, high = out_range
    if not low < high:
        raise UsageError(f"out_range is ({low}, {high}), expected two increasing numbers.")
    step = {"step": "rescale_intensity", "out_range": [low, high]}
    n_signal = len(_dims(patterns)[1])
    return _each_pattern(_rescaled, patterns, step, low=low, high=high, n_signal=n_signal)


def _rescaled(patterns: np.ndarray, low: float, high: float, n_signal: int) -> np.ndarray:
    values = patterns.astype("f4")
    signal = tuple(range(-n_signal, 0))
    least = values.min(signal, keepdims=True)
    extent = values.max(signal, keepdims=True) - least
    share = (values - least) / np.where(extent == 0, 1, extent)
    return np.asarray(low + (high - low) * share, np.float32)


def _refuse_operation(operation: str) -> None:
    if operation not in get_args(Operation):
        raise UsageError(f"operation is {operation!r}, expected subtract or divide.")


def _each_pattern(
    kernel: Callable[..., np.ndarray], patterns: xr.DataArray, step: dict[str, Any], **settings: Any
) -> xr.DataArray:
    """A function of patterns `(…, signal)` that keeps their shape, applied block by block where
    they are lazy.
    """
    _, signal = _dims(patterns)
    result: xr.DataArray = xr.apply_ufunc(
        kernel,
        _whole(patterns, signal),
        kwargs=settings,
        input_core_dims=[signal],
        output_core_dims=[signal],
        dask="parallelized",
        output_dtypes=["f4"],
        keep_attrs=True,
    )
    ordered = result.transpose(*patterns.dims).rename(patterns.name)
    ordered.attrs = _attrs(patterns, step)
    return ordered


@_of_datasets
def neighbour_average(
    patterns: xr.DataArray, window: int | Mapping[str, int] = 3, *, roi: xr.DataArray | None = None
) -> xr.DataArray:
    """Each pattern averaged with those of neighbouring scan points, float32.

    window: scan points per side, odd; one number for y and x, or one per navigation dim; all weigh
    alike. roi: boolean map of the points that count (`present` or a region of interest). Points
    outside it, and patterns with NaN, neither contribute nor get a value, which is NaN then.

    Under dask each chunk is computed with a rim of half a window from its neighbours, so memory
    stays that of a row of chunks. Raises UsageError for a window that is even or lies along a dim
    without a grid, SchemaError for a map of another grid.
    """
    nav, signal = _dims(patterns)
    sides = _sides(window, [dim for dim in nav if dim in (Y, X)] or nav, nav)
    for dim, side in sides.items():
        if side < 1 or side % 2 == 0 or (dim == SAMPLE and side > 1):
            raise UsageError(
                f"the window is {side} along {dim!r}; use an odd number of scan points of a scan."
            )
    lengths = [sides.get(dim, 1) for dim in nav]
    shape = tuple(patterns.sizes[dim] for dim in nav)
    inside = np.ones(shape, bool) if roi is None else laid_over(patterns, roi, tuple(nav)).values
    inside = inside.reshape(*shape, *[1] * len(signal))
    ordered = patterns.transpose(*nav, *signal)
    if patterns.chunks:
        data = _averaged_lazily(_whole(ordered, signal).data, inside, lengths)
    else:
        data = _averaged(ordered.values, inside, lengths)
    step = {
        "step": "neighbour_average",
        "window": sides,
        "roi": None if roi is None else str(roi.name or "given"),
    }
    attrs = _attrs(patterns, step)
    return xr.DataArray(data, ordered.coords, ordered.dims, patterns.name, attrs).transpose(
        *patterns.dims
    )


def _averaged_lazily(data: Any, inside: np.ndarray, lengths: Sequence[int]) -> Any:
    import dask.array as da

    n_nav, n_signal = len(lengths), data.ndim - len(lengths)
    depth = {axis: min(length // 2, data.shape[axis] - 1) for axis, length in enumerate(lengths)}
    return da.map_overlap(
        _averaged,
        data,
        da.from_array(inside, chunks=(*data.chunks[:n_nav], *[1] * n_signal)),
        lengths=lengths,
        depth=depth | dict.fromkeys(range(n_nav, data.ndim), 0),
        boundary="none",
        dtype=np.float32,
        meta=np.empty((0,) * data.ndim, np.float32),
    )


def _averaged(block: np.ndarray, mask: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Normalised convolution along the leading axes: sum of w m x over sum of w m, NaN where m is
    false.
    """
    from scipy.ndimage import correlate1d

    values = block.astype(np.float32)
    if block.dtype.kind == "f":
        mask = mask & np.isfinite(values).all(tuple(range(len(lengths), block.ndim)), keepdims=True)
    values = np.where(mask, values, np.float32(0))
    weight = mask.astype(np.float32)
    for axis, length in enumerate(lengths):
        values = correlate1d(
            values, np.ones(length), axis, mode="constant"
        )  # nothing comes from beyond the edge
        weight = correlate1d(weight, np.ones(length), axis, mode="constant")
    with np.errstate(invalid="ignore", divide="ignore"):
        values /= weight
    return np.where(mask, values, np.float32(np.nan))


def _sides(
    given: int | Mapping[str, int], dims: Sequence[str], known: Sequence[str]
) -> dict[str, int]:
    """A number for each of `dims`, or those that are given. Raises UsageError for other dims and no
    whole numbers.
    """
    numbers = dict(given) if isinstance(given, Mapping) else dict.fromkeys(dims, given)
    _known(numbers, known)
    if not all(
        isinstance(number, int | np.integer) and not isinstance(number, bool)
        for number in numbers.values()
    ):
        raise UsageError(f"{given!r} is no whole number; give one, or one for each dimension.")
    return {str(dim): int(number) for dim, number in numbers.items()}


def _dims(patterns: xr.DataArray) -> tuple[list[str], list[str]]:
    """Navigation and signal dims. Raises SchemaError for an array that does not say which are
    which.
    """
    nav, signal = (
        [str(dim) for dim in patterns.attrs.get(key, ())] for key in (NAVIGATION_DIMS, SIGNAL_DIMS)
    )
    if not signal or not set(signal) <= set(patterns.dims):
        raise SchemaError(
            f"the array has dims {patterns.dims} and its attribute {SIGNAL_DIMS!r} says {signal}; pass the `patterns` "
            "of a store or source."
        )
    return [dim for dim in nav if dim in patterns.dims], signal


def _known(given: Mapping[str, Any], dims: Sequence[str]) -> None:
    for dim in given:
        if dim not in dims:
            raise UsageError(
                f"{dim!r} is not a dimension for this step.{did_you_mean(dim, list(dims))}"
            )


def _whole(patterns: xr.DataArray, signal: Sequence[str]) -> xr.DataArray:
    return patterns.chunk(dict.fromkeys(signal, -1)) if patterns.chunks else patterns


def _attrs(patterns: xr.DataArray, step: dict[str, Any]) -> dict[str, Any]:
    """Attributes without what described the old values, with the step that was done."""
    kept = {key: value for key, value in patterns.attrs.items() if key not in OF_THE_VALUES}
    before = kept.get(STEPS, [])  # a store keeps it as JSON text
    return kept | {STEPS: [*(json.loads(before) if isinstance(before, str) else before), step]}
