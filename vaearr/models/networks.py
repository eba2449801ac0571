"""The networks: a convolutional VAE with a vector latent, and the KL autoencoder of latent
diffusion.

`ConvVAE` is for patterns of any size and number of channels. Its encoder cuts the pattern into
patches (as in Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021), halves the grid until it
is small (at most 8 x 8), and reads the latent off that grid through a few channels, so that the
number of parameters hardly depends on the pattern's size. The decoder is its mirror: sub-pixel
convolutions (Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient
Sub-Pixel CNN", 2016). Objective and reparametrisation: Kingma & Welling, "Auto-Encoding Variational
Bayes", 2014. `conv_ae` is the same network without a posterior.

`AutoencoderKL` has spatial latents, for images and volumes: Rombach, Blattmann, Lorenz, Esser &
Ommer, "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022, arXiv:2112.10752
(2-D); Guo et al., "MAISI: Medical AI for Synthetic Imaging", WACV 2025, arXiv:2409.11169 (3-D). Its
blocks are MONAI's; the padding, the posterior, the activation before the last convolution and the
checkpointing are ours.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from vaearr.errors import need

LOGVAR_RANGE, SPATIAL_LOGVAR_RANGE = (-10.0, 10.0), (-30.0, 20.0)
NORM_EPS = 1e-6
# bias of both gates at the start: sigmoid(2) = 0.88, so that stages do not fade before learning
OPEN = 2.0
REDUCTION = 16  # of channels, inside the block of channel attention


class CBAM(nn.Module):
    """Convolutional block attention: a weight per channel, then a weight per pixel, `(B, C, h, w)`
    in and out.

    channel: sigmoid(MLP(mean over pixels) + MLP(maximum over pixels)), one MLP `C -> C / 16 -> C`
    for both.
    spatial: sigmoid(7 x 7 convolution of the mean and the maximum over channels). Woo et al.,
    "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv:1807.06521, eq. 1-3. Two
    departures: no batch norm on the spatial map, and gates that start open.
    """

    def __init__(self, width: int, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        hidden = max(1, width // REDUCTION)
        last = nn.Linear(hidden, width)
        self.channel = nn.Sequential(nn.Linear(width, hidden), activation(), last)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)
        nn.init.constant_(last.bias, OPEN / 2)  # the MLP is added twice
        nn.init.constant_(self.spatial.get_parameter("bias"), OPEN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same shape out as in; no value grows."""
        of_mean = self.channel(x.mean((2, 3)))
        of_maximum = self.channel(x.amax((2, 3)))
        x = x * torch.sigmoid(of_mean + of_maximum)[:, :, None, None]
        mean = x.mean(1, keepdim=True)
        maximum = x.amax(1, keepdim=True)
        over_channels = torch.cat([mean, maximum], 1)
        return x * torch.sigmoid(self.spatial(over_channels))


# option -> name -> what makes it; an upsampling doubles the grid, from `a` to `b` channels
CHOICES: dict[str, dict[str, Callable[..., Any]]] = {
    "activation": {"silu": nn.SiLU, "gelu": nn.GELU, "relu": nn.ReLU, "elu": nn.ELU},
    "head": {"identity": nn.Identity, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid},
    "norm": {
        "group": lambda width: nn.GroupNorm(math.gcd(8, width), width),
        "batch": nn.BatchNorm2d,
        "none": lambda width: nn.Identity(),
    },
    "upsampling": {
        "shuffle": lambda a, b: [nn.Conv2d(a, 4 * b, 1), nn.PixelShuffle(2)],
        "nearest": lambda a, b: [
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(a, b, 3, padding=1),
        ],
        "bilinear": lambda a, b: [
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(a, b, 3, padding=1),
        ],
        "transpose": lambda a, b: [nn.ConvTranspose2d(a, b, 2, stride=2)],
    },
    "attention": {
        "none": lambda width, activation: [],
        "cbam": lambda width, activation: [CBAM(width, activation)],
    },
}


