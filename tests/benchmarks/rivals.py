"""What `test_quality.py` and `test_training.py` compare with: principal components, the first seed's network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Patterns = NDArray[np.float32]

LATENT = 32
STAGES, BASE, CAP = 5, 32, 512  # of the first seed's network


@dataclass(frozen=True)
class Representation:
    """What a method made of a scan: `std` is the posterior's where there is one, `n_passed` counts patterns in all."""

    features: NDArray[Any]
    reconstruction: Patterns
    seconds: float
    n_passed: int
    std: NDArray[Any] | None = None
    is_probabilistic: bool = True
    note: str = ""


def principal_components(seen: Patterns, n_components: int) -> Representation:
    """PCA with randomised SVD; features are scores, not whitened."""
    from sklearn.decomposition import PCA

    flat = seen.reshape(len(seen), -1)
    began = time.perf_counter()
    pca = PCA(n_components, random_state=0).fit(flat)
    seconds = time.perf_counter() - began
    scores = pca.transform(flat)
    back = pca.inverse_transform(scores).astype(np.float32).reshape(seen.shape)
    return Representation(scores, back, seconds, len(seen), is_probabilistic=False)


class SeedVAE(nn.Module):
    """The first seed's network: five stages of stride 2, batch norm, leaky ReLU, decoder of transposed convolutions."""

    def __init__(self, height: int, width: int, latent_dim: int = LATENT) -> None:
        super().__init__()
        widths = [min(BASE * 2**i, CAP) for i in range(STAGES)]
        self.sizes = [(height, width)]
        for _ in widths:
            self.sizes.append((-(-self.sizes[-1][0] // 2), -(-self.sizes[-1][1] // 2)))
        self.coarse = (widths[-1], *self.sizes[-1])
        n_coarse = widths[-1] * self.sizes[-1][0] * self.sizes[-1][1]
        stages: list[nn.Module] = []
        for before, after in pairwise([1, *widths]):
            stages += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
        self.encoder = nn.Sequential(*stages)
        self.bottleneck = nn.ModuleList(
            [nn.Linear(n_coarse, latent_dim), nn.Linear(n_coarse, latent_dim), nn.Linear(latent_dim, n_coarse)]
        )
        back = [*widths[::-1], 1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(before, after, 3, 2, 1) for before, after in pairwise(back))
        self.after = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width), nn.LeakyReLU(0.2)) if width > 1 else nn.Sigmoid() for width in back[1:]
        )

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance, float32."""
        flat = self.encoder(x).flatten(1)
        return self.bottleneck[0](flat).float(), self.bottleneck[1](flat).float()

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Patterns between 0 and 1."""
        grid = self.bottleneck[2](z).unflatten(1, self.coarse).contiguous(memory_format=torch.channels_last)
        for up, after, size in zip(self.up, self.after, self.sizes[-2::-1], strict=True):
            grid = after(up(grid, output_size=list(size)))
        return grid.float()
