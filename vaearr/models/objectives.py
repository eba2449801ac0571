"""Loss terms as pure tensor functions, in nats per sample: loss = reconstruction_nll + beta * kl, down is better.

`nll` is summed over the pixels of a pattern and `kl` over the latent dimensions; both are averaged over samples.
None of them reads a value back from the device, but for `check_targets`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from vaearr.errors import TrainingError, did_you_mean

LOG_2 = math.log(2)
LOG_2PI = math.log(2 * math.pi)
MIN_AMPLITUDE = 0.1  # of a fitted shape, in preprocessed units
ROUNDING = 1e-4  # by which a pattern may leave [0, 1] when it was scaled or rotated
MISSING = -1  # label of a sample without one


def kl_divergence(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of each latent dimension, in nats: `(B, L, …)` in and out, never negative.

    Kingma & Welling, "Auto-Encoding Variational Bayes", 2014, appendix B.
    """
    return 0.5 * (mean.square() + torch.expm1(logvar) - logvar)


def posterior_kl(network: nn.Module, mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """`kl_divergence` of what a network encodes, in nats, `(B, L, …)`; 0 by definition for a deterministic one.

    A deterministic network is one whose `is_deterministic` is true; it has no posterior (its logvar is -inf).
    """
    return torch.zeros_like(mean) if getattr(network, "is_deterministic", False) else kl_divergence(mean, logvar)


def kl_penalty(kl: torch.Tensor, free_bits: float = 0.0) -> torch.Tensor:
    """The KL term in the loss: batch mean of each dimension, at least `free_bits`, summed: `(B, L, …) -> ()`.

    Each position of a spatial latent counts as a dimension of its own. With `free_bits = 0` this is the plain KL.
    Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow", 2016, appendix C.8.
    """
    per_dimension = kl.mean(0)
    return (per_dimension.clamp_min(free_bits) if free_bits > 0 else per_dimension).sum()


def capacity_penalty(kl: torch.Tensor, capacity: torch.Tensor | float) -> torch.Tensor:
    """|KL - capacity| in nats, of the KL summed over dimensions and averaged over samples: `(B, L, …) -> ()`.

    Holds the KL at `capacity` nats per sample instead of making it small; with capacity 0 it is the plain KL. Burgess
    et al., "Understanding disentangling in beta-VAE", arXiv:1804.03599, eq. 8, where the weight is called gamma.
    """
    return (kl.flatten(1).sum(1).mean() - capacity).abs()


def gaussian_nll(target: torch.Tensor, recon: torch.Tensor, logvar: torch.Tensor | float = 0.0) -> torch.Tensor:
    """-log N(target; recon, exp(logvar)) summed over the pixels: `(B, C, …) -> (B,)`.

    `logvar` is a number or broadcasts against the patterns; 0 is unit variance.
    """
    logvar = torch.as_tensor(logvar, dtype=recon.dtype, device=recon.device)
    terms = 0.5 * ((target - recon).square() * torch.exp(-logvar) + logvar + LOG_2PI)
    return terms.flatten(1).sum(1)


def optimal_sigma_nll(target: torch.Tensor, recon: torch.Tensor, *, min_variance: float = 1e-6) -> torch.Tensor:
    """Gaussian negative log-likelihood with the one variance that is best for this batch: `(B, C, …) -> (B,)`.

    sigma^2 is the mean squared error over the batch, so the batch mean is D/2 (log(2 pi sigma^2) + 1) for D pixels, and
    its gradient weighs squared errors by 1 / (2 sigma^2) without a weight to tune. sigma^2 is kept above
    `min_variance` (patterns without noise, such as constant ones, would send it to 0). Rybkin, Daniilidis & Levine,
    "Simple and Effective VAE Training with Calibrated Decoders", ICML 2021, eq. 7.
    """
    error = (target - recon).square().flatten(1)
    variance = error.mean().clamp_min(min_variance)
    return 0.5 * (error.sum(1) / variance + error.shape[1] * (torch.log(variance) + LOG_2PI))


def laplace_nll(target: torch.Tensor, recon: torch.Tensor) -> torch.Tensor:
    """-log Laplace(target; recon, scale 1) = |target - recon| + log 2, summed over the pixels: `(B, C, …) -> (B,)`."""
    return ((target - recon).abs() + LOG_2).flatten(1).sum(1)


def bernoulli_nll(target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """-log Bernoulli(target; sigmoid(logits)) summed over the pixels: `(B, C, …) -> (B,)`.

    Targets lie in [0, 1]; between 0 and 1 it is the binary cross entropy, which is lowest at sigmoid(logits) = target
    but not a normalised density (Loaiza-Ganem & Cunningham, "The continuous Bernoulli", NeurIPS 2019). A sample with
    a value outside gives NaN and no number that looks like a loss; `check_targets` says so in words. Logits, because
    probabilities next to 0 and 1 have no gradient left in reduced precision.
    """
    nll = F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1).sum(1)
    return torch.where(_is_probability(target), nll, torch.nan)


def _is_probability(target: torch.Tensor) -> torch.Tensor:
    """Which samples lie in [0, 1] but for rounding: `(B, C, …) -> (B,)`; not those with NaN."""
    low, high = target.flatten(1).aminmax(dim=1)
    return (low >= -ROUNDING) & (high <= 1 + ROUNDING)


# name -> function of (target, output of the network), `(B, C, …) -> (B,)` in nats
LIKELIHOODS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "optimal_sigma": optimal_sigma_nll,
    "gaussian": gaussian_nll,
    "laplace": laplace_nll,
    "bernoulli": bernoulli_nll,
}


