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

from vaearr import grid
from vaearr import names as n
from vaearr.batching import PatternBatches, Walk, batches, partners, reader
from vaearr.batching import plan as plans
from vaearr.batching.partners import alike_neighbours, find_paths, neighbour_positions, random_walk
from vaearr.batching.reader import Settings, sample_weights
from vaearr.config import SplitConfig
from vaearr.errors import RoiError, SchemaError, UsageError
from vaearr.store import create_store, open_store

from .data import random_patterns_dataset


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 120), st.booleans())
def test_buffers_hold_every_piece_once_within_the_capacity(counts: list[int], capacity: int, shuffle: bool) -> None:
    groups = plans.plan_buffers(counts, capacity, np.random.default_rng(0) if shuffle else None)
    assert sorted(i for group in groups for i in group) == list(range(len(counts)))
    for group in groups:
        assert sum(counts[i] for i in group) <= capacity or len(group) == 1


@given(st.integers(1, 300), st.integers(1, 64))
def test_batches_hold_every_sample_once(n_samples: int, batch_size: int) -> None:
    bounds = plans.batch_bounds(n_samples, -(-n_samples // batch_size))
    sizes = np.diff(bounds)
    assert (bounds[0], bounds[-1]) == (0, n_samples)
    assert sizes.max() <= batch_size
    assert sizes.max() - sizes.min() <= 1


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(sum), st.integers(1, 7), st.integers(1, 60))
def test_shares_of_ranks_are_equal_and_all(counts: list[int], world_size: int, limit: int) -> None:
    seen, sizes = [], []
    for rank in range(world_size):
        pieces = plans.plan_pieces(counts, limit, *plans.share_of(sum(counts), rank, world_size))
        assert all(0 < piece.count <= limit for piece in pieces)
        mine = [(p.block, i) for p in pieces for i in range(p.start, p.stop)]
        seen += mine
        sizes.append(len(mine))
    assert seen == [(block, i) for block, count in enumerate(counts) for i in range(count)]
    assert max(sizes) - min(sizes) <= 1


@given(arrays(bool, (12, 9)).filter(lambda m: m.any()), st.integers(1, 120))
def test_tiles_hold_each_point_once_and_lie_close(mask: np.ndarray, limit: int) -> None:
    points = np.argwhere(mask)
    order = plans.in_tiles(points, limit)
    assert sorted(order.tolist()) == list(range(len(points)))
    if mask.all() and limit == 9:
        assert (np.ptp(points[order][:9], axis=0) == 2).all()


@given(st.lists(st.floats(0.01, 9), min_size=1, max_size=9), st.integers(1, 500))
def test_draws_follow_the_weights(weights: list[float], n_samples: int) -> None:
    draws = plans.plan_draws(weights, n_samples)
    assert sum(draws) == n_samples
    wanted = np.array(weights) / sum(weights) * n_samples
    assert np.abs(np.array(draws) - wanted).max() <= 1.01


@given(
    arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))).filter(lambda m: m.any()),
    st.integers(1, 20),
    st.integers(0, 9),
)
def test_dealing_gives_each_sample_once(mask: np.ndarray, batch_size: int, seed: int) -> None:
    points = np.argwhere(mask)
    sizes = np.diff(plans.batch_bounds(len(points), -(-len(points) // batch_size)))
    order = plans.deal(points, sizes, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(points)))


def _numbered(ny: int = 40, nx: int = 37) -> xr.Dataset:
    """A scan whose pattern at (y, x) spells the scan point's number in its first two pixels."""
    ds = random_patterns_dataset({"y": ny, "x": nx}, {"dy": 3, "dx": 4}, dtype="uint16")
    number = np.arange(ny * nx).reshape(ny, nx)
    values = ds.patterns.values.copy()
    values[..., 0, 0] = number
    return ds.assign(patterns=ds.patterns.copy(data=values))


def _numbers(batch: torch.Tensor) -> list[int]:
    return batch[:, 0, 0, 0].to(torch.int64).tolist()


@pytest.fixture
def numbered_store(tmp_path: Path) -> Path:
    return create_store(_numbered(), tmp_path / "n.zarr")


TINY = 600 * 3 * 4 * 2 / 2**30  # GiB for 600 of the 1480 samples


@pytest.mark.parametrize("memory", [2.0, TINY], ids=["resident", "streamed"])
def test_each_sample_of_the_roi_once_per_epoch(numbered_store: Path, memory: float) -> None:
    ds = open_store(numbered_store, chunks=None)
    roi = grid.roi(ds, x=(2, 18), y=(1, 18))
    loader = batches(ds, batch_size=50, roi=roi, memory=memory)
    assert loader.is_resident == (memory == 2.0)
    want = sorted(np.flatnonzero(roi.values.ravel()).tolist())
    first, second = ([number for batch in loader for number in _numbers(batch)] for _ in range(2))
    assert sorted(first) == want
    assert sorted(second) == want
    assert first != second


@pytest.mark.parametrize("memory", [2.0, TINY], ids=["resident", "streamed"])
def test_deterministic_by_seed_and_epoch(numbered_store: Path, memory: float) -> None:
    ds = open_store(numbered_store, chunks=None)
    runs = [batches(ds, batch_size=64, memory=memory, seed=seed) for seed in (1, 1, 2)]
    orders = [[_numbers(batch) for batch in loader] for loader in runs]
    assert orders[0] == orders[1] != orders[2]


def test_dtype_shape_and_values_are_the_stores(numbered_store: Path) -> None:
    ds = open_store(numbered_store, chunks=None)
    batch = next(iter(batches(ds, batch_size=7)))
    assert batch.dtype == torch.uint16
    assert batch.shape[1:] == (1, 3, 4)
    flat = ds.patterns.values.reshape(-1, 3, 4)
    np.testing.assert_array_equal(batch.numpy()[:, 0], flat[_numbers(batch)])


@pytest.mark.parametrize("memory", [2.0, TINY], ids=["resident", "streamed"])
@pytest.mark.parametrize("batch_size", [7, 100, 2000])
def test_length_is_exact_and_batches_are_full(numbered_store: Path, memory: float, batch_size: int) -> None:
    loader = batches(open_store(numbered_store, chunks=None), batch_size=batch_size, memory=memory)
    for number in range(2):
        sizes = [len(batch.patterns) for batch in loader.epoch(number)]
        assert len(sizes) == len(loader) == -(-1480 // batch_size)
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= batch_size


@pytest.mark.parametrize("memory", [2.0, TINY], ids=["resident", "streamed"])
@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_divide_an_epoch(numbered_store: Path, memory: float, world_size: int) -> None:
    ds = open_store(numbered_store, chunks=None)
    roi = grid.roi(ds, x=(0.5, 17))
    ranks = [
        batches(ds, batch_size=33, roi=roi, memory=memory, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    seen = [[number for batch in one.epoch(1) for number in _numbers(batch.patterns)] for one in ranks]
    assert sorted(number for mine in seen for number in mine) == np.flatnonzero(roi.values.ravel()).tolist()
    assert [len(mine) for mine in seen] == [one.n_samples for one in ranks]
    assert len({len(one) for one in ranks}) == 1
    assert {len(list(one.epoch(1))) for one in ranks} == {len(ranks[0])}
    assert {one.n_samples_total for one in ranks} == {int(roi.sum())}
    assert max(map(len, seen)) - min(map(len, seen)) <= 1


@pytest.mark.parametrize("memory", [2.0, TINY], ids=["resident", "streamed"])
def test_any_epoch_from_any_batch(numbered_store: Path, memory: float, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = batches(open_store(numbered_store, chunks=None), batch_size=64, memory=memory)
    whole = [_numbers(batch.patterns) for batch in loader.epoch(5)]
    n_read: list[int] = []
    read = PatternBatches._read_piece
    monkeypatch.setattr(PatternBatches, "_read_piece", lambda self, i, out: (n_read.append(i), read(self, i, out)))
    for start in (0, 1, len(loader) - 2, len(loader) - 1, len(loader)):
        n_read.clear()
        again = batches(open_store(numbered_store, chunks=None), batch_size=64, memory=memory)
        assert [_numbers(batch.patterns) for batch in again.epoch(5, start=start)] == whole[start:]
        if memory == TINY and start > 5:  # beyond the first buffer
            assert len(n_read) < len(again.pieces)
    assert whole != [_numbers(batch.patterns) for batch in loader.epoch(6)]


@pytest.mark.parametrize("memory", [2.0, TINY], ids=["resident", "streamed"])
def test_iteration_goes_on_where_it_stopped(numbered_store: Path, memory: float) -> None:
    ds = open_store(numbered_store, chunks=None)
    straight, first, second = (batches(ds, batch_size=64, memory=memory) for _ in range(3))
    whole = [[_numbers(batch) for batch in straight] for _ in range(3)]
    for _ in range(2):
        running = [_numbers(batch) for batch, _ in zip(first, range(5), strict=False)]
    assert running == whole[1][:5]  # a broken loop is over: the next one is the next epoch
    state = first.state_dict()
    assert state == {"epoch": 1, "batch": 6, "n_batches": 24}  # zip took one more
    second.load_state_dict(state)
    assert [_numbers(batch) for batch in second] == whole[1][6:]
    assert [_numbers(batch) for batch in second] == whole[2]
    second.load_state_dict({"epoch": 1, "batch": len(second), "n_batches": len(second)})
    assert [_numbers(batch) for batch in second] == whole[2]


@pytest.mark.parametrize("memory", [2.0, TINY], ids=["resident", "streamed"])
def test_labels_come_with_their_patterns(numbered_store: Path, memory: float) -> None:
    ds = open_store(numbered_store, chunks=None)
    labels = (np.arange(40 * 37).reshape(40, 37) % 5 - 1).astype(np.int8)
    for batch in batches(ds, memory=memory, labels=labels, batch_size=40).epoch(0):
        assert batch.labels is not None
        assert batch.labels.dtype == torch.int64
        assert batch.labels.tolist() == [number % 5 - 1 for number in _numbers(batch.patterns)]
        assert batch.target is batch.patterns
    assert next(iter(batches(ds).epoch(0))).labels is None


@pytest.mark.parametrize("memory", [2.0, TINY], ids=["resident", "streamed"])
def test_balanced_draws(numbered_store: Path, memory: float) -> None:
    ds = open_store(numbered_store, chunks=None)
    classes = np.zeros((40, 37), int)
    classes[:, :4], classes[:10, 20:] = 1, -1
    loader = batches(ds, memory=memory, labels=classes, balance=classes, batch_size=64)
    drawn = torch.cat([batch.labels for number in range(4) for batch in loader.epoch(number)])
    assert len(drawn) == 4 * 1480
    missing, common, rare = torch.bincount(drawn + 1).tolist()
    assert rare / common == pytest.approx(1.0, abs=0.1)
    assert missing / (4 * 170) == pytest.approx(1.0, abs=0.15)
    inside = np.ones((40, 37), bool)
    assert sample_weights(classes, inside).sum() == pytest.approx(1480)


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
    """P(two scan points `step` apart along one axis in one batch) / P(any two in one batch); labels: flat numbers."""
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


@pytest.mark.long
def test_buffers_stay_within_the_allowance(tmp_path: Path) -> None:
    """Also where a shard, or even a chunk, is larger than a buffer."""
    ds = open_store(create_store(_numbered(), tmp_path / "n.zarr"), chunks=None)
    for n_allowed in (600, 200, 40, 3):
        loader = batches(ds, batch_size=50, memory=n_allowed * 24 / 2**30)
        assert sorted(number for batch in loader for number in _numbers(batch)) == list(range(1480))
        held = [memory.nbytes for memory in loader._spare]
        assert len(held) == 2
        assert sum(held) <= n_allowed * 24


def test_tiers_are_picked_by_size_and_told(numbered_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_free", lambda device: 10 * 2**30)
    every = {"batch_size": 1, "shuffle": True, "seed": 0, "rank": 0, "world_size": 1}

    def tier(nbytes: int, memory: float, device_memory: float, device: str) -> str:
        allowed = {"memory": memory, "device_memory": device_memory, "device": torch.device(device)}
        return reader.pick_tier(nbytes, Settings(**every, **allowed))

    assert tier(2**30, 2.0, 8.0, "cpu") == "memory"
    assert tier(2**30, 2.0, 8.0, "cuda") == "device"
    assert tier(9 * 2**30, 16.0, 8.0, "cuda") == "memory"
    assert tier(9 * 2**30, 2.0, 80.0, "cuda") == "streamed"
    ds = open_store(numbered_store, chunks=None)
    assert batches(ds).describe() == "in memory (34.7 KiB of 2 GiB)"
    streamed = batches(ds, memory=TINY)
    assert streamed.describe() == "streamed (34.7 KiB through two buffers of 7.03 KiB)"
    assert not streamed.is_resident


@given(arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 7))).filter(lambda m: m.any()))
def test_neighbours_are_one_step_away(mask: np.ndarray) -> None:
    points = np.argwhere(mask)
    near = neighbour_positions(points)
    for i, row in enumerate(near):
        found = {tuple(points[j]) for j in row if j >= 0}
        want = {tuple(p) for p in points if 0 < np.abs(p - points[i]).max() <= 1}
        assert found == want


def test_alike_neighbours_against_correlation() -> None:
    rng = np.random.default_rng(0)
    features, points = rng.normal(size=(30, 3)), np.argwhere(np.ones((5, 6), bool))
    near = neighbour_positions(points)
    paths = alike_neighbours(torch.from_numpy(features), torch.from_numpy(near))
    r = np.corrcoef(features)
    for i, row in enumerate(near):
        candidates = row[row >= 0]
        likeness = r[i, candidates]
        best = likeness.max()
        want = candidates[(likeness >= 0.8 * best) & (likeness > 0)] if best > 0 else candidates[likeness.argmax()]
        assert set(paths.neighbours[i, : paths.count[i]].tolist()) == set(np.atleast_1d(want).tolist())


def test_a_walk_stays_where_patterns_are_alike() -> None:
    """Two halves with opposite patterns, a lone point and one without contrast."""
    points = np.array([*np.argwhere(np.ones((6, 6), bool)), [20, 20]])
    left = points[:, 1] < 3
    pattern = np.sin(np.arange(16.0))
    features = np.where(left, 1.0, -1.0)[:, None] * pattern + 0.05 * np.random.default_rng(0).normal(size=(37, 16))
    features[7] = 1.0
    paths = alike_neighbours(torch.from_numpy(features), torch.from_numpy(neighbour_positions(points)))
    rng = np.random.default_rng(0)
    ends = np.stack([random_walk(paths, 5, rng).numpy() for _ in range(200)])
    normal = [i for i in range(36) if i != 7]
    assert (left[ends[:, normal]] == left[normal]).all()
    assert (ends[:, 36] == 36).all()
    reached = {int(end) for end in ends[:, 0]}
    assert len(reached) > 8, "a walk of five steps sees most of its half"


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("memory", [2.0, TINY], ids=["resident", "streamed"])
def test_partners_stay_inside_the_split_and_near(numbered_store: Path, memory: float, steps: int) -> None:
    ds = open_store(numbered_store, chunks=None)
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


def test_validation_order_is_fixed(numbered_store: Path) -> None:
    loader = batches(open_store(numbered_store, chunks=None), shuffle=False)
    assert [_numbers(b) for b in loader] == [_numbers(b) for b in loader]


@pytest.mark.parametrize("memory", [2.0, TINY], ids=["resident", "streamed"])
def test_any_chunks_and_any_lazy_steps(numbered_store: Path, memory: float) -> None:
    """What comes is what the Dataset computes, and the index says where it belongs."""
    ds = open_store(numbered_store)
    even = ds.patterns.astype("f4") - ds.patterns.mean(("y", "x"))
    even.attrs = ds.patterns.attrs
    joined = xr.concat([ds.isel(y=slice(5)), ds.isel(y=slice(20, 40))], "y", data_vars="minimal")
    smooth = ds.patterns.astype("f4").rolling(x=3, center=True, min_periods=1).mean().assign_attrs(ds.patterns.attrs)
    for some in (
        open_store(numbered_store, chunks=None),
        ds.load(),
        ds.isel(x=slice(3, 30), dx=slice(3)),
        ds.chunk(y=7, x=37, dy=1),
        ds.assign(patterns=even),
        ds.assign(patterns=smooth),
        joined,
    ):
        want = some.patterns.values
        made = np.full(want.shape, 65535, want.dtype)
        loader = batches(some, batch_size=50, memory=memory)
        for batch in loader.epoch(3):
            assert (batch.index.dtype, batch.index.device.type) == (torch.int64, "cpu")
            made[tuple(batch.index.T)] = batch.patterns[:, 0].numpy()
        np.testing.assert_allclose(made, want, rtol=1e-5, atol=1e-3)


def test_what_all_blocks_share_is_computed_once(numbered_store: Path) -> None:
    ds, calls = open_store(numbered_store).chunk(y=5, x=5), []

    def counted(block: np.ndarray) -> np.ndarray:
        calls.append(len(block))
        return block

    patterns = ds.patterns.copy(data=ds.patterns.data.map_blocks(counted, dtype="u2", meta=np.empty((0,) * 4, "u2")))
    even = (patterns - patterns.mean(("y", "x"))).assign_attrs(ds.patterns.attrs)
    assert sum(len(batch) for batch in batches(ds.assign(patterns=even))) == 1480
    assert len(calls) <= 2 * 64, "once for the mean, once for the batches"


def test_channels_and_volumes() -> None:
    colour = random_patterns_dataset({"y": 3, "x": 4}, {"channel": 3, "dy": 5, "dx": 6})
    assert next(iter(batches(colour))).shape == (12, 3, 5, 6)
    deep = random_patterns_dataset({"z": 2, "y": 3, "x": 4})
    assert next(iter(batches(deep))).shape == (24, 1, 8, 9)


def test_refusals(scan: xr.Dataset) -> None:
    nothing = scan.present & False
    with pytest.raises(RoiError, match="no sample is left"):
        batches(scan, roi=nothing)
    with pytest.raises(UsageError, match="batch_size is 0"):
        batches(scan, batch_size=0)
    with pytest.raises(UsageError, match="rank is 2 of world_size 2"):
        batches(scan, rank=2, world_size=2)
    with pytest.raises(UsageError, match="74 samples cannot be shared by 100 processes"):
        batches(scan, world_size=100)
    with pytest.raises(UsageError, match="batch_size must be at least 2"):
        batches(scan, batch_size=1, world_size=4)
    with pytest.raises(UsageError, match="balance draws samples at random"):
        batches(scan, shuffle=False, balance=np.zeros((11, 7), int))
    with pytest.raises(UsageError, match=r"labels is float64 of shape \(3,\); expected integers of shape \(11, 7\)"):
        batches(scan, labels=np.zeros(3))


def test_maps_of_another_grid_are_refused(scan: xr.Dataset) -> None:
    with pytest.raises(SchemaError, match="coordinate 'x' is not the store's"):
        batches(scan, roi=scan.present.assign_coords(x=scan.x + 1))
    with pytest.raises(SchemaError, match="coordinate 'y' is not the store's"):
        batches(scan, roi=scan.present.isel(y=[0]))
    with pytest.raises(SchemaError, match="float32"):
        batches(scan, roi=scan.BC)


def test_loader_processes_are_refused(scan: xr.Dataset) -> None:
    loader = torch.utils.data.DataLoader(batches(scan), batch_size=None, num_workers=2)
    with pytest.raises(UsageError, match="num_workers=0"):
        next(iter(loader))
    plain = torch.utils.data.DataLoader(batches(scan, batch_size=16), batch_size=None)
    assert sum(len(batch) for batch in plain) == int(scan.present.sum())


def test_a_state_of_other_batches_is_refused(numbered_store: Path) -> None:
    ds = open_store(numbered_store, chunks=None)
    state = batches(ds, batch_size=64).state_dict()
    with pytest.raises(UsageError, match="epochs of 24 batches"):
        batches(ds, batch_size=32).load_state_dict(state)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"memory": 0.0},
        {"memory": -1.0},
        {"memory": float("nan")},
        {"device_memory": -1.0},
        {"seed": -1},
        {"device": "nope"},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(scan: xr.Dataset, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        batches(scan, **wrong)


def test_balance_needs_one_process(scan: xr.Dataset) -> None:
    with pytest.raises(UsageError, match="in one process"):
        batches(scan, balance=np.zeros((11, 7), int), world_size=2)


def test_labels_may_be_a_map_with_its_dims_in_any_order(numbered_store: Path) -> None:
    ds = open_store(numbered_store, chunks=None)
    values = np.arange(ds.sizes["y"] * ds.sizes["x"]).reshape(ds.sizes["y"], ds.sizes["x"])
    labels = xr.DataArray(values, dims=("y", "x"), coords={"y": ds.y, "x": ds.x}).transpose("x", "y")
    for x, _, found, _ in batches(ds, labels=labels).epoch(0):
        assert found is not None
        assert found.tolist() == list(_numbers(x))


@pytest.mark.parametrize("part", [5, 64, 4096])
def test_paths_do_not_depend_on_how_samples_are_taken_together(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    rng = np.random.default_rng(0)
    held = torch.from_numpy(rng.integers(0, 255, (140, 1, 8, 8), dtype=np.uint8))
    points = np.array([*np.argwhere(rng.random((12, 14)) < 0.8)])[:139]
    points = np.array([*points, [40, 40]])[: len(held)]
    held = held[: len(points)]
    whole = find_paths(held, points, torch.Tensor.float, torch.device("cpu"))
    monkeypatch.setattr(partners, "PART", part)
    cut = find_paths(held, points, torch.Tensor.float, torch.device("cpu"))
    assert torch.equal(whole.count, cut.count)
    for a, b, count in zip(whole.neighbours, cut.neighbours, whole.count, strict=True):
        assert torch.equal(a[:count], b[:count])
    assert cut.neighbours[-1, 0] == len(points) - 1


def test_big_endian_patterns_become_native(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 6, "x": 6}, {"dy": 9, "dx": 11})
    values = ds.patterns.values.astype(">u2") * 100
    big = ds.assign(patterns=ds.patterns.copy(data=values))
    held = torch.cat(list(batches(big, shuffle=False)))
    np.testing.assert_array_equal(held.numpy(), values.reshape(-1, 1, 9, 11).astype("u2"))
