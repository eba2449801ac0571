"""The plan of reads and the reader: every sample once, deterministic, streamed equals resident."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vaearr import names as n
from vaearr.batching import PatternBatches, Walk, batches, plan
from vaearr.config import SplitConfig
from vaearr.errors import RoiError, SchemaError, UsageError
from vaearr.schema import grid
from vaearr.store import create_store, open_store

from .data import random_patterns_dataset

MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 9))).filter(lambda m: m.any())


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 120), st.booleans())
def test_buffers_hold_every_piece_once_within_the_capacity(
    counts: list[int], capacity: int, shuffle: bool
) -> None:
    groups = plan.plan_buffers(counts, capacity, np.random.default_rng(0) if shuffle else None)
    assert sorted(i for group in groups for i in group) == list(range(len(counts)))
    for group in groups:
        assert sum(counts[i] for i in group) <= capacity or len(group) == 1


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(sum),
    st.integers(1, 7),
    st.integers(1, 60),
)
def test_pieces_hold_every_sample_once(counts: list[int], n_shares: int, limit: int) -> None:
    seen, bounds = [], plan.even_bounds(sum(counts), n_shares)
    for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        pieces = plan.plan_pieces(counts, limit, low, high)
        assert all(0 < stop - start <= limit for _, start, stop in pieces)
        mine = [(block, i) for block, start, stop in pieces for i in range(start, stop)]
        assert len(mine) == high - low
        seen += mine
    assert seen == [(block, i) for block, count in enumerate(counts) for i in range(count)]
    assert np.ptp(np.diff(bounds)) <= 1


@given(MASKS, st.integers(1, 120), st.integers(0, 9))
def test_orders_hold_each_sample_once(mask: np.ndarray, size: int, seed: int) -> None:
    """Of a block's points, in tiles; of a buffer, dealt to batches."""
    points = np.argwhere(mask)
    order = plan.in_tiles(points, size)
    assert sorted(order.tolist()) == list(range(len(points)))
    if mask.all() and min(mask.shape) >= 3 and size == 9 < len(points):
        assert (np.ptp(points[order][:9], axis=0) == 2).all()
    order = plan.deal(points, -(-len(points) // size), np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(points)))


def _numbered(ny: int = 40, nx: int = 37) -> xr.Dataset:
    """A scan whose pattern at (y, x) spells the scan point's number in its first pixel."""
    ds = random_patterns_dataset({"y": ny, "x": nx}, {"dy": 3, "dx": 4}, dtype="uint16")
    values = ds.patterns.values.copy()
    values[..., 0, 0] = np.arange(ny * nx).reshape(ny, nx)
    return ds.assign(patterns=ds.patterns.copy(data=values))


def _numbers(batch: torch.Tensor) -> list[int]:
    return batch[:, 0, 0, 0].to(torch.int64).tolist()


@pytest.fixture
def ds(tmp_path: Path) -> xr.Dataset:
    return open_store(create_store(_numbered(), tmp_path / "n.zarr"), chunks=None)


TINY = 600 * 3 * 4 * 2 / 2**30  # GiB for 600 of the 1480 samples
either = pytest.mark.parametrize("memory", [2.0, TINY], ids=["resident", "streamed"])


@either
def test_each_sample_once_per_epoch_by_seed_and_epoch(ds: xr.Dataset, memory: float) -> None:
    roi = grid.roi(ds, x=(2, 18), y=(1, 18))
    loader, same, other = (
        batches(ds, batch_size=50, roi=roi, memory=memory, seed=seed) for seed in (1, 1, 2)
    )
    assert loader.tier == ("memory" if memory == 2.0 else "streamed")
    first, second = ([number for batch in loader for number in _numbers(batch)] for _ in range(2))
    assert sorted(first) == sorted(second) == np.flatnonzero(roi.values.ravel()).tolist()
    assert first != second
    assert first == [number for batch in same for number in _numbers(batch)]
    assert first != [number for batch in other for number in _numbers(batch)]
    fixed = batches(ds, memory=memory, shuffle=False)
    assert [_numbers(b) for b in fixed] == [_numbers(b) for b in fixed]


@either
@pytest.mark.parametrize("size", [2, 7])
def test_ranks_divide_an_epoch(ds: xr.Dataset, memory: float, size: int) -> None:
    roi = grid.roi(ds, x=(0.5, 17))
    ranks = [
        batches(ds, batch_size=33, roi=roi, memory=memory, rank=i, world_size=size)
        for i in range(size)
    ]
    seen = [
        [number for batch in one.epoch(1) for number in _numbers(batch.patterns)] for one in ranks
    ]
    assert (
        sorted(number for mine in seen for number in mine)
        == np.flatnonzero(roi.values.ravel()).tolist()
    )
    assert [len(mine) for mine in seen] == [one.n_samples for one in ranks]
    assert (
        {len(list(one.epoch(1))) for one in ranks} == {len(one) for one in ranks} == {len(ranks[0])}
    )
    assert {one.n_samples_total for one in ranks} == {int(roi.sum())}
    assert max(map(len, seen)) - min(map(len, seen)) <= 1


@either
def test_any_epoch_from_any_batch(
    ds: xr.Dataset, memory: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = batches(ds, batch_size=64, memory=memory)
    whole = [_numbers(batch.patterns) for batch in loader.epoch(5)]
    n_read: list[int] = []
    read = PatternBatches._read_piece

    def counted(self: PatternBatches, i: int, *where: Any) -> None:
        n_read.append(i)
        read(self, i, *where)

    monkeypatch.setattr(PatternBatches, "_read_piece", counted)
    for start in (0, 1, len(loader) - 2, len(loader) - 1, len(loader)):
        n_read.clear()
        again = batches(ds, batch_size=64, memory=memory)
        assert [_numbers(batch.patterns) for batch in again.epoch(5, start=start)] == whole[start:]
        if memory == TINY and start > 5:  # beyond the first buffer
            assert len(n_read) < len(again.pieces)
    one, other = loader.epoch(5), loader.epoch(6)  # side by side, in buffers of their own
    assert [(_numbers(a.patterns), b is a)[0] for a, b in zip(one, other, strict=True)] == whole


@pytest.mark.parametrize("batch_size", [32, 64, 256])
def test_grid_neighbours_rarely_meet_when_streamed(batch_size: int, tmp_path: Path) -> None:
    """The ratio of performance.md, with an allowance of a quarter of the store."""
    side = 64 if batch_size < 256 else 128
    labels = np.arange(side * side).reshape(side, side)
    ds = random_patterns_dataset({"y": side, "x": side}, {"dy": 2, "dx": 2})
    ds = open_store(create_store(ds, tmp_path / "s.zarr"), chunks=None)
    loader = batches(ds, batch_size=batch_size, memory=side * side * 4 / 4 / 2**30, labels=labels)
    assert loader.tier == "streamed"
    ratios = [meeting_ratio(loader, number, step) for step in (1, 2) for number in range(3)]
    assert max(ratios[:3]) <= 1.5
    assert max(ratios[3:]) <= 2.0
    resident = batches(ds, batch_size=batch_size, labels=labels)
    assert meeting_ratio(resident, 0, 1) == pytest.approx(1.0, abs=0.3)


def meeting_ratio(loader: PatternBatches, number: int, step: int) -> float:
    """P(two scan points `step` apart along one axis in one batch) / P(any two in one batch);
    labels: flat numbers.
    """
    found = np.full(loader.inside.size, -1)
    for i, batch in enumerate(loader.epoch(number)):
        assert batch.labels is not None
        found[batch.labels.numpy()] = i
    sizes = np.bincount(found[found >= 0])
    chance = (sizes * (sizes - 1)).sum() / (sizes.sum() * (sizes.sum() - 1))
    where = found.reshape(loader.inside.shape)
    pairs = [(where[step:], where[:-step]), (where[:, step:], where[:, :-step])]
    same = np.concatenate([(a == b)[(a >= 0) & (b >= 0)] for a, b in pairs])
    return float(same.mean() / chance)


@pytest.mark.parametrize("steps", [1, 3])
@either
def test_partners_stay_inside_the_split_and_near(ds: xr.Dataset, memory: float, steps: int) -> None:
    split = grid.split(grid.roi(ds), SplitConfig(fraction=0.2), seed=0)
    train = (split.values == n.TRAIN).ravel()
    loader = batches(ds, batch_size=64, split=split, memory=memory)
    epochs = []
    for number in (0, 1, 0):
        pairs = {}
        for x, other, *_ in loader.epoch(number, walk=Walk(torch.Tensor.float, steps)):
            for a, b in zip(_numbers(x), _numbers(other), strict=True):
                assert max(abs(b // 37 - a // 37), abs(b % 37 - a % 37)) <= steps
                assert train[a]
                assert train[b]
                pairs[a] = b
        assert len(pairs) == train.sum()
        epochs.append(pairs)
    assert epochs[0] == epochs[2] != epochs[1]
    if steps == 1:
        assert all(a != b for a, b in epochs[0].items())


@either
def test_any_chunks_and_any_lazy_steps(ds: xr.Dataset, memory: float) -> None:
    """What comes is what the Dataset computes, in its native dtype, and the index says where it
    belongs.
    """
    lazy = open_store(ds.encoding["source"])
    even = (lazy.patterns.astype("f4") - lazy.patterns.mean(("y", "x"))).assign_attrs(
        ds.patterns.attrs
    )
    smooth = (
        lazy.patterns.astype("f4")
        .rolling(x=3, center=True, min_periods=1)
        .mean()
        .assign_attrs(ds.patterns.attrs)
    )
    for some in (
        ds,
        lazy.load(),
        lazy.isel(x=slice(3, 30), dx=slice(3)),
        lazy.chunk(y=7, x=37, dy=1),
        lazy.assign(patterns=even),
        lazy.assign(patterns=smooth),
        xr.concat([lazy.isel(y=slice(5)), lazy.isel(y=slice(20, 40))], "y", data_vars="minimal"),
        lazy.assign(patterns=lazy.patterns.astype(">u2")),
    ):
        want = some.patterns.values
        made = np.full(want.shape, 65535, want.dtype)
        for batch in batches(some, batch_size=50, memory=memory).epoch(3):
            assert (batch.index.dtype, batch.index.device.type) == (torch.int64, "cpu")
            assert batch.patterns.numpy().dtype == want.dtype.newbyteorder("=")
            made[tuple(batch.index.T)] = batch.patterns[:, 0].numpy()
        np.testing.assert_allclose(made, want, rtol=1e-5, atol=1e-3)


def test_what_all_blocks_share_is_computed_once(ds: xr.Dataset) -> None:
    lazy, calls = open_store(ds.encoding["source"]).chunk(y=5, x=5), []

    def counted(block: np.ndarray) -> np.ndarray:
        calls.append(len(block))
        return block

    data = lazy.patterns.data.map_blocks(counted, dtype="u2", meta=np.empty((0,) * 4, "u2"))
    patterns = lazy.patterns.copy(data=data)
    even = (patterns - patterns.mean(("y", "x"))).assign_attrs(ds.patterns.attrs)
    assert sum(len(batch) for batch in batches(lazy.assign(patterns=even))) == 1480
    assert len(calls) <= 2 * 64, "once for the mean, once for the batches"


def test_wrong_arguments_are_refused(scan: xr.Dataset) -> None:
    for wrong, match in (
        ({"world_size": 100}, "74 samples cannot be shared by 100 processes"),
        ({"batch_size": 1, "world_size": 4}, "batch_size must be at least 2"),
        ({"shuffle": False, "balance": np.zeros((11, 7), int)}, "balance draws samples at random"),
        (
            {"labels": np.zeros(3)},
            r"labels is float64 of shape \(3,\); expected integers of shape \(11, 7\)",
        ),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"memory": float("nan")}, "both must be positive"),
        ({"roi": scan.present & False}, "no sample is left"),
        ({"roi": scan.present.assign_coords(x=scan.x + 1)}, "coordinate 'x' is not the store's"),
    ):
        with pytest.raises((UsageError, RoiError, SchemaError), match=match):
            batches(scan, **wrong)
