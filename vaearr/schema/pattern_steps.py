"""Steps on patterns before training: crop, bin, remove backgrounds, rescale, average neighbours.

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
from vaearr.names import (
    CHANNEL,
    DX,
    DY,
    NAVIGATION_DIMS,
    PATTERNS,
    PROVENANCE,
    SAMPLE,
    SIGNAL_DIMS,
    X,
    Y,
)
from vaearr.schema.grid import laid_over

STEPS = "steps"
DETECTOR, CENTRE, BINNING = "detector", "projection_centre", "binning"
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
Data = TypeVar("Data", xr.DataArray, xr.Dataset)
P = ParamSpec("P")


def _of_datasets(
    step: Callable[Concatenate[xr.DataArray, P], xr.DataArray],
) -> Callable[Concatenate[Data, P], Data]:
    """A step on patterns that also takes a Dataset."""

    @wraps(step)
    def wrapped(data: Data, *args: P.args, **kwargs: P.kwargs) -> Data:
        if isinstance(data, xr.DataArray):
            return step(data, *args, **kwargs)
        return data.assign({PATTERNS: step(data[PATTERNS], *args, **kwargs)})

    return wrapped


def _of_patterns(
    step: Callable[Concatenate[xr.Dataset, P], xr.Dataset],
) -> Callable[Concatenate[Data, P], Data]:
    """A step on a Dataset, all its variables over the detector, that also takes patterns alone."""

    @wraps(step)
    def wrapped(data: Data, *args: P.args, **kwargs: P.kwargs) -> Data:
        if isinstance(data, xr.Dataset):
            return step(data, *args, **kwargs)
        return step(data.to_dataset(name=PATTERNS), *args, **kwargs)[PATTERNS].rename(data.name)

    return wrapped


@_of_patterns
def crop(ds: xr.Dataset, **windows: Window) -> xr.Dataset:
    """Crop the detector to a window: `crop(patterns, dy=(5, 55), dx=(0, 60))`.

    Parameters
    ----------
    ds : xr.DataArray or xr.Dataset
        Patterns, lazy or not.
    **windows : (float, float)
        For each signal dim the half-open interval `start <= coordinate < stop`, in coordinate units
        (detector pixels); None for no limit.

    Returns
    -------
    xr.DataArray or xr.Dataset
        The remaining coordinates keep their values. A projection centre is converted to the window.

    Raises
    ------
    UsageError
        For a dim that is not one of the detector's, and for a window without pixels.

    Examples
    --------
    >>> from vaearr.testing import synthetic_scan
    >>> scan = synthetic_scan(nx=8, ny=6, pattern_shape=(16, 16), n_grains=3)
    >>> va.crop(scan, dy=(4, 12)).patterns.shape
    (6, 8, 8, 16)
    """
    patterns = ds[PATTERNS]
    _refuse_unknown_dims(windows, _dims(patterns)[1])
    bounds = {dim: _window(patterns[dim], window) for dim, window in windows.items()}
    recorded = {dim: list(window) for dim, window in windows.items()}
    attrs = _with_step(patterns, {"step": "crop", **recorded})
    detector = _mapping(ds.attrs.get(DETECTOR))
    for holder in (attrs, detector):
        if CENTRE in holder:
            holder[CENTRE] = _centre_in_window(holder[CENTRE], patterns, bounds)
    result = ds.isel(bounds)
    if detector:
        result = result.assign_attrs({DETECTOR: detector})
    cropped = result[PATTERNS].copy(deep=False)
    cropped.attrs = attrs
    return result.assign({PATTERNS: cropped})


def _window(coordinate: xr.DataArray, window: Window) -> slice:
    """Positions of the pixels inside a window. Raises UsageError where they are no single run."""
    start, stop = window
    values = coordinate.values
    is_inside = np.ones(values.size, bool)
    if start is not None:
        is_inside &= values >= start
    if stop is not None:
        is_inside &= values < stop
    positions = np.flatnonzero(is_inside)
    if not positions.size or np.ptp(positions) + 1 != positions.size:
        raise UsageError(
            f"the window {coordinate.name}=({start}, {stop}) holds no detector pixels in a row; "
            f"{coordinate.name} runs from {values.min()} to {values.max()}."
        )
    return slice(int(positions[0]), int(positions[-1]) + 1)


def _centre_in_window(
    centre: Sequence[float], patterns: xr.DataArray, bounds: Mapping[str, slice]
) -> list[float]:
    """A projection centre (Bruker's convention: shares of width, height, height) in a window."""
    rows = bounds.get(DY, slice(0, patterns.sizes[DY]))
    columns = bounds.get(DX, slice(0, patterns.sizes[DX]))
    height, width = rows.stop - rows.start, columns.stop - columns.start
    x, y, distance = centre
    return [
        (x * patterns.sizes[DX] - columns.start) / width,
        (y * patterns.sizes[DY] - rows.start) / height,
        distance * patterns.sizes[DY] / height,
    ]


@_of_patterns
def bin_patterns(ds: xr.Dataset, size: int | Mapping[str, int] = 2) -> xr.Dataset:
    """Average detector pixels in blocks of `size`; channels stay apart.

    Parameters
    ----------
    ds : xr.DataArray or xr.Dataset
        Patterns, lazy or not.
    size : int or mapping
        One number for all detector dims or one per dim.

    Returns
    -------
    xr.DataArray or xr.Dataset
        float32. A coordinate becomes the mean of its block.

    Raises
    ------
    UsageError
        Where a side is not a multiple of the block (crop first).

    Examples
    --------
    >>> from vaearr.testing import synthetic_scan
    >>> scan = synthetic_scan(nx=8, ny=6, pattern_shape=(16, 16), n_grains=3)
    >>> va.bin_patterns(scan, 2).patterns.shape
    (6, 8, 8, 8)
    """
    patterns = ds[PATTERNS]
    _, signal = _dims(patterns)
    detector_dims = [dim for dim in signal if dim != CHANNEL]
    sizes = _numbers_by_dim(size, detector_dims, detector_dims)
    for dim, side in sizes.items():
        _refuse_remainder(dim, patterns.sizes[dim], side)
    along_signal = [name for name, c in patterns.coords.items() if set(c.dims) & set(signal)]
    result: xr.DataArray = xr.apply_ufunc(
        joined,
        _unchunked(patterns.drop_vars(along_signal), signal),
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
    others = ds.drop_vars(PATTERNS)
    binned = others.coarsen({dim: side for dim, side in sizes.items() if dim in others.dims}).mean()
    binned.encoding = dict(ds.encoding)  # names the store
    detector = _mapping(ds.attrs.get(DETECTOR))
    if detector:
        factors = set(sizes.values())
        binning = detector.pop(BINNING, None)
        if binning is not None and len(factors) == 1:
            detector[BINNING] = binning * factors.pop()
        binned = binned.assign_attrs({DETECTOR: detector})
    attrs = _with_step(patterns, {"step": "bin", "size": sizes})
    return binned.assign({PATTERNS: (patterns.dims, result.transpose(*patterns.dims).data, attrs)})


def _refuse_remainder(dim: str, length: int, side: int) -> None:
    if side >= 1 and length % side == 0:
        return
    hint = "use a number from 1 to it"
    if 1 <= side <= length:
        hint = f"crop to {length // side * side} first"
    raise UsageError(f"{dim!r} has {length} pixels, which is not a multiple of {side}; {hint}.")


def joined(patterns: np.ndarray, sides: Sequence[int]) -> np.ndarray:
    """Average blocks of pixels along the last axes, float32: `(…, H, W) -> (…, H/side, W/side)`.

    sides: of the blocks, one for each of these axes; a remainder at the far end is cut off.
    """
    signal = patterns.shape[-len(sides) :]
    n_pixels = math.prod(sides)
    dtype: np.dtype = np.dtype("f8")
    if patterns.dtype == np.uint8 and n_pixels < 2**8:
        dtype = np.dtype("u2")
    elif patterns.dtype.kind in "iu":
        dtype = np.dtype("i8")
    flat = patterns.reshape(-1, *signal)
    counts = [size // side for size, side in zip(signal, sides, strict=True)]
    out = np.empty((len(flat), *counts), np.float32)
    for pattern, binned in zip(flat, out, strict=True):  # one at a time stays in the cache
        np.divide(_block_sums(pattern, sides, dtype), n_pixels, out=binned, casting="same_kind")
    return out.reshape(*patterns.shape[: -len(sides)], *counts)


def _block_sums(pattern: np.ndarray, sides: Sequence[int], dtype: np.dtype) -> np.ndarray:
    for axis, side in enumerate(sides):
        lines = np.moveaxis(pattern, axis, 0)
        stop = len(lines) // side * side
        total = lines[0:stop:side].astype(dtype)
        for i in range(1, side):
            total += lines[i:stop:side]
        pattern = np.moveaxis(total, 0, axis)
    return pattern


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

    Examples
    --------
    >>> from vaearr.testing import synthetic_scan
    >>> scan = synthetic_scan(nx=8, ny=6, pattern_shape=(16, 16), n_grains=3)
    >>> clean = va.remove_static_background(scan, operation="divide")
    >>> clean.patterns.dtype
    dtype('float32')
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
    source = "mean" if background is None else str(background.name or "given")
    step = {"step": "remove_static_background", "background": source, "operation": operation}
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

    Examples
    --------
    >>> from vaearr.testing import synthetic_scan
    >>> scan = synthetic_scan(nx=8, ny=6, pattern_shape=(16, 16), n_grains=3)
    >>> clean = va.remove_dynamic_background(scan, sigma=0.1)
    >>> clean.patterns.dtype
    dtype('float32')
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

    Examples
    --------
    >>> from vaearr.testing import synthetic_scan
    >>> scan = synthetic_scan(nx=8, ny=6, pattern_shape=(16, 16), n_grains=3)
    >>> rescaled = va.rescale_intensity(scan).patterns
    >>> float(rescaled.min()), float(rescaled.max())
    (0.0, 1.0)
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
    """Apply a function of patterns `(…, signal)` that keeps their shape, lazily where lazy."""
    _, signal = _dims(patterns)
    result: xr.DataArray = xr.apply_ufunc(
        kernel,
        _unchunked(patterns, signal),
        kwargs=settings,
        input_core_dims=[signal],
        output_core_dims=[signal],
        dask="parallelized",
        output_dtypes=["f4"],
        keep_attrs=True,
    )
    ordered = result.transpose(*patterns.dims).rename(patterns.name)
    ordered.attrs = _with_step(patterns, step)
    return ordered


@_of_datasets
def neighbour_average(
    patterns: xr.DataArray, window: int | Mapping[str, int] = 3, *, roi: xr.DataArray | None = None
) -> xr.DataArray:
    """Average each pattern with those of neighbouring scan points.

    Parameters
    ----------
    patterns : xr.DataArray or xr.Dataset
        Patterns, lazy or not.
    window : int or mapping
        Scan points per side, odd; one number for y and x, or one per navigation dim. All points
        have the same weight.
    roi : xr.DataArray, optional
        Boolean map of the points that count, such as `ds.present`. Points outside it, and patterns
        with NaN, do not contribute and become NaN.

    Returns
    -------
    xr.DataArray or xr.Dataset
        float32. Each chunk is computed with a margin of half a window from its neighbours.

    Raises
    ------
    UsageError
        For a window that is even or lies along a dim without a grid.
    SchemaError
        For a map of another grid.

    Examples
    --------
    >>> from vaearr.testing import synthetic_scan
    >>> scan = synthetic_scan(nx=8, ny=6, pattern_shape=(16, 16), n_grains=3)
    >>> va.neighbour_average(scan).patterns.dtype
    dtype('float32')
    """
    nav, signal = _dims(patterns)
    sides = _numbers_by_dim(window, [dim for dim in nav if dim in (Y, X)] or nav, nav)
    for dim, side in sides.items():
        if side < 1 or side % 2 == 0 or (dim == SAMPLE and side > 1):
            raise UsageError(
                f"the window is {side} along {dim!r}; use an odd number of scan points of a scan."
            )
    lengths = [sides.get(dim, 1) for dim in nav]
    shape = tuple(patterns.sizes[dim] for dim in nav)
    inside = np.ones(shape, bool)
    if roi is not None:
        inside = laid_over(patterns, roi, tuple(nav)).values
    inside = inside.reshape(*shape, *[1] * len(signal))
    ordered = patterns.transpose(*nav, *signal)
    if patterns.chunks:
        data = _averaged_lazily(_unchunked(ordered, signal).data, inside, lengths)
    else:
        data = _averaged(ordered.values, inside, lengths)
    region = None if roi is None else str(roi.name or "given")
    step = {"step": "neighbour_average", "window": sides, "roi": region}
    averaged = ordered.copy(data=data)
    averaged.attrs = _with_step(patterns, step)
    return averaged.transpose(*patterns.dims)


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
    """Mean over windows along the leading axes of the values where the mask is true, else NaN."""
    from scipy.ndimage import correlate1d

    values = block.astype(np.float32)
    if block.dtype.kind == "f":
        mask = mask & np.isfinite(values).all(tuple(range(len(lengths), block.ndim)), keepdims=True)
    values = np.where(mask, values, np.float32(0))
    weight = mask.astype(np.float32)
    for axis, length in enumerate(lengths):
        ones = np.ones(length)
        values = correlate1d(values, ones, axis, mode="constant")  # 0 beyond the edge
        weight = correlate1d(weight, ones, axis, mode="constant")
    with np.errstate(invalid="ignore", divide="ignore"):
        values /= weight
    return np.where(mask, values, np.float32(np.nan))


def _numbers_by_dim(
    numbers: int | Mapping[str, int], default_dims: Sequence[str], allowed: Sequence[str]
) -> dict[str, int]:
    """A whole number for each dim. Raises UsageError for others."""
    by_dim = numbers if isinstance(numbers, Mapping) else dict.fromkeys(default_dims, numbers)
    _refuse_unknown_dims(by_dim, allowed)
    for number in by_dim.values():
        if not isinstance(number, int | np.integer) or isinstance(number, bool):
            raise UsageError(
                f"{numbers!r} is no whole number; give one, or one for each dimension."
            )
    return {str(dim): int(number) for dim, number in by_dim.items()}


def _dims(patterns: xr.DataArray) -> tuple[list[str], list[str]]:
    """Navigation and signal dims. Raises SchemaError for an array that does not state them."""
    nav = [str(dim) for dim in patterns.attrs.get(NAVIGATION_DIMS, ()) if dim in patterns.dims]
    signal = [str(dim) for dim in patterns.attrs.get(SIGNAL_DIMS, ())]
    if not signal or not set(signal) <= set(patterns.dims):
        raise SchemaError(
            f"the array has dims {patterns.dims} and its attribute {SIGNAL_DIMS!r} is {signal}; "
            "pass the `patterns` of a store or source."
        )
    return nav, signal


def _refuse_unknown_dims(by_dim: Mapping[str, Any], allowed: Sequence[str]) -> None:
    for dim in by_dim:
        if dim not in allowed:
            hint = did_you_mean(dim, list(allowed))
            raise UsageError(f"{dim!r} is not a dimension for this step.{hint}")


def _unchunked(patterns: xr.DataArray, signal: Sequence[str]) -> xr.DataArray:
    return patterns.chunk(dict.fromkeys(signal, -1)) if patterns.chunks else patterns


def _mapping(stored: Any) -> dict[str, Any]:
    """An attribute that a store keeps as JSON text."""
    return dict(json.loads(stored) if isinstance(stored, str) else stored or {})


def _with_step(patterns: xr.DataArray, step: dict[str, Any]) -> dict[str, Any]:
    """Attributes without those that described the old values, and with the step."""
    attrs = {key: value for key, value in patterns.attrs.items() if key not in OF_THE_VALUES}
    steps = attrs.get(STEPS, [])
    if isinstance(steps, str):  # as a store keeps it
        steps = json.loads(steps)
    attrs[STEPS] = [*steps, step]
    return attrs
