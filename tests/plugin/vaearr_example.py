"""One part of each kind for vaearr: a reader, a network, a likelihood, a metric, a clustering and a
view.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from vaearr.sources import Source


def read_stack(path: Path, config: Any) -> xr.Dataset:
    """Patterns `(y, x, dy, dx)` as NumPy saves them."""
    return xr.Dataset({"patterns": (("y", "x", "dy", "dx"), np.load(path, mmap_mode="r"))})


STACK = Source("a stack of patterns as .stack", read_stack, lambda path: path.suffix == ".stack")


class LinearVAE(nn.Module):
    """A linear encoder and decoder."""

    def __init__(self, input_shape: tuple[int, ...], latent_dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.scale = scale
        size = int(np.prod(input_shape))
        self.to_latent = nn.Linear(size, 2 * latent_dim)
        self.to_pattern = nn.Linear(latent_dim, size)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, logvar = (self.scale * self.to_latent(x.flatten(1))).chunk(2, 1)
        return mean, logvar

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.to_pattern(z).unflatten(1, self.input_shape)


def cauchy(target: torch.Tensor, recon: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of a Cauchy distribution of width 1, `2 x (B, C, …) -> (B,)` in nats."""
    return ((target - recon).square().log1p() + float(np.log(np.pi))).flatten(1).sum(1)


def agreement(latent: np.ndarray, target: np.ndarray) -> float:
    """Share of the points where latent and target lie on the same side of their medians."""
    return float(np.mean((latent > np.median(latent)) == (target > np.median(target))))


def halves(points: np.ndarray) -> np.ndarray:
    """Two groups, by the sign of the first feature."""
    return (points[:, 0] > 0).astype(int)


def show(result: xr.DataArray, **options: Any) -> Any:
    """The mean of a result along its rows."""
    import holoviews as hv

    return hv.Curve(np.asarray(result).mean(axis=-1).ravel(), "row", "mean")
