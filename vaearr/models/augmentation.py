"""Augmentation of training patterns on their device: the same geometry for input and target, noise
for the input only.

Random numbers are generated first (`draw_geometry`), so that any number of patterns can be moved in
the same way. They come from torch's generator: its state reproduces them. For preprocessed
patterns: a static background belongs to the detector and must be removed before.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from vaearr.config import AugmentConfig


def draw_geometry(
    batch: int, config: AugmentConfig, device: torch.device | str = "cpu"
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that moves patterns `(B, C, …, H, W)`, each sample in a random way.

    Flips left-right and top-bottom with probability 1/2, angles uniform in +-`rotate`, shifts along
    each axis uniform in +-`shift`, the logarithm of the scale uniform in +-log(1 + `scale`). What
    is off takes no random numbers, so the state of the generator stays as it is. See `moved`.
    """

    def uniform(*shape: int) -> torch.Tensor:
        """Numbers from -1 to 1."""
        return 2 * torch.rand(batch, *shape, device=device) - 1

    flips = {}
    if config.flip_x:
        flips[-1] = uniform() < 0
    if config.flip_y:
        flips[-2] = uniform() < 0
    angle = torch.zeros(batch, device=device)
    scale = torch.ones(batch, device=device)
    shift = torch.zeros(batch, 2, device=device)
    if config.rotate > 0:
        angle = uniform() * math.radians(config.rotate)
    if config.scale > 0:
        scale = (uniform() * math.log1p(config.scale)).exp()
    if config.shift > 0:
        shift = uniform(2) * config.shift

    def move(x: torch.Tensor) -> torch.Tensor:
        for axis, flip in flips.items():
            x = torch.where(flip.view(-1, *[1] * (x.ndim - 1)), x.flip(axis), x)
        if max(config.rotate, config.scale, config.shift) > 0:
            x = moved(x, angle, scale, shift, config.fill)
        return x

    return move


def moved(
    x: torch.Tensor,
    angle: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    fill: str = "mean",
) -> torch.Tensor:
    """Rotate and scale patterns `(B, C, …, H, W)` about their centre, then shift them; one bilinear
    interpolation.

    angle: `(B,)` radians, counter-clockwise with the first row on top. scale: `(B,)`, the factor by
    which the content grows. shift: `(B, 2)` down and to the right, as shares of height and width.
    fill: of pixels from outside. `mean`: the sample's mean per channel; a mirror image would show
    bands that do not exist, and 0 is a value like another where patterns are not centred. `edge`:
    the nearest pixel of the edge, for pictures on an even background.
    """
    images = x.flatten(1, -3)
    height, width = images.shape[-2:]
    shrink = 1 / scale
    cos, sin = angle.cos() * shrink, angle.sin() * shrink
    with torch.autocast(x.device.type, enabled=False):  # positions in bfloat16 would be pixels off
        # where an output pixel comes from: an affine map of coordinates from -1 to 1 along x and y
        turn = torch.stack([cos, -sin * (height / width), sin * (width / height), cos], 1)
        turn = turn.view(-1, 2, 2)
        along_x_and_y = shift.flip(1)[..., None].to(turn)
        offset = -2 * turn @ along_x_and_y
        theta = torch.cat([turn, offset], 2).to(images.dtype)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        if fill == "edge":
            images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        else:
            mean = images.mean((-2, -1), keepdim=True)
            images = F.grid_sample(images - mean, grid, align_corners=False) + mean
    return images.reshape(x.shape)


def add_noise(x: torch.Tensor, std: float, circle: bool = False) -> torch.Tensor:
    """Add white Gaussian noise of standard deviation `std`; with 0, `x` itself.

    circle: only inside the largest circle of the last two axes, which a round detector covers.
    """
    if std <= 0:
        return x
    noise = std * torch.randn_like(x)
    if not circle:
        return x + noise
    height, width = x.shape[-2:]
    rows = torch.arange(height, device=x.device) - (height - 1) / 2
    columns = torch.arange(width, device=x.device) - (width - 1) / 2
    inside = rows[:, None].square() + columns.square() <= (min(height, width) / 2) ** 2
    return torch.where(inside, x + noise, x)