def chosen(option: str, name: str) -> Callable[..., Any]:
    """Return the function that makes a part of a network; raises ValueError for another name."""
    choices = CHOICES[option]
    require(name in choices, f"{option} is {name!r}; use one of {', '.join(choices)}.")
    return choices[name]


def require(is_fine: bool, text: str) -> None:
    """Raise ValueError with this text unless a condition holds."""
    if not is_fine:
        raise ValueError(text)


class ConvVAE(nn.Module):
    """VAE with diagonal Gaussian posterior N(mean, exp(logvar)) and prior N(0, 1) over a vector
    latent.

    Shapes: patterns `(B, C, H, W)` with H, W >= 8, latents `(B, latent_dim)`.

    Parameters
    ----------
    input_shape : tuple of int
        `(C, H, W)`.
    latent_dim : int
        Number of latent dimensions.
    width, max_width : int
        Channels of the first stage; they double with each halving of the grid, up to `max_width`.
    depth : int
        Residual blocks of the encoder on the coarsest grid.
    hidden : int
        Units of the fully connected layer on both sides of the latent.
    patch : int, optional
        Side of a patch in pixels. Default: 4, but 2 for patterns with a side below 32 and 8 from
        128 on.
    squeeze : int
        Channels of the coarsest grid that the fully connected layer reads.
    coarsest : int
        The grid is halved until its longer side is at most this many patches.
    activation : {"silu", "gelu", "relu", "elu"}
        Activation function.
    norm : {"none", "group", "batch"}
        Normalisation.
    dropout : float
        Share of the encoder's grid that is zeroed.
    upsampling : {"shuffle", "nearest", "bilinear", "transpose"}
        shuffle: sub-pixel convolution.
    head : {"identity", "tanh", "sigmoid"}
        Last function of the decoder.
    attention : {"none", "cbam"}
        After each of the encoder's stages and in its residual blocks.
    contrast : bool
        Latent 0 alone sets the amplitude of the decoded pattern (`with_amplitude`), the others its
        shape.
    is_deterministic : bool
        An autoencoder without a posterior: its logvar is -inf. Set by the registry (`conv_ae`).
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
        shape = tuple(input_shape)
        _check_conv(shape, latent_dim, head, contrast)
        smallest = min(width, max_width, hidden, squeeze, coarsest, patch or 1, depth + 1)
        require(
            smallest > 0,
            "depth is 0 or more; width, max_width, hidden, squeeze, coarsest and patch 1 or more.",
        )
        self.input_shape = shape
        self.latent_dim = latent_dim
        self.latent_shape = (latent_dim,)
        self.is_deterministic = is_deterministic
        self.contrast = contrast
        self.squeeze = squeeze
        self.patch = patch or _default_patch(shape)
        self.side_multiple = self.patch
        self.grids = [tuple(math.ceil(side / self.patch) for side in shape[1:])]
        while max(self.grids[-1]) > coarsest:
            self.grids.append(tuple(math.ceil(side / 2) for side in self.grids[-1]))
        widths = [min(width * 2**i, max_width) for i in range(len(self.grids))]
        first, last = widths[0], widths[-1]
        n_coarse = squeeze * math.prod(self.grids[-1])
        act = chosen("activation", activation)
        normed = chosen("norm", norm)
        upsampled = chosen("upsampling", upsampling)
        attend = partial(chosen("attention", attention), activation=act)

        to_grid = nn.Conv2d(shape[0], first, 2 * self.patch, self.patch, padding=self.patch // 2)
        stages = [to_grid, *attend(first)]
        for a, b in pairwise(widths):
            halving = nn.Conv2d(a, b, 3, stride=2, padding=1)
            stages += [normed(a), act(), halving, *attend(b)]
        for _ in range(depth):
            convolutions = nn.Conv2d(last, last, 3, padding=1), act(), nn.Conv2d(last, last, 1)
            stages.append(Residual(normed(last), *convolutions, *attend(last)))
        self.encoder = nn.Sequential(*stages, normed(last), act(), nn.Conv2d(last, squeeze, 1))
        self.dropout = nn.Dropout(dropout)
        self.to_hidden = nn.Sequential(nn.Linear(n_coarse, hidden), act())
        self.to_posterior = nn.Linear(hidden, latent_dim if is_deterministic else 2 * latent_dim)

        self.from_latent = nn.Sequential(
            nn.Linear(latent_dim - contrast, hidden), act(), nn.Linear(hidden, n_coarse), act()
        )
        self.from_coarse = nn.Conv2d(squeeze, last, 3, padding=1)
        self.up = nn.ModuleList()
        for a, b in pairwise(widths[::-1]):
            self.up.append(nn.Sequential(normed(a), act(), *upsampled(a, b)))
        to_patches = nn.Conv2d(first, shape[0] * self.patch**2, 3, padding=1)
        self.to_pattern = nn.Sequential(
            normed(first), act(), to_patches, nn.PixelShuffle(self.patch)
        )
        self.head = chosen("head", head)()

    @property
    def stages(self) -> nn.Sequential:
        """Modules of the encoder, see `vaearr.models.Network`."""
        return self.encoder

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return posterior mean and log-variance of patterns, each `(B, latent_dim)`, float32."""
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.patch, 0, -height % self.patch))
        grid = self.encoder(x.contiguous(memory_format=torch.channels_last))
        posterior = self.to_posterior(self.to_hidden(self.dropout(grid.flatten(1)))).float()
        if self.is_deterministic:
            return posterior, torch.full_like(posterior, -torch.inf)
        mean, logvar = posterior.chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def decode(self, z: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        """Return patterns `(B, C, H, W)` for latents `(B, latent_dim)`.

        logits: without the head, as a Bernoulli likelihood takes them.
        """
        shape_latents = z[:, 1:] if self.contrast else z
        grid = self.from_latent(shape_latents).unflatten(1, (self.squeeze, *self.grids[-1]))
        grid = self.from_coarse(grid.contiguous(memory_format=torch.channels_last))
        for up, (height, width) in zip(self.up, self.grids[-2::-1], strict=True):
            grid = up(grid)[..., :height, :width]
        decoded: torch.Tensor = self.to_pattern(grid)
        if not logits:
            decoded = self.head(decoded)
        decoded = decoded[..., : self.input_shape[1], : self.input_shape[2]].contiguous()
        return with_amplitude(decoded, z[:, 0]) if self.contrast else decoded


def _check_conv(shape: tuple[int, ...], latent_dim: int, head: str, contrast: bool) -> None:
    require(
        len(shape) < 4, "it takes images; for volumes choose the model 'pca' or the preset 'maisi'."
    )
    require(
        len(shape) == 3 and min(shape[1:]) >= 8 and shape[0] > 0,
        f"input_shape is {shape}; it must be (channels, height, width), sides at least 8.",
    )
    can_contrast = latent_dim > 1 and head == "identity"
    require(
        contrast is False or (contrast is True and can_contrast),
        "contrast is true or false; it needs at least 2 latent dimensions and head='identity'.",
    )


def _default_patch(shape: tuple[int, ...]) -> int:
    side = min(shape[1:])
    if side < 32:
        return 2
    return 4 if side < 128 else 8


conv_ae = partial(ConvVAE, is_deterministic=True)


class Residual(nn.Module):
    """x plus the output of the layers, `(B, C, h, w)` in and out."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same shape out as in."""
        out: torch.Tensor = x + self.block(x)
        return out


def with_amplitude(shape: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Scale patterns `(B, C, H, W)` to the root mean square softplus(0.6 + 0.3 z), float32.

    z: `(B,)`. For preprocessed patterns of standard deviation 1, part of which are the bands: a z
    that follows the prior spans sizes from about 0.1 to 1.5. The constants are fixed; a learned
    slope settles in less of that range.
    """
    shape = shape.float()
    rms = shape.square().flatten(1).mean(1).add(1e-4).sqrt()
    size = F.softplus(0.6 + 0.3 * z.float(), beta=3.0)
    return shape * (size / rms).view(-1, *[1] * (shape.ndim - 1))


class AutoencoderKL(nn.Module):
    """VAE with a diagonal Gaussian posterior and prior N(0, 1) at every position of a coarse grid.

    Shapes: samples `(B, C, [D,] H, W)` of any size, latents `(B, latent_dim, [lz,] ly, lx)`.
    Samples are padded with their edge values, as evenly as can be before and after, to a multiple
    of the stride 2**(levels - 1); what is decoded is cropped again.

    Attributes: `latent_shape`, of one sample; `stride`, pixels per latent position and `padding`,
    pixels added before and after the sample, per spatial dim: latent position i lies over pixels
    from `i * stride - padding[dim][0]` on.

    Parameters
    ----------
    input_shape : tuple of int
        `(C, H, W)` or `(C, D, H, W)`.
    latent_dim : int
        Channels of the latents.
    channels : sequence of int
        Channels of each level, the finest first; the grid is halved between levels.
    res_blocks : int or sequence of int
        Residual blocks of each level.
    decoder_res_blocks : int or sequence of int, optional
        The decoder's, the finest level first too. Default: as `res_blocks` (Stable Diffusion has
        one more).
    groups : int
        Groups of the group norms; divides all channels.
    attention_levels : sequence of bool, optional
        Levels with self-attention after every residual block. Default: none.
    mid_attention : bool
        Two residual blocks with self-attention between them on the coarsest grid, on both sides.
    final_activation : bool
        SiLU between the last norm and the last convolution of encoder and decoder.
    head : {"identity", "tanh", "sigmoid"}
        Last function of the decoder.
    checkpointing : bool
        Compute activations inside a block again for the gradient instead of keeping them.
    """

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
        shape = tuple(input_shape)
        if decoder_res_blocks is None:
            decoder_res_blocks = res_blocks
        n_levels = len(channels)
        self.channels = tuple(channels)
        self.latent_dim = latent_dim
        self.res_blocks = _per_level(res_blocks, n_levels)
        self.decoder_res_blocks = _per_level(decoder_res_blocks, n_levels)
        self.attention_levels = _per_level(attention_levels or False, n_levels)
        self.mid_attention = mid_attention
        self.final_activation = final_activation
        require(
            len(shape) in (3, 4) and min(shape) > 0,
            f"input_shape is {shape}; it is (channels, [depth,] height, width).",
        )
        per_level = (self.res_blocks, self.decoder_res_blocks, self.attention_levels)
        has_blocks = min(*self.res_blocks, *self.decoder_res_blocks) > 0
        require(
            has_blocks and all(len(values) == n_levels for values in per_level),
            f"res_blocks (1 or more) and attention_levels are one or each of {n_levels}, as "
            "channels.",
        )
        self._place(shape)
        self.head = chosen("head", head)()
        need("monai", "vaearr[monai]", "the model autoencoder-kl")
        from monai.networks.nets.autoencoderkl import Decoder, Encoder

        shared: dict[str, Any] = {
            "spatial_dims": len(shape) - 1,
            "channels": self.channels,
            "norm_num_groups": groups,
            "norm_eps": NORM_EPS,
            "attention_levels": self.attention_levels,
            "with_nonlocal_attn": bool(mid_attention),
            "use_flash_attention": True,  # without the matrix of all pairs in memory
        }
        n, out = shape[0], 2 * latent_dim
        encoder = Encoder(in_channels=n, out_channels=out, num_res_blocks=self.res_blocks, **shared)
        decoder = Decoder(
            in_channels=latent_dim, out_channels=n, num_res_blocks=self.decoder_res_blocks, **shared
        )
        self.encoder = Chain(encoder.blocks, final_activation, checkpointing)
        self.decoder = Chain(decoder.blocks, final_activation, checkpointing)
        conv = nn.Conv2d if len(shape) == 3 else nn.Conv3d
        self.quant_conv = conv(out, out, 1)
        self.post_quant_conv = conv(latent_dim, latent_dim, 1)
        for identity in (self.quant_conv, self.post_quant_conv):
            nn.init.dirac_(identity.weight)
            nn.init.zeros_(identity.get_parameter("bias"))

    @property
    def stages(self) -> nn.ModuleList:
        """Modules of the encoder, see `vaearr.models.Network`."""
        return self.encoder.blocks

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return posterior mean and log-variance, each `(B, *latent_shape)`, float32."""
        posterior = self.quant_conv(self.encoder(with_edges(x, self.padding)))
        mean, logvar = posterior.float().chunk(2, dim=1)
        return mean.contiguous(), logvar.clamp(*SPATIAL_LOGVAR_RANGE).contiguous()

    def decode(self, z: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        """Return samples `(B, *input_shape)` for latents, float32.

        logits: without the head, as a Bernoulli likelihood takes them.
        """
        decoded: torch.Tensor = self.decoder(self.post_quant_conv(z)).float()
        decoded = without_edges(decoded, self.padding, self.input_shape[1:])
        return decoded if logits else self.head(decoded)

    def resized(self, spatial: Sequence[int]) -> AutoencoderKL:
        """Return the network for samples of other sides, all weights shared, not copied."""
        other = copy.copy(self)
        other._place((self.input_shape[0], *spatial))
        return other

    def _place(self, input_shape: tuple[int, ...]) -> None:
        """Set where latent positions lie over samples of this shape."""
        self.input_shape = tuple(input_shape)
        factor = 2 ** (len(self.channels) - 1)
        n_positions = []
        padding = []
        for size in input_shape[1:]:
            n_positions.append(math.ceil(size / factor))
            missing = -size % factor
            padding.append((missing // 2, missing - missing // 2))
        self.stride = (factor,) * len(n_positions)
        self.side_multiple = factor
        self.padding = tuple(padding)
        self.latent_shape = (self.latent_dim, *n_positions)


def _per_level(values: Any, n_levels: int) -> tuple[Any, ...]:
    return (values,) * n_levels if isinstance(values, int) else tuple(values)


class Chain(nn.Module):
    """Blocks one after the other, with a SiLU before the last, which latent diffusion has and MONAI
    lacks; with checkpointing, activations inside a block are computed again for the gradient.
    """

    def __init__(
        self, blocks: Iterable[nn.Module], final_activation: bool, checkpointing: bool
    ) -> None:
        super().__init__()
        *first, last = blocks
        self.blocks = nn.ModuleList([*first, *[nn.SiLU()] * final_activation, last])
        self.checkpointing = checkpointing

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(B, C, …)` through all blocks."""
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():  # nothing in a block is random
                x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x)
        return x


def with_edges(x: torch.Tensor, padding: Iterable[tuple[int, int]]) -> torch.Tensor:
    """Repeat the edge values of the spatial dims; its gradient is a plain sum and so the same in
    every run.
    """
    for dim, (before, after) in enumerate(padding, start=2):
        if before or after:
            first = x.narrow(dim, 0, 1)
            last = x.narrow(dim, -1, 1)
            x = torch.cat([first] * before + [x] + [last] * after, dim)
    return x


def without_edges(
    x: torch.Tensor, padding: Sequence[tuple[int, int]], sides: Sequence[int]
) -> torch.Tensor:
    """Remove what `with_edges` added to samples of these sides."""
    for dim, (side, (before, _)) in enumerate(zip(sides, padding, strict=True), start=2):
        x = x.narrow(dim, before, side)
    return x.contiguous()
