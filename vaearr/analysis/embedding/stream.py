"""Patterns of chosen scan points on their way to a decomposition: block by block, as often as they are needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from vaearr.batching.blocks import Block, Blocks, read_chosen
from vaearr.store import Region

BATCH_VALUES = 2**23  # values in a batch at most: 64 MiB in float64

View = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class PatternStream:
    """The chosen patterns of a grid, as float64 rows.

    patterns: the blocks they are read in. inside: boolean over the navigation grid. view: what is made of a batch
    `(B, C, …)` of float32.
    """

    patterns: Blocks
    inside: np.ndarray
    input_shape: tuple[int, ...]
    view: View
    device: torch.device
    batch_size: int

    @property
    def n_samples(self) -> int:
        """Chosen scan points."""
        return int(self.inside.sum())

    @property
    def n_values(self) -> int:
        """Values of one pattern."""
        return math.prod(self.input_shape)

    @property
    def rows(self) -> int:
        """Patterns of a batch: as many as are asked for, fewer where they are large."""
        return max(1, min(self.batch_size, BATCH_VALUES // self.n_values))

    def of(self, inside: np.ndarray) -> PatternStream:
        """The same patterns at other points."""
        return replace(self, inside=inside)

    def seen_as(self, view: View) -> PatternStream:
        """The same points with another view."""
        return replace(self, view=view)

    def blocks(self, regions: Sequence[Region] | None = None) -> Iterator[Block]:
        """The regions, one after another, each read while the one before is worked on; empty ones without a read."""
        return read_chosen(self.patterns, self.inside, self.input_shape, regions, self.device)

    def batches(self) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """One pass: grid points `(b, n_nav)` and what is seen of their patterns, `(b, values)` float64."""
        held: list[torch.Tensor] = []
        points: list[np.ndarray] = []
        count = 0
        for block in self.blocks():
            where = block.points
            start = 0
            while start < len(where):
                stop = min(len(where), start + self.rows - count)
                held.append(self._moved(block.stored[start:stop]))
                points.append(where[start:stop])
                count += stop - start
                start = stop
                if count == self.rows:
                    yield np.concatenate(points), self._seen(held)
                    held, points, count = [], [], 0
        if count:
            yield np.concatenate(points), self._seen(held)

    def passes(self) -> Iterator[torch.Tensor]:
        """One pass over the rows alone."""
        return (rows for _, rows in self.batches())

    def rows_of(self, block: Block) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """The batches of one block."""
        where = block.points
        for start in range(0, len(where), self.rows):
            part = slice(start, start + self.rows)
            yield where[part], self._seen([self._moved(block.stored[part])])

    def raw(self) -> Iterator[torch.Tensor]:
        """One pass over the patterns as they are stored, `(b, C, …)` float32."""
        for block in self.blocks():
            for start in range(0, len(block.stored), self.rows):
                yield self._moved(block.stored[start : start + self.rows])

    def _moved(self, stored: torch.Tensor) -> torch.Tensor:
        return stored.to(self.device, non_blocking=True).float()

    def _seen(self, parts: list[torch.Tensor]) -> torch.Tensor:
        seen = self.view(torch.cat(parts)).flatten(1)
        return seen.to(exact_device(self.device)).double()


def exact_device(device: torch.device) -> torch.device:
    """Where float64 is: the device, or the CPU for one without it."""
    return torch.device("cpu") if device.type == "mps" else device
