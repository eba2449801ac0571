"""Loss terms as pure tensor functions, in nats per sample, and the discriminators of adversarial
training.

loss = reconstruction_nll + beta * kl, down is better: `nll` is summed over the pixels of a pattern
and `kl` over the latent dimensions; both are averaged over samples. Only `check_targets` reads a
value back from the device. Perceptual distances are in `vaearr.models.perceptual`.

A discriminator gives a list of logit maps, `(B, C, …) -> list`, one per scale, float32; each scores
patches, or the whole sample; larger means more like the data. A loss is the mean over positions and
samples of each map, then the mean over maps. Discriminators here do not normalise over the batch,
so that real and decoded samples may be scored together or apart with equal results. Adding one is a
function and a line in `vaearr.models.REGISTERED`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from vaearr.errors import TrainingError, UsageError
from vaearr.models import Network

LOG_2 = math.log(2)
LOG_2PI = math.log(2 * math.pi)
MIN_VARIANCE = 1e-6  # of the Gaussian with fitted variance
MIN_AMPLITUDE = 0.1  # of a fitted shape, in preprocessed units
ROUNDING = 1e-4  # by which a pattern may leave [0, 1] when it was scaled or rotated
MISSING = -1  # label of a sample without one
PENALTY_WEIGHT = 10.0  # of the gradient penalty in the wgan-gp loss, Gulrajani et al. 2017
SLOPE = 0.2  # of the leaky ReLU below 0, as in Isola et al. 2017
MAX_GROUPS = 8
Tensor = torch.Tensor
Maps = Sequence[Tensor]
Nll = Callable[[Tensor, Tensor], Tensor]


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return KL(N(mean, exp(logvar)) || N(0, 1)) of each latent dimension in nats, `(B, L, …)`.

    Kingma & Welling, "Auto-Encoding Variational Bayes", 2014, appendix B.
    """
    return 0.5 * (mean.square() + torch.expm1(logvar) - logvar)


def posterior_kl(network: Network, mean: Tensor, logvar: Tensor) -> Tensor:
    """Return `kl_divergence` of a network's posterior, `(B, L, …)`; 0 for a deterministic one."""
    return torch.zeros_like(mean) if network.is_deterministic else kl_divergence(mean, logvar)


def kl_penalty(kl: Tensor, free_bits: float = 0.0) -> Tensor:
    """Return the KL term in the loss: batch mean of each dimension, at least `free_bits`, summed.

    Each position of a spatial latent counts as a dimension of its own. With `free_bits = 0` this is
    the plain KL. Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow",
    2016, appendix C.8.
    """
    per_dimension = kl.mean(0)
    if free_bits > 0:
        per_dimension = per_dimension.clamp_min(free_bits)
    return per_dimension.sum()


def gaussian_nll(target: Tensor, recon: Tensor) -> Tensor:
    """Return -log N(target; recon, 1) summed over the pixels, `(B,)`."""
    return (0.5 * ((target - recon).square() + LOG_2PI)).flatten(1).sum(1)


def optimal_sigma_nll(target: Tensor, recon: Tensor) -> Tensor:
    """Return the Gaussian negative log-likelihood with the best variance for the batch, `(B,)`.

    sigma^2 is the mean squared error over the batch, so the batch mean is D/2 (log(2 pi sigma^2) +
    1) for D pixels, and its gradient weighs squared errors by 1 / (2 sigma^2) without a weight to
    tune. sigma^2 is kept above `MIN_VARIANCE` (patterns without noise, such as constant ones, would
    send it to 0). Rybkin, Daniilidis & Levine, "Simple and Effective VAE Training with Calibrated
    Decoders", ICML 2021, eq. 7.
    """
    error = (target - recon).square().flatten(1)
    variance = error.mean().clamp_min(MIN_VARIANCE)
    return 0.5 * (error.sum(1) / variance + error.shape[1] * (torch.log(variance) + LOG_2PI))


