"""What the network sees of a pattern: pure functions on batches `(B, C, H, W)` of any dtype, giving
float32.

Order: binning, static background, dynamic background, normalisation. They run on the device, after
the transfer, so that the patterns travel and wait in their stored dtype; only what is learned from
is binned as it is read (`seen_patterns`). What is decoded comes back in detector pixels, between
which it is interpolated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import nn

from vaearr import names as n
from vaearr.config import PreprocessConfig
from vaearr.errors import UsageError
from vaearr.schema.pattern_steps import bin_patterns, joined

FIXED = ("unit", "symmetric")  # the same for all patterns
CUT = 8.0  # of robust normalisation
EPS = 1e-4  # share of a pattern's centre up to which its spread is rounding noise
HIGH = 0.995  # quantile that becomes 1; a few bright voxels do not decide
SEEN_SIDE = (
    60  # pixels along the shorter side that are enough for a network to see a pattern of a scan
)
DARK = 1e-3  # share of the background's maximum below which a detector pixel holds no signal


def seen_shape(config: PreprocessConfig, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a sample `(C, …)` as the network sees it."""
    return (input_shape[0], *(side // side_of(config) for side in input_shape[1:]))


def side_of(config: PreprocessConfig) -> int:
    """Side of the blocks of detector pixels; 1 where it was not decided, as by earlier versions."""
    return 1 if config.bin == "auto" else config.bin


def seen_patterns(patterns: xr.DataArray, config: PreprocessConfig) -> xr.DataArray:
    """Patterns with the network's pixels, lazily: so they are read once and kept in less memory.

    Means of 8-bit values are float16, which is finer than their noise. `Preprocess` takes them,
    too.
    """
    if (side := side_of(config)) == 1:
        return patterns
    sides = {dim: side for dim in patterns.attrs[n.SIGNAL_DIMS] if dim != n.CHANNEL}
    whole = patterns.isel({dim: slice(patterns.sizes[dim] // side * side) for dim in sides})
    seen = bin_patterns(whole, sides)
    return seen.astype("f2", keep_attrs=True) if patterns.dtype == np.uint8 else seen


def binned(x: torch.Tensor, shape: tuple[int, ...], side: int) -> torch.Tensor:
    """Patterns `(B, C, …)` with the network's pixels `(C, …)`, as they are where they have them
    already.
    """
    if x.shape[1:] == shape or side == 1:
        return x
    if x.device.type == "cpu":
        return torch.from_numpy(joined(x.numpy(), (1, *[side] * (x.ndim - 2))))
    return (F.avg_pool2d if x.ndim == 4 else F.avg_pool3d)(x.float(), side)


def enlarged(x: torch.Tensor, shape: tuple[int, ...], side: int) -> torch.Tensor:
    """The network's pixels `(B, C, …)` brought to detector pixels `(C, …)`: linear between the
    blocks' centres.
    """
    if x.shape[1:] == shape or side == 1:
        return x
    whole = F.interpolate(
        x.float(), scale_factor=side, mode="bilinear" if x.ndim == 4 else "trilinear"
    )
    left = [(0, size - has) for size, has in zip(shape[:0:-1], whole.shape[:1:-1], strict=True)]
    return F.pad(
        whole, [end for ends in left for end in ends], mode="replicate"
    )  # pixels that no block had


def remove_static(x: torch.Tensor, background: torch.Tensor, mode: str = "divide") -> torch.Tensor:
    """Patterns without the static background `(C, H, W)`, the mean pattern of the training points.

    `divide` suits a detector whose gain and illumination multiply the signal; detector pixels where
    the background is below 1e-3 of its maximum become 1 (no signal there). `subtract` and `none` do
    as they say.
    """
    x, background = x.float(), background.to(x.device, torch.float32)
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


def dynamic_background(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The slow part of each pattern: Gaussian low-pass of standard deviation `sigma` x the smaller
    side.

    At the edges the Gaussian is cut and renormalised, so that no pixel from outside enters. Two
    small matrix products (rows, columns); exact, for any size. Subtract the result from the
    patterns to remove it.
    """
    x, std = x.float(), sigma * min(x.shape[-2:])
    smoothings = []
    for size in x.shape[-2:]:
        position = torch.arange(size, dtype=torch.float64)
        weights = torch.exp(-0.5 * ((position[:, None] - position) / std) ** 2)
        smoothings.append((weights / weights.sum(1, keepdim=True)).to(x))
    return smoothings[0] @ x @ smoothings[1].T


def normalise(x: torch.Tensor, mode: str = "zscore") -> torch.Tensor:
    """Each pattern on a common scale over its pixels and channels, `(B, C, H, W)`; a constant
    pattern becomes zeros.

    `zscore`: mean 0, standard deviation 1. `robust`: median 0, interquartile range 1.349 (as for a
    Gaussian), cut at +-8. `minmax`: 0 to 1. `quantile`: the least value 0, the 99.5 % quantile 1.
    Where most pixels hold one value, so that the quantiles of `robust` agree, the standard
    deviation becomes 1 instead, and of `quantile` the largest value. A pattern counts as constant
    when its spread is at most `EPS` times the size of its centre (otherwise rounding noise would be
    blown up).
    """
    x = x.float()
    if mode == "none":
        return x
    flat = x.flatten(1)
    centre, spread = _scale(flat, mode)
    scaled = torch.where(spread == 0, 0.0, (flat - centre) / torch.where(spread == 0, 1.0, spread))
    return (scaled.clamp(-CUT, CUT) if mode == "robust" else scaled).view_as(x)


def _scale(flat: torch.Tensor, mode: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre and spread of each row, `(B, D) -> 2 x (B, 1)`; the spread of a constant row is 0. A
    wider spread stands in where quantiles agree.
    """

    def ranked(*shares: float) -> list[torch.Tensor]:
        """Order statistics by one sort; nearest rank."""
        ordered = flat.sort(1).values
        return [ordered[:, round(share * (flat.shape[1] - 1)), None] for share in shares]

    if mode == "minmax":
        centre = flat.amin(1, keepdim=True)
        wider = spread = flat.amax(1, keepdim=True) - centre
    elif mode == "quantile":
        centre, high, most = ranked(0.0, HIGH, 1.0)
        spread, wider = high - centre, most - centre
    else:
        centre, wider = flat.mean(1, keepdim=True), flat.std(1, correction=0, keepdim=True)
        spread = wider
        if mode == "robust":
            low, centre, high = ranked(0.25, 0.5, 0.75)
            spread = (high - low) / 1.349
    least = EPS * centre.abs()
    spread = torch.where(spread <= least, wider, spread)
    return centre, torch.where(spread <= least, 0.0, spread)  # NaN stays NaN


def _where_constant(
    x: torch.Tensor, value: torch.Tensor | float, seen: torch.Tensor
) -> torch.Tensor:
    """`seen`, but `value` for patterns that hold one value only, as stored: backgrounds would print
    a shape on them.
    """
    flat = x.flatten(1)
    is_constant = flat.amax(1) == flat.amin(1)
    return torch.where(is_constant.view(-1, *[1] * (seen.ndim - 1)), value, seen)


def apply(x: torch.Tensor, background: torch.Tensor, config: PreprocessConfig) -> torch.Tensor:
    """All steps of the configuration on patterns `(B, C, ...)` of any dtype; float32, never in
    reduced precision.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = binned(
            x, tuple(background.shape), side_of(config)
        ).float()  # torch has no arithmetic for some stored dtypes
        if config.normalise in FIXED:
            low, size, start = _fixed(config)
            return (x - low) / size + start
        return _where_constant(
            x, 0.0, normalise(_without_backgrounds(x, background, config)[0], config.normalise)
        )


def _without_backgrounds(
    x: torch.Tensor, background: torch.Tensor, config: PreprocessConfig
) -> tuple[torch.Tensor, torch.Tensor | float]:
    """Patterns without the static and the dynamic background, and the dynamic one."""
    seen = remove_static(x, background, config.static_background)
    slow = (
        dynamic_background(seen, config.dynamic_background)
        if config.dynamic_background > 0
        else 0.0
    )
    return seen - slow, slow


def undo(
    decoded: torch.Tensor, x: torch.Tensor, background: torch.Tensor, config: PreprocessConfig
) -> torch.Tensor:
    """Decoded patterns in the units and pixels of the stored `x`: the inverse of `apply`, `2 x (B,
    C, …) -> (B, C, …)`.

    What `apply` took from each pattern is given back from `x`: its centre and spread, and its
    dynamic background. These pass by the network, and only the patterns' own shape comes from it.
    What is lost beyond that: robust cuts at +-8; detector pixels without signal become the
    background; a pattern of one value becomes that value.
    """
    with torch.autocast(x.device.type, enabled=False):
        stored, side, decoded = tuple(x.shape[1:]), side_of(config), decoded.float()
        x = binned(x, tuple(background.shape), side).float()
        if config.normalise in FIXED:
            return enlarged(undo_without_input(decoded, background, config), stored, side)
        seen, slow = _without_backgrounds(x, background, config)
        if config.normalise != "none":
            centre, spread = _scale(seen.flatten(1), config.normalise)
            decoded = (decoded.flatten(1) * spread + centre).view_as(x)
        whole = _where_constant(
            x, x, _with_static(decoded + slow, background, config.static_background)
        )
        return enlarged(whole, stored, side)


def undo_without_input(
    decoded: torch.Tensor, background: torch.Tensor, config: PreprocessConfig
) -> torch.Tensor:
    """Decoded patterns of no input, such as draws from the prior, in stored units and the network's
    pixels; not where it `needs_input`.
    """
    if config.normalise in FIXED:
        low, size, start = _fixed(config)
        return (decoded.float() - start) * size + low
    return _with_static(decoded.float(), background, config.static_background)


def needs_input(config: PreprocessConfig) -> bool:
    """Whether the way back to stored units needs the input pattern, because each was scaled or
    smoothed by itself.
    """
    return config.normalise not in ("none", *FIXED) or config.dynamic_background > 0


def _fixed(config: PreprocessConfig) -> tuple[float, float, float]:
    """Of a fixed range: what becomes the lower end, stored units per preprocessed unit, the lower
    end.
    """
    if config.range is None:
        raise ValueError(
            f"normalise {config.normalise!r} needs a range; `preprocess.settled` takes it from the data."
        )
    low, high = config.range
    return (
        (low, (high - low) / 2, -1.0) if config.normalise == "symmetric" else (low, high - low, 0.0)
    )


def settled(config: PreprocessConfig, patterns: xr.DataArray) -> PreprocessConfig:
    """The steps with `auto` and the range decided for stored patterns. Raises UsageError where no
    range is known, and for blocks that are larger than a pattern.
    """
    is_scan = n.SAMPLE not in patterns.attrs.get(n.NAVIGATION_DIMS, patterns.dims)
    static, normal, fixed = config.static_background, config.normalise, config.range
    if normal == "auto":
        has_background = static in ("auto", "none") and not config.dynamic_background
        is_fixed = fixed or (
            patterns.dtype in (np.uint8, np.int8) and has_background and not is_scan
        )
        normal = "symmetric" if is_fixed else "zscore" if is_scan else "quantile"
    if static == "auto":
        static = "divide" if is_scan and normal not in FIXED else "none"
    if normal in FIXED and fixed is None:
        fixed = value_range(patterns)
        if fixed is None:
            unknown = "the patterns do not tell their least and largest value"
            raise UsageError(f"{unknown}; set preprocess.range=[LOW, HIGH], in stored units.")
    shape = [
        patterns.sizes[dim] for dim in patterns.attrs.get(n.SIGNAL_DIMS, ()) if dim != n.CHANNEL
    ]
    side = side_of(config)
    if config.bin == "auto" and is_scan and len(shape) > 1:
        side = max(1, min(shape) // SEEN_SIDE)
    if side > 1 and side > min(shape):
        raise UsageError(
            f"preprocess.bin is {side}, samples have {shape} pixels; use a smaller number."
        )
    return config.replace(bin=side, static_background=static, normalise=normal, range=fixed)


def value_range(patterns: xr.DataArray) -> tuple[float, float] | None:
    """All values of an 8-bit type, else the least and the largest value of the data; None where
    they are not known.
    """
    if patterns.dtype in (np.uint8, np.int8):
        limits = np.iinfo(patterns.dtype)
        return float(limits.min), float(limits.max)
    low, high = patterns.attrs.get("value_min"), patterns.attrs.get("value_max")
    return None if low is None or high is None or not low < high else (float(low), float(high))


class Preprocess(nn.Module):
    """`apply` with its static background, as the first part of a trained model: saved and moved
    with the weights.
    """

    background: torch.Tensor

    def __init__(self, config: PreprocessConfig, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        self.input_shape = input_shape
        self.register_buffer("background", torch.ones(seen_shape(config, input_shape)))

    def enlarged(self, x: torch.Tensor) -> torch.Tensor:
        """What has the network's pixels, in detector pixels, see `enlarged`."""
        return enlarged(x, self.input_shape, side_of(self.config))

    def fit(
        self,
        batches: Iterable[torch.Tensor],
        total_of: Callable[[torch.Tensor], torch.Tensor] = lambda part: part,
    ) -> None:
        """Take the mean pattern of the batches `(B, C, ...)` as the static background.

        total_of: sums a tensor over the processes among which the batches are divided.
        """
        total, count = torch.zeros(self.background.shape, dtype=torch.float64), 0
        for batch in batches:
            total += binned(batch, tuple(total.shape), side_of(self.config)).float().sum(0).cpu()
            count += len(batch)
        parts = torch.cat([total.flatten(), torch.tensor([float(count)], dtype=torch.float64)])
        # sums over processes are made on the GPU where there is one
        sums = total_of(
            parts.to(self.background.device) if self.background.is_cuda else parts
        ).cpu()
        self.background.copy_((sums[:-1] / sums[-1].clamp_min(1)).view(total.shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Patterns as they are stored -> as the network sees them, `(B, C, ...)`."""
        return apply(x, self.background, self.config)
