"""Random changes of training patterns, on their device: geometry for input and target alike, noise for the input only.

The draws are made first and are small tensors (`plan_augmentation`), so that any number of patterns can be moved by
the same ones (`apply_augmentation`). They come from torch's own generator: its state reproduces them. For
preprocessed patterns: a static background belongs to the detector and must be off before anything moves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from vaearr.config import AugmentConfig


@dataclass(frozen=True)
class Augmentation:
    """Geometry of each sample of a batch; `None` is one that is off.

    flip_x, flip_y: `(B,)` bool, mirrored left-right, top-bottom. angle: `(B,)` radians, counter-clockwise as seen with
    the first row on top; turned after the flips.
    """

    flip_x: torch.Tensor | None = None
    flip_y: torch.Tensor | None = None
    angle: torch.Tensor | None = None


def plan_augmentation(batch: int, config: AugmentConfig, device: torch.device | str = "cpu") -> Augmentation:
    """Draw the geometry of `batch` samples on `device`: flips with probability 1/2, angles uniform in +-`rotate`.

    What is off draws nothing, so the state of the generator stays as it is.
    """

    def draw() -> torch.Tensor:
        return torch.rand(batch, device=device)

    return Augmentation(
        flip_x=draw() < 0.5 if config.flip_x else None,
        flip_y=draw() < 0.5 if config.flip_y else None,
        angle=(2 * draw() - 1) * math.radians(config.rotate) if config.rotate > 0 else None,
    )


def apply_augmentation(x: torch.Tensor, plan: Augmentation) -> torch.Tensor:
    """Patterns `(B, C, …, H, W)` flipped and turned by the plan, the last two axes moving; `x` itself if all is off."""
    for axis, flip in ((-1, plan.flip_x), (-2, plan.flip_y)):
        if flip is not None:
            x = torch.where(flip.view(-1, *[1] * (x.ndim - 1)), x.flip(axis), x)
    return x if plan.angle is None else rotate(x, plan.angle)


def rotate(x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Each sample of `(B, C, …, H, W)` turned about its centre by its angle `(B,)` in radians, bilinear.

    What comes in from outside is the sample's mean over its pixels, per channel: a mirror image would show bands that
    are not there, and 0 is a value like another where patterns are not centred.
    """
    images = x.flatten(1, -3)
    height, width = images.shape[-2:]
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # where an output pixel comes from, in coordinates that run from -1 to 1 along each axis
    rows = (cos, -sin * (height / width), zero), (sin * (width / height), cos, zero)
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1).to(images.dtype)
    mean = images.mean((-2, -1), keepdim=True)
    with torch.autocast(x.device.type, enabled=False):  # positions in bfloat16 would be pixels off
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        turned = F.grid_sample(images - mean, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (turned + mean).reshape(x.shape)


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
    height, width = x.shape[-2:]
    return torch.where(inscribed_circle(height, width, x.device), x + noise, x)


def inscribed_circle(height: int, width: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """`(H, W)` bool: pixels whose centre lies in the largest circle around the middle that fits."""
    y = torch.arange(height, device=device) - (height - 1) / 2
    x = torch.arange(width, device=device) - (width - 1) / 2
    return y[:, None].square() + x.square() <= (min(height, width) / 2) ** 2