def laplace_nll(target: Tensor, recon: Tensor) -> Tensor:
    """Return |target - recon| + log 2 = -log Laplace, summed over the pixels, `(B,)`."""
    return ((target - recon).abs() + LOG_2).flatten(1).sum(1)


def bernoulli_nll(target: Tensor, logits: Tensor) -> Tensor:
    """Return -log Bernoulli(target; sigmoid(logits)) summed over the pixels, `(B,)`.

    Targets lie in [0, 1]; between 0 and 1 it is the binary cross entropy, which is lowest at
    sigmoid(logits) = target but not a normalised density (Loaiza-Ganem & Cunningham, "The
    continuous Bernoulli", NeurIPS 2019). A sample with a value outside gives NaN and no number that
    looks like a loss; `check_targets` reports it. Logits, because probabilities next to 0 and
    1 have no gradient left in reduced precision.
    """
    nll = F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1).sum(1)
    return torch.where(_is_probability(target), nll, torch.nan)


def _is_probability(target: Tensor) -> Tensor:
    """Which samples lie in [0, 1] but for rounding: `(B, C, …) -> (B,)`; not those with NaN."""
    low, high = target.flatten(1).aminmax(dim=1)
    return (low >= -ROUNDING) & (high <= 1 + ROUNDING)


# name -> function of (target, output of the network), `(B, C, …) -> (B,)` in nats
LIKELIHOODS: dict[str, Nll] = {
    "optimal_sigma": optimal_sigma_nll,
    "gaussian": gaussian_nll,
    "laplace": laplace_nll,
    "bernoulli": bernoulli_nll,
}


def shape_nll(target: Tensor, recon: Tensor, nll: Nll) -> Tensor:
    """Return `nll` of a partner's pattern at the amplitude that fits it best, `(B,)`.

    recon = size * shape with a shape of root mean square 1; the shape is compared, scaled to
    its projection on the target (at least 0.1). Partners share the crystal, not the contrast: the
    size is left to `amplitude_nll`.
    """
    shape = recon / _size(recon)
    fitted = _mean(target * shape).clamp_min(MIN_AMPLITUDE).detach()
    return nll(target, fitted * shape)


def amplitude_nll(target: Tensor, recon: Tensor, nll: Nll) -> Tensor:
    """Return `nll` of the point's pattern, `(B,)`, with a gradient to the amplitude only."""
    size = _size(recon)
    return nll(target, size * (recon / size).detach())


def _size(recon: Tensor) -> Tensor:
    """Root mean square of each pattern."""
    return _mean(recon.square()).add(1e-8).sqrt()


def _mean(x: Tensor) -> Tensor:
    """Mean over all but the batch, kept for broadcasting."""
    return x.mean(tuple(range(1, x.ndim)), keepdim=True)


def takes_logits(likelihood: str) -> bool:
    """Return whether the likelihood takes the decoder's output before its sigmoid."""
    return likelihood == "bernoulli"


def check_targets(target: Tensor, likelihood: str) -> None:
    """Raise TrainingError for preprocessed patterns `(B, C, …)` that the likelihood cannot score.
    Waits for the device: for the first batch only.
    """
    if takes_logits(likelihood) and not bool(_is_probability(target).all()):
        raise TrainingError(
            f"patterns range from {float(target.min()):g} to {float(target.max()):g} after "
            "preprocessing; the bernoulli likelihood needs 0 to 1: set "
            "preprocess.normalise='minmax'."
        )


def classification_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy of the labels in nats per sample.

    logits `(B, K)`, labels `(B,)` int64, -1 for none.

    The sum is divided by the size of the batch, not by the number of labels, so that averages over
    batches and processes are exact. 0 with gradient 0 where all samples lack a label.
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=MISSING, reduction="sum")
    return total / len(labels)