def shape_nll(
    target: torch.Tensor, recon: torch.Tensor, nll: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """`nll` of a partner's pattern at the amplitude that fits it best: `2 x (B, C, …) -> (B,)`.

    recon = size * shape with a shape of root mean square 1; what is judged is the shape, scaled to its projection on
    the target (at least 0.1). Partners share the crystal, not the contrast: the size is left to `amplitude_nll`.
    """
    shape = recon / _size(recon)
    fitted = _mean(target * shape).clamp_min(MIN_AMPLITUDE).detach()
    return nll(target, fitted * shape)


def amplitude_nll(
    own: torch.Tensor, recon: torch.Tensor, nll: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """`nll` of the own pattern, with a gradient to the size of the reconstruction alone: `2 x (B, C, …) -> (B,)`."""
    size = _size(recon)
    return nll(own, size * (recon / size).detach())


def _size(recon: torch.Tensor) -> torch.Tensor:
    """Root mean square of each pattern."""
    return _mean(recon.square()).add(1e-8).sqrt()


def _mean(x: torch.Tensor) -> torch.Tensor:
    """Mean over all but the batch, kept for broadcasting."""
    return x.mean(tuple(range(1, x.ndim)), keepdim=True)


def takes_logits(likelihood: str) -> bool:
    """Whether the likelihood wants the decoder's output before its sigmoid: `network(x, logits=True)`."""
    return likelihood == "bernoulli"


def check_targets(target: torch.Tensor, likelihood: str) -> None:
    """Raise TrainingError for preprocessed patterns `(B, C, …)` that the likelihood cannot score, ValueError for an
    unknown one. Waits for the device: for the first batch only."""
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"there is no likelihood {likelihood!r}.{did_you_mean(likelihood, sorted(LIKELIHOODS))}")
    if takes_logits(likelihood) and not bool(_is_probability(target).all()):
        low, high = target.min(), target.max()
        raise TrainingError(
            f"patterns range from {float(low):g} to {float(high):g} after preprocessing, but the bernoulli likelihood "
            "is for values between 0 and 1; set preprocess.normalise='minmax' or choose another objective.likelihood."
        )


def classification_nll(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the labels in nats per sample: logits `(B, K)`, labels `(B,)` int64, -1 for none `-> ()`.

    The mean over all samples of the batch, to which those without a label add 0: it is their share of the sum over
    the data set, whatever the batch, so batches and processes average exactly. 0 with gradient 0 where all lack one.
    """
    return F.cross_entropy(logits.float(), labels, ignore_index=MISSING, reduction="sum") / len(labels)


def beta_schedule(step: int, n_warmup: int, beta: float) -> float:
    """Weight of the KL term at a step (from 0): rises linearly to `beta` over `n_warmup` steps, then stays.

    Warm-up against collapse: Bowman et al., "Generating Sentences from a Continuous Space", 2016; Sønderby et al.,
    "Ladder Variational Autoencoders", 2016.
    """
    return beta * min(1.0, (step + 1) / n_warmup) if n_warmup > 0 else beta


def corrupt(x: torch.Tensor, noise: float) -> torch.Tensor:
    """Input of the encoder while training: patterns plus white Gaussian noise of standard deviation `noise`.

    In units of preprocessed patterns, so that 1 with `zscore` doubles a pattern's variance; the target stays as it is,
    and so does the input outside of training. Keeps the encoder from learning the noise of few patterns by heart. Im et
    al., "Denoising Criterion for Variational Auto-Encoding Framework", AAAI 2017.
    """
    return x + noise * torch.randn_like(x) if noise > 0 else x
