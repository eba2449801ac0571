"""Find a partner for each sample: the end of a random walk through similar neighbours on the grid.

A walk stays among the samples that are held together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from vaearr.batching.plan import grid_steps

VIEWED_VALUES = 2**19  # pattern values that are preprocessed at once
SAMPLES_AT_ONCE = 1024  # whose similarity is computed together
POOLED_SIDE = 32
SIMILAR = 0.8  # share of the best neighbour's correlation

View = Callable[[torch.Tensor], torch.Tensor]


class Walk(NamedTuple):
    """How a sample's partner is found: by a random walk through similar neighbours.

    view: stored patterns `(B, C, …)` on the device -> what similarity is computed from, for example
    the preprocessed patterns; it is averaged down to at most 32 x 32. steps: of the walk.
    """

    view: View
    steps: int = 4


class Paths(NamedTuple):
    """Positions of neighbours of each sample `(n, k)`; the first `n_similar` `(n,)` are similar."""

    neighbours: torch.Tensor
    n_similar: torch.Tensor


@torch.no_grad()
def find_paths(held: torch.Tensor, points: np.ndarray, view: View, device: torch.device) -> Paths:
    """Find the similar neighbours of held samples `(n, C, …)` with grid points `(n, n_nav)`.

    Some samples are compared at a time, together with their neighbours.
    """
    adjacent = torch.from_numpy(neighbour_positions(points).astype(np.int64))
    neighbours = torch.empty_like(adjacent)
    n_similar = torch.empty_like(adjacent[:, 0])
    batch_size = max(1, VIEWED_VALUES // held[:1].numel())
    for rows in torch.arange(len(adjacent)).split(SAMPLES_AT_ONCE):
        candidates = adjacent[rows]
        is_missing = candidates < 0
        needed = torch.unique(torch.cat([rows, candidates[~is_missing]]))
        features = []
        for positions in needed.split(batch_size):
            patterns = held[positions.to(held.device)].to(device)
            features.append(_pooled(view(patterns)))
        samples = torch.searchsorted(needed, rows)
        local_candidates = torch.searchsorted(needed, candidates).masked_fill(is_missing, -1)
        paths = _similar(torch.cat(features), local_candidates.to(device), samples.to(device))
        neighbours[rows] = needed[paths.neighbours.clamp_min(0).cpu()]
        n_similar[rows] = paths.n_similar.cpu()
    return Paths(neighbours.to(held.device), n_similar.to(held.device))


def random_walk(paths: Paths, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Return the sample at which a walk of random steps from each sample ends, `(n,)`.

    Each step goes to a similar neighbour, so a walk hardly leaves a grain: its end shows the same
    crystal with other noise, and over the epochs the mean of the surroundings.
    """
    position = torch.arange(len(paths.n_similar), device=paths.n_similar.device)
    for _ in range(steps):
        random = torch.from_numpy(rng.random(len(position), dtype=np.float32))
        random = random.to(position.device)
        n_similar = paths.n_similar[position]
        choice = (random * n_similar).long().clamp_max(n_similar - 1)
        position = paths.neighbours[position, choice]
    return position.cpu().numpy()


def neighbour_positions(points: np.ndarray) -> np.ndarray:
    """Return positions of the samples on adjacent grid points `(n, n_nav)`: `(n, k)`, -1 for none."""
    padded = points - points.min(0) + 1  # a border keeps look-ups inside
    shape = padded.max(0) + 2
    # of row-major cells: 1 for the last dim, the product of the later sides for each other one
    strides = np.append(np.cumprod(shape[:0:-1])[::-1], 1)
    cells = padded @ strides
    position = np.full(math.prod(shape.tolist()), -1, np.int32)
    position[cells] = np.arange(len(points))
    steps = grid_steps(points.shape[1], 1) @ strides
    return position[cells[:, None] + steps]


def _pooled(x: torch.Tensor) -> torch.Tensor:
    """Patterns averaged down to at most 32 along each signal dim, flat: `(B, C, …) -> (B, f)`."""
    pools = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
    sides = x.shape[2:]
    sizes: Any = [min(side, POOLED_SIDE) for side in sides]
    return pools[len(sides)](x, sizes).flatten(1)


def _similar(features: torch.Tensor, candidates: torch.Tensor, samples: torch.Tensor) -> Paths:
    """The candidates about as similar to each sample as its best one.

    features: `(m, f)`. candidates: of n samples, as positions in the features `(n, k)`, -1 for
    none. samples: positions of the n samples. Chosen are candidates whose correlation is at least
    0.8 times the best, if that is positive, else the best one; the sample itself if it has none.
    """
    unit = features - features.mean(1, keepdim=True)
    unit /= unit.norm(dim=1, keepdim=True).clamp_min(1e-12)
    is_missing = candidates < 0
    sample_units = unit[samples]
    columns = [(sample_units * unit[column]).sum(1) for column in candidates.clamp_min(0).T]
    correlation = torch.stack(columns, 1).masked_fill(is_missing, -2.0)
    best = correlation.amax(1, keepdim=True)
    is_similar = torch.where(best > 0, correlation >= SIMILAR * best, correlation == best)
    similar_first = (~is_similar).byte().argsort(dim=1, stable=True)
    neighbours = candidates.gather(1, similar_first)
    n_similar = is_similar.sum(1)
    is_alone = is_missing.all(1)
    neighbours[is_alone, 0] = samples[is_alone]
    n_similar[is_alone] = 1
    return Paths(neighbours, n_similar)
