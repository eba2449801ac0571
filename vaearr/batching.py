"""Patterns as shuffled torch batches: a pure plan of what to read, and a reader that carries it out.

The unit of reading is the shard. Where all chosen samples fit into the memory allowance they are read once and kept in
their own dtype; otherwise shards are read in random order, as many at a time as the allowance holds, mixed in that
buffer and cut into batches, while the next buffer is read ahead. Each sample comes exactly once per epoch either way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch.utils.data import IterableDataset

from vaearr import names as n
from vaearr import schema
from vaearr.errors import RoiError, UsageError
from vaearr.store.layout import Region, blocks

GIB = 2**30


@dataclass(frozen=True)
class Buffer:
    """Samples held in memory together: patterns `(n, C, …)` in source dtype and their grid points `(n, n_nav)`."""

    patterns: np.ndarray
    points: np.ndarray


def plan_buffers(counts: Sequence[int], capacity: int, rng: np.random.Generator | None) -> list[list[int]]:
    """Which regions are read together, in which order: every region once, at most `capacity` samples at a time.

    counts: samples per region; a region that alone exceeds the capacity gets a buffer of its own. rng: None keeps the
    order of the regions.
    """
    order = np.arange(len(counts)) if rng is None else rng.permutation(len(counts))
    groups: list[list[int]] = []
    filled = capacity + 1
    for region in map(int, order):
        if filled + counts[region] > capacity:
            groups.append([])
            filled = 0
        groups[-1].append(region)
        filled += counts[region]
    return groups


def plan_batches(n_samples: int, batch_size: int, rng: np.random.Generator | None) -> list[np.ndarray]:
    """Positions of each batch in a buffer: every position once, sizes equal to within one and at most `batch_size`."""
    order = np.arange(n_samples) if rng is None else rng.permutation(n_samples)
    return np.array_split(order, -(-n_samples // batch_size)) if n_samples else []


class PatternBatches(IterableDataset[torch.Tensor]):
    """Batches of patterns `(B, C, …)` from a Dataset; iterate as often as you like, each time is the next epoch.

    `batches` makes one. `pairs` yields, with each batch, the pattern of one random grid neighbour per sample.
    """

    def __init__(
        self,
        ds: xr.Dataset,
        inside: np.ndarray,
        *,
        regions: Sequence[Region],
        batch_size: int,
        memory: float,
        shuffle: bool,
        seed: int,
        device: torch.device | str,
    ) -> None:
        self.patterns = ds[n.PATTERNS]
        self.inside = inside
        self.input_shape = schema.input_shape(ds)
        self.batch_size, self.shuffle, self.seed, self.device = batch_size, shuffle, seed, torch.device(device)
        self.epoch = 0
        dims = schema.navigation_dims(ds)
        counts = [int(inside[tuple(r[d] for d in dims)].sum()) for r in regions]
        self.regions = [tuple(r[d] for d in dims) for r, count in zip(regions, counts, strict=True) if count]
        self.counts = [count for count in counts if count]
        self.n_samples = sum(self.counts)
        sample_bytes = int(np.prod(self.input_shape)) * self.patterns.dtype.itemsize
        self.capacity = max(1, int(memory * GIB / sample_bytes))
        self.is_resident = self.n_samples <= self.capacity
        if not self.is_resident:
            self.capacity = max(1, self.capacity // 2)  # the buffer in use and the one that is read ahead
        self._resident: Buffer | None = None

    def __len__(self) -> int:
        """Batches per epoch where everything is in memory; for streamed epochs within one per buffer."""
        return -(-self.n_samples // self.batch_size)

    def __iter__(self) -> Iterator[torch.Tensor]:
        for x, _ in self._epoch(with_neighbour=False):
            yield x

    def pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """An epoch of `(patterns, patterns of a random grid neighbour)`, both `(B, C, …)`.

        Neighbours are other chosen samples one step along a navigation dim that lie in memory at the same time; a
        sample without one is paired with itself.
        """
        return self._epoch(with_neighbour=True)

    def _epoch(self, *, with_neighbour: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += self.shuffle
        for buffer in self.buffers(rng if self.shuffle else None):
            held = torch.from_numpy(buffer.patterns)
            near = _neighbour_positions(buffer.points, self.inside.shape) if with_neighbour else None
            for index in plan_batches(len(held), self.batch_size, rng if self.shuffle else None):
                x = held[torch.from_numpy(index)].to(self.device, non_blocking=True)
                if near is None:
                    yield x, x
                else:
                    other = _choose(near[index], index, rng)
                    yield x, held[torch.from_numpy(other)].to(self.device, non_blocking=True)

    def buffers(self, rng: np.random.Generator | None) -> Iterator[Buffer]:
        """The buffers of one epoch; one single buffer, kept for later epochs, where everything fits."""
        if self.is_resident:
            if self._resident is None:
                self._resident = self._read(range(len(self.regions)))
            yield self._resident
            return
        groups = plan_buffers(self.counts, self.capacity, rng)
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._read, groups[0])
            for following in [*groups[1:], None]:
                buffer = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._read, following)
                yield buffer

    def _read(self, regions: Sequence[int]) -> Buffer:
        total = sum(self.counts[i] for i in regions)
        patterns = np.empty((total, *self.input_shape), self.patterns.dtype)
        points = np.empty((total, self.inside.ndim), np.int64)
        start = 0
        for i in regions:
            region = self.regions[i]
            chosen = self.inside[region]
            stop = start + self.counts[i]
            block = self.patterns[region].values
            patterns[start:stop] = block[chosen].reshape(-1, *self.input_shape)
            points[start:stop] = np.argwhere(chosen) + [s.start for s in region]
            start = stop
        return Buffer(patterns, points)


def _neighbour_positions(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Positions in the buffer of each sample's grid neighbours: `(n, 2 * n_nav)`, -1 where there is none."""
    low, high = points.min(0), points.max(0)
    position = np.full(high - low + 3, -1, np.int64)  # a border of one keeps the look-ups inside
    local = points - low + 1
    position[tuple(local.T)] = np.arange(len(points))
    columns = []
    for axis in range(points.shape[1]):
        for step in (-1, 1):
            moved = local.copy()
            moved[:, axis] += step
            columns.append(position[tuple(moved.T)])
    return np.stack(columns, 1)