def generator_loss(logits_fake: Maps, kind: str) -> Tensor:
    """Return the adversarial loss of the decoder for the maps of its samples.

    With D the logits of decoded samples: hinge and wgan-gp -mean D; bce mean log(1 + exp(-D)), the
    form that does not saturate (Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014,
    section 3); lsgan mean (D - 1)^2 / 2 (Mao et al., "Least Squares Generative Adversarial
    Networks", ICCV 2017, eq. 9).
    """
    of_decoder = KINDS[kind][2]
    return _mean_over_maps(of_decoder, logits_fake)


def discriminator_loss(logits_real: Maps, logits_fake: Maps, kind: str) -> Tensor:
    """Return the loss of the discriminator for its maps of data (r) and of decoded samples (f).

    hinge: mean max(0, 1 - r) + mean max(0, 1 + f) (Lim & Ye, "Geometric GAN", arXiv:1705.02894).
    bce: mean log(1 + exp(-r)) + mean log(1 + exp(f)) (Goodfellow et al. 2014, eq. 1). lsgan: mean
    (r - 1)^2 / 2 + mean f^2 / 2 (Mao et al. 2017, eq. 9). wgan-gp: mean f - mean r, to which the
    caller adds `PENALTY_WEIGHT` x `gradient_penalty`. Decoded samples must be detached, or the
    decoder would learn from this too.
    """
    of_data, of_decoded, _ = KINDS[kind]
    return _mean_over_maps(of_data, logits_real) + _mean_over_maps(of_decoded, logits_fake)


OfLogit = Callable[[Tensor], Tensor]
# kind -> loss of a logit: of the discriminator for data and for decoded samples; of the decoder
KINDS: dict[str, tuple[OfLogit, OfLogit, OfLogit]] = {
    "hinge": (lambda r: F.relu(1 - r), lambda f: F.relu(1 + f), torch.neg),
    "bce": (lambda r: F.softplus(-r), F.softplus, lambda f: F.softplus(-f)),
    "lsgan": (
        lambda r: (r - 1).square() / 2,
        lambda f: f.square() / 2,
        lambda f: (f - 1).square() / 2,
    ),
    "wgan-gp": (torch.neg, torch.clone, torch.neg),
}


def _mean_over_maps(loss: OfLogit, maps: Maps) -> Tensor:
    return torch.stack([loss(logits.float()).mean() for logits in maps]).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Maps], real: Tensor, fake: Tensor) -> Tensor:
    """Return how far the discriminator is from slope 1 between data and decoded samples.

    mean (|grad D(x)| - 1)^2 at x = u real + (1 - u) fake with one u ~ U(0, 1) per sample,
    from torch's generator; D is the mean over positions and maps, |.| the Euclidean norm over a
    sample's values. Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, eq. 3.
    In float32 also inside autocast; differentiable in the discriminator's weights alone.
    """
    with torch.enable_grad(), torch.autocast(real.device.type, enabled=False):
        real, fake = real.detach().float(), fake.detach().float()
        share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
        between = (share * real + (1 - share) * fake).requires_grad_()
        scores = [logits.float().flatten(1).mean(1) for logits in discriminator(between)]
        score = torch.stack(scores).mean(0).sum()  # a sample's score depends on that sample only
        (slope,) = torch.autograd.grad(score, between, create_graph=True)
        norm = slope.flatten(1).square().sum(1).add(1e-12).sqrt()
        return (norm - 1).square().mean()


class Discriminator(nn.Module):
    """Scores samples `(B, C, …)` in 2-D and 3-D: one map of logits per stack of layers.

    least: smallest side of a sample. score: layer that computes one logit for the complete sample
    from the mean over the last grid. Raises UsageError for samples that are too small.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        stacks: Iterable[nn.Module],
        least: int,
        score: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.stacks = nn.ModuleList(stacks)
        self.score = score
        if min(input_shape[1:]) < least:
            raise UsageError(
                f"samples have shape {tuple(input_shape)}; this discriminator takes sides of at "
                f"least {least}; set fewer layers or scales."
            )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return logit maps."""
        maps = []
        for stack in self.stacks:
            logits = stack(x)
            if self.score is not None:
                logits = self.score(logits.flatten(2).mean(2))
            maps.append(logits.float())
        return maps


