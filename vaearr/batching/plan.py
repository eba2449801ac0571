"""The plan of an epoch, without reading anything: who reads what, in which order, cut where into batches.

The samples of an epoch form one stream: buffer after buffer, each in an order of its own. Batches are cut from the
stream at places that do not depend on the buffers, so their number and sizes are the same wherever the patterns are
kept, and a batch may begin in one buffer and end in the next.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST_PIECES, MOST_PIECES = 4, 64
MOST_READS = 4  # of a block in an epoch
MAX_GROUPS, FEW_GROUPS = 16, 3
SLACK = 1.4


@dataclass(frozen=True)
class Piece:
    """Samples that are read together: of the chosen points of a block, in its order, those from `start` to `stop`."""

    block: int
    start: int
    stop: int

    @property
    def count(self) -> int:
        return self.stop - self.start


def piece_samples(capacity: int, block: int) -> int:
    """Samples of a piece at most: a buffer of `capacity` samples is filled from several places of the grid.

    Batches from few places teach little: on a simulated scan of 3072 points, buffers of 384 samples from 4, 24 and 64
    places ended 16, 5 and 3 % of the loss's fall behind training in memory. A block of which pieces are smaller is read
    more than once, at most `MOST_READS` times where that leaves a buffer `FEWEST_PIECES`; larger buffers, which hold
    many places anyway, are filled with whole blocks.
    """
    pieces = FEWEST_PIECES if capacity >= 4096 else min(MOST_PIECES, 32768 // capacity)
    return max(1, capacity // pieces, min(block // MOST_READS, capacity // FEWEST_PIECES))


def in_tiles(points: np.ndarray, limit: int) -> np.ndarray:
    """An order of a block's points `(n, n_nav)` in which each run of about `limit` of them lies close together."""
    if len(points) <= limit:
        return np.arange(len(points))
    side = max(1, round(limit ** (1 / points.shape[1])))
    return np.lexsort((*points.T[::-1], *(points // side).T[::-1]))


def share_of(n_samples: int, rank: int, world_size: int) -> tuple[int, int]:
    """First and last + 1 of the samples of a rank; shares are equal to within one."""
    return n_samples * rank // world_size, n_samples * (rank + 1) // world_size


def plan_pieces(counts: Sequence[int], limit: int, low: int, high: int) -> list[Piece]:
    """The pieces of at most `limit` samples that hold samples `low` to `high`, counted through all blocks.

    counts: chosen points of each block. Cuts but those at `low` and `high` are the same whatever these are.
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


def plan_buffers(counts: Sequence[int], capacity: int, rng: np.random.Generator | None) -> list[list[int]]:
    """Which pieces are held together, in which order: every piece once, at most `capacity` samples at a time.

    counts: samples per piece; a piece that alone exceeds the capacity gets a buffer of its own. rng: None keeps the
    order of the pieces. Buffers are filled about equally.
    """
    order = np.arange(len(counts)) if rng is None else rng.permutation(len(counts))
    groups = _filled(order, counts, capacity)
    even = -(-sum(counts) // len(groups)) + max(counts) // 2
    if even < capacity:
        evenly = _filled(order, counts, even)
        groups = evenly if len(evenly) == len(groups) else groups
    return groups


def _filled(order: np.ndarray, counts: Sequence[int], capacity: int) -> list[list[int]]:
    groups: list[list[int]] = []
    filled = capacity + 1
    for piece in map(int, order):
        if filled + counts[piece] > capacity:
            groups.append([])
            filled = 0
        groups[-1].append(piece)
        filled += counts[piece]
    return groups


def batch_bounds(n_samples: int, n_batches: int) -> np.ndarray:
    """Where each batch begins in the stream, and its end: `n_batches + 1` places, sizes equal to within one."""
    return np.arange(n_batches + 1) * n_samples // n_batches


def plan_draws(weights: Sequence[float], n_samples: int) -> list[int]:
    """How many of `n_samples` draws fall to each buffer, in proportion to its weight; their sum is exact."""
    ends = np.cumsum([0.0, *weights])
    return np.diff(np.round(ends / ends[-1] * n_samples).astype(int)).tolist()


@dataclass(frozen=True)
class EpochPlan:
    """Buffers of an epoch and its batches, both as places in the stream of samples."""

    groups: list[list[int]]
    ends: np.ndarray  # buffer g holds the stream from ends[g] to ends[g + 1]
    bounds: np.ndarray  # batch k is the stream from bounds[k] to bounds[k + 1]

    def first_buffer(self, batch: int) -> int:
        """The buffer in which a batch begins."""
        return int(np.searchsorted(self.ends, self.bounds[batch], side="right")) - 1

    def sizes(self, buffer: int) -> np.ndarray:
        """Sizes of the batches, or parts of batches, that a buffer is cut into."""
        low, high = self.ends[buffer], self.ends[buffer + 1]
        return np.diff(np.unique(np.clip(self.bounds, low, high)))


def deal(points: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order of samples in which grid neighbours rarely fall into one batch: `(n, n_nav) -> (n,)` positions.

    A buffer is a part of the scan, so neighbours would meet in a batch far more often than in a shuffle of everything.
    Samples are dealt to groups of batches, every third point along each dim at a time: to a random group that no
    neighbour within two steps has, where there is one with a seat left, else that none within one step has.
    sizes: of the batches that the order is cut into.
    """
    n_groups = min(len(sizes), MAX_GROUPS)
    if n_groups < 2:
        return rng.permutation(len(points))
    if n_groups <= FEW_GROUPS:  # a chequerboard or stripes; more is not to be had
        return _shuffled_by(points.sum(1) % n_groups, rng)
    room = np.bincount(np.arange(len(sizes)) * n_groups // len(sizes), weights=sizes).astype(int)
    steps = grid_steps(points.shape[1], 2)
    steps = steps[np.argsort(np.abs(steps).sum(1), kind="stable")][: 2 * points.shape[1] * (points.shape[1] + 1)]
    n_nearest = 2 * points.shape[1]
    near = positions_around(points, steps).T
    kind = np.ravel_multi_index(tuple((points % 3).T), (3,) * points.shape[1])
    members = [found for i in range(3 ** points.shape[1]) if len(found := np.flatnonzero(kind == i))]
    group = np.full(len(points), -1, np.int8)
    mark = np.zeros(len(points) + 1, np.uint32)  # the bit of each sample's group; the last for neighbours outside
    sweeps = 1 if n_groups == MAX_GROUPS else 2  # few groups leave little choice: mend what came first
    for i in [i for _ in range(sweeps) for i in rng.permutation(len(members))]:
        mine = members[i]
        group[mine] = -1
        left = room - np.bincount(group[group >= 0], minlength=n_groups)
        share = len(mine) / left.sum()
        seats = left if share == 1 else np.minimum(left, (SLACK * share * left).astype(int) + 1)
        marks = mark[near[:, mine]]
        taken = np.bitwise_or.reduce(marks), np.bitwise_or.reduce(marks[:n_nearest])
        group[mine] = _seat(taken, seats, rng)
        mark[mine] = np.uint32(1) << group[mine].astype(np.uint32)
    return _shuffled_by(group, rng)


def _seat(taken: tuple[np.ndarray, np.ndarray], seats: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A group with a seat for each sample: none of those taken near by, else none taken next door, else any.

    taken: bits of the groups that neighbours have, for each sample: within two steps, within one. seats: per group.
    """
    n_groups, every = len(seats), np.uint32((1 << len(seats)) - 1)
    group = np.full(len(taken[0]), -1, np.int8)
    waiting = rng.permutation(len(group))
    while len(waiting):
        open_groups = np.bitwise_or.reduce(np.uint32(1) << np.flatnonzero(seats).astype(np.uint32))
        free = open_groups & ~taken[0][waiting]
        free = np.where(free == 0, open_groups & ~taken[1][waiting], free)
        free = np.where(free == 0, open_groups, free)
        turn = rng.integers(n_groups, size=len(waiting), dtype=np.uint32)  # the first free one from here on
        turned = ((free >> turn) | (free << (n_groups - turn))) & every
        wish = (_lowest_bits(n_groups)[turned] + turn.astype(np.int8)) % n_groups
        order = np.argsort(wish, kind="stable")
        ordered = wish[order]
        seated = order[np.arange(len(order)) - np.searchsorted(ordered, ordered) < seats[ordered]]
        group[waiting[seated]] = wish[seated]
        seats = seats - np.bincount(wish[seated], minlength=n_groups)
        waiting = np.delete(waiting, seated)
    return group


@functools.cache
def _lowest_bits(n_bits: int) -> np.ndarray:
    """Place of the lowest bit that is set, for each number of so many bits."""
    numbers = np.arange(1 << n_bits)
    return np.log2(np.maximum(numbers & -numbers, 1)).astype(np.int8)


def _shuffled_by(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions ordered by group, shuffled within."""
    order = rng.permutation(len(group))
    return order[np.argsort(group[order].astype(np.int8), kind="stable")]


def grid_steps(n_dims: int, reach: int) -> np.ndarray:
    """Steps of at most `reach` along each dim, without staying: `(k, n_dims)`."""
    steps = itertools.product(range(-reach, reach + 1), repeat=n_dims)
    return np.array([step for step in steps if any(step)])


def positions_around(points: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Positions of the samples that lie these steps away: `(n, n_nav), (k, n_nav) -> (n, k)`, -1 where none is."""
    reach = int(np.abs(steps).max())
    local = points - points.min(0) + reach  # a border keeps the look-ups inside
    shape = local.max(0) + reach + 1
    strides = np.append(np.cumprod(shape[:0:-1])[::-1], 1)
    flat = local @ strides
    position = np.full(math.prod(shape.tolist()), -1, np.int32)
    position[flat] = np.arange(len(points))
    return np.stack([position[flat + step @ strides] for step in steps], 1)
