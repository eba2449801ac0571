"""Adversarial training: losses as pure tensor functions, and the discriminators.

A discriminator gives a list of logit maps, `(B, C, …) -> list`, one per scale, float32; each scores patches, or the
whole sample; larger means more like the data. A loss is the mean over positions and samples of each map, then the mean
over maps. Discriminators here do not normalise over the batch, so that real and decoded samples may be judged together
or apart with equal results. Adding one is a function and a line in `vaearr.models.DISCRIMINATORS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vaearr.errors import UsageError, did_you_mean, need

PENALTY_WEIGHT = 10.0  # of the gradient penalty beside the wgan-gp loss, Gulrajani et al. 2017
SLOPE = 0.2  # of the leaky ReLU below 0, as in Isola et al. 2017
MAX_GROUPS = 8
NORMS = ("group", "instance", "none")
KERNEL = 4  # of every strided convolution: with padding 1 a side n becomes n // 2
Maps = Sequence[torch.Tensor]
Tensor = torch.Tensor

# kind -> loss of the discriminator of one map (real, fake), loss of the generator of one map (fake)
KINDS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "hinge": (lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean(), lambda f: -f.mean()),
    "bce": (lambda r, f: F.softplus(-r).mean() + F.softplus(f).mean(), lambda f: F.softplus(-f).mean()),
    "lsgan": (
        lambda r, f: 0.5 * (r - 1).square().mean() + 0.5 * f.square().mean(),
        lambda f: 0.5 * (f - 1).square().mean(),
    ),
    "wgan-gp": (lambda r, f: f.mean() - r.mean(), lambda f: -f.mean()),
}


def generator_loss(logits_fake: Maps, kind: str = "hinge") -> Tensor:
    """What the decoder minimises, of the maps of its samples: `-> ()`.

    With D the logits of decoded samples: hinge and wgan-gp -mean D; bce mean log(1 + exp(-D)), the form that does not
    saturate (Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, section 3); lsgan mean (D - 1)^2 / 2 (Mao
    et al., "Least Squares Generative Adversarial Networks", ICCV 2017, eq. 9).
    """
    loss = KINDS[kind][1]
    return torch.stack([loss(fake.float()) for fake in logits_fake]).mean()


def discriminator_loss(logits_real: Maps, logits_fake: Maps, kind: str = "hinge") -> Tensor:
    """What the discriminator minimises, of its maps of data (r) and of decoded samples (f): `-> ()`.

    hinge: mean max(0, 1 - r) + mean max(0, 1 + f) (Lim & Ye, "Geometric GAN", arXiv:1705.02894). bce: mean log(1 +
    exp(-r)) + mean log(1 + exp(f)) (Goodfellow et al. 2014, eq. 1). lsgan: mean (r - 1)^2 / 2 + mean f^2 / 2 (Mao et
    al. 2017, eq. 9). wgan-gp: mean f - mean r, to which the caller adds `PENALTY_WEIGHT` x `gradient_penalty`. Decoded
    samples must be detached, or the decoder would learn from this too.
    """
    loss = KINDS[kind][0]
    return torch.stack([loss(r.float(), f.float()) for r, f in zip(logits_real, logits_fake, strict=True)]).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Maps], real: Tensor, fake: Tensor) -> Tensor:
    """How far the discriminator is from slope 1 between data and decoded samples: `2 x (B, C, …) -> ()`.

    mean (|grad D(x)| - 1)^2 at x = u real + (1 - u) fake with one u ~ U(0, 1) per sample, drawn by torch's own
    generator; D is the mean over positions and maps, |.| the Euclidean norm over a sample's values. Gulrajani et al.,
    "Improved Training of Wasserstein GANs", NeurIPS 2017, eq. 3. In float32 also inside autocast; differentiable in
    the discriminator's weights alone.
    """
    with torch.enable_grad(), torch.autocast(real.device.type, enabled=False):
        real, fake = real.detach().float(), fake.detach().float()
        share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
        between = (share * real + (1 - share) * fake).requires_grad_()
        maps = [each.float().flatten(1).mean(1) for each in discriminator(between)]
        score = torch.stack(maps).mean(0).sum()  # a sample's score depends on that sample alone
        (slope,) = torch.autograd.grad(score, between, create_graph=True)
        norm = slope.flatten(1).square().sum(1).add(1e-12).sqrt()
        return (norm - 1).square().mean()


def ramp(update: int, start: int, rise: int) -> float:
    """Weight of the adversarial term at an update (from 0): 0 before `start`, then linear to 1 over `rise` updates.

    The decoder learns to reconstruct first; a discriminator of noise teaches it nothing.
    """
    if update < start:
        return 0.0
    return min(1.0, (update - start + 1) / rise) if rise else 1.0


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

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logit maps of samples of any size from `least` on. Raises UsageError for others."""
        self._check(tuple(x.shape[1:]))
        return [each.float() for each in self.network(x)]

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

    def forward(self, x: Tensor) -> list[Tensor]:
        """One map, or one per scale."""
        found = self.network(x)
        maps: list[Tensor] = found[0] if isinstance(found, tuple) else found[-1:]
        return maps


