"""Steps on patterns before anything is learned, DataArray -> DataArray: crop, bin, average over neighbours.

Each is lazy where the patterns are, finds its axes by `navigation_dims` and `signal_dims`, keeps the coordinates right
and adds itself to the attribute `steps`. Static and dynamic background: `vaearr.models.preprocess.preprocess` with
`normalise="none"`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike

from vaearr.errors import SchemaError, UsageError, did_you_mean
from vaearr.names import CHANNEL, DX, DY, NAVIGATION_DIMS, PROVENANCE, SAMPLE, SHA256_OF, SIGNAL_DIMS, X, Y
from vaearr.provenance import nested

STEPS = "steps"
CENTRE, CONVENTION = "projection_centre", "projection_centre_convention"
OF_THE_VALUES = ("value_min", "value_max", "n_constant", "n_masked", "sha256", SHA256_OF, "preprocess", PROVENANCE)

Window = tuple[float | None, float | None]


def crop(patterns: xr.DataArray, **windows: Window) -> xr.DataArray:
    """A window of the detector: `crop(patterns, dy=(5, 55), dx=(0, 60))`.

    windows: per signal dim the half-open interval `start <= coordinate < stop`, in coordinate units (detector pixels);
    None for no limit. Coordinates of what is left stay as they are. The attribute `projection_centre` follows where its
    convention is Bruker's (shares of the detector's width and height); in any other one it is dropped, since it no
    longer holds. Raises UsageError for a dim that is not one of the detector's and for a window without pixels.
    """
    _, signal = _dims(patterns)
    _known(windows, signal)
    bounds: dict[str, slice] = {}
    for dim, (start, stop) in windows.items():
        places = patterns[dim].values
        inside = np.ones(len(places), bool)
        inside &= True if start is None else places >= start
        inside &= True if stop is None else places < stop
        kept = np.flatnonzero(inside)
        if not len(kept):
            raise UsageError(
                f"the window {dim}=({start}, {stop}) holds no detector pixel; {dim} runs from {places.min()} to "
                f"{places.max()}."
            )
        if len(kept) != kept[-1] - kept[0] + 1:
            raise SchemaError(f"the coordinate {dim!r} is not in order; sort the patterns by it first.")
        bounds[dim] = slice(int(kept[0]), int(kept[-1]) + 1)
    attrs = _attrs(patterns, {"step": "crop", **{dim: list(window) for dim, window in windows.items()}})
    cropped = patterns.isel(bounds).drop_attrs(deep=False)
    return cropped.assign_attrs(_cropped_centre(patterns, attrs, bounds))


def _cropped_centre(patterns: xr.DataArray, attrs: dict[str, Any], bounds: Mapping[str, slice]) -> dict[str, Any]:
    """Bruker: x from the left edge / width, y from the top / height, z = distance / height."""
    if CENTRE not in attrs:
        return attrs
    if str(attrs.get(CONVENTION, "")).lower() != "bruker" or not {DY, DX} <= set(map(str, patterns.dims)):
        return {key: value for key, value in attrs.items() if key not in (CENTRE, CONVENTION)}
    height, width = patterns.sizes[DY], patterns.sizes[DX]
    rows, columns = bounds.get(DY, slice(0, height)), bounds.get(DX, slice(0, width))
    x, y, z = attrs[CENTRE]
    new_height, new_width = rows.stop - rows.start, columns.stop - columns.start
    centre = [
        (x * width - columns.start) / new_width,
        (y * height - rows.start) / new_height,
        z * height / new_height,
    ]
    return attrs | {CENTRE: centre}


def bin_patterns(
    patterns: xr.DataArray,
    size: int | Mapping[str, int] = 2,
    *,
    how: Literal["mean", "sum"] = "mean",
    dtype: DTypeLike | None = None,
) -> xr.DataArray:
    """Detector pixels joined in blocks of `size`, one number for all detector dims or one per dim; channels stay apart.

    dtype of the result: by default float32 for the mean, and for the sum the smallest unsigned (or signed) integer type
    that holds the largest sum there can be, float64 for patterns of floats and where no integer type does. A mean in an
    integer type is rounded to the nearest, half to even. A coordinate becomes the mean of its block. Raises UsageError
    where a side is not a multiple of the block (crop first) or the type cannot hold the sums.
    """
    _, signal = _dims(patterns)
    detector = [dim for dim in signal if dim != CHANNEL]
    sizes = _per_dim(size, detector)
    _known(sizes, detector)
    for dim, side in sizes.items():
        length = patterns.sizes[dim]
        if side < 1 or length % side:
            hint = f"crop to {length // side * side} first" if 1 <= side <= length else "use a number from 1 to it"
            raise UsageError(f"{dim!r} has {length} pixels, which is not a multiple of {side}; {hint}.")
    if how not in ("mean", "sum"):
        raise UsageError(f"how={how!r} is not known; use 'mean' or 'sum'.")
    sides = [sizes.get(dim, 1) for dim in signal]
    wanted = _binned_dtype(patterns.dtype, int(np.prod(sides)), how, dtype)

    def kernel(block: np.ndarray) -> np.ndarray:
        return _binned(block, sides, how, wanted)

    whole = _whole(patterns, signal)
    result: xr.DataArray = xr.apply_ufunc(
        kernel,
        whole.drop_vars([name for name, c in whole.coords.items() if set(c.dims) & set(signal)]),
        input_core_dims=[signal],
        output_core_dims=[signal],
        exclude_dims=set(signal),
        dask="parallelized",
        output_dtypes=[wanted],
        dask_gufunc_kwargs={
            "output_sizes": {dim: patterns.sizes[dim] // side for dim, side in zip(signal, sides, strict=True)}
        },
        keep_attrs="override",
    )
    attrs = _attrs(patterns, {"step": "bin", "size": sizes, "how": how, "dtype": str(wanted)})
    coords = _binned_coords(patterns, dict(zip(signal, sides, strict=True)))
    ordered = result.drop_attrs(deep=False).transpose(*patterns.dims)
    return ordered.assign_coords(coords).rename(patterns.name).assign_attrs(attrs)


def _binned(block: np.ndarray, sides: Sequence[int], how: str, dtype: np.dtype) -> np.ndarray:
    """`(…, signal)` with blocks of pixels joined, summed in float64 or 64-bit integers."""
    lead = block.shape[: block.ndim - len(sides)]
    shape, axes = list(lead), []
    for length, side in zip(block.shape[len(lead) :], sides, strict=True):
        shape += [length // side, side]
        axes.append(len(shape) - 1)
    is_float = block.dtype.kind == "f" or (block.dtype.itemsize == 8 and np.dtype(dtype).kind == "f")
    inner = np.float64 if is_float else np.int64 if block.dtype.kind == "i" else np.uint64
    total = block.reshape(shape).sum(tuple(axes), dtype=inner)
    if how == "sum":
        return total.astype(dtype)
    mean = total / np.prod(sides)
    return (np.rint(mean) if dtype.kind in "iu" else mean).astype(dtype)


def _binned_dtype(stored: np.dtype, count: int, how: str, dtype: DTypeLike | None) -> np.dtype:
    if how == "mean" and dtype is None:
        return np.dtype(np.float32)
    if stored.kind == "f":
        wanted = np.dtype(dtype or np.float64)
        if wanted.kind != "f":
            raise UsageError(f"patterns of {stored} cannot be binned into {wanted}; use a float type.")
        return wanted
    factor = count if how == "sum" else 1
    low, high = int(np.iinfo(stored).min) * factor, int(np.iinfo(stored).max) * factor
    if dtype is None:
        wanted = np.min_scalar_type(low if low else high)  # of signed integers, the lowest is the farthest from zero
        return np.dtype(np.float64) if wanted.kind == "O" else wanted
    wanted = np.dtype(dtype)
    if wanted.kind not in "iuf":
        raise UsageError(f"patterns cannot be binned into {wanted}; use an integer or float type.")
    if wanted.kind in "iu" and not (np.iinfo(wanted).min <= low and high <= np.iinfo(wanted).max):
        raise UsageError(f"{wanted} cannot hold {how}s of {stored} from {low} to {high}; use a wider type.")
    return wanted


def _binned_coords(patterns: xr.DataArray, sides: Mapping[str, int]) -> dict[Any, Any]:
    """Coordinates along signal dims: means of their blocks for numbers, as they are where nothing was joined."""
    coords: dict[Any, Any] = {}
    for name, coord in patterns.coords.items():
        along = [dim for dim in map(str, coord.dims) if sides.get(dim, 1) > 1]
        if not set(map(str, coord.dims)) & set(sides):
            continue
        if not along:
            coords[name] = coord.variable
        elif len(coord.dims) == 1 and coord.dtype.kind in "iuf":
            values = coord.values.astype(float).reshape(-1, sides[along[0]]).mean(1)
            coords[name] = (along[0], values, coord.attrs)
    return coords


def neighbour_average(
    patterns: xr.DataArray,
    window: int | Mapping[str, int] = 3,
    *,
    weights: Literal["uniform", "gaussian"] = "uniform",
    sigma: float | None = None,
    roi: xr.DataArray | None = None,
) -> xr.DataArray:
    """Each pattern averaged with those of neighbouring scan points, float32.

    window: scan points per side, odd; one number for y and x, or one per navigation dim. weights: all alike, or a
    Gaussian of standard deviation `sigma` scan points (default: a quarter of the window's side). roi: boolean map of
    the points that count (`present` or a region of interest). Points outside it, and patterns with NaN, neither
    contribute nor get a value: the weights of the others are scaled to add up to 1, as they are at the edge of the
    grid; what has no value is NaN.

    Under dask each chunk is computed with a rim of half a window from its neighbours, so memory stays that of a row of
    chunks. Raises UsageError for a window that is even or lies along a dim without a grid, SchemaError for a map of
    another grid.
    """
    nav, signal = _dims(patterns)
    grid = [dim for dim in nav if dim in (Y, X)] or list(nav)
    sides = _per_dim(window, grid)
    _known(sides, nav)
    for dim, side in sides.items():
        if side < 1 or side % 2 == 0:
            raise UsageError(f"the window is {side} along {dim!r}; use an odd number of scan points.")
        if dim == SAMPLE and side > 1:
            raise UsageError("a collection has no neighbours to average over; it needs a scan.")
    profiles = [_profile(sides.get(dim, 1), weights, sigma) for dim in nav]
    inside = _inside(patterns, nav, roi)
    ordered = patterns.transpose(*nav, *signal)
    if patterns.chunks:
        data = _averaged_lazily(_whole(ordered, signal).data, inside, profiles)
    else:
        data = _averaged(ordered.values, inside.reshape(*inside.shape, *[1] * len(signal)), profiles)
    step: dict[str, Any] = {"step": "neighbour_average", "window": sides, "weights": weights}
    step |= {"sigma": sigma} if weights == "gaussian" else {}
    attrs = _attrs(patterns, step | {"roi": None if roi is None else str(roi.name or "given")})
    result = xr.DataArray(data, dims=ordered.dims, coords=ordered.coords, name=patterns.name, attrs=attrs)
    return result.transpose(*patterns.dims)


def _profile(side: int, weights: str, sigma: float | None) -> np.ndarray:
    offsets = np.arange(side) - side // 2
    if weights == "uniform":
        return np.ones(side, np.float32)
    if weights != "gaussian":
        raise UsageError(f"weights={weights!r} is not known; use 'uniform' or 'gaussian'.")
    if sigma is not None and not sigma > 0:
        raise UsageError(f"sigma is {sigma}; it is in scan points and must be positive.")
    std = side / 4 if sigma is None else sigma
    return np.exp(-0.5 * (offsets / std) ** 2).astype(np.float32)


def _inside(patterns: xr.DataArray, nav: Sequence[str], roi: xr.DataArray | None) -> np.ndarray:
    shape = tuple(patterns.sizes[dim] for dim in nav)
    if roi is None:
        return np.ones(shape, bool)
    if set(map(str, roi.dims)) != set(nav) or roi.dtype != bool:
        raise SchemaError(f"the roi is {roi.dtype} over {roi.dims}; expected boolean over {tuple(nav)}.")
    for dim in nav:
        if roi.sizes[dim] != patterns.sizes[dim] or not np.array_equal(roi[dim].values, patterns[dim].values):
            raise SchemaError(f"the roi's coordinate {dim!r} is not that of the patterns; make it from the same scan.")
    return np.asarray(roi.transpose(*nav).values)


def _averaged_lazily(data: Any, inside: np.ndarray, profiles: Sequence[np.ndarray]) -> Any:
    import dask.array as da

    n_nav = inside.ndim
    mask = inside.reshape(*inside.shape, *[1] * (data.ndim - n_nav))
    depth = {axis: min(len(profile) // 2, data.shape[axis] - 1) for axis, profile in enumerate(profiles)}
    return da.map_overlap(
        _averaged,
        data,
        da.from_array(mask, chunks=(*data.chunks[:n_nav], *[1] * (data.ndim - n_nav))),
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
    signal = tuple(range(len(profiles), block.ndim))
    if block.dtype.kind == "f":
        mask = mask & np.isfinite(values).all(signal, keepdims=True)
    values = np.where(mask, values, np.float32(0))
    weight = mask.astype(np.float32)
    for axis, profile in enumerate(profiles):
        if len(profile) > 1:
            values = correlate1d(values, profile, axis, mode="constant")  # nothing comes from beyond the edge
            weight = correlate1d(weight, profile, axis, mode="constant")
    with np.errstate(invalid="ignore", divide="ignore"):
        values /= weight
    return np.where(mask, values, np.float32(np.nan))


def _per_dim(given: int | Mapping[str, int], dims: Sequence[str]) -> dict[str, int]:
    """One number for each dim. Raises UsageError for what is no whole number."""
    numbers = dict(given) if isinstance(given, Mapping) else dict.fromkeys(dims, given)
    for dim, number in numbers.items():
        if not isinstance(number, int | np.integer) or isinstance(number, bool):
            raise UsageError(f"{dim}={number!r} is no whole number; give one, or one for each dimension.")
    return {str(dim): int(number) for dim, number in numbers.items()}


def _dims(patterns: xr.DataArray) -> tuple[list[str], list[str]]:
    """Navigation and signal dims. Raises SchemaError for an array that does not say which are which."""
    for key in (NAVIGATION_DIMS, SIGNAL_DIMS):
        if key not in patterns.attrs:
            raise SchemaError(f"the array lacks the attribute {key!r}; pass the `patterns` of a store or source.")
    signal = [str(dim) for dim in patterns.attrs[SIGNAL_DIMS]]
    nav = [str(dim) for dim in patterns.attrs[NAVIGATION_DIMS] if dim in patterns.dims]
    lacking = [dim for dim in signal if dim not in patterns.dims]
    if lacking:
        raise SchemaError(f"the array has dims {patterns.dims} and lacks {', '.join(lacking)} of its signal dims.")
    return nav, signal


def _known(given: Mapping[str, Any], dims: Sequence[str]) -> None:
    for dim in given:
        if dim not in dims:
            raise UsageError(f"{dim!r} is not a dimension for this step.{did_you_mean(dim, list(dims))}")


def _whole(patterns: xr.DataArray, signal: Sequence[str]) -> xr.DataArray:
    return patterns.chunk(dict.fromkeys(signal, -1)) if patterns.chunks else patterns


def _attrs(patterns: xr.DataArray, step: dict[str, Any]) -> dict[str, Any]:
    """Attributes without what described the old values, with the step that was done."""
    kept = {key: value for key, value in patterns.attrs.items() if key not in OF_THE_VALUES}
    return kept | {STEPS: [*(nested(kept, STEPS) or []), step]}
