"""Discriminators of adversarial training: `(B, C, …) -> list of logit maps`, one map per scale, float32.

Each map scores patches, or the whole sample; larger means more like the data. None of them normalises over the batch,
so that real and decoded samples may be judged together or apart with equal results. Adding one is a function and a
line in `DISCRIMINATORS`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vaearr.errors import UsageError, did_you_mean, need

SLOPE = 0.2  # of the leaky ReLU below 0, as in Isola et al. 2017
MAX_GROUPS = 8
NORMS = ("group", "instance", "none")
KERNEL = 4  # of every strided convolution: with padding 1 a side n becomes n // 2


class Discriminator(nn.Module):
    """A network that scores samples `(B, C, …)`, with the checks and the float32 that all kinds share.

    network: what makes the maps. input_shape: `(C, *spatial)`; only the channels and the number of spatial dims bind.
    least: smallest side that the network can score. remedy: what to do about samples below it.
    """

    def __init__(self, network: nn.Module, input_shape: tuple[int, ...], *, least: int, remedy: str) -> None:
        super().__init__()
        self.network, self.least, self.remedy = network, least, remedy
        self.n_channels, self.n_dims = input_shape[0], len(input_shape) - 1
        self._check(tuple(input_shape))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Logit maps of samples of any size from `least` on. Raises UsageError for others."""
        self._check(tuple(x.shape[1:]))
        maps: list[torch.Tensor] = self.network(x)
        return [each.float() for each in maps]

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != self.n_dims + 1 or shape[0] != self.n_channels:
            raise UsageError(
                f"samples have shape {shape}; this discriminator takes {self.n_channels} channels and {self.n_dims} "
                "spatial dims."
            )
        if min(shape[1:]) < self.least:
            raise UsageError(
                f"samples of shape {shape} are too small for this discriminator: every side must be at least "
                f"{self.least}; {self.remedy}."
            )


