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
OPEN = 2.0  # bias of both gates at the start: sigmoid(2) = 0.88, so that stages do not fade before they have learned


class CBAM(nn.Module):
    """Convolutional block attention: a weight per channel, then a weight per pixel, `(B, C, h, w)`
    in and out.

    channel: sigmoid(MLP(mean over pixels) + MLP(maximum over pixels)), one MLP `C -> C / reduction
    -> C` for both.
    spatial: sigmoid(7 x 7 convolution of the mean and the maximum over channels). Woo et al.,
    "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv:1807.06521, eq. 1-3. Two
    departures: no batch norm on the spatial map, and gates that start open.
    """

    def __init__(
        self, width: int, activation: Callable[[], nn.Module] = nn.ReLU, *, reduction: int = 16
    ) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        last = nn.Linear(hidden, width)
        self.channel = nn.Sequential(nn.Linear(width, hidden), activation(), last)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)
        nn.init.constant_(last.bias, OPEN / 2)  # the MLP is added twice
        nn.init.constant_(self.spatial.get_parameter("bias"), OPEN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same shape out as in; no value grows."""
        x = (
            x
            * torch.sigmoid(self.channel(x.mean((2, 3))) + self.channel(x.amax((2, 3))))[
                :, :, None, None
            ]
        )
        return x * torch.sigmoid(
            self.spatial(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))
        )


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
    """What makes the part of a network that an option names. Raises ValueError for another name."""
    require(
        name in CHOICES[option], f"{option} is {name!r}; use one of {', '.join(CHOICES[option])}."
    )
    return CHOICES[option][name]


def require(is_fine: bool, text: str) -> None:
    """Raise ValueError with this text unless a claim holds."""
    if not is_fine:
        raise ValueError(text)


class ConvVAE(nn.Module):
    """VAE with diagonal Gaussian posterior N(mean, exp(logvar)) and prior N(0, 1) over a vector
    latent.

    Shapes: patterns `(B, C, H, W)` with H, W >= 8, latents `(B, latent_dim)`.

    Parameters
    ----------
    input_shape: `(C, H, W)`.
    latent_dim: number of latent dimensions.
    width, max_width: channels of the first stage; they double with each halving of the grid, up to
    `max_width`.
    depth: residual blocks of the encoder on the coarsest grid.
    hidden: units of the fully connected layer on both sides of the latent.
    patch: side of a patch in detector pixels; by default 4, but 2 for patterns with a side below 32
    and 8 from 128 on.
    squeeze: channels of the coarsest grid that the fully connected layer reads.
    coarsest: the grid is halved until its longer side is at most this many patches.
    activation: silu, gelu, relu or elu. norm: group, batch or none. dropout: share of the encoder's
    grid zeroed.
    upsampling: shuffle (sub-pixel), nearest, bilinear or transpose. head: identity, tanh or
    sigmoid.
    attention: none or cbam, after each of the encoder's stages and in its residual blocks.
    contrast: latent 0 alone sets the size of the decoded pattern (`with_amplitude`), the others its
    shape.
    is_deterministic: an autoencoder, without a posterior: its logvar is -inf, its standard
    deviation 0. Set by the registry (`conv_ae`).
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
        require(
            len(shape) < 4, "it takes images; for volumes choose the preset 'factors' or 'maisi'."
        )
        is_image = len(shape) == 3 and min(shape[1:]) >= 8 and shape[0] > 0
        require(
            is_image,
            f"input_shape is {shape}; it must be (channels, height, width), sides at least 8.",
        )
        smallest = min(width, max_width, hidden, squeeze, coarsest, patch or 1, depth + 1)
        require(
            smallest > 0,
            "depth is 0 or more; width, max_width, hidden, squeeze, coarsest and patch 1 or more.",
        )
        can_contrast = contrast is False or (
            contrast is True and latent_dim > 1 and head == "identity"
        )
        require(
            can_contrast,
            "contrast is true or false; it needs at least 2 latent dimensions and head='identity'.",
        )
        self.input_shape, self.latent_dim, self.latent_shape = shape, latent_dim, (latent_dim,)
        self.is_deterministic, self.contrast, self.squeeze = is_deterministic, contrast, squeeze
        side = min(shape[1:])
        self.patch = patch or (2 if side < 32 else 4 if side < 128 else 8)
        self.grids = [
            (-(-shape[1] // self.patch), -(-shape[2] // self.patch))
        ]  # each half of the one before
        while max(self.grids[-1]) > coarsest:
            self.grids.append((-(-self.grids[-1][0] // 2), -(-self.grids[-1][1] // 2)))
        widths = [min(width * 2**i, max_width) for i in range(len(self.grids))]
        n_coarse, first, last = squeeze * math.prod(self.grids[-1]), widths[0], widths[-1]
        act, normed, upsampled = (
            chosen("activation", activation),
            chosen("norm", norm),
            chosen("upsampling", upsampling),
        )
        attend = partial(chosen("attention", attention), activation=act)

        stages = [
            nn.Conv2d(shape[0], first, 2 * self.patch, self.patch, padding=self.patch // 2),
            *attend(first),
        ]
        for a, b in pairwise(widths):
            stages += [normed(a), act(), nn.Conv2d(a, b, 3, stride=2, padding=1), *attend(b)]
        for _ in range(depth):
            both = nn.Conv2d(last, last, 3, padding=1), act(), nn.Conv2d(last, last, 1)
            stages.append(Residual(normed(last), *both, *attend(last)))
        self.encoder = nn.Sequential(*stages, normed(last), act(), nn.Conv2d(last, squeeze, 1))
        self.dropout = nn.Dropout(dropout)
        self.to_hidden = nn.Sequential(nn.Linear(n_coarse, hidden), act())
        self.to_posterior = nn.Linear(hidden, latent_dim if is_deterministic else 2 * latent_dim)

        n_shape = latent_dim - contrast
        self.from_latent = nn.Sequential(
            nn.Linear(n_shape, hidden), act(), nn.Linear(hidden, n_coarse), act()
        )
        self.from_coarse = nn.Conv2d(squeeze, last, 3, padding=1)
        ups = [nn.Sequential(normed(a), act(), *upsampled(a, b)) for a, b in pairwise(widths[::-1])]
        self.up = nn.ModuleList(ups)
        to_patches = nn.Conv2d(first, shape[0] * self.patch**2, 3, padding=1)
        self.to_pattern = nn.Sequential(
            normed(first), act(), to_patches, nn.PixelShuffle(self.patch)
        )
        self.head = chosen("head", head)()

    @property
    def stages(self) -> nn.Sequential:
        """Modules of the encoder, see `vaearr.models.Network`."""
        return self.encoder

    @property
    def side_multiple(self) -> int:
        """Number that the sides of samples are padded to a multiple of."""
        return self.patch

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and log-variance of patterns: `(B, C, H, W) -> 2 x (B, latent_dim)`,
        float32.

        The log-variance of a deterministic network is -inf.
        """
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.patch, 0, -height % self.patch))
        grid = self.encoder(x.contiguous(memory_format=torch.channels_last))
        posterior = self.to_posterior(self.to_hidden(self.dropout(grid.flatten(1)))).float()
        if self.is_deterministic:
            return posterior, torch.full_like(posterior, -torch.inf)
        mean, logvar = posterior.chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def decode(self, z: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        """Patterns expected for latents: `(B, latent_dim) -> (B, C, H, W)`, deterministic.

        logits: without the head, as a Bernoulli likelihood takes them; with a sigmoid head, decode
        is their sigmoid.
        """
        grid = self.from_latent(z[:, 1:] if self.contrast else z).unflatten(
            1, (self.squeeze, *self.grids[-1])
        )
        grid = self.from_coarse(grid.contiguous(memory_format=torch.channels_last))
        for up, (height, width) in zip(self.up, self.grids[-2::-1], strict=True):
            grid = up(grid)[..., :height, :width]
        decoded: torch.Tensor = self.to_pattern(grid)
        decoded = decoded if logits else self.head(decoded)
        decoded = decoded[..., : self.input_shape[1], : self.input_shape[2]].contiguous()
        return with_amplitude(decoded, z[:, 0]) if self.contrast else decoded


conv_ae = partial(ConvVAE, is_deterministic=True)


class Residual(nn.Module):
    """x + what the layers make of it, `(B, C, h, w)` in and out."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same shape out as in."""
        out: torch.Tensor = x + self.block(x)
        return out


def with_amplitude(shape: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Patterns scaled to the root mean square softplus(0.6 + 0.3 z): `(B, C, H, W), (B,) -> (B, C,
    H, W)`, float32.

    For preprocessed patterns of standard deviation 1, of which the bands are a part: a z that
    follows the prior spans sizes from about 0.1 to 1.5. The constants are fixed; a learned slope
    settles in less of that range.
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
    input_shape: `(C, H, W)` or `(C, D, H, W)`.
    latent_dim: channels of the latents.
    channels: of each level, the finest first; the grid is halved between levels.
    res_blocks: residual blocks of each level, one number for all or one each. decoder_res_blocks:
    the decoder's, the finest level first too; by default the same (Stable Diffusion has one more).
    groups: of the group norms; divides all channels.
    attention_levels: levels with self-attention after every residual block; default: none.
    mid_attention: two residual blocks with self-attention between them on the coarsest grid, on
    both sides.
    final_activation: SiLU between the last norm and the last convolution of encoder and decoder.
    head: identity, tanh or sigmoid, after the decoder.
    checkpointing: activations inside a block are computed again for the gradient instead of being
    kept.
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
        shape, back = (
            tuple(input_shape),
            res_blocks if decoder_res_blocks is None else decoder_res_blocks,
        )
        self.channels, self.latent_dim = tuple(channels), latent_dim
        self.res_blocks, self.decoder_res_blocks, self.attention_levels = (
            (each,) * len(channels) if isinstance(each, int) else tuple(each)
            for each in (res_blocks, back, attention_levels or False)
        )
        self.mid_attention, self.final_activation = mid_attention, final_activation
        require(
            len(shape) in (3, 4) and min(shape) > 0,
            f"input_shape is {shape}; it is (channels, [depth,] height, width).",
        )
        per_level = (self.res_blocks, self.decoder_res_blocks, self.attention_levels)
        fits = {*map(len, per_level)} == {len(channels)} and min(
            *self.res_blocks, *self.decoder_res_blocks
        ) > 0
        require(
            fits,
            f"res_blocks (1 or more) and attention_levels are one or each of {len(channels)}, as channels.",
        )
        self._place(shape)
        made_head = chosen("head", head)
        need("monai", "vaearr[monai]", "the model autoencoder-kl")
        from monai.networks.nets.autoencoderkl import Decoder, Encoder

        shared: dict[str, Any] = {
            "spatial_dims": len(shape) - 1,
            "channels": self.channels,
            "norm_num_groups": groups,
            "norm_eps": NORM_EPS,
            "attention_levels": self.attention_levels,
            "with_nonlocal_attn": bool(mid_attention),
            "use_flash_attention": True,  # softmax(q k / sqrt(C)) v without the matrix of all pairs in memory
        }
        n, out = shape[0], 2 * latent_dim
        encoder = Encoder(in_channels=n, out_channels=out, num_res_blocks=self.res_blocks, **shared)
        decoder = Decoder(
            in_channels=latent_dim, out_channels=n, num_res_blocks=self.decoder_res_blocks, **shared
        )
        self.encoder = Chain(encoder.blocks, final_activation, checkpointing)
        self.decoder = Chain(decoder.blocks, final_activation, checkpointing)
        conv = nn.Conv2d if len(shape) == 3 else nn.Conv3d
        self.quant_conv, self.post_quant_conv = conv(out, out, 1), conv(latent_dim, latent_dim, 1)
        self.head = made_head()
        for through in (self.quant_conv, self.post_quant_conv):  # begin as if they were not there
            nn.init.dirac_(through.weight)
            nn.init.zeros_(through.get_parameter("bias"))

    @property
    def stages(self) -> nn.ModuleList:
        """Modules of the encoder, see `vaearr.models.Network`."""
        return self.encoder.blocks

    @property
    def side_multiple(self) -> int:
        """Number that the sides of samples are padded to a multiple of."""
        return self.stride[0]

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and log-variance: `(B, *input_shape) -> 2 x (B, *latent_shape)`, float32."""
        posterior = self.quant_conv(self.encoder(with_edges(x, self.padding)))
        mean, logvar = posterior.float().chunk(2, dim=1)
        return mean.contiguous(), logvar.clamp(*SPATIAL_LOGVAR_RANGE).contiguous()

    def decode(self, z: torch.Tensor, *, logits: bool = False) -> torch.Tensor:
        """Samples expected for latents: `(B, *latent_shape) -> (B, *input_shape)`, float32,
        deterministic.

        logits: without the head, as a Bernoulli likelihood takes them; with a sigmoid head, decode
        is their sigmoid.
        """
        decoded: torch.Tensor = self.decoder(self.post_quant_conv(z)).float()
        for dim, (size, (before, _)) in enumerate(
            zip(self.input_shape[1:], self.padding, strict=True), start=2
        ):
            decoded = decoded.narrow(dim, before, size)
        decoded = decoded.contiguous()
        shown: torch.Tensor = decoded if logits else self.head(decoded)
        return shown

    def resized(self, spatial: Sequence[int]) -> AutoencoderKL:
        """The same network for samples of other sides `(C, *spatial)`, all weights shared, not
        copied.
        """
        other = copy.copy(self)
        other._place((self.input_shape[0], *spatial))
        return other

    def _place(self, input_shape: tuple[int, ...]) -> None:
        """Where latent positions lie over samples of this shape."""
        self.input_shape, spatial = tuple(input_shape), input_shape[1:]
        factor = 2 ** (len(self.channels) - 1)
        self.stride = (factor,) * len(spatial)
        self.padding = tuple(
            (-size % factor // 2, -size % factor - -size % factor // 2) for size in spatial
        )
        self.latent_shape = (self.latent_dim, *(-(-size // factor) for size in spatial))


class Chain(nn.Module):
    """Blocks one after the other, with a SiLU before the last where MONAI leaves out what latent
    diffusion has; with checkpointing, what is inside a block is computed again for the gradient.
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
        again = self.checkpointing and torch.is_grad_enabled()
        for block in self.blocks:  # nothing in a block is random
            x = (
                checkpoint(block, x, use_reentrant=False, preserve_rng_state=False)
                if again
                else block(x)
            )
        return x


def with_edges(x: torch.Tensor, padding: Iterable[tuple[int, int]]) -> torch.Tensor:
    """Repeat the edge values of the spatial dims; its gradient is a plain sum and so the same in
    every run.
    """
    for dim, (before, after) in enumerate(padding, start=2):
        sides = [x.narrow(dim, 0, 1)] * before + [x] + [x.narrow(dim, -1, 1)] * after
        x = torch.cat(sides, dim) if len(sides) > 1 else x
    return x
