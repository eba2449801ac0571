"""Plan an epoch, without reading anything: what is read together, in which order, cut where.

The samples of an epoch form one stream: buffer after buffer, each shuffled separately. Batches are
cut from the stream at positions that do not depend on the buffers, so their number and sizes are
the same in every tier of memory, and a batch may begin in one buffer and end in the next.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MIN_PIECES, MAX_PIECES = 4, 64  # of a buffer
LARGE_BUFFER = 4096  # samples; smaller buffers hold more pieces
PIECES_BELOW_LARGE = 8  # of a buffer that is hardly smaller; of half the size, twice as many
MAX_READS = 4  # of a block in an epoch
MAX_COLOURS = 16


class Piece(NamedTuple):
    """Samples that are read together: chosen points `start` to `stop` of a block, in tile order."""

    block: int
    start: int
    stop: int


def piece_samples(capacity: int, block: int) -> int:
    """Return the largest size of a piece, so that a buffer holds several regions of the grid.

    With batches from few regions the loss decreases less: on a simulated scan of 3072 points,
    buffers of 384 samples from 4, 24 and 64 regions reached 84, 95 and 97 % of the decrease of a
    training in memory. Large buffers, which hold many regions anyway, get few pieces. A block that
    is larger than a piece is read several times. So pieces are enlarged until that is at most
    `MAX_READS` times, but not further than to `MIN_PIECES` of a buffer.
    """
    n_pieces = MIN_PIECES
    if capacity < LARGE_BUFFER:
        n_pieces = min(MAX_PIECES, PIECES_BELOW_LARGE * LARGE_BUFFER // capacity)
    for_regions = capacity // n_pieces
    for_few_reads = min(block // MAX_READS, capacity // MIN_PIECES)
    return max(1, for_regions, for_few_reads)


def in_tiles(points: np.ndarray, tile_samples: int) -> np.ndarray:
    """Return an order of points `(n, n_nav)`: tile after tile of about `tile_samples` points."""
    if len(points) <= tile_samples:
        return np.arange(len(points))
    side = max(1, round(tile_samples ** (1 / points.shape[1])))
    tiles = points // side
    return np.lexsort((*points.T[::-1], *tiles.T[::-1]))


def plan_pieces(counts: Sequence[int], max_samples: int, low: int, high: int) -> list[Piece]:
    """Return pieces of at most `max_samples` that hold samples `low` to `high` of all blocks.

    counts: chosen points of each block. The blocks are divided in the same way for all `low` and
    `high`; pieces that contain these two samples are cut there.
    """
    pieces = []
    first = 0
    for block, count in enumerate(counts):
        n_pieces = math.ceil(count / max_samples)
        cuts = even_bounds(count, max(1, n_pieces)).tolist()
        for start, stop in itertools.pairwise(cuts):
            begin = max(start, low - first)
            end = min(stop, high - first)
            if begin < end:
                pieces.append(Piece(block, begin, end))
        first += count
    return pieces


def plan_buffers(
    counts: Sequence[int], capacity: int, rng: np.random.Generator | None
) -> list[list[int]]:
    """Return the pieces of each buffer by number: each once, at most `capacity` samples a buffer.

    counts: samples of each piece; a piece that exceeds the capacity gets a buffer to itself. rng:
    None keeps the order of the pieces.
    """
    order = np.arange(len(counts))
    if rng is not None:
        order = rng.permutation(len(counts))
    buffers: list[list[int]] = [[]]
    n_held = 0
    for piece in order.tolist():
        if buffers[-1] and n_held + counts[piece] > capacity:
            buffers.append([])
            n_held = 0
        buffers[-1].append(piece)
        n_held += counts[piece]
    return buffers


def even_bounds(n_samples: int, n_parts: int) -> np.ndarray:
    """Return the first sample of each of the even parts, and the end: `(n_parts + 1,)`."""
    return np.arange(n_parts + 1) * n_samples // n_parts


def batch_cuts(bounds: np.ndarray, low: int, high: int) -> list[tuple[int, int]]:
    """Return the stretches of the stream from `low` to `high`, each of one batch."""
    cuts = np.unique(np.clip(bounds, low, high))
    return list(itertools.pairwise(cuts.tolist()))


def deal(points: np.ndarray, n_batches: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random order of samples in which grid neighbours rarely fall into one batch: `(n,
    n_nav) -> (n,)` positions.

    A buffer is a part of the scan, so neighbours would meet in a batch far more often than in a
    shuffle of the complete scan. The grid is coloured by `points @ factors % n_colours`, like a
    chequerboard of many colours, and batches are cut from one colour after the other.
    """
    n_colours = min(n_batches, MAX_COLOURS)
    if n_colours < 2:
        return rng.permutation(len(points))
    factors = rng.choice(_colour_factors(points.shape[1], n_colours))
    colours = points @ factors % n_colours
    order = rng.permutation(len(points))
    rank = rng.permutation(n_colours)
    return order[np.argsort(rank[colours[order]], kind="stable")]


def _colour_factors(n_dims: int, n_colours: int) -> np.ndarray:
    """Factors `(k, n_dims)` that give fewest points within two steps the same colour."""
    others = itertools.product(range(n_colours), repeat=n_dims - 1)
    factors = np.array([(1, *rest) for rest in others])
    steps = grid_steps(n_dims, 2)
    has_same_colour = steps @ factors.T % n_colours == 0
    score = (1 / np.square(steps).sum(1)) @ has_same_colour
    return factors[np.isclose(score, score.min())]


def grid_steps(n_dims: int, reach: int) -> np.ndarray:
    """Return steps of at most `reach` along each dim, without that of length 0: `(k, n_dims)`."""
    along_each = range(-reach, reach + 1)
    steps = np.array(list(itertools.product(along_each, repeat=n_dims)))
    return steps[steps.any(1)]
