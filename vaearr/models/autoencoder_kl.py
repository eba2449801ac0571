"""Convolutional VAE with spatial latents for images and volumes, as in latent diffusion.

Rombach, Blattmann, Lorenz, Esser & Ommer, "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022,
arXiv:2112.10752 (2-D); Guo et al., "MAISI: Medical AI for Synthetic Imaging", WACV 2025, arXiv:2409.11169
(3-D). The blocks are MONAI's; the padding, the posterior, the activation before the last convolution and the
checkpointing are ours.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vaearr.errors import need
from vaearr.models.conv import HEADS

LOGVAR_RANGE = (-30.0, 20.0)
NORM_EPS = 1e-6


class AutoencoderKL(nn.Module):
    """VAE with a diagonal Gaussian posterior and prior N(0, 1) at every position of a coarse grid.

    Shapes: samples `(B, C, [D,] H, W)` of any size, latents `(B, latent_dim, [lz,] ly, lx)`. Samples are padded with
    their edge values, as evenly as can be before and after, to a multiple of the stride 2**(levels - 1); what is
    decoded is cropped again.

    Attributes: `latent_shape`, of one sample; `stride`, pixels per latent position and `pad_before`, pixels added in
    front of the sample, one number per spatial dim: latent position i lies over the pixels from
    `i * stride - pad_before` on.

    Parameters
    ----------
    input_shape: `(C, H, W)` or `(C, D, H, W)`.
    latent_dim: channels of the latents.
    channels: of each level, the finest first; the grid is halved between levels.
    res_blocks: residual blocks of each level, one number for all or one each. decoder_res_blocks: the decoder's, the
    finest level first too; by default the same (Stable Diffusion has one more).
    groups: of the group norms; divides all channels.
    attention_levels: levels with self-attention after every residual block; default: none.
    mid_attention: two residual blocks with self-attention between them on the coarsest grid, on both sides.
    final_activation: SiLU between the last norm and the last convolution of encoder and decoder.
    head: identity, tanh or sigmoid, after the decoder.
    checkpointing: activations inside a block are computed again for the gradient instead of being kept.
    """

    is_deterministic = False

    def __init__(
        self,
        input_shape: tuple[int, ...],
        latent_dim: int = 4,
        *,
        channels: Sequence[int] = (32, 64, 128),
        res_blocks: int | Sequence[int] = 1,
        decoder_res_blocks: int | Sequence[int] | None = None,
        groups: int = 16,
        attention_levels: Sequence[bool] | None = None,
        mid_attention: bool = True,
        final_activation: bool = True,
        head: str = "identity",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        n_levels = len(self.channels)
        self.attention_levels = (False,) * n_levels if attention_levels is None else tuple(attention_levels)
        self.res_blocks = _of_levels(res_blocks, n_levels)
        own = decoder_res_blocks is None
        self.decoder_res_blocks = self.res_blocks if own else _of_levels(decoder_res_blocks, n_levels)
        self.mid_attention, self.final_activation, self.checkpointing = mid_attention, final_activation, checkpointing
        self.input_shape, self.latent_dim, self.groups = tuple(input_shape), latent_dim, groups
        self._check(head)

        self._place(self.input_shape)
        encoder, decoder = _monai_blocks(self)
        self.encoder = Chain(_activated(encoder, final_activation), checkpointing)
        self.decoder = Chain(_activated(decoder, final_activation), checkpointing)
        conv = nn.Conv2d if len(self.stride) == 2 else nn.Conv3d
        self.quant_conv = conv(2 * latent_dim, 2 * latent_dim, 1)
        self.post_quant_conv = conv(latent_dim, latent_dim, 1)
        self.head = HEADS[head]()
        for through in (self.quant_conv, self.post_quant_conv):  # begin as if they were not there
            nn.init.dirac_(through.weight)
            nn.init.zeros_(through.get_parameter("bias"))

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and log-variance: `(B, *input_shape) -> 2 x (B, *latent_shape)`, float32."""
        posterior = self.quant_conv(self.encoder(_with_edges(x, self.padding)))
        mean, logvar = posterior.float().chunk(2, dim=1)
        return mean.contiguous(), logvar.clamp(*LOGVAR_RANGE).contiguous()

    def decode(self, z: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        """Samples expected for latents: `(B, *latent_shape) -> (B, *input_shape)`, float32, deterministic.

        logits: without the head, as a Bernoulli likelihood takes them; with a sigmoid head, decode is their sigmoid.
        """
        decoded: torch.Tensor = self.decoder(self.post_quant_conv(z)).float()
        for dim, (before, size) in enumerate(zip(self.pad_before, self.input_shape[1:], strict=True), start=2):
            decoded = decoded.narrow(dim, before, size)
        decoded = decoded.contiguous()
        if logits:
            return decoded
        shown: torch.Tensor = self.head(decoded)
        return shown

    def resized(self, spatial: Sequence[int]) -> AutoencoderKL:
        """The same network for samples of other sides `(C, *spatial)`, all weights shared, not copied."""
        other = copy.copy(self)
        other._place((self.input_shape[0], *spatial))
        return other

    def _place(self, input_shape: tuple[int, ...]) -> None:
        """Where latent positions lie over samples of this shape."""
        self.input_shape, spatial = tuple(input_shape), input_shape[1:]
        factor = 2 ** (len(self.channels) - 1)
        self.stride = (factor,) * len(spatial)
        self.padding = tuple((-size % factor // 2, -size % factor - -size % factor // 2) for size in spatial)
        self.pad_before = tuple(before for before, _ in self.padding)
        self.latent_shape = (self.latent_dim, *(-(-size // factor) for size in spatial))

    def sample_posterior(self, mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        """One draw z = mean + exp(logvar / 2) * noise, differentiable in both."""
        return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)

    def forward(self, x: torch.Tensor, *, logits: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstruction, mean, logvar; decodes a draw while training and the posterior mean otherwise."""
        mean, logvar = self.encode(x)
        z = self.sample_posterior(mean, logvar) if self.training else mean
        return self.decode(z, logits=logits), mean, logvar

    def _check(self, head: str) -> None:
        n_levels = len(self.channels)
        if len(self.input_shape) not in (3, 4) or min(self.input_shape) < 1:
            raise ValueError(
                f"input_shape is {self.input_shape}; it must be (channels, height, width) or (channels, depth, height, "
                "width)."
            )
        if not n_levels or min(self.channels) < 1 or self.groups < 1 or any(c % self.groups for c in self.channels):
            raise ValueError(
                f"channels {self.channels} must be one or more positive multiples of groups={self.groups}."
            )
        if self.latent_dim < 1:
            raise ValueError(f"latent_dim is {self.latent_dim}; it must be a positive number.")
        if len(self.attention_levels) != n_levels:
            raise ValueError(
                f"attention_levels has {len(self.attention_levels)} entries, channels {n_levels}; give one per level."
            )
        flags = {f: getattr(self, f) for f in ("mid_attention", "final_activation", "checkpointing")}
        for what, value in flags.items() | {("attention_levels", value) for value in self.attention_levels}:
            if not isinstance(value, bool):
                raise ValueError(f"{what} is {value!r}; use true or false.")
        if head not in HEADS:
            raise ValueError(f"head is {head!r}; use one of {', '.join(HEADS)}.")
        factor = 2 ** (n_levels - 1)
        if math.prod(-(-s // factor) for s in self.input_shape[1:]) * self.channels[-1] == self.groups:
            raise ValueError("groups has one value each on the coarsest grid; use fewer groups or fewer levels.")


class Chain(nn.Module):
    """Blocks one after the other; with checkpointing, what is inside a block is computed again for the gradient."""

    def __init__(self, blocks: Iterable[nn.Module], checkpointing: bool) -> None:
        super().__init__()
        self.blocks, self.checkpointing = nn.ModuleList(blocks), checkpointing

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(B, C, …)` through all blocks."""
        again = self.checkpointing and torch.is_grad_enabled()
        for block in self.blocks:  # nothing in a block is random
            x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False) if again else block(x)
        return x


def _monai_blocks(model: AutoencoderKL) -> tuple[list[nn.Module], list[nn.Module]]:
    """The blocks of encoder and decoder. Raises MissingExtraError where MONAI is not there."""
    need("monai", "vaearr[monai]", "the model autoencoder-kl")
    from monai.networks.nets.autoencoderkl import Decoder, Encoder

    shared: dict[str, Any] = {
        "spatial_dims": len(model.input_shape) - 1,
        "channels": model.channels,
        "norm_num_groups": model.groups,
        "norm_eps": NORM_EPS,
        "attention_levels": model.attention_levels,
        "with_nonlocal_attn": model.mid_attention,
        "use_flash_attention": True,  # softmax(q k / sqrt(C)) v without the matrix of all pairs in memory
    }
    n_channels, latent_dim = model.input_shape[0], model.latent_dim
    encoder = Encoder(in_channels=n_channels, out_channels=2 * latent_dim, num_res_blocks=model.res_blocks, **shared)
    decoder = Decoder(
        in_channels=latent_dim, out_channels=n_channels, num_res_blocks=model.decoder_res_blocks, **shared
    )
    return list(encoder.blocks), list(decoder.blocks)


def _activated(blocks: list[nn.Module], final_activation: bool) -> list[nn.Module]:
    """The blocks with a SiLU before the last, which MONAI leaves out and latent diffusion has."""
    return [*blocks[:-1], nn.SiLU(), blocks[-1]] if final_activation else blocks


def _of_levels(number: int | Sequence[int] | None, n_levels: int) -> tuple[int, ...]:
    """One number for each level. Raises ValueError for another count and for numbers below 1."""
    each = (number,) * n_levels if isinstance(number, int) else tuple(number or ())
    if len(each) != n_levels or any(not isinstance(i, int) or i < 1 for i in each):
        raise ValueError(f"res_blocks is {number}; give a positive number, or one for each of {n_levels} levels.")
    return each


def _with_edges(x: torch.Tensor, padding: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Repeat the edge values of the spatial dims; its gradient is a plain sum and so the same in every run."""
    for dim, (before, after) in enumerate(padding, start=2):
        sides = [x.narrow(dim, 0, 1)] * before + [x] + [x.narrow(dim, -1, 1)] * after
        x = torch.cat(sides, dim) if len(sides) > 1 else x
    return x
