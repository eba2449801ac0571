"""Perceptual distances: how far apart two samples are to a network that has learned to see, not pixel by pixel.

`build_perceptual` makes one of three kinds. lpips: a feature network and linear weights from the user's files, the
distance of Zhang, Isola, Efros, Shechtman & Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", CVPR 2018, eq. 1. features: the same without linear weights. encoder: the stages of a trained encoder of ours,
in 2-D and 3-D, which needs no file. Volumes pass 2-D networks slice by slice along their three axes (2.5-D).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from vaearr.errors import DataError, UsageError, did_you_mean
from vaearr.models.backbones import BACKBONES, layers_without_weights
from vaearr.models.files import named_tensors

KINDS = ("lpips", "features", "encoder")
EPS = 1e-10  # under the root of a length: bounds the gradient where all features are 0
# mean and standard deviation of natural images, for values in [-1, 1], as LPIPS was made with
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
LINEAR = "lin{}.model.1.weight"
COPIES = re.compile(r"(lins|net|scaling_layer)\.")  # what else a whole LPIPS checkpoint holds
FEATURES = re.compile(r"(?:features|(?:net\.)?slice\d+)\.(.+)")
ELSEWHERE = re.compile(r"(classifier|lin\d+|lins|scaling_layer)\.")


class ImageFeatures(nn.Module):
    """Features of an image network at the layers of `BACKBONES`: images `(B, 1 or 3, H, W)` in [-1, 1] -> list of
    `(B, c, h, w)`. Grey images are repeated to three channels."""

    n_dims = 2
    n_channels: tuple[int, ...] = (1, 3)
    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, name: str, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.name, self.taps, self.least = name, BACKBONES[name].taps, BACKBONES[name].least
        self.layers = layers_without_weights(name)
        self.layers.load_state_dict(dict(weights), strict=True, assign=True)
        for key, values in (("shift", SHIFT), ("scale", SCALE)):
            self.register_buffer(key, torch.tensor(values).view(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """One map per tap."""
        x = (x.expand(-1, 3, -1, -1) - self.shift) / self.scale
        found = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in self.taps:
                found.append(x)
        return found


class EncoderFeatures(nn.Module):
    """What a trained encoder of ours holds on each of its grids: `(B, C, …)` as it was trained on -> list of maps.

    The last activation before each halving of the grid, and the last before the posterior. Any size: samples are
    padded with their edge values to a multiple of the stride. The weights are a copy; training the network further does
    not change them.
    """

    least = 1

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        encoder, shape = getattr(network, "encoder", None), getattr(network, "input_shape", None)
        blocks = getattr(encoder, "blocks", encoder)
        if shape is None or not isinstance(blocks, nn.Sequential | nn.ModuleList) or len(blocks) < 2:
            raise UsageError(
                f"{type(network).__name__} has no encoder in stages; use a network of vaearr.models, such as "
                "load_model(store).network."
            )
        self.n_dims, self.n_channels = len(shape) - 1, (shape[0],)
        stride = getattr(network, "stride", None) or (getattr(network, "patch", 1),) * self.n_dims
        self.stride = tuple(stride)
        self.blocks = nn.ModuleList(copy.deepcopy(list(blocks)[:-1]))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """One map per grid."""
        for dim, step in enumerate(self.stride, start=2):
            if missing := -x.shape[dim] % step:
                x = torch.cat([x] + [x.narrow(dim, -1, 1)] * missing, dim)
        found: list[torch.Tensor] = []
        for block in self.blocks:
            x = block(x)
            if found and found[-1].shape[2:] == x.shape[2:]:
                found.pop()
            found.append(x)
        return found


class PerceptualLoss(nn.Module):
    """Distance of two batches in the features of a frozen network, per sample; made by `build_perceptual`.

    At each layer the features of a position are scaled to length 1, subtracted and squared; channels are summed with
    the linear weights of LPIPS, or with weight 1; positions are averaged, layers summed: Zhang et al. 2018, eq. 1. The
    network computes in the precision around it, the distance in float32. Equal samples have distance 0 exactly.

    features: `ImageFeatures` or `EncoderFeatures`. linear: weights `(c,)` per layer, or None. low, high: the range of
    the samples' values, mapped to [-1, 1] for image networks without cutting. slices, chunk: see `build_perceptual`.
    """

    def __init__(
        self,
        features: ImageFeatures | EncoderFeatures,
        linear: Sequence[torch.Tensor] | None,
        *,
        low: float,
        high: float,
        slices: float,
        chunk: int,
    ) -> None:
        super().__init__()
        self.features, self.low, self.high, self.slices, self.chunk = features, low, high, slices, chunk
        self.is_lpips, self.is_image = linear is not None, isinstance(features, ImageFeatures)
        self.linear = nn.ParameterList(linear or [])
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> PerceptualLoss:
        """As torch's, but the network stays as in evaluation: training mode decides on the choice of slices alone."""
        super().train(mode)
        self.features.eval()
        return self

    def forward(self, target: torch.Tensor, recon: torch.Tensor) -> torch.Tensor:
        """`2 x (B, C, …) -> (B,)`, down is better; gradients flow into `recon` alone.

        Where volumes are looked at slice by slice and not all slices are taken, they lie evenly spaced along each axis;
        in training mode they start at a random place, so that each slice has the same chance (one draw per axis of
        torch's CPU generator). Raises UsageError for samples of another kind than the network takes.
        """
        self._check(target, recon)
        target, recon = self._scaled(target.detach()), self._scaled(recon)
        if target.ndim - 2 == self.features.n_dims:
            return self._in_chunks(target, recon)
        axes = []
        for axis in range(2, target.ndim):
            chosen = torch.tensor(self._positions(target.shape[axis]), device=target.device)
            planes = [x.index_select(axis, chosen).movedim(axis, 1).flatten(0, 1) for x in (target, recon)]
            axes.append(self._in_chunks(*planes).unflatten(0, (len(target), len(chosen))).mean(1))
        return torch.stack(axes).mean(0)

    def _scaled(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float()
        return 2 * (x - self.low) / (self.high - self.low) - 1 if self.is_image else x

    def _positions(self, size: int) -> list[int]:
        count = max(1, round(self.slices * size)) if self.slices <= 1 else min(int(self.slices), size)
        phase = float(torch.rand(())) if self.training and count < size else 0.5
        return [min(int((i + phase) * size / count), size - 1) for i in range(count)]

    def _in_chunks(self, target: torch.Tensor, recon: torch.Tensor) -> torch.Tensor:
        """Distances of images (or of whole volumes), `chunk` at a time."""
        if self.chunk == 0 or len(target) <= self.chunk:
            return self._distance(target, recon)
        if torch.is_grad_enabled() and recon.requires_grad:
            return cast(torch.Tensor, _Chunks.apply(target, recon, self._distance, self.chunk))
        parts = zip(target.split(self.chunk), recon.split(self.chunk), strict=True)
        return torch.cat([self._distance(t, r) for t, r in parts])

    def _distance(self, target: torch.Tensor, recon: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = self.features(target)
        found = self.features(recon)
        total = recon.new_zeros(len(recon))
        with torch.autocast(recon.device.type, enabled=False):
            for i, (a, b) in enumerate(zip(wanted, found, strict=True)):
                squares = (_unit(a) - _unit(b)).square().flatten(2).mean(2)
                total = total + (squares * self.linear[i] if self.is_lpips else squares).sum(1)
        return total

    def _check(self, target: torch.Tensor, recon: torch.Tensor) -> None:
        if target.shape != recon.shape:
            raise UsageError(f"samples {tuple(target.shape)} and reconstructions {tuple(recon.shape)} differ in shape.")
        n_dims, channels, features = target.ndim - 2, target.shape[1] if target.ndim > 1 else 0, self.features
        if n_dims not in (2, 3) or n_dims < features.n_dims:
            raise UsageError(
                f"batches have shape {tuple(target.shape)}; this network takes (B, C, …) with "
                f"{'2 or 3' if features.n_dims == 2 else 3} spatial dims."
            )
        if channels not in features.n_channels:
            raise UsageError(
                f"samples have {channels} channels; this network takes {' or '.join(map(str, features.n_channels))}."
            )
        if min(target.shape[2:]) < features.least:
            raise UsageError(
                f"samples of shape {tuple(target.shape[1:])} are too small: this network takes sides of "
                f"{features.least} or more; vgg16 takes 16, the encoder of a trained run any."
            )


class _Chunks(torch.autograd.Function):
    """Distances chunk by chunk, each with its gradient at once, so that nothing else of a chunk has to be kept.

    It may be done ahead because the distance of a sample depends on that sample alone: what flows back is the gradient
    times one number per sample.
    """

    @staticmethod
    def forward(
        ctx: Any, target: torch.Tensor, recon: torch.Tensor, distance: Callable[..., torch.Tensor], chunk: int
    ) -> torch.Tensor:
        """`2 x (N, C, …) -> (N,)`."""
        distances, slopes = [], []
        for wanted, part in zip(target.split(chunk), recon.split(chunk), strict=True):
            with torch.enable_grad():
                found = part.detach().requires_grad_()
                apart = distance(wanted, found)
                slopes.append(torch.autograd.grad(apart.sum(), found)[0])
            distances.append(apart.detach())
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(distances)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[None, torch.Tensor, None, None]:
        """Gradient of `recon`."""
        (slopes,) = ctx.saved_tensors
        return None, upstream.view(-1, *[1] * (slopes.ndim - 1)) * slopes, None, None


def build_perceptual(
    kind: str,
    *,
    weights: Path | None = None,
    linear: Path | None = None,
    network: nn.Module | None = None,
    low: float = -1.0,
    high: float = 1.0,
    slices: float = 1.0,
    chunk: int = 0,
) -> PerceptualLoss:
    """A perceptual distance, `forward(target, recon)`: `2 x (B, C, …) -> (B,)`; frozen; on the CPU, or by `network`.

    kind: lpips (`weights` and `linear`), features (`weights`) or encoder (`network`).
    weights: safetensors or pth file with torchvision's state dict of alexnet, vgg16 or squeezenet1_1; which, its shapes
    tell. linear: the LPIPS weights for that network, `lin0.model.1.weight` and so on. A whole LPIPS checkpoint may be
    given as both. Nothing is unpickled.
    network: of a trained run, such as `load_model(store).network`. It must have seen samples preprocessed as these are.
    low, high: range of the samples' values; for image networks alone.
    slices: of volumes in a 2-D network: up to 1 their share along each axis, above 1 their number.
    chunk: images, or volumes in a 3-D network, at a time, 0 for all: activations are held for one chunk only.

    Raises UsageError for arguments that do not fit, NoInputError or DataError for files that are missing or other than
    described.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no perceptual loss {kind!r}.{did_you_mean(kind, list(KINDS))}")
    given = {"weights": weights, "linear": linear, "network": network}
    wanted = {"lpips": ("weights", "linear"), "features": ("weights",), "encoder": ("network",)}[kind]
    for what, value in given.items():
        if (value is not None) != (what in wanted):
            lack = "needs" if value is None else "has no use for"
            raise UsageError(f"the perceptual loss {kind!r} {lack} {what}; it takes {' and '.join(wanted)}.")
    if not low < high:
        raise UsageError(f"the range of the samples' values is {low:g} to {high:g}; high must be above low.")
    if not slices > 0 or (slices > 1 and slices != int(slices)):
        raise UsageError(f"slices is {slices:g}; give a share above 0 and up to 1, or a whole number above 1.")
    if chunk < 0:
        raise UsageError(f"chunk is {chunk}; give the number of images at a time, or 0 for all.")
    features: ImageFeatures | EncoderFeatures
    lines = None
    if weights is not None:
        features = read_features(weights)
        lines = None if linear is None else read_linear(linear, features.name)
    else:
        features = EncoderFeatures(cast(nn.Module, network))
    return PerceptualLoss(features, lines, low=low, high=high, slices=slices, chunk=chunk)


def lpips(target: torch.Tensor, recon: torch.Tensor, network: PerceptualLoss) -> torch.Tensor:
    """LPIPS of each sample, `2 x (B, C, …) -> (B,)`, 0 for equal ones, down is better; a metric, without gradient.

    network: made by `build_perceptual("lpips", …)` with the range of these values. In float32; of volumes, evenly
    spaced slices. Raises UsageError for a network without linear weights: its distances are no LPIPS.
    """
    if not network.is_lpips:
        raise UsageError("LPIPS needs its linear weights; make the network with build_perceptual('lpips', …).")
    was = network.training
    device = next(network.parameters()).device
    try:
        network.eval()
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            return network(target.to(device), recon.to(device)).double()
    finally:
        network.train(was)


def read_features(path: Path) -> ImageFeatures:
    """The feature network whose weights a file holds, told by names and shapes. Raises NoInputError or DataError."""
    state = named_tensors(path)
    found = {}
    strangers = []
    for key, value in state.items():
        if match := FEATURES.fullmatch(key):
            found[match[1]] = value
        elif not ELSEWHERE.match(key):
            strangers.append(key)
    shapes = {key: tuple(value.shape) for key, value in found.items()}
    layouts = {
        name: {key: tuple(v.shape) for key, v in layers_without_weights(name).state_dict().items()}
        for name in BACKBONES
    }
    for name, layout in layouts.items():
        if shapes == layout and not strangers:
            return ImageFeatures(name, {key: _plain(value, key, path) for key, value in found.items()})
    nearest = max(layouts, key=lambda name: len(layouts[name].items() & shapes.items()))
    raise DataError(
        f"{path} holds no weights of {', '.join(BACKBONES)} in torchvision's names ('features.0.weight', …); nearest "
        f"is {nearest}: {_difference(layouts[nearest], shapes, strangers)}."
    )


def read_linear(path: Path, name: str) -> list[torch.Tensor]:
    """The linear weights of LPIPS for a feature network, `(c,)` per layer. Raises NoInputError or DataError."""
    state = named_tensors(path)
    layout = {LINEAR.format(i): (1, c, 1, 1) for i, c in enumerate(BACKBONES[name].channels)}
    strangers = [key for key in state if key not in layout and not COPIES.match(key)]
    shapes = {key: tuple(state[key].shape) for key in layout if key in state}
    if shapes != layout or strangers:
        raise DataError(
            f"{path} does not hold the linear weights of LPIPS for {name}: {_difference(layout, shapes, strangers)}."
        )
    lines = [_plain(state[key], key, path).flatten() for key in layout]
    if any(bool((line < 0).any()) for line in lines):
        raise DataError(f"{path} holds negative linear weights; LPIPS has none, and a distance would fall below 0.")
    return lines


def _difference(
    layout: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]], strangers: Sequence[str]
) -> str:
    """What is missing, what differs and what does not belong, the first of each and how many."""
    groups = {
        "missing": [key for key in layout if key not in shapes],
        "of another shape": [
            f"{key} {shapes[key]} instead of {layout[key]}"
            for key in layout
            if shapes.get(key, layout[key]) != layout[key]
        ],
        "unexpected": [*(key for key in shapes if key not in layout), *strangers],
    }
    return "; ".join(f"{len(keys)} {what} ({keys[0]}, …)" for what, keys in groups.items() if keys)


def _plain(value: torch.Tensor, key: str, path: Path) -> torch.Tensor:
    """As float32, in memory of its own. Raises DataError where it is not finite."""
    value = value.detach().to(torch.float32, copy=True)
    if not bool(torch.isfinite(value).all()):
        raise DataError(f"{path} holds values that are not finite in {key!r}; use another copy.")
    return value


def _unit(x: torch.Tensor) -> torch.Tensor:
    """Features of length 1 at each position."""
    x = x.float()
    return x * (x.square().sum(1, keepdim=True) + EPS).rsqrt()
