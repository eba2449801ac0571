"""Which sample each sample is paired with: one that a walk through alike neighbours on the grid ends at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from vaearr.batching.plan import grid_steps, positions_around

SIMILARITY_BATCH = 512
POOLED_SIDE = 32
ALIKE = 0.8  # of the best neighbour's correlation

View = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Walk:
    """How a sample's partner is found: at the end of a random walk through neighbours that are much alike.

    view: stored patterns `(B, C, …)` on the device -> what likeness is judged by, for example the preprocessed
    patterns; it is averaged down to at most 32 x 32 before. steps: of the walk.
    """

    view: View
    steps: int = 4


@dataclass(frozen=True)
class Paths:
    """Where a walk may go from each sample: positions of the neighbours it may choose, `(n, k)`, the first `count` of
    each row."""

    neighbours: torch.Tensor
    count: torch.Tensor


@torch.inference_mode()
def find_paths(held: torch.Tensor, points: np.ndarray, view: View, device: torch.device) -> Paths:
    """Paths among the samples held: stored patterns `(n, C, …)` and their grid points `(n, n_nav)`."""
    seen = [pooled(view(part.to(device))).to(held.device) for part in held.split(SIMILARITY_BATCH)]
    near = torch.from_numpy(neighbour_positions(points)).to(held.device)
    paths = alike_neighbours(torch.cat(seen), near)
    return Paths(paths.neighbours.clone(), paths.count.clone())  # out of inference mode


def neighbour_positions(points: np.ndarray) -> np.ndarray:
    """Positions in the buffer of the samples one grid step away, diagonals too: `(n, 3**n_nav - 1)`, -1 where none is.

    points: grid points of the samples, `(n, n_nav)`.
    """
    return positions_around(points, grid_steps(points.shape[1], 1)).astype(np.int64)


def pooled(x: torch.Tensor) -> torch.Tensor:
    """Patterns averaged down to at most 32 along each signal dim, flat: `(B, C, …) -> (B, f)`."""
    sizes = [min(size, POOLED_SIDE) for size in x.shape[2:]]
    pool = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[len(sizes)]
    averaged: torch.Tensor = pool(x, sizes)  # type: ignore[arg-type]  # stubs know one number only
    return averaged.flatten(1)


def alike_neighbours(features: torch.Tensor, near: torch.Tensor, *, alike: float = ALIKE, chunk: int = 4096) -> Paths:
    """The neighbours about as similar to a sample as its best one: features `(n, f)`, near `(n, k)`.

    near: positions of the candidates, -1 for none. Chosen are those whose correlation is positive and at least `alike`
    times the best; where no correlation is positive the best one, and the sample itself where there is no candidate.
    """
    unit = features - features.mean(1, keepdim=True)
    unit = unit / unit.norm(dim=1, keepdim=True).clamp_min(1e-12)
    near = near.long()
    neighbours, count = near.clone(), torch.ones_like(near[:, 0])
    for start in range(0, len(unit), chunk):
        rows = slice(start, start + chunk)
        seen = torch.stack([(unit[rows] * unit[column.clamp_min(0)]).sum(1) for column in near[rows].T], 1)
        seen = seen.masked_fill(near[rows] < 0, -2.0)
        best = seen.amax(1, keepdim=True)
        good = torch.where(best > 0, (seen >= alike * best) & (seen > 0), seen == best)
        order = (~good).byte().argsort(dim=1, stable=True)
        neighbours[rows], count[rows] = near[rows].gather(1, order), good.sum(1)
    alone = (near < 0).all(1)
    neighbours[alone, 0], count[alone] = torch.arange(len(near), device=near.device)[alone], 1
    return Paths(neighbours, count)


def random_walk(paths: Paths, steps: int, rng: np.random.Generator) -> torch.Tensor:
    """Where a walk of random steps ends for each sample, `(n,)`.

    Each step goes to one of the alike neighbours, so that a walk hardly leaves a grain: its end shows the same crystal
    with other noise, and over the epochs the mean of the surroundings.
    """
    position = torch.arange(len(paths.count), device=paths.count.device)
    for _ in range(steps):
        draws = torch.from_numpy(rng.random(len(position), dtype=np.float32)).to(position.device)
        choice = (draws * paths.count[position]).long().clamp_max(paths.count[position] - 1)
        position = paths.neighbours[position, choice]
    return position
