"""The plan of reads and the reader: every sample once, deterministic, streamed equals resident."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vaearr import grid
from vaearr import names as n
from vaearr.batching import batches, most_similar, neighbour_positions, plan_batches, plan_buffers
from vaearr.config import SplitConfig
from vaearr.errors import RoiError, SchemaError, UsageError
from vaearr.store import create_store, open_store
from vaearr.testing import random_patterns_dataset


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 120), st.booleans())
def test_buffers_hold_every_region_once_within_the_capacity(counts: list[int], capacity: int, shuffle: bool) -> None:
    groups = plan_buffers(counts, capacity, np.random.default_rng(0) if shuffle else None)
    assert sorted(i for group in groups for i in group) == list(range(len(counts)))
    for group in groups:
        assert sum(counts[i] for i in group) <= capacity or len(group) == 1


@given(st.integers(0, 300), st.integers(1, 64), st.booleans())
def test_batches_hold_every_sample_once(n_samples: int, batch_size: int, shuffle: bool) -> None:
    parts = plan_batches(n_samples, batch_size, np.random.default_rng(0) if shuffle else None)
    assert sorted(np.concatenate([*parts, []]).tolist()) == list(range(n_samples))
    sizes = [len(part) for part in parts]
    assert all(size <= batch_size for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1


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


@given(arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 7))).filter(lambda m: m.any()))
def test_neighbours_are_one_step_away(mask: np.ndarray) -> None:
    points = np.argwhere(mask)
    near = neighbour_positions(points)
    for i, row in enumerate(near):
        found = {tuple(points[j]) for j in row if j >= 0}
        want = {tuple(p) for p in points if 0 < np.abs(p - points[i]).max() <= 1}
        assert found == want


def test_most_similar_against_correlation() -> None:
    rng = np.random.default_rng(0)
    features, points = rng.normal(size=(30, 12)), np.argwhere(np.ones((5, 6), bool))
    near = neighbour_positions(points)
    got = most_similar(torch.from_numpy(features), torch.from_numpy(near), chunk=7).numpy()
    r = np.corrcoef(features)
    for i, row in enumerate(near):
        candidates = row[row >= 0]
        assert got[i] == candidates[r[i, candidates].argmax()]
    alone = most_similar(torch.ones(1, 3), torch.full((1, 8), -1))
    assert alone.tolist() == [0]


@pytest.mark.parametrize("memory", [2.0, TINY], ids=["resident", "streamed"])
def test_pairs_stay_inside_the_split_and_near(numbered_store: Path, memory: float) -> None:
    ds = open_store(numbered_store, chunks=None)
    split = grid.split(grid.roi(ds), SplitConfig(fraction=0.2), seed=0)
    train = (split.values == n.TRAIN).ravel()
    n_pairs = n_self = 0
    for x, other in batches(ds, batch_size=64, split=split, memory=memory).pairs(lambda x: x.float()):
        for a, b in zip(_numbers(x), _numbers(other), strict=True):
            assert max(abs(b // 37 - a // 37), abs(b % 37 - a % 37)) <= 1
            assert train[a]
            assert train[b]
            n_pairs += 1
            n_self += a == b
    assert n_pairs == train.sum()
    assert n_self == 0


def test_validation_order_is_fixed(numbered_store: Path) -> None:
    loader = batches(open_store(numbered_store, chunks=None), shuffle=False)
    assert [_numbers(b) for b in loader] == [_numbers(b) for b in loader]


def test_dask_and_plain_datasets_give_the_same(numbered_store: Path) -> None:
    sums = [
        sorted(number for batch in batches(open_store(numbered_store, chunks=chunks)) for number in _numbers(batch))
        for chunks in ("shards", None)
    ]
    assert sums[0] == sums[1] == list(range(1480))


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