def _convolution(input_shape: tuple[int, ...]) -> Callable[..., nn.Conv2d | nn.Conv3d]:
    return nn.Conv2d if len(input_shape) == 3 else nn.Conv3d


def _stack(input_shape: tuple[int, ...], widths: Sequence[int], *, is_patch: bool) -> nn.Sequential:
    """Convolutions that halve the grid, a group norm on each but the first, leaky ReLUs.

    is_patch: the last one has stride 1, and none before a norm has a bias, which the norm takes
    off.
    """
    convolution = _convolution(input_shape)
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise((input_shape[0], *widths))):
        stride = 1 if is_patch and i == len(widths) - 1 else 2
        has_bias = not is_patch or i == 0
        layers.append(convolution(before, after, 4, stride=stride, padding=1, bias=has_bias))
        if i:
            layers.append(nn.GroupNorm(math.gcd(MAX_GROUPS, after), after))
        layers.append(nn.LeakyReLU(SLOPE))
    return nn.Sequential(*layers)


def _patch_stack(
    input_shape: tuple[int, ...], channels: int, layers: int, side: int
) -> nn.Sequential:
    """A PatchGAN: `layers` convolutions after the first, one of this side to the logits, weights as
    in the paper.
    """
    stack = _stack(input_shape, [channels * 2**i for i in range(layers + 1)], is_patch=True)
    stack.append(_convolution(input_shape)(channels * 2**layers, 1, side, padding=(side - 1) // 2))
    for layer in stack:
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return stack


def patch(input_shape: tuple[int, ...], *, channels: int = 64, layers: int = 3) -> Discriminator:
    """PatchGAN: one map whose positions each score a patch (70 pixels wide with 3 layers), in 2-D
    and 3-D.

    channels: of the first convolution, doubled by each layer. layers: convolutions between the
    first and the last. Isola, Zhu, Zhou & Efros, "Image-to-Image Translation with Conditional
    Adversarial Networks", CVPR 2017, section 3.2.2.
    """
    # layers strided convolutions, then two that take one pixel off each side
    return Discriminator(
        input_shape, [_patch_stack(input_shape, channels, layers, 4)], 3 * 2**layers
    )


def multiscale(
    input_shape: tuple[int, ...], *, scales: int = 3, channels: int = 32, layers: int = 1
) -> Discriminator:
    """PatchGANs side by side on the same samples, the i-th with i x `layers` layers: one map each,
    coarser and coarser.

    Their patches grow by their depth and not, as in the paper, by making the samples smaller.
    Channels double with every layer, so that each one more takes four times as many parameters.
    Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs",
    CVPR 2018, section 3.2. For the options see `patch`.
    """
    stacks = [_patch_stack(input_shape, channels, layers * (i + 1), 1) for i in range(scales)]
    # the deepest has so many strided convolutions, then one that takes a pixel off; its last is
    # pointwise
    return Discriminator(input_shape, stacks, 2 ** (layers * scales + 1))


def conv(input_shape: tuple[int, ...], *, channels: int = 32, layers: int = 4) -> Discriminator:
    """Small convolutional discriminator, one logit for the whole sample whatever its size, in 2-D
    and 3-D.

    Strided convolutions, the mean over the last grid, one linear layer. channels: of the first
    convolution; they double with each layer. layers: convolutions that halve the grid.
    """
    widths = [channels * 2**i for i in range(layers)]
    stack = _stack(input_shape, widths, is_patch=False)
    return Discriminator(input_shape, [stack], 2**layers, nn.Linear(widths[-1], 1))
