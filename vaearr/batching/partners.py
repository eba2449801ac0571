"""Which grid neighbour each sample is paired with: the one whose pattern is most like its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from vaearr.batching.plan import grid_steps, positions_around

SIMILARITY_BATCH = 512
POOLED_SIDE = 32

View = Callable[[torch.Tensor], torch.Tensor]


@torch.inference_mode()
def partners(held: torch.Tensor, points: np.ndarray, view: View, device: torch.device) -> torch.Tensor:
    """Position of each sample's partner among the samples held, `(n,)`, where they are held.

    held: stored patterns `(n, C, …)`; points: their grid points `(n, n_nav)`. view: stored patterns `(B, C, …)` on
    `device` -> what likeness is judged by; it is averaged down to at most 32 x 32 before.
    """
    seen = [pooled(view(part.to(device))).to(held.device) for part in held.split(SIMILARITY_BATCH)]
    near = torch.from_numpy(neighbour_positions(points)).to(held.device)
    return most_similar(torch.cat(seen), near).clone()


def neighbour_positions(points: np.ndarray) -> np.ndarray:
    """Positions in the buffer of the samples one grid step away, diagonals too: `(n, 3**n_nav - 1)`, -1 where none is.

    points: grid points of the samples, `(n, n_nav)`.
    """
    return positions_around(points, grid_steps(points.shape[1], 1))


def pooled(x: torch.Tensor) -> torch.Tensor:
    """Patterns averaged down to at most 32 along each signal dim, flat: `(B, C, …) -> (B, f)`."""
    sizes = [min(size, POOLED_SIDE) for size in x.shape[2:]]
    pool = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[len(sizes)]
    averaged: torch.Tensor = pool(x, sizes)  # type: ignore[arg-type]  # stubs know one number only
    return averaged.flatten(1)


def most_similar(features: torch.Tensor, near: torch.Tensor, *, chunk: int = 4096) -> torch.Tensor:
    """For each sample the neighbour whose features correlate best with its own: `(n, f), (n, k) -> (n,)`.

    near: positions of the candidates, -1 for none; a sample without any gets itself.
    """
    unit = features - features.mean(1, keepdim=True)
    unit = unit / unit.norm(dim=1, keepdim=True).clamp_min(1e-12)
    best = torch.arange(len(unit), device=unit.device)
    for start in range(0, len(unit), chunk):
        rows = slice(start, start + chunk)
        alike = torch.stack([(unit[rows] * unit[column.clamp_min(0)]).sum(1) for column in near[rows].T], 1)
        alike = alike.masked_fill(near[rows] < 0, -2.0)
        value, index = alike.max(1)
        found = near[rows].gather(1, index[:, None])[:, 0]
        best[rows] = torch.where(value > -2.0, found, best[rows])
    return best
