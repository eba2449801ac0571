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
from vaearr.schema.grid import checked_map

STEPS = "steps"
DETECTOR, CENTRE, BINNING = "detector", "projection_centre", "binning"
VALUE_ATTRS = (
    "value_min",
    "value_max",
    "n_constant",
    "n_masked",
    "sha256",
    "sha256_of",
    "preprocess",
    PROVENANCE,
)  # attributes that describe the values, untrue once these change

DARK = 1e-3  # share of the background's maximum below which a detector pixel holds no signal
Operation = Literal["subtract", "divide"]
Window = tuple[float | None, float | None]
Data = TypeVar("Data", xr.DataArray, xr.Dataset)
P = ParamSpec("P")


def _of_patterns(
    step: Callable[Concatenate[xr.Dataset, P], xr.Dataset],
) -> Callable[Concatenate[Data, P], Data]:
    """A step on a Dataset that also takes patterns alone."""

    @wraps(step)
    def wrapped(data: Data, *args: P.args, **kwargs: P.kwargs) -> Data:
        if isinstance(data, xr.Dataset):
            return step(data, *args, **kwargs)
        result = step(data.to_dataset(name=PATTERNS), *args, **kwargs)
        return result[PATTERNS].rename(data.name)

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
    cropped = ds.isel(bounds).copy()
    cropped[PATTERNS].attrs = attrs
    if detector:
        cropped.attrs[DETECTOR] = detector
    return cropped


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
        length = patterns.sizes[dim]
        divisible = length // max(side, 1) * side
        if divisible != length:
            raise UsageError(
                f"{dim!r} has {length} pixels, which is not a multiple of {side}; crop to "
                f"{divisible} first, or use another size."
            )
    sides = {dim: sizes.get(dim, 1) for dim in signal}
    shape = {dim: patterns.sizes[dim] // side for dim, side in sides.items()}
    result: xr.DataArray = xr.apply_ufunc(
        block_means,
        _unchunked(patterns, signal),
        kwargs={"sides": list(sides.values())},
        input_core_dims=[signal],
        output_core_dims=[signal],
        exclude_dims=set(signal),
        dask="parallelized",
        output_dtypes=["f4"],
        dask_gufunc_kwargs={"output_sizes": shape},
    )
    others = ds.drop_vars(PATTERNS)
    along = {dim: side for dim, side in sizes.items() if dim in others.dims}
    binned = others.coarsen(along).mean()
    binned.encoding = dict(ds.encoding)  # names the store
    detector = _mapping(ds.attrs.get(DETECTOR))
    binning = detector.pop(BINNING, None)
    if binning and len(set(sizes.values())) == 1:
        detector[BINNING] = binning * min(sizes.values())
    if detector:
        binned.attrs[DETECTOR] = detector
    attrs = _with_step(patterns, {"step": "bin", "size": sizes})
    result = result.transpose(*patterns.dims)
    return binned.assign({PATTERNS: (result.dims, result.data, attrs)})


def block_means(patterns: np.ndarray, sides: Sequence[int]) -> np.ndarray:
    """Average blocks of pixels along the last axes, float32: `(…, H, W) -> (…, H/side, W/side)`.

    sides: of the blocks, one for each of these axes; a remainder at the far end is cut off.
    """
    total = patterns
    for axis, side in enumerate(sides, start=patterns.ndim - len(sides)):
        lines = np.moveaxis(total, axis, 0)
        stop = len(lines) // side * side
        sums = lines[0:stop:side].astype("f8")
        for first in range(1, side):
            sums += lines[first:stop:side]
        total = np.moveaxis(sums, 0, axis)
    return np.asarray(total / math.prod(sides), np.float32)


@_of_patterns
def remove_static_background(
    ds: xr.Dataset,
    background: xr.DataArray | None = None,
    *,
    operation: Operation = "subtract",
    roi: xr.DataArray | None = None,
) -> xr.Dataset:
    """Remove the background that all patterns share.

    Parameters
    ----------
    ds : xr.DataArray or xr.Dataset
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
    patterns = ds[PATTERNS]
    nav, signal = _dims(patterns)
    if background is None:
        counted = patterns
        if roi is not None:
            counted = patterns.where(checked_map(patterns, roi, tuple(nav)))
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
    settings = {"background": values.astype("f4"), "operation": operation}
    return _each_pattern(_without_static, ds, step, settings)


def _without_static(
    patterns: np.ndarray, background: np.ndarray, operation: Operation
) -> np.ndarray:
    return _without(patterns.astype("f4"), background, DARK * background.max(), operation)


def _without(
    values: np.ndarray, background: np.ndarray, darkest: float, operation: Operation
) -> np.ndarray:
    """Subtract a background or divide by it; quotients are 1 where it is not above `darkest`."""
    if operation == "subtract":
        return np.asarray(values - background)
    quotients = np.ones_like(values)
    return np.divide(values, background, out=quotients, where=abs(background) > darkest)


@_of_patterns
def remove_dynamic_background(
    ds: xr.Dataset, sigma: float = 0.125, *, operation: Operation = "subtract"
) -> xr.Dataset:
    """Remove the slow variation in each pattern: its Gaussian low-pass, renormalised at the edges.

    Parameters
    ----------
    ds : xr.DataArray or xr.Dataset
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
    return _each_pattern(_without_dynamic, ds, step, {"sigma": sigma, "operation": operation})


def _without_dynamic(patterns: np.ndarray, sigma: float, operation: Operation) -> np.ndarray:
    values = patterns.astype("f4")
    rows, columns = values.shape[-2:]
    deviation = sigma * min(rows, columns)
    slow = _low_pass(rows, deviation) @ values @ _low_pass(columns, deviation).T
    return _without(values, slow, 0, operation)


def _low_pass(size: int, deviation: float) -> np.ndarray:
    """Weights (size, size) of a Gaussian mean along one side; each row sums to 1."""
    position = np.arange(size)
    weights = np.exp(-0.5 * ((position[:, None] - position) / deviation) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


@_of_patterns
def rescale_intensity(ds: xr.Dataset, out_range: tuple[float, float] = (0.0, 1.0)) -> xr.Dataset:
    """Rescale each pattern so that its least and largest value become those of `out_range`.

    Parameters
    ----------
    ds : xr.DataArray or xr.Dataset
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
    n_signal = len(_dims(ds[PATTERNS])[1])
    settings = {"low": low, "high": high, "signal": tuple(range(-n_signal, 0))}
    return _each_pattern(_rescaled, ds, step, settings)


def _rescaled(patterns: np.ndarray, low: float, high: float, signal: tuple[int, ...]) -> np.ndarray:
    values = patterns.astype("f4")
    least = values.min(signal, keepdims=True)
    extent = values.max(signal, keepdims=True) - least
    share = (values - least) / np.where(extent == 0, 1, extent)
    return np.asarray(low + (high - low) * share, np.float32)


def _refuse_operation(operation: str) -> None:
    if operation not in get_args(Operation):
        raise UsageError(f"operation is {operation!r}, expected subtract or divide.")


def _each_pattern(
    kernel: Callable[..., np.ndarray],
    ds: xr.Dataset,
    step: dict[str, Any],
    settings: Mapping[str, Any],
) -> xr.Dataset:
    """Apply a function of patterns `(…, signal)` that keeps their shape, lazily where lazy."""
    patterns = ds[PATTERNS]
    _, signal = _dims(patterns)
    result: xr.DataArray = xr.apply_ufunc(
        kernel,
        _unchunked(patterns, signal),
        kwargs=settings,
        input_core_dims=[signal],
        output_core_dims=[signal],
        dask="parallelized",
        output_dtypes=["f4"],
    )
    result = result.transpose(*patterns.dims)
    result.attrs = _with_step(patterns, step)
    return ds.assign({PATTERNS: result})


@_of_patterns
def neighbour_average(
    ds: xr.Dataset, window: int | Mapping[str, int] = 3, *, roi: xr.DataArray | None = None
) -> xr.Dataset:
    """Average each pattern with those of neighbouring scan points.

    Parameters
    ----------
    ds : xr.DataArray or xr.Dataset
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
    patterns = ds[PATTERNS]
    nav, signal = _dims(patterns)
    default_dims = [dim for dim in nav if dim in (Y, X)]
    sides = _numbers_by_dim(window, default_dims or nav, nav)
    for dim, side in sides.items():
        if side < 1 or side % 2 == 0 or (dim == SAMPLE and side > 1):
            raise UsageError(
                f"the window is {side} along {dim!r}; use an odd number of scan points of a scan."
            )
    is_finite: Any = np.isfinite(patterns)
    counted: xr.DataArray = is_finite.all(signal)
    region = None
    if roi is not None:
        counted = counted & checked_map(patterns, roi, tuple(nav))
        region = str(roi.name or "given")
    total = patterns.astype("f4").where(counted, 0)
    weight = counted.astype("f4")
    for dim, side in sides.items():
        total = total.rolling({dim: side}, center=True, min_periods=1).sum()
        weight = weight.rolling({dim: side}, center=True, min_periods=1).sum()
    averaged = total / weight.where(counted)
    step = {"step": "neighbour_average", "window": sides, "roi": region}
    averaged.attrs = _with_step(patterns, step)
    return ds.assign({PATTERNS: averaged})


def _numbers_by_dim(
    numbers: int | Mapping[str, int], default_dims: Sequence[str], allowed: Sequence[str]
) -> dict[str, int]:
    """A whole number for each dim. Raises UsageError for others."""
    by_dim = numbers if isinstance(numbers, Mapping) else dict.fromkeys(default_dims, numbers)
    _refuse_unknown_dims(by_dim, allowed)
    for number in by_dim.values():
        if not isinstance(number, int | np.integer):
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
    """The attributes without VALUE_ATTRS, and with the step."""
    attrs = {key: value for key, value in patterns.attrs.items() if key not in VALUE_ATTRS}
    steps = attrs.get(STEPS, [])
    if isinstance(steps, str):  # as a store keeps it
        steps = json.loads(steps)
    attrs[STEPS] = [*steps, step]
    return attrs
