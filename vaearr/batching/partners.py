"""Which sample each sample is paired with: one that a walk through alike neighbours on the grid ends at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from vaearr.batching.plan import grid_steps, positions_around

VIEWED = 2**19  # pattern values that are viewed at once
PART = 1024  # samples whose likeness is looked at together
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
    """Paths among the samples held: stored patterns `(n, C, …)` and their grid points `(n, n_nav)`.

    A part of the samples at a time, with the neighbours of that part: samples of one shard lie next to each other.
    """
    near = torch.from_numpy(neighbour_positions(points))
    paths = Paths(torch.empty_like(near), torch.empty_like(near[:, 0]))
    size = max(1, VIEWED // held[:1].numel())
    for start in range(0, len(near), PART):
        rows = slice(start, start + PART)
        around = near[rows][near[rows] >= 0]
        needed = torch.unique(torch.cat([torch.arange(len(near))[rows], around]))
        seen = [pooled(view(held[some.to(held.device)].to(device))) for some in needed.split(size)]
        local = torch.where(near[rows] < 0, -1, torch.searchsorted(needed, near[rows]))
        own = torch.searchsorted(needed, torch.arange(len(near))[rows])
        found = alike_neighbours(torch.cat(seen), local.to(device), own=own.to(device))
        paths.neighbours[rows] = needed[found.neighbours.clamp_min(0).cpu()]
        paths.count[rows] = found.count.cpu()
    return Paths(paths.neighbours.clone().to(held.device), paths.count.clone().to(held.device))  # no inference tensors


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


def alike_neighbours(
    features: torch.Tensor, near: torch.Tensor, *, own: torch.Tensor | None = None, alike: float = ALIKE
) -> Paths:
    """The neighbours about as similar to a sample as its best one: features `(m, f)`, near `(n, k)` positions in them.

    near: -1 for no candidate. own: positions of the n samples themselves, by default 0 to n - 1. Chosen are the
    candidates whose correlation is at least `alike` times the best, which is positive; where none is positive the best
    one, and the sample itself where there is no candidate.
    """
    near = near.long()
    own = torch.arange(len(near), device=near.device) if own is None else own
    unit = features - features.mean(1, keepdim=True)
    unit /= unit.norm(dim=1, keepdim=True).clamp_min(1e-12)
    seen = torch.stack([(unit[own] * unit[column.clamp_min(0)]).sum(1) for column in near.T], 1)
    seen = seen.masked_fill(near < 0, -2.0)
    best = seen.amax(1, keepdim=True)
    good = torch.where(best > 0, seen >= alike * best, seen == best)
    neighbours, count = near.gather(1, (~good).byte().argsort(dim=1, stable=True)), good.sum(1)
    alone = (near < 0).all(1)
    neighbours[alone, 0], count[alone] = own[alone], 1
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
