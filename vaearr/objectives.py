"""Loss terms as pure tensor functions, in nats per sample: loss = reconstruction_nll + beta * kl, down is better.

`nll` is summed over the pixels of a pattern and `kl` over the latent dimensions; both are averaged over samples.
"""

from __future__ import annotations

import math

import torch

LOG_2PI = math.log(2 * math.pi)


def kl_divergence(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of each latent dimension, in nats: `(B, L) -> (B, L)`, never negative.

    Kingma & Welling, "Auto-Encoding Variational Bayes", 2014, appendix B.
    """
    return 0.5 * (mean.square() + torch.expm1(logvar) - logvar)


def kl_penalty(kl: torch.Tensor, free_bits: float = 0.0) -> torch.Tensor:
    """The KL term as the loss punishes it: batch mean of each dimension, at least `free_bits`, summed: `(B, L) -> ()`.

    With `free_bits = 0` this is the plain KL. Kingma et al., "Improved Variational Inference with Inverse
    Autoregressive Flow", 2016, appendix C.8.
    """
    per_dimension = kl.mean(0)
    return (per_dimension.clamp_min(free_bits) if free_bits > 0 else per_dimension).sum()


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


def beta_schedule(step: int, n_warmup: int, beta: float) -> float:
    """Weight of the KL term at a step (from 0): rises linearly to `beta` over `n_warmup` steps, then stays.

    Warm-up against collapse: Bowman et al., "Generating Sentences from a Continuous Space", 2016; Sønderby et al.,
    "Ladder Variational Autoencoders", 2016.
    """
    return beta * min(1.0, (step + 1) / n_warmup) if n_warmup > 0 else beta


def beta_at(step: int, n_steps: int, beta: float, warmup: float) -> float:
    """`beta_schedule` with the warm-up given as a share of all steps."""
    return beta_schedule(step, round(warmup * n_steps), beta)


def corrupt(x: torch.Tensor, noise: float) -> torch.Tensor:
    """Input of the encoder while training: patterns plus white Gaussian noise of standard deviation `noise`.

    In units of preprocessed patterns, so that 1 with `zscore` doubles a pattern's variance; the target stays as it is,
    and so does the input outside of training. Keeps the encoder from learning the noise of few patterns by heart. Im et
    al., "Denoising Criterion for Variational Auto-Encoding Framework", AAAI 2017.
    """
    return x + noise * torch.randn_like(x) if noise > 0 else x