class PatchScales(nn.Module):
    """MONAI's discriminators, which also return what lies between, reduced to their logit maps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """One map, or one per scale."""
        found = self.network(x)
        maps: list[torch.Tensor] = found[0] if isinstance(found, tuple) else found[-1:]
        return maps


class ConvCritic(nn.Module):
    """Strided convolutions, the mean over the last grid, one linear layer: `(B, C, …) -> [(B, 1)]`."""

    def __init__(
        self, input_shape: tuple[int, ...], *, channels: int, max_channels: int, layers: int, norm: str, spectral: bool
    ) -> None:
        super().__init__()
        n_dims = len(input_shape) - 1
        conv = nn.Conv2d if n_dims == 2 else nn.Conv3d
        wrap = _spectral_norm if spectral else _as_it_is
        stages: list[nn.Module] = []
        before = input_shape[0]
        for layer in range(layers):
            after = min(channels * 2**layer, max_channels)
            stages.append(wrap(conv(before, after, KERNEL, stride=2, padding=1)))
            if layer:
                stages += _norm(norm, after, n_dims)
            stages.append(nn.LeakyReLU(SLOPE))
            before = after
        self.stages = nn.Sequential(*stages)
        self.score = wrap(nn.Linear(before, 1))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """One logit per sample."""
        return [self.score(self.stages(x).flatten(2).mean(2))]


def patch(input_shape: tuple[int, ...], *, channels: int = 64, layers: int = 3, norm: str = "group") -> Discriminator:
    """PatchGAN: one map whose positions each score a patch (70 pixels wide with 3 layers), in 2-D and 3-D.

    channels: of the first convolution, doubled by each layer. layers: convolutions between the first and the last.
    norm: group, instance or none. Isola, Zhu, Zhou & Efros, "Image-to-Image Translation with Conditional Adversarial
    Networks", CVPR 2017, section 3.2.2. Raises UsageError, or MissingExtraError without MONAI.
    """
    _positive(channels=channels, layers=layers)
    n_dims = _n_dims(input_shape)
    network = _monai().PatchDiscriminator(
        spatial_dims=n_dims,
        channels=channels,
        in_channels=input_shape[0],
        num_layers_d=layers,
        norm=_monai_norm(norm, channels),
        bias=norm == "none",
    )
    # layers strided convolutions, then two that take one pixel off each side
    return Discriminator(PatchScales(network), input_shape, least=3 * 2**layers, remedy="set fewer layers")


def multiscale(
    input_shape: tuple[int, ...], *, scales: int = 3, channels: int = 32, layers: int = 1, norm: str = "group"
) -> Discriminator:
    """PatchGANs side by side on the same samples, the i-th with i x `layers` layers: one map each, coarser and coarser.

    Their patches grow by their depth and not, as in the paper, by making the samples smaller. Channels double with
    every layer, so that each one more takes four times as many parameters. Wang et al., "High-Resolution Image
    Synthesis and Semantic Manipulation with Conditional GANs", CVPR 2018, section 3.2. For the options see `patch`.
    Raises UsageError, or MissingExtraError without MONAI.
    """
    _positive(channels=channels, layers=layers, scales=scales)
    n_dims = _n_dims(input_shape)
    deepest = layers * scales
    network = _monai().MultiScalePatchDiscriminator(
        num_d=scales,
        num_layers_d=layers,
        spatial_dims=n_dims,
        channels=channels,
        in_channels=input_shape[0],
        norm=_monai_norm(norm, channels),
        bias=norm == "none",
        minimum_size_im=2**deepest,  # its own check is weaker than ours
    )
    # the deepest has so many strided convolutions, then one that takes a pixel off; its last is pointwise
    least = (3 if norm == "instance" else 2) * 2**deepest
    return Discriminator(PatchScales(network), input_shape, least=least, remedy="set fewer scales or layers")


def conv(
    input_shape: tuple[int, ...],
    *,
    channels: int = 32,
    max_channels: int = 256,
    layers: int = 4,
    norm: str = "group",
    spectral: bool = False,
) -> Discriminator:
    """Small convolutional discriminator, one logit for the whole sample whatever its size, in 2-D and 3-D.

    channels: of the first convolution; they double with each layer up to `max_channels`. layers: convolutions that
    halve the grid. norm: group, instance or none, from the second on. spectral: all weights divided by their largest
    singular value (Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018); take it
    with norm='none' for a network that is Lipschitz. Raises UsageError.
    """
    _positive(channels=channels, layers=layers, max_channels=max_channels)
    _n_dims(input_shape)
    _known_norm(norm)
    network = ConvCritic(
        input_shape, channels=channels, max_channels=max_channels, layers=layers, norm=norm, spectral=spectral
    )
    least = (2 if norm == "instance" and layers > 1 else 1) * 2**layers
    return Discriminator(network, input_shape, least=least, remedy="set fewer layers")


# name -> function of the input shape `(C, *spatial)` and the options
DISCRIMINATORS: dict[str, Callable[..., Discriminator]] = {"patch": patch, "multiscale": multiscale, "conv": conv}


def build_discriminator(name: str, input_shape: tuple[int, ...], **options: Any) -> Discriminator:
    """A fresh discriminator for samples of `input_shape` (channels first); weights follow torch's random state.

    Raises UsageError for an unknown name or option and for samples that are too small, MissingExtraError where it
    needs MONAI and there is none.
    """
    if name not in DISCRIMINATORS:
        raise UsageError(f"there is no discriminator {name!r}.{did_you_mean(name, sorted(DISCRIMINATORS))}")
    make = DISCRIMINATORS[name]
    known = [p for p in inspect.signature(make).parameters if p != "input_shape"]
    for option in options:
        if option not in known:
            raise UsageError(f"discriminator {name!r} has no option {option!r}.{did_you_mean(option, known)}")
    return make(tuple(input_shape), **options)


def _n_dims(input_shape: tuple[int, ...]) -> int:
    if len(input_shape) not in (3, 4) or min(input_shape) < 1:
        raise UsageError(f"samples have shape {tuple(input_shape)}; discriminators take (C, H, W) or (C, D, H, W).")
    return len(input_shape) - 1


def _positive(**counts: int) -> None:
    for what, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise UsageError(f"{what} is {count!r}; it must be a whole number of at least 1.")


def _known_norm(norm: str) -> None:
    if norm not in NORMS:
        raise UsageError(f"there is no norm {norm!r}.{did_you_mean(norm, list(NORMS))}")


def _groups(channels: int) -> int:
    return math.gcd(MAX_GROUPS, channels)


def _norm(norm: str, channels: int, n_dims: int) -> list[nn.Module]:
    if norm == "group":
        return [nn.GroupNorm(_groups(channels), channels)]
    if norm == "instance":
        return [(nn.InstanceNorm2d if n_dims == 2 else nn.InstanceNorm3d)(channels)]
    return []


def _monai_norm(norm: str, channels: int) -> Any:
    """The norm in MONAI's words; layers that have one hold a multiple of `channels`."""
    _known_norm(norm)
    return {"group": ("group", {"num_groups": _groups(2 * channels)}), "instance": "instance", "none": None}[norm]


def _monai() -> Any:
    need("monai", "vaearr[monai]", "this discriminator (all but 'conv')")
    from monai.networks import nets

    return nets


def _spectral_norm(layer: nn.Module) -> nn.Module:
    return nn.utils.parametrizations.spectral_norm(layer)


def _as_it_is(layer: nn.Module) -> nn.Module:
    return layer
