"""Preprocessing: pure functions on batches `(B, C, H, W)` of any dtype, giving float32.

Order: binning, static background, normalisation. They run on the device, after the transfer, so
that patterns are moved and kept in their stored dtype; only training patterns are binned as they
are read (`seen_patterns`). Decoded patterns come back in detector pixels, by interpolation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import nn

from vaearr import names as n
from vaearr.config import PreprocessConfig
from vaearr.errors import UsageError
from vaearr.schema.pattern_steps import bin_patterns, block_means

FIXED = ("unit", "symmetric")  # the same for all patterns
CUT = 8.0  # of robust normalisation
EPS = 1e-4  # share of a pattern's centre up to which its spread is rounding noise
HIGH = 0.995  # quantile that becomes 1; a few bright voxels do not decide
SEEN_SIDE = 60  # pixels along the shorter side that suffice for the patterns of a scan
DARK = 1e-3  # share of the background's maximum below which a detector pixel holds no signal


def seen_shape(config: PreprocessConfig, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape `(C, …)` of a preprocessed sample."""
    return (input_shape[0], *(side // side_of(config) for side in input_shape[1:]))


def side_of(config: PreprocessConfig) -> int:
    """Return the side of the blocks of detector pixels; 1 if undecided, as by earlier versions."""
    return 1 if config.bin == "auto" else config.bin


def seen_patterns(patterns: xr.DataArray, config: PreprocessConfig) -> xr.DataArray:
    """Bin patterns lazily, so that they are read once and kept in less memory.

    Means of 8-bit values are float16, which is finer than their noise. `Preprocess` takes them,
    too.
    """
    side = side_of(config)
    if side == 1:
        return patterns
    sides = {dim: side for dim in patterns.attrs[n.SIGNAL_DIMS] if dim != n.CHANNEL}
    cropped = patterns.isel({dim: slice(patterns.sizes[dim] // side * side) for dim in sides})
    seen = bin_patterns(cropped, sides)
    return seen.astype("f2", keep_attrs=True) if patterns.dtype == np.uint8 else seen


def binned(x: torch.Tensor, shape: tuple[int, ...], side: int) -> torch.Tensor:
    """Bin patterns `(B, C, …)` to the network's pixels `(C, …)`, unless they have them already."""
    if x.shape[1:] == shape or side == 1:
        return x
    if x.device.type == "cpu":
        return torch.from_numpy(block_means(x.numpy(), (1, *[side] * (x.ndim - 2))))
    pool = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
    return pool(x.float(), side)


def enlarged(x: torch.Tensor, shape: tuple[int, ...], side: int) -> torch.Tensor:
    """Interpolate the network's pixels `(B, C, …)` to detector pixels `(C, …)`, linearly between
    the centres of the blocks.
    """
    if x.shape[1:] == shape or side == 1:
        return x
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    x = F.interpolate(x.float(), scale_factor=side, mode=mode)
    padding = []  # for pixels outside of all blocks, the last dim first
    for size, covered in zip(shape[:0:-1], x.shape[:1:-1], strict=True):
        padding += [0, size - covered]
    return F.pad(x, padding, mode="replicate")


def remove_static(x: torch.Tensor, background: torch.Tensor, mode: str = "divide") -> torch.Tensor:
    """Remove the static background `(C, H, W)`, the mean pattern of the training points.

    `divide` suits a detector whose gain and illumination multiply the signal; detector pixels where
    the background is below 1e-3 of its maximum become 1 (no signal there).
    """
    x = x.float()
    background = background.to(x.device, torch.float32)
    if mode == "divide":
        lit = background > background.abs().max() * DARK
        return torch.where(lit, x / torch.where(lit, background, 1.0), 1.0)
    return x - background if mode == "subtract" else x


def _with_static(x: torch.Tensor, background: torch.Tensor, mode: str) -> torch.Tensor:
    """The inverse of `remove_static`; detector pixels without signal become the background."""
    background = background.to(x)
    if mode == "divide":
        return torch.where(background > background.abs().max() * DARK, x * background, background)
    return x + background if mode == "subtract" else x


def normalise(x: torch.Tensor, mode: str = "zscore") -> torch.Tensor:
    """Scale each pattern over its pixels and channels, `(B, C, H, W)`; a constant one becomes 0.

    `zscore`: mean 0, standard deviation 1. `robust`: median 0, interquartile range 1.349 (as for a
    Gaussian), cut at +-8. `minmax`: 0 to 1. `quantile`: the minimum becomes 0, the 99.5 % quantile
    1. Where most pixels hold one value, so that the quantiles of `robust` agree, the standard
    deviation becomes 1 instead, and of `quantile` the maximum. A pattern counts as constant when
    its spread is at most `EPS` times the size of its centre (otherwise rounding noise would be
    amplified).
    """
    x = x.float()
    if mode == "none":
        return x
    flat = x.flatten(1)
    centre, spread = _scale(flat, mode)
    scaled = torch.where(spread == 0, 0.0, (flat - centre) / torch.where(spread == 0, 1.0, spread))
    if mode == "robust":
        scaled = scaled.clamp(-CUT, CUT)
    return scaled.view_as(x)


def _scale(flat: torch.Tensor, mode: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre and spread of each row, `(B, D) -> 2 x (B, 1)`; the spread of a constant row is 0.

    A wider spread replaces one of agreeing quantiles.
    """
    if mode == "minmax":
        centre = flat.amin(1, keepdim=True)
        wider = spread = flat.amax(1, keepdim=True) - centre
    elif mode == "quantile":
        centre, high, largest = _quantiles(flat, 0.0, HIGH, 1.0)
        spread, wider = high - centre, largest - centre
    else:
        centre = flat.mean(1, keepdim=True)
        wider = spread = flat.std(1, correction=0, keepdim=True)
        if mode == "robust":
            low, centre, high = _quantiles(flat, 0.25, 0.5, 0.75)
            spread = (high - low) / 1.349
    smallest = EPS * centre.abs()
    spread = torch.where(spread <= smallest, wider, spread)
    return centre, torch.where(spread <= smallest, 0.0, spread)  # NaN stays NaN


def _quantiles(flat: torch.Tensor, *shares: float) -> list[torch.Tensor]:
    """Quantiles of each row by one sort, nearest rank, each `(B, 1)`."""
    ordered = flat.sort(1).values
    return [ordered[:, round(share * (flat.shape[1] - 1)), None] for share in shares]


def _where_constant(
    x: torch.Tensor, value: torch.Tensor | float, result: torch.Tensor
) -> torch.Tensor:
    """Replace the result by a value for patterns that are constant as stored: the background would
    imprint a shape on them.
    """
    flat = x.flatten(1)
    is_constant = flat.amax(1) == flat.amin(1)
    return torch.where(is_constant.view(-1, *[1] * (result.ndim - 1)), value, result)


def apply(x: torch.Tensor, background: torch.Tensor, config: PreprocessConfig) -> torch.Tensor:
    """Preprocess patterns `(B, C, ...)` of any dtype; float32, never in reduced precision."""
    with torch.autocast(x.device.type, enabled=False):
        # torch has no arithmetic for some stored dtypes
        x = binned(x, tuple(background.shape), side_of(config)).float()
        if config.normalise in FIXED:
            low, size, start = _fixed(config)
            return (x - low) / size + start
        seen = remove_static(x, background, config.static_background)
        return _where_constant(x, 0.0, normalise(seen, config.normalise))


def undo(
    decoded: torch.Tensor, x: torch.Tensor, background: torch.Tensor, config: PreprocessConfig
) -> torch.Tensor:
    """Convert decoded patterns to the units and pixels of the stored `x`: the inverse of `apply`.

    Centre and spread of each pattern are those of `x`; the network gives its shape only. What is
    lost beyond that: robust cuts at +-8; detector pixels without signal become the background; a
    constant pattern becomes its value. `2 x (B, C, …) -> (B, C, …)`.
    """
    with torch.autocast(x.device.type, enabled=False):
        stored_shape = tuple(x.shape[1:])
        side = side_of(config)
        decoded = decoded.float()
        x = binned(x, tuple(background.shape), side).float()
        if config.normalise in FIXED:
            return enlarged(undo_without_input(decoded, background, config), stored_shape, side)
        if config.normalise != "none":
            seen = remove_static(x, background, config.static_background)
            centre, spread = _scale(seen.flatten(1), config.normalise)
            decoded = (decoded.flatten(1) * spread + centre).view_as(x)
        restored = _with_static(decoded, background, config.static_background)
        return enlarged(_where_constant(x, x, restored), stored_shape, side)


def undo_without_input(
    decoded: torch.Tensor, background: torch.Tensor, config: PreprocessConfig
) -> torch.Tensor:
    """Convert decoded patterns without an input, such as samples of the prior, to stored units, in
    the network's pixels; not where it `needs_input`.
    """
    if config.normalise in FIXED:
        low, size, start = _fixed(config)
        return (decoded.float() - start) * size + low
    return _with_static(decoded.float(), background, config.static_background)


def needs_input(config: PreprocessConfig) -> bool:
    """Whether stored units need the input pattern, because each was scaled by itself."""
    return config.normalise not in ("none", *FIXED)


def _fixed(config: PreprocessConfig) -> tuple[float, float, float]:
    """Of a fixed range: its lower end, stored units per preprocessed unit, the preprocessed lower
    end.
    """
    if config.range is None:
        raise ValueError(
            f"normalise {config.normalise!r} needs a range; `preprocess.settled` takes it from "
            "the data."
        )
    low, high = config.range
    if config.normalise == "symmetric":
        return low, (high - low) / 2, -1.0
    return low, high - low, 0.0


def settled(config: PreprocessConfig, patterns: xr.DataArray) -> PreprocessConfig:
    """Decide `auto` and the range for stored patterns.

    Raises UsageError where no range is known, and for blocks that are larger than a pattern.
    """
    is_scan = n.SAMPLE not in patterns.attrs.get(n.NAVIGATION_DIMS, patterns.dims)
    mode: Any = config.normalise
    if mode == "auto":
        mode = _default_normalisation(config, patterns, is_scan)
    static = config.static_background
    if static == "auto":
        static = "divide" if is_scan and mode not in FIXED else "none"
    limits = config.range
    if mode in FIXED and limits is None:
        limits = value_range(patterns)
        if limits is None:
            raise UsageError(
                "the minimum and maximum of the patterns are not known; set "
                "preprocess.range=[LOW, HIGH], "
                "in stored units."
            )
    side = _decided_side(config, patterns, is_scan)
    return config.replace(bin=side, static_background=static, normalise=mode, range=limits)


def _default_normalisation(config: PreprocessConfig, patterns: xr.DataArray, is_scan: bool) -> str:
    if config.range:
        return "symmetric"
    if is_scan:
        return "zscore"
    is_8_bit = patterns.dtype in (np.uint8, np.int8)
    return "symmetric" if is_8_bit and config.static_background in ("auto", "none") else "quantile"


def _decided_side(config: PreprocessConfig, patterns: xr.DataArray, is_scan: bool) -> int:
    """Side of the blocks of detector pixels: as set; by default, that of a scan's patterns."""
    signal_dims = patterns.attrs.get(n.SIGNAL_DIMS, ())
    shape = [patterns.sizes[dim] for dim in signal_dims if dim != n.CHANNEL]
    if config.bin == "auto":
        return max(1, min(shape) // SEEN_SIDE) if is_scan and len(shape) > 1 else 1
    if config.bin > 1 and config.bin > min(shape):
        raise UsageError(
            f"preprocess.bin is {config.bin}, samples have {shape} pixels; use a smaller number."
        )
    return config.bin


def value_range(patterns: xr.DataArray) -> tuple[float, float] | None:
    """Return the limits of an 8-bit type, else minimum and maximum of the data, None if unknown."""
    if patterns.dtype in (np.uint8, np.int8):
        limits = np.iinfo(patterns.dtype)
        return float(limits.min), float(limits.max)
    low = patterns.attrs.get("value_min")
    high = patterns.attrs.get("value_max")
    if low is None or high is None or not low < high:
        return None
    return float(low), float(high)


class Preprocess(nn.Module):
    """`apply` with its static background, as the first part of a trained model."""

    background: torch.Tensor

    def __init__(self, config: PreprocessConfig, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        self.input_shape = input_shape
        self.register_buffer("background", torch.ones(seen_shape(config, input_shape)))

    def enlarged(self, x: torch.Tensor) -> torch.Tensor:
        """Interpolate to detector pixels, see `enlarged`."""
        return enlarged(x, self.input_shape, side_of(self.config))

    def fit(
        self,
        batches: Iterable[torch.Tensor],
        total_of: Callable[[torch.Tensor], torch.Tensor] = lambda values: values,
    ) -> None:
        """Take the mean pattern of the batches `(B, C, ...)` as the static background.

        total_of: sums a tensor over the processes among which the batches are divided.
        """
        shape = self.background.shape
        sums = torch.zeros(shape.numel() + 1, dtype=torch.float64)  # and the number of patterns
        for batch in batches:
            seen = binned(batch, tuple(shape), side_of(self.config)).float()
            sums[:-1] += seen.sum(0).cpu().flatten()
            sums[-1] += len(batch)
        if self.background.is_cuda:  # where processes add up
            sums = sums.to(self.background.device)
        sums = total_of(sums).cpu()
        self.background.copy_((sums[:-1] / sums[-1].clamp_min(1)).view(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Preprocess stored patterns `(B, C, ...)`."""
        return apply(x, self.background, self.config)
