"""Lanes: who computes which, batch norms that agree, and what cannot be divided."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import vaearr as va
from vaearr.batching import batches
from vaearr.errors import UsageError
from vaearr.testing import random_patterns_dataset
from vaearr.training.lanes import Lanes, Running, in_lanes, lanes_of
from vaearr.training.processes import Processes

from ..conftest import TINY_TRAINING


def test_lanes_are_divided_among_processes() -> None:
    assert lanes_of(None, Processes()) == (range(1), 1)
    assert lanes_of(None, Processes(2, 4)) == (range(2, 3), 4)
    assert [lanes_of(6, Processes(rank, 3))[0] for rank in range(3)] == [range(2), range(2, 4), range(4, 6)]
    with pytest.raises(UsageError, match="3 lanes cannot be divided among 2 processes"):
        lanes_of(3, Processes(0, 2))


def test_an_epoch_of_lanes_is_that_of_each() -> None:
    ds = random_patterns_dataset({"y": 9, "x": 8})
    made = [batches(ds, batch_size=10, rank=rank, world_size=2) for rank in range(2)]
    lanes = Lanes(made)
    assert len(lanes) == len(made[0])
    for i, found in enumerate(lanes.epoch(3, start=1), 1):
        assert [lane for lane, _ in found] == [0, 1]
        for lane, batch in found:
            assert torch.equal(batch.patterns, list(made[lane].epoch(3))[i].patterns)
    assert sum(map(len, lanes)) == 72
    assert in_lanes(made[1]).first == 1


def test_running_statistics_are_the_mean_of_the_lanes() -> None:
    layer, parts = nn.BatchNorm1d(3), torch.randn(2, 8, 3) + 5
    running = Running(layer, Processes(), 2)
    for part in parts:
        layer(part)
        running.take()
    running.close()
    torch.testing.assert_close(layer.running_mean, 0.1 * parts.mean((0, 1)))
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * parts.var(1).mean(0))
    alone = nn.BatchNorm1d(3)
    one = Running(alone, Processes(), 1)
    alone(parts[0])
    one.take()
    one.close()
    torch.testing.assert_close(alone.running_mean, 0.1 * parts[0].mean(0))


def test_balance_needs_one_lane(scan_store: Path) -> None:
    with pytest.raises(UsageError, match="balance needs one lane"):
        va.train(scan_store, config=TINY_TRAINING.replace(balance="phase", lanes=2))
