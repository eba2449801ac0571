"""The plan of an epoch, without reading anything: who reads what, in which order, cut where, and
who is whose partner.

The samples of an epoch form one stream: buffer after buffer, each in an order of its own. Batches
are cut from the stream at places that do not depend on the buffers, so their number and sizes are
the same wherever the patterns are kept, and a batch may begin in one buffer and end in the next. A
sample's partner is where a random walk through alike neighbours on the grid ends, among the samples
that are held together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

FEWEST_PIECES, MOST_PIECES = 4, 64
MOST_READS = 4  # of a block in an epoch
MAX_COLOURS = 16
VIEWED = 2**19  # pattern values that are viewed at once
PART = 1024  # samples whose likeness is looked at together
POOLED_SIDE = 32
ALIKE = 0.8  # of the best neighbour's correlation

View = Callable[[torch.Tensor], torch.Tensor]
Paths = tuple[
    torch.Tensor, torch.Tensor
]  # positions of the neighbours that a walk may choose `(n, k)`, and how many


class Piece(NamedTuple):
    """Samples that are read together: of the chosen points of a block, in its order, those from
    `start` to `stop`.
    """

    block: int
    start: int
    stop: int


class Walk(NamedTuple):
    """How a sample's partner is found: at the end of a random walk through neighbours that are much
    alike.

    view: stored patterns `(B, C, …)` on the device -> what likeness is judged by, for example the
    preprocessed patterns; it is averaged down to at most 32 x 32 before. steps: of the walk.
    """

    view: View
    steps: int = 4


def piece_samples(capacity: int, block: int) -> int:
    """Samples of a piece at most: a buffer of `capacity` samples is filled from several places of
    the grid.

    Batches from few places teach little: on a simulated scan of 3072 points, buffers of 384 samples
    from 4, 24 and 64 places ended 16, 5 and 3 % of the loss's fall behind training in memory. A
    block of which pieces are smaller is read more than once, at most `MOST_READS` times where that
    leaves a buffer `FEWEST_PIECES`; larger buffers, which hold many places anyway, are filled with
    whole blocks.
    """
    pieces = FEWEST_PIECES if capacity >= 4096 else min(MOST_PIECES, 32768 // capacity)
    return max(1, capacity // pieces, min(block // MOST_READS, capacity // FEWEST_PIECES))


def in_tiles(points: np.ndarray, limit: int) -> np.ndarray:
    """An order of a block's points `(n, n_nav)` in which each run of about `limit` of them lies
    close together.
    """
    if len(points) <= limit:
        return np.arange(len(points))
    side = max(1, round(limit ** (1 / points.shape[1])))
    return np.lexsort((*points.T[::-1], *(points // side).T[::-1]))


def plan_pieces(counts: Sequence[int], limit: int, low: int, high: int) -> list[Piece]:
    """The pieces of at most `limit` samples that hold samples `low` to `high`, counted through all
    blocks.

    counts: chosen points of each block. Cuts but those at `low` and `high` are the same whatever
    these are.
    """
    pieces, first = [], 0
    for block, count in enumerate(counts):
        ends = batch_bounds(count, -(-count // limit)).tolist() if count else [0]
        for start, stop in itertools.pairwise(ends):
            begin, end = max(start, low - first), min(stop, high - first)
            if begin < end:
                pieces.append(Piece(block, begin, end))
        first += count
    return pieces


def plan_buffers(
    counts: Sequence[int], capacity: int, rng: np.random.Generator | None
) -> list[list[int]]:
    """Which pieces are held together, in which order: every piece once, at most `capacity` samples
    at a time.

    counts: samples per piece; a piece that alone exceeds the capacity gets a buffer of its own.
    rng: None keeps the order of the pieces.
    """
    order = np.arange(len(counts)) if rng is None else rng.permutation(len(counts))
    groups: list[list[int]] = [[]]
    n_held = 0
    for piece in order.tolist():
        if groups[-1] and n_held + counts[piece] > capacity:
            groups.append([])
            n_held = 0
        groups[-1].append(piece)
        n_held += counts[piece]
    return groups


def batch_bounds(n_samples: int, n_batches: int) -> np.ndarray:
    """Where each batch begins in the stream, and its end: `n_batches + 1` places, sizes equal to
    within one.
    """
    return np.arange(n_batches + 1) * n_samples // n_batches


def deal(points: np.ndarray, n_batches: int, rng: np.random.Generator) -> np.ndarray:
    """A random order of samples in which grid neighbours rarely fall into one batch: `(n, n_nav) ->
    (n,)` positions.

    A buffer is a part of the scan, so neighbours would meet in a batch far more often than in a
    shuffle of everything. The grid is coloured like a chequerboard of many colours, `points @
    weights % n_colours`, by one of the weights that give points within two steps different colours
    where it can be; batches are cut from one colour after the other.
    """
    n_colours = min(n_batches, MAX_COLOURS)
    if n_colours < 2:
        return rng.permutation(len(points))
    weights = np.array(
        [(1, *rest) for rest in itertools.product(range(n_colours), repeat=points.shape[1] - 1)]
    )
    steps = grid_steps(points.shape[1], 2)
    meets = steps @ weights.T % n_colours == 0
    nearness = 1 / np.square(steps).sum(1)
    score = nearness @ meets
    colour = points @ rng.choice(weights[np.isclose(score, score.min())]) % n_colours
    order = rng.permutation(len(points))
    return order[np.argsort(rng.permutation(n_colours)[colour[order]], kind="stable")]


def grid_steps(n_dims: int, reach: int) -> np.ndarray:
    """Steps of at most `reach` along each dim, without staying: `(k, n_dims)`."""
    steps = itertools.product(range(-reach, reach + 1), repeat=n_dims)
    return np.array([step for step in steps if any(step)])


def positions_around(points: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Positions of the samples that lie these steps away: `(n, n_nav), (k, n_nav) -> (n, k)`, -1
    where none is.
    """
    reach = int(np.abs(steps).max())
    local = points - points.min(0) + reach  # a border keeps the look-ups inside
    shape = local.max(0) + reach + 1
    strides = np.append(np.cumprod(shape[:0:-1])[::-1], 1)
    flat = local @ strides
    position = np.full(math.prod(shape.tolist()), -1, np.int32)
    position[flat] = np.arange(len(points))
    return np.stack([position[flat + step @ strides] for step in steps], 1)


