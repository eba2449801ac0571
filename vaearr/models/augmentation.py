"""Random changes of training patterns, on their device: geometry for input and target alike, noise
for the input only.

The draws are made first (`draw_geometry`), so that any number of patterns can be moved by the same
ones. They come from torch's own generator: its state reproduces them. For preprocessed patterns: a
static background belongs to the detector and must be off before anything moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from vaearr.config import AugmentConfig


def draw_geometry(
    batch: int, config: AugmentConfig, device: torch.device | str = "cpu"
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Draw how each of `batch` samples moves; what moves patterns `(B, C, …, H, W)` so, and leaves
    them if all is off.

    Flips left-right and top-bottom with probability 1/2, angles uniform in +-`rotate`, shifts along
    each axis uniform in +-`shift`, the logarithm of the scale uniform in +-log(1 + `scale`). What
    is off draws nothing, so the state of the generator stays as it is. See `moved`.
    """

    def uniform(*shape: int) -> torch.Tensor:
        """Numbers from -1 to 1."""
        return 2 * torch.rand(batch, *shape, device=device) - 1

    flips = {
        axis: uniform() < 0 for axis, is_on in ((-1, config.flip_x), (-2, config.flip_y)) if is_on
    }
    angle, scale = torch.zeros(batch, device=device), torch.ones(batch, device=device)
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
        is_moved = max(config.rotate, config.scale, config.shift) > 0
        return moved(x, angle, scale, shift, config.fill) if is_moved else x

    return move


def moved(
    x: torch.Tensor,
    angle: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    fill: str = "mean",
) -> torch.Tensor:
    """Patterns `(B, C, …, H, W)` turned and scaled about their centre, then shifted; one bilinear
    interpolation.

    angle: `(B,)` radians, counter-clockwise as seen with the first row on top. scale: `(B,)`, the
    factor by which the content grows. shift: `(B, 2)`, by which it moves down and to the right, as
    shares of height and width. fill: what comes in from outside. `mean`: the sample's mean over its
    pixels, per channel; a mirror image would show bands that are not there, and 0 is a value like
    another where patterns are not centred. `edge`: the nearest pixel of the edge, for pictures on
    an even background.
    """
    images = x.flatten(1, -3)
    height, width = images.shape[-2:]
    shrink = 1 / scale
    cos, sin = angle.cos() * shrink, angle.sin() * shrink
    with torch.autocast(x.device.type, enabled=False):  # positions in bfloat16 would be pixels off
        # where an output pixel comes from: an affine map of coordinates from -1 to 1 along x and y
        turn = torch.stack([cos, -sin * (height / width), sin * (width / height), cos], 1).view(
            -1, 2, 2
        )
        theta = torch.cat([turn, -2 * turn @ shift.flip(1)[..., None].to(turn)], 2).to(images.dtype)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        if fill == "edge":
            return F.grid_sample(images, grid, padding_mode="border", align_corners=False).reshape(
                x.shape
            )
        mean = images.mean((-2, -1), keepdim=True)
        found = F.grid_sample(images - mean, grid, padding_mode="zeros", align_corners=False)
    return (found + mean).reshape(x.shape)


def crop_window(sides: Sequence[int], crop: Sequence[int]) -> tuple[slice, ...]:
    """A window of `crop` pixels somewhere in a sample of these sides, to index `(B, C, …)` with;
    every place alike.

    Drawn by torch's CPU generator, one number per side. A side that is no longer than the window is
    taken whole.
    """
    window = [slice(None), slice(None)]
    for side, size in zip(sides, crop, strict=True):
        start = int(torch.randint(max(0, side - size) + 1, ()))
        window.append(slice(start, start + min(size, side)))
    return tuple(window)


def add_noise(x: torch.Tensor, std: float, circle: bool = False) -> torch.Tensor:
    """Patterns plus white Gaussian noise of standard deviation `std`; `x` itself, and no draw,
    where that is 0.

    circle: inside the largest circle of the last two axes only, the pixels of which alone a round
    detector sees; the others stay as they are, bit for bit.
    """
    if std <= 0:
        return x
    noise = std * torch.randn_like(x)
    if not circle:
        return x + noise
    y, z = (torch.arange(side, device=x.device) - (side - 1) / 2 for side in x.shape[-2:])
    inside = y[:, None].square() + z.square() <= (min(x.shape[-2:]) / 2) ** 2
    return torch.where(inside, x + noise, x)