class ConvCritic(nn.Module):
    """Strided convolutions, the mean over the last grid, one linear layer: `(B, C, …) -> [(B, 1)]`."""

    def __init__(
        self, input_shape: tuple[int, ...], *, channels: int, max_channels: int, layers: int, norm: str, spectral: bool
    ) -> None:
        super().__init__()
        is_image = len(input_shape) == 3
        convolution = nn.Conv2d if is_image else nn.Conv3d
        instance = nn.InstanceNorm2d if is_image else nn.InstanceNorm3d
        wrap: Callable[[nn.Module], nn.Module] = nn.utils.parametrizations.spectral_norm if spectral else lambda x: x
        stages: list[nn.Module] = []
        before = input_shape[0]
        for layer in range(layers):
            after = min(channels * 2**layer, max_channels)
            stages.append(wrap(convolution(before, after, KERNEL, stride=2, padding=1)))
            if layer and norm != "none":
                stages.append(nn.GroupNorm(_groups(after), after) if norm == "group" else instance(after))
            stages.append(nn.LeakyReLU(SLOPE))
            before = after
        self.stages = nn.Sequential(*stages)
        self.score = wrap(nn.Linear(before, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        """One logit per sample."""
        return [self.score(self.stages(x).flatten(2).mean(2))]


def patch(input_shape: tuple[int, ...], *, channels: int = 64, layers: int = 3, norm: str = "group") -> Discriminator:
    """PatchGAN: one map whose positions each score a patch (70 pixels wide with 3 layers), in 2-D and 3-D.

    channels: of the first convolution, doubled by each layer. layers: convolutions between the first and the last.
    norm: group, instance or none. Isola, Zhu, Zhou & Efros, "Image-to-Image Translation with Conditional Adversarial
    Networks", CVPR 2017, section 3.2.2. Raises UsageError, or MissingExtraError without MONAI.
    """
    _check_options(input_shape, norm, channels=channels, layers=layers)
    network = _of_monai("PatchDiscriminator", input_shape, channels, norm, num_layers_d=layers)
    # layers strided convolutions, then two that take one pixel off each side
    return Discriminator(network, input_shape, least=3 * 2**layers, remedy="set fewer layers")


def multiscale(
    input_shape: tuple[int, ...], *, scales: int = 3, channels: int = 32, layers: int = 1, norm: str = "group"
) -> Discriminator:
    """PatchGANs side by side on the same samples, the i-th with i x `layers` layers: one map each, coarser and coarser.

    Their patches grow by their depth and not, as in the paper, by making the samples smaller. Channels double with
    every layer, so that each one more takes four times as many parameters. Wang et al., "High-Resolution Image
    Synthesis and Semantic Manipulation with Conditional GANs", CVPR 2018, section 3.2. For the options see `patch`.
    Raises UsageError, or MissingExtraError without MONAI.
    """
    _check_options(input_shape, norm, channels=channels, layers=layers, scales=scales)
    deepest = layers * scales
    sizes = {"num_d": scales, "num_layers_d": layers, "minimum_size_im": 2**deepest}  # its own check is weaker
    network = _of_monai("MultiScalePatchDiscriminator", input_shape, channels, norm, **sizes)
    # the deepest has so many strided convolutions, then one that takes a pixel off; its last is pointwise
    least = (3 if norm == "instance" else 2) * 2**deepest
    return Discriminator(network, input_shape, least=least, remedy="set fewer scales or layers")


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
    _check_options(input_shape, norm, channels=channels, layers=layers, max_channels=max_channels)
    network = ConvCritic(
        input_shape, channels=channels, max_channels=max_channels, layers=layers, norm=norm, spectral=spectral
    )
    least = (2 if norm == "instance" and layers > 1 else 1) * 2**layers
    return Discriminator(network, input_shape, least=least, remedy="set fewer layers")


def _check_options(input_shape: tuple[int, ...], norm: str, **counts: int) -> None:
    if len(input_shape) not in (3, 4) or min(input_shape) < 1:
        raise UsageError(f"samples have shape {tuple(input_shape)}; discriminators take (C, H, W) or (C, D, H, W).")
    if norm not in NORMS:
        raise UsageError(f"there is no norm {norm!r}.{did_you_mean(norm, list(NORMS))}")
    for what, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise UsageError(f"{what} is {count!r}; it must be a whole number of at least 1.")


def _groups(channels: int) -> int:
    return math.gcd(MAX_GROUPS, channels)


def _of_monai(name: str, input_shape: tuple[int, ...], channels: int, norm: str, **sizes: int) -> PatchScales:
    """One of MONAI's discriminators. Raises MissingExtraError where MONAI is not there."""
    need("monai", "vaearr[monai]", "this discriminator (all but 'conv')")
    from monai.networks import nets

    # layers that have a norm hold a multiple of `channels`
    norms: dict[str, Any] = {"group": ("group", {"num_groups": _groups(2 * channels)}), "instance": "instance"}
    network = getattr(nets, name)(
        spatial_dims=len(input_shape) - 1,
        in_channels=input_shape[0],
        channels=channels,
        norm=norms.get(norm),
        bias=norm == "none",
        **sizes,
    )
    return PatchScales(network)