@torch.no_grad()
def find_paths(held: torch.Tensor, points: np.ndarray, view: View, device: torch.device) -> Paths:
    """Where a walk may go among the samples held: stored patterns `(n, C, …)` and their grid points
    `(n, n_nav)`.

    A part of the samples at a time, with the neighbours of that part: samples of one shard lie next
    to each other.
    """
    near = torch.from_numpy(
        positions_around(points, grid_steps(points.shape[1], 1)).astype(np.int64)
    )
    neighbours, count = torch.empty_like(near), torch.empty_like(near[:, 0])
    size = max(1, VIEWED // held[:1].numel())
    for rows in torch.arange(len(near)).split(PART):
        around = near[rows]
        needed = torch.unique(torch.cat([rows, around[around >= 0]]))
        seen = [pooled(view(held[some.to(held.device)].to(device))) for some in needed.split(size)]
        local = torch.where(around < 0, -1, torch.searchsorted(needed, around)).to(device)
        own = torch.searchsorted(needed, rows).to(device)
        found, n_found = alike_neighbours(torch.cat(seen), local, own)
        neighbours[rows], count[rows] = needed[found.clamp_min(0).cpu()], n_found.cpu()
    return neighbours.to(held.device), count.to(held.device)


def pooled(x: torch.Tensor) -> torch.Tensor:
    """Patterns averaged down to at most 32 along each signal dim, flat: `(B, C, …) -> (B, f)`."""
    pool = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[x.ndim - 3]
    sizes: Any = [min(size, POOLED_SIDE) for size in x.shape[2:]]
    return pool(x, sizes).flatten(1)


def alike_neighbours(features: torch.Tensor, near: torch.Tensor, own: torch.Tensor) -> Paths:
    """The neighbours about as similar to a sample as its best one, the first `count` of each row.

    features: `(m, f)`. near: candidates of n samples as positions in them `(n, k)`, -1 for none.
    own: positions of the samples themselves. Chosen are the candidates whose correlation is at
    least 0.8 times the best, which is positive; where none is positive the best one, and the sample
    itself where there is no candidate.
    """
    unit = features - features.mean(1, keepdim=True)
    unit /= unit.norm(dim=1, keepdim=True).clamp_min(1e-12)
    seen = torch.stack([(unit[own] * unit[column.clamp_min(0)]).sum(1) for column in near.T], 1)
    seen = seen.masked_fill(near < 0, -2.0)
    best = seen.amax(1, keepdim=True)
    good = torch.where(best > 0, seen >= ALIKE * best, seen == best)
    neighbours, count = near.gather(1, (~good).byte().argsort(dim=1, stable=True)), good.sum(1)
    alone = (near < 0).all(1)
    neighbours[alone, 0], count[alone] = own[alone], 1
    return neighbours, count


def random_walk(paths: Paths, steps: int, rng: np.random.Generator) -> torch.Tensor:
    """Where a walk of random steps ends for each sample, `(n,)`.

    Each step goes to one of the alike neighbours, so that a walk hardly leaves a grain: its end
    shows the same crystal with other noise, and over the epochs the mean of the surroundings.
    """
    neighbours, count = paths
    position = torch.arange(len(count), device=count.device)
    for _ in range(steps):
        draws = torch.from_numpy(rng.random(len(position), dtype=np.float32)).to(position.device)
        choice = (draws * count[position]).long().clamp_max(count[position] - 1)
        position = neighbours[position, choice]
    return position
