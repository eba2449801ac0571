"""Lanes: the parts into which each update of a training is dealt, so that its result does not depend on who computes.

A lane has its own share of the samples and its own random numbers, by its number alone; an update takes a batch of each
and averages their gradients. Processes divide the lanes among themselves: two processes with a lane each learn what one
process with two lanes learns, but for the order in which numbers are added up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from vaearr.batching import Batch, PatternBatches, Walk
from vaearr.errors import UsageError
from vaearr.training.processes import Processes


@dataclass(frozen=True)
class Lanes:
    """The lanes of this process: their batches, and the number of the first."""

    batches: Sequence[PatternBatches]
    first: int = 0

    def __len__(self) -> int:
        """Batches of an epoch in each lane; the same in all."""
        return len(self.batches[0])

    def __iter__(self) -> Iterator[torch.Tensor]:
        """All patterns, lane by lane, in batches."""
        for batches in self.batches:
            yield from batches

    @property
    def whole(self) -> PatternBatches:
        """The first lane, for what holds for all of them."""
        return self.batches[0]

    def epoch(self, number: int, *, start: int = 0, walk: Walk | None = None) -> Iterator[list[tuple[int, Batch]]]:
        """The number of each lane with its next batch, from batch `start` of an epoch on."""
        lanes = (batches.epoch(number, start=start, walk=walk) for batches in self.batches)
        for found in zip(*lanes, strict=True):
            yield list(enumerate(found, self.first))


def in_lanes(batches: PatternBatches | Lanes) -> Lanes:
    """Batches as lanes: those of one rank are the lane of that number."""
    return batches if isinstance(batches, Lanes) else Lanes((batches,), batches.settings.rank)


def lanes_of(wanted: int | None, team: Processes) -> tuple[range, int]:
    """The numbers of this process's lanes, and how many there are in all; None is one for each process.

    Raises UsageError for lanes that the processes cannot divide evenly.
    """
    total = wanted or team.size
    if total % team.size:
        raise UsageError(
            f"{total} lanes cannot be divided among {team.size} processes; give a multiple of {team.size}."
        )
    each = total // team.size
    return range(team.rank * each, (team.rank + 1) * each), total


class Running:
    """Running statistics of batch norms: after each update the mean over the lanes, so that all processes agree.

    A lane is normalised by its own patterns; nothing is done where there is one lane, or no batch norm.
    """

    def __init__(self, network: nn.Module, team: Processes, n_lanes: int) -> None:
        layers = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        found = [value for layer in layers for value in (layer.running_mean, layer.running_var)]
        self.values = [value for value in found if value is not None and n_lanes > 1]
        self.before = [value.clone() for value in self.values]
        self.sums = [torch.zeros_like(value) for value in self.values]
        self.team, self.count = team, 0

    def take(self) -> None:
        """Note what a lane made of them, and put back what was before."""
        for value, before, total in zip(self.values, self.before, self.sums, strict=True):
            total += value
            value.copy_(before)
        self.count += 1

    def close(self) -> None:
        """The mean over all lanes, as the update is done."""
        for value, before, total in zip(self.values, self.before, self.sums, strict=True):
            value.copy_(self.team.total(total) / (self.count * self.team.size))
            before.copy_(value)
            total.zero_()
        self.count = 0
