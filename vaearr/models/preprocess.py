"""Preprocessing of batches `(B, C, …)` of any dtype to float32, and its inverse.

Order: binning, static background, normalisation. It runs on the device, after the transfer, so that
patterns are moved and kept in their stored dtype; only training patterns are binned as they are
read (`binned_patterns`). Decoded patterns are interpolated to detector pixels.
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
SHORTER_SIDE = 60  # pixels along the shorter side that suffice for the patterns of a scan
DARK = 1e-3  # share of the background's maximum below which a detector pixel holds no signal


class Preprocess(nn.Module):
    """Preprocessing with its static background, the first part of a trained model.

    Parameters
    ----------
    config : PreprocessConfig
        Settings without `auto`.
    input_shape : tuple of int
        Shape of a stored sample, channels first.
    """

    background: torch.Tensor

    def __init__(self, config: PreprocessConfig, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        self.input_shape = input_shape
        self.side = _block_side(config)
        self.shape = (input_shape[0], *(size // self.side for size in input_shape[1:]))
        self.register_buffer("background", torch.ones(self.shape))

    @property
    def needs_input(self) -> bool:
        """Whether stored units need the input pattern, because each was scaled by itself."""
        return self.config.normalise not in ("none", *FIXED)

    def fit(
        self,
        batches: Iterable[torch.Tensor],
        total_of: Callable[[torch.Tensor], torch.Tensor] = lambda values: values,
    ) -> None:
        """Take the mean pattern of the batches `(B, C, …)` as the static background.

        total_of: sums a tensor over the processes among which the batches are divided.
        """
        sums = torch.zeros(self.background.numel() + 1, dtype=torch.float64)  # the last: patterns
        for batch in batches:
            sums[:-1] += self._binned(batch).sum(0).cpu().flatten()
            sums[-1] += len(batch)
        if self.background.is_cuda:  # where processes add up
            sums = sums.to(self.background.device)
        sums = total_of(sums).cpu()
        self.background.copy_((sums[:-1] / sums[-1].clamp_min(1)).view(self.shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Preprocess stored patterns `(B, C, …)`; float32, never in reduced precision."""
        with torch.autocast(x.device.type, enabled=False):
            x = self._binned(x)
            if self.config.normalise in FIXED:
                low, size, start = _fixed(self.config)
                return (x - low) / size + start
            corrected = remove_static(x, self.background, self.config.static_background)
            normalised = normalise(corrected, self.config.normalise)
            return torch.where(_is_constant(x), 0.0, normalised)

    def spread(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scale of each stored pattern, `(B,)`: what is 1 after the preprocessing.

        In units of the corrected patterns where each is scaled by itself; 0 of a constant pattern.
        """
        x = self._binned(x)
        if not self.needs_input:
            return torch.ones(len(x), device=x.device)
        corrected = remove_static(x, self.background, self.config.static_background)
        _, spread = _scale(corrected.flatten(1), self.config.normalise)
        return torch.where(_is_constant(x).flatten(), 0.0, spread.flatten())

    def undo(self, decoded: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Convert decoded patterns to units and pixels of the stored `x`, both `(B, C, …)`.

        Centre and spread of each pattern are those of `x`; the network gives its shape only. What
        is lost beyond that: robust cuts at +-8; detector pixels without signal become the
        background; a constant pattern becomes its value.
        """
        if self.config.normalise in FIXED:
            return self.enlarged(self.undo_without_input(decoded))
        with torch.autocast(x.device.type, enabled=False):
            decoded = decoded.float()
            x = self._binned(x)
            if self.needs_input:
                corrected = remove_static(x, self.background, self.config.static_background)
                centre, spread = _scale(corrected.flatten(1), self.config.normalise)
                decoded = (decoded.flatten(1) * spread + centre).view_as(x)
            restored = _with_static(decoded, self.background, self.config.static_background)
            return self.enlarged(torch.where(_is_constant(x), x, restored))

    def undo_without_input(self, decoded: torch.Tensor) -> torch.Tensor:
        """Convert decoded patterns without an input, such as generated ones, to stored units.

        In the network's pixels; not where it `needs_input`.
        """
        if self.config.normalise in FIXED:
            low, size, start = _fixed(self.config)
            return (decoded.float() - start) * size + low
        return _with_static(decoded.float(), self.background, self.config.static_background)

    def enlarged(self, x: torch.Tensor) -> torch.Tensor:
        """Interpolate the network's pixels `(B, C, …)` to detector pixels, linearly between the
        centres of the blocks.
        """
        if self.side == 1:
            return x
        mode = "bilinear" if x.ndim == 4 else "trilinear"
        x = F.interpolate(x.float(), scale_factor=self.side, mode=mode)
        padding: list[int] = []  # for pixels outside of all blocks, the last dim first
        for size, covered in zip(self.input_shape[1:], x.shape[2:], strict=True):
            padding = [0, size - covered, *padding]
        return F.pad(x, padding, mode="replicate")

    def _binned(self, x: torch.Tensor) -> torch.Tensor:
        """Patterns in the network's pixels, float32; torch has no arithmetic for some dtypes."""
        if self.side == 1 or x.shape[1:] == self.shape:
            return x.float()
        if x.device.type == "cpu":
            return torch.from_numpy(
                block_means(x.numpy(), (1, *[self.side] * (x.ndim - 2)))
            ).float()
        pool = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
        return pool(x.float(), self.side)


def binned_patterns(patterns: xr.DataArray, config: PreprocessConfig) -> xr.DataArray:
    """Bin patterns lazily, so that they are read once and kept in less memory.

    Means of 8-bit values are float16, which is finer than their noise. `Preprocess` takes them as
    they are.
    """
    side = _block_side(config)
    if side == 1:
        return patterns
    sides = {dim: side for dim in patterns.attrs[n.SIGNAL_DIMS] if dim != n.CHANNEL}
    cropped = patterns.isel({dim: slice(patterns.sizes[dim] // side * side) for dim in sides})
    means = bin_patterns(cropped, sides)
    if patterns.dtype == np.uint8:
        means = means.astype("f2", keep_attrs=True)
    return means


def _block_side(config: PreprocessConfig) -> int:
    """Side of the blocks of detector pixels; 1 if undecided, as by earlier versions."""
    return 1 if config.bin == "auto" else config.bin


def remove_static(x: torch.Tensor, background: torch.Tensor, mode: str) -> torch.Tensor:
    """Remove the static background `(C, H, W)`, the mean pattern of the training points.

    `divide` suits a detector whose gain and illumination multiply the signal; detector pixels where
    the background is below 1e-3 of its maximum hold no signal and become 1.
    """
    if mode == "divide":
        is_lit = _is_lit(background)
        return torch.where(is_lit, x / torch.where(is_lit, background, 1.0), 1.0)
    return x - background if mode == "subtract" else x


def _with_static(x: torch.Tensor, background: torch.Tensor, mode: str) -> torch.Tensor:
    """The inverse of `remove_static`; detector pixels without signal become the background."""
    if mode == "divide":
        return torch.where(_is_lit(background), x * background, background)
    return x + background if mode == "subtract" else x


def _is_lit(background: torch.Tensor) -> torch.Tensor:
    return background > background.abs().max() * DARK


def normalise(x: torch.Tensor, mode: str) -> torch.Tensor:
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
    is_constant = spread == 0
    scaled = (flat - centre) / torch.where(is_constant, 1.0, spread)
    scaled = torch.where(is_constant, 0.0, scaled)
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


def _is_constant(x: torch.Tensor) -> torch.Tensor:
    """Which patterns have one value, `(B, 1, …)`: the background would imprint a shape on them."""
    pixels = tuple(range(1, x.ndim))
    return x.amax(pixels, keepdim=True) == x.amin(pixels, keepdim=True)


def _fixed(config: PreprocessConfig) -> tuple[float, float, float]:
    """Low, size and start of a fixed range: stored = (preprocessed - start) * size + low."""
    if config.range is None:
        raise ValueError(
            f"normalise {config.normalise!r} needs a range; `decide_preprocess` takes it from the "
            "data."
        )
    low, high = config.range
    if config.normalise == "symmetric":
        return low, (high - low) / 2, -1.0
    return low, high - low, 0.0


def decide_preprocess(config: PreprocessConfig, patterns: xr.DataArray) -> PreprocessConfig:
    """Decide `auto` and the range for stored patterns.

    Raises UsageError where no range is known, and for blocks that are larger than a pattern.
    """
    is_scan = n.SAMPLE not in patterns.attrs[n.NAVIGATION_DIMS]
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
    sides = [patterns.sizes[dim] for dim in patterns.attrs[n.SIGNAL_DIMS] if dim != n.CHANNEL]
    if config.bin == "auto":
        return max(1, min(sides) // SHORTER_SIDE) if is_scan and len(sides) > 1 else 1
    if config.bin > min(sides):
        raise UsageError(
            f"preprocess.bin is {config.bin}, samples have {sides} pixels; use a smaller number."
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