def _choose(near: np.ndarray, own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One random valid entry per row of `near`; `own` where a row has none."""
    key = rng.random(near.shape)
    key[near < 0] = -1
    best = key.argmax(1)
    chosen = near[np.arange(len(near)), best]
    return np.where(chosen < 0, own, chosen)


def batches(
    ds: xr.Dataset,
    *,
    batch_size: int = 256,
    roi: xr.DataArray | None = None,
    split: xr.DataArray | None = None,
    part: int = n.TRAIN,
    shuffle: bool = True,
    seed: int = 0,
    memory: float = 2.0,
    device: torch.device | str = "cpu",
) -> PatternBatches:
    """Torch batches `(B, C, …)` of `ds.patterns` in source dtype, shuffled, each sample once per epoch.

    roi: boolean map of the samples to use (default: those `present`). split, part: use only the samples of this part
    of a stored split (`names.TRAIN` or `names.VALIDATION`). memory: GiB that patterns may take; more is streamed.
    Deterministic by (seed, epoch). Raises RoiError when nothing is chosen, SchemaError for a Dataset that is not valid.
    """
    schema.validate(ds)
    dims = schema.navigation_dims(ds)
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}; it must be at least 1.")
    inside = np.ones(schema.navigation_shape(ds), bool)
    if n.PRESENT in ds:
        inside &= ds[n.PRESENT].transpose(*dims).values
    if roi is not None:
        inside &= roi.transpose(*dims).values
    if split is not None:
        inside &= split.transpose(*dims).values == part
    if not inside.any():
        raise RoiError("no sample is left by the ROI and the split; widen the ROI.")
    return PatternBatches(
        ds,
        inside,
        regions=regions_of(ds),
        batch_size=batch_size,
        memory=memory,
        shuffle=shuffle,
        seed=seed,
        device=device,
    )


def regions_of(ds: xr.Dataset) -> list[Region]:
    """Read requests that cover the grid: the dask chunks of `patterns`, else its stored shards, else one block."""
    patterns, dims = ds[n.PATTERNS], schema.navigation_dims(ds)
    if patterns.chunks:
        sides = tuple(patterns.chunksizes[dim][0] for dim in dims)
    else:
        sides = patterns.encoding.get("shards") or patterns.encoding.get("chunks") or patterns.shape
    return list(blocks({dim: ds.sizes[dim] for dim in dims}, dict(zip(dims, sides, strict=False))))
