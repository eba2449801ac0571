"""Random changes of training patterns, on their device: geometry for input and target alike, noise for the input only.

The draws are made first and are small tensors (`plan_augmentation`), so that any number of patterns can be moved by
the same ones (`apply_augmentation`). They come from torch's own generator: its state reproduces them. For
preprocessed patterns: a static background belongs to the detector and must be off before anything moves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from vaearr.config import AugmentConfig


@dataclass(frozen=True)
class Augmentation:
    """Geometry of each sample of a batch; `None` is one that is off.

    flip_x, flip_y: `(B,)` bool, mirrored left-right, top-bottom. angle: `(B,)` radians, counter-clockwise as seen with
    the first row on top; turned after the flips. scale: `(B,)`, the factor by which the content grows about the centre.
    shift: `(B, 2)`, by which it then moves down and to the right, as shares of height and width.
    fill: what comes in from outside. `mean`: the sample's mean over its pixels, per channel; a mirror image would show
    bands that are not there, and 0 is a value like another where patterns are not centred. `edge` is the nearest pixel
    of the edge, for pictures on an even background.
    """

    flip_x: torch.Tensor | None = None
    flip_y: torch.Tensor | None = None
    angle: torch.Tensor | None = None
    scale: torch.Tensor | None = None
    shift: torch.Tensor | None = None
    fill: str = "mean"


def plan_augmentation(batch: int, config: AugmentConfig, device: torch.device | str = "cpu") -> Augmentation:
    """Draw the geometry of `batch` samples on `device`.

    Flips with probability 1/2, angles uniform in +-`rotate`, shifts along each axis uniform in +-`shift`, the logarithm
    of the scale uniform in +-log(1 + `scale`). What is off draws nothing, so the state of the generator stays as it is.
    """

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(batch, *shape, device=device)

    return Augmentation(
        flip_x=draw() < 0.5 if config.flip_x else None,
        flip_y=draw() < 0.5 if config.flip_y else None,
        angle=(2 * draw() - 1) * math.radians(config.rotate) if config.rotate > 0 else None,
        scale=((2 * draw() - 1) * math.log1p(config.scale)).exp() if config.scale > 0 else None,
        shift=(2 * draw(2) - 1) * config.shift if config.shift > 0 else None,
        fill=config.fill,
    )


def apply_augmentation(x: torch.Tensor, plan: Augmentation) -> torch.Tensor:
    """Patterns `(B, C, …, H, W)` moved by the plan, along the last two axes; `x` itself if all is off.

    Flipped, turned and scaled about their centre, then shifted; one bilinear interpolation.
    """
    for axis, flip in ((-1, plan.flip_x), (-2, plan.flip_y)):
        if flip is not None:
            x = torch.where(flip.view(-1, *[1] * (x.ndim - 1)), x.flip(axis), x)
    if plan.angle is None and plan.scale is None and plan.shift is None:
        return x
    images = x.flatten(1, -3)
    theta = _to_input(images, plan)
    with torch.autocast(x.device.type, enabled=False):  # positions in bfloat16 would be pixels off
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        if plan.fill == "edge":
            return F.grid_sample(images, grid, padding_mode="border", align_corners=False).reshape(x.shape)
        mean = images.mean((-2, -1), keepdim=True)
        moved = F.grid_sample(images - mean, grid, padding_mode="zeros", align_corners=False)
    return (moved + mean).reshape(x.shape)


def _to_input(images: torch.Tensor, plan: Augmentation) -> torch.Tensor:
    """Where an output pixel comes from, `(B, 2, 3)`: an affine map of coordinates from -1 to 1 along x and y."""
    height, width = images.shape[-2:]
    angle = images.new_zeros(len(images)) if plan.angle is None else plan.angle
    shrink = 1.0 if plan.scale is None else 1 / plan.scale
    cos, sin = angle.cos() * shrink, angle.sin() * shrink
    turn = torch.stack([cos, -sin * (height / width), sin * (width / height), cos], 1).view(-1, 2, 2)
    still = torch.zeros_like(turn[..., :1])
    back = still if plan.shift is None else -2 * turn @ plan.shift.flip(1)[..., None].to(turn)
    return torch.cat([turn, back], 2).to(images.dtype)


def crop_window(sides: Sequence[int], crop: Sequence[int]) -> tuple[slice, ...]:
    """A window of `crop` pixels somewhere in a sample of these sides, to index `(B, C, …)` with; every place alike.

    Drawn by torch's CPU generator, one number per side. A side that is no longer than the window is taken whole.
    """
    window = [slice(None), slice(None)]
    for side, size in zip(sides, crop, strict=True):
        start = int(torch.randint(max(0, side - size) + 1, ()))
        window.append(slice(start, start + min(size, side)))
    return tuple(window)


def add_noise(x: torch.Tensor, std: float, circle: bool = False) -> torch.Tensor:
    """Patterns plus white Gaussian noise of standard deviation `std`; `x` itself, and no draw, where that is 0.

    circle: inside the largest circle of the last two axes only, the pixels of which alone a round detector sees; the
    others stay as they are, bit for bit.
    """
    if std <= 0:
        return x
    noise = std * torch.randn_like(x)
    if not circle:
        return x + noise
    y, z = (torch.arange(side, device=x.device) - (side - 1) / 2 for side in x.shape[-2:])
    inside = y[:, None].square() + z.square() <= (min(x.shape[-2:]) / 2) ** 2
    return torch.where(inside, x + noise, x)
