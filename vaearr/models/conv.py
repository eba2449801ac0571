"""Convolutional VAE for patterns of any size and number of channels, with a vector latent.

The encoder cuts the pattern into patches (as in Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021), halves the
grid until it is small (at most 8 x 8), and reads the latent off that grid through a few channels, so that the number of
parameters hardly depends on the pattern's size. The decoder is its mirror: sub-pixel convolutions (Shi et al.,
"Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN", 2016).
Objective and reparametrisation: Kingma & Welling, "Auto-Encoding Variational Bayes", 2014. `conv_ae` is the same
network without a posterior.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from vaearr.models.attention import CBAM

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"silu": nn.SiLU, "gelu": nn.GELU, "relu": nn.ReLU, "elu": nn.ELU}
HEADS: dict[str, Callable[[], nn.Module]] = {"identity": nn.Identity, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
UPSAMPLINGS = ("shuffle", "nearest", "bilinear", "transpose")
NORMS = ("group", "batch", "none")
ATTENTIONS = ("none", "cbam")
LOGVAR_RANGE = (-10.0, 10.0)


class ConvVAE(nn.Module):
    """VAE with diagonal Gaussian posterior N(mean, exp(logvar)) and prior N(0, 1) over a vector latent.

    Shapes: patterns `(B, C, H, W)` with H, W >= 8, latents `(B, latent_dim)`.

    Parameters
    ----------
    input_shape: `(C, H, W)`.
    latent_dim: number of latent dimensions.
    width, max_width: channels of the first stage; they double with each halving of the grid, up to `max_width`.
    depth: residual blocks of the encoder on the coarsest grid.
    hidden: units of the fully connected layer on both sides of the latent.
    patch: side of a patch in detector pixels; by default 4, but 2 for patterns with a side below 32 and 8 from 128 on.
    squeeze: channels of the coarsest grid that the fully connected layer reads.
    coarsest: the grid is halved until its longer side is at most this many patches.
    activation: silu, gelu, relu or elu. norm: group, batch or none. dropout: share of the encoder's grid zeroed.
    upsampling: shuffle (sub-pixel), nearest, bilinear or transpose. head: identity, tanh or sigmoid.
    attention: none or cbam, after each of the encoder's stages and in its residual blocks.
    contrast: latent 0 alone sets the size of the decoded pattern (`with_amplitude`), the others its shape.
    is_deterministic: an autoencoder, without a posterior: its logvar is -inf, its standard deviation 0. Set by the
    registry (`conv_ae`).
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        latent_dim: int = 32,
        *,
        width: int = 32,
        max_width: int = 128,
        depth: int = 1,
        hidden: int = 256,
        patch: int | None = None,
        squeeze: int = 32,
        coarsest: int = 8,
        activation: str = "silu",
        norm: str = "none",
        dropout: float = 0.0,
        upsampling: str = "shuffle",
        head: str = "identity",
        attention: str = "none",
        contrast: bool = False,
        is_deterministic: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(contrast, bool):
            raise ValueError(f"contrast is {contrast!r}; use true or false.")
        if contrast and (latent_dim < 2 or head != "identity"):
            raise ValueError("contrast needs at least 2 latent dimensions and head='identity'.")
        _check(input_shape, activation=activation, norm=norm, upsampling=upsampling, head=head, attention=attention)
        sizes = {"latent_dim": latent_dim, "width": width, "max_width": max_width, "hidden": hidden, "squeeze": squeeze}
        for what, size in {**sizes, "coarsest": coarsest, "patch": patch or 1, "depth": depth + 1}.items():
            if size < 1:
                raise ValueError(f"{what} is too small; it must be a positive number.")
        channels, height, w = input_shape
        self.input_shape, self.latent_dim, self.is_deterministic = tuple(input_shape), latent_dim, is_deterministic
        self.latent_shape = (latent_dim,)
        self.patch = patch or _patch(min(height, w))
        grids = _grids(height, w, self.patch, coarsest)
        widths = [min(width * 2**i, max_width) for i in range(len(grids))]
        self.grids, self.squeeze = grids, squeeze
        n_coarse = squeeze * math.prod(grids[-1])

        stages: list[nn.Module] = [nn.Conv2d(channels, widths[0], 2 * self.patch, self.patch, padding=self.patch // 2)]
        stages += _attend(widths[0], attention, activation)
        for before, after in pairwise(widths):
            stages += [*_pre(before, norm, activation), nn.Conv2d(before, after, 3, stride=2, padding=1)]
            stages += _attend(after, attention, activation)
        stages += [Residual(widths[-1], norm, activation, attention) for _ in range(depth)]
        stages += [*_pre(widths[-1], norm, activation), nn.Conv2d(widths[-1], squeeze, 1)]
        self.encoder = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.to_hidden = nn.Sequential(nn.Linear(n_coarse, hidden), ACTIVATIONS[activation]())
        self.to_posterior = nn.Linear(hidden, latent_dim if is_deterministic else 2 * latent_dim)

        down = widths[::-1]
        act = ACTIVATIONS[activation]
        self.contrast = contrast
        n_shape = latent_dim - 1 if contrast else latent_dim
        self.from_latent = nn.Sequential(nn.Linear(n_shape, hidden), act(), nn.Linear(hidden, n_coarse), act())
        self.from_coarse = nn.Conv2d(squeeze, down[0], 3, padding=1)
        self.up = nn.ModuleList(
            nn.Sequential(*_pre(a, norm, activation), *_upsample(a, b, upsampling)) for a, b in pairwise(down)
        )
        self.to_pattern = nn.Sequential(
            *_pre(down[-1], norm, activation),
            nn.Conv2d(down[-1], channels * self.patch**2, 3, padding=1),
            nn.PixelShuffle(self.patch),
        )
        self.head = HEADS[head]()

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and log-variance of patterns: `(B, C, H, W) -> 2 x (B, latent_dim)`, float32.

        The log-variance of a deterministic network is -inf.
        """
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.patch, 0, -height % self.patch))
        grid = self.encoder(x.contiguous(memory_format=torch.channels_last))
        hidden = self.to_hidden(self.dropout(grid.flatten(1)))
        posterior = self.to_posterior(hidden).float()
        if self.is_deterministic:
            return posterior, torch.full_like(posterior, -torch.inf)
        mean, logvar = posterior.chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def decode(self, z: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        """Patterns expected for latents: `(B, latent_dim) -> (B, C, H, W)`, deterministic.

        logits: without the head, as a Bernoulli likelihood takes them; with a sigmoid head, decode is their sigmoid.
        """
        grid = self.from_latent(z[:, 1:] if self.contrast else z).unflatten(1, (self.squeeze, *self.grids[-1]))
        grid = self.from_coarse(grid.contiguous(memory_format=torch.channels_last))
        for up, (height, width) in zip(self.up, self.grids[-2::-1], strict=True):
            grid = up(grid)[..., :height, :width]
        decoded: torch.Tensor = self.to_pattern(grid)
        if not logits:
            decoded = self.head(decoded)
        decoded = decoded[..., : self.input_shape[1], : self.input_shape[2]].contiguous()
        return with_amplitude(decoded, z[:, 0]) if self.contrast else decoded

    def sample_posterior(self, mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
        """One draw z = mean + exp(logvar / 2) * noise, differentiable in both; the mean if there is no posterior."""
        if self.is_deterministic:
            return mean
        return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)

    def forward(self, x: torch.Tensor, *, logits: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstruction, mean, logvar; decodes a draw while training and the posterior mean otherwise."""
        mean, logvar = self.encode(x)
        z = self.sample_posterior(mean, logvar) if self.training else mean
        return self.decode(z, logits=logits), mean, logvar


def with_amplitude(shape: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Patterns scaled to the root mean square softplus(0.6 + 0.3 z): `(B, C, H, W), (B,) -> (B, C, H, W)`, float32.

    For preprocessed patterns of standard deviation 1, of which the bands are a part: a z that follows the prior spans
    sizes from about 0.1 to 1.5. The constants are fixed; a learned slope settles in less of that range.
    """
    shape = shape.float()
    rms = shape.square().flatten(1).mean(1).add(1e-4).sqrt()
    size = F.softplus(0.6 + 0.3 * z.float(), beta=3.0)
    return shape * (size / rms).view(-1, *[1] * (shape.ndim - 1))


conv_ae = partial(ConvVAE, is_deterministic=True)


class Residual(nn.Module):
    """x + attention(pointwise(activation(3 x 3(norm(x))))), `(B, C, h, w)` in and out."""

    def __init__(self, width: int, norm: str, activation: str, attention: str = "none") -> None:
        super().__init__()
        self.block = nn.Sequential(
            _norm(width, norm),
            nn.Conv2d(width, width, 3, padding=1),
            ACTIVATIONS[activation](),
            nn.Conv2d(width, width, 1),
            *_attend(width, attention, activation),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same shape out as in."""
        out: torch.Tensor = x + self.block(x)
        return out


def _patch(side: int) -> int:
    """Default patch for patterns whose smaller side is `side`."""
    if side < 32:
        return 2
    return 4 if side < 128 else 8


def _grids(height: int, width: int, patch: int, coarsest: int) -> list[tuple[int, int]]:
    """Grid sizes from patches to the coarsest, each half of the one before, rounded up."""
    grids = [(-(-height // patch), -(-width // patch))]
    while max(grids[-1]) > coarsest:
        grids.append((-(-grids[-1][0] // 2), -(-grids[-1][1] // 2)))
    return grids


def _norm(width: int, norm: str) -> nn.Module:
    if norm == "group":
        return nn.GroupNorm(math.gcd(8, width), width)
    return nn.BatchNorm2d(width) if norm == "batch" else nn.Identity()


def _pre(width: int, norm: str, activation: str) -> tuple[nn.Module, nn.Module]:
    return _norm(width, norm), ACTIVATIONS[activation]()


def _attend(width: int, attention: str, activation: str) -> list[nn.Module]:
    return [CBAM(width, ACTIVATIONS[activation])] if attention == "cbam" else []


def _upsample(width: int, out: int, upsampling: str) -> list[nn.Module]:
    """Layers that double the grid and go from `width` to `out` channels."""
    if upsampling == "shuffle":
        return [nn.Conv2d(width, 4 * out, 1), nn.PixelShuffle(2)]
    if upsampling == "transpose":
        return [nn.ConvTranspose2d(width, out, 2, stride=2)]
    return [nn.Upsample(scale_factor=2, mode=upsampling), nn.Conv2d(width, out, 3, padding=1)]


def _check(input_shape: tuple[int, ...], **options: str) -> None:
    if len(input_shape) == 4:
        raise ValueError("it takes images; for volumes choose the model 'autoencoder-kl' or the preset 'maisi'.")
    if len(input_shape) != 3 or min(input_shape[1:]) < 8 or input_shape[0] < 1:
        raise ValueError(
            f"input_shape is {tuple(input_shape)}; it must be (channels, height, width), sides at least 8."
        )
    table = {
        "activation": ACTIVATIONS,
        "norm": NORMS,
        "upsampling": UPSAMPLINGS,
        "head": HEADS,
        "attention": ATTENTIONS,
    }
    for what, value in options.items():
        if value not in table[what]:
            raise ValueError(f"{what} is {value!r}; use one of {', '.join(table[what])}.")
