"""Patterns as shuffled torch batches: a pure plan of what to read, and a reader that carries it out.

The unit of reading is the shard. Where all chosen samples fit into the memory allowance they are read once and kept in
their own dtype; otherwise shards are read in random order, as many at a time as the allowance holds, mixed in that
buffer and cut into batches, while the next buffer is read ahead. Each sample comes exactly once per epoch either way.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch.utils.data import IterableDataset, get_worker_info

from vaearr import names as n
from vaearr import schema
from vaearr.errors import RoiError, UsageError
from vaearr.grid import check_map
from vaearr.store.layout import Region, blocks
from vaearr.store.read import read_block

GIB = 2**30
SIMILARITY_BATCH = 512
POOLED_SIDE = 32

View = Callable[[torch.Tensor], torch.Tensor]


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

    `batches` makes one. `pairs` yields, with each batch, the pattern of each sample's most similar grid neighbour.
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
        dims = self.dims = schema.navigation_dims(ds)
        counts = [int(inside[tuple(r[d] for d in dims)].sum()) for r in regions]
        self.regions = [r for r, count in zip(regions, counts, strict=True) if count]
        self.counts = [count for count in counts if count]
        self.n_samples = sum(self.counts)
        sample_bytes = int(np.prod(self.input_shape)) * self.patterns.dtype.itemsize
        self.capacity = max(1, int(memory * GIB / sample_bytes))
        self.is_resident = self.n_samples <= self.capacity
        if not self.is_resident:
            self.capacity = max(1, self.capacity // 2)  # the buffer in use and the one that is read ahead
        self._resident: Buffer | None = None
        self._partner: torch.Tensor | None = None

    def __len__(self) -> int:
        """Batches per epoch where everything is in memory; for streamed epochs within one per buffer."""
        return -(-self.n_samples // self.batch_size)

    def __iter__(self) -> Iterator[torch.Tensor]:
        for x, _ in self._epoch(None):
            yield x

    def pairs(self, view: View) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """An epoch of `(patterns, patterns of the most similar grid neighbour)`, both `(B, C, …)`.

        view: stored patterns `(B, C, …)` -> what similarity is judged by, for example the preprocessed patterns; it is
        averaged down to at most 32 x 32 before. Candidates are the chosen samples one grid step away, diagonals too,
        that lie in memory at the same time; a sample without one is paired with itself.
        """
        return self._epoch(view)

    def _epoch(self, view: View | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if get_worker_info() is not None:
            raise UsageError("these batches read ahead by themselves; use them as they are or with num_workers=0.")
        rng = np.random.default_rng([self.seed, self.epoch])
        self.epoch += self.shuffle
        for buffer in self.buffers(rng if self.shuffle else None):
            held = torch.from_numpy(buffer.patterns)
            partner = self._partners(buffer, view) if view else None
            for index in map(torch.from_numpy, plan_batches(len(held), self.batch_size, rng if self.shuffle else None)):
                x = held[index].to(self.device, non_blocking=True)
                other = x if partner is None else held[partner[index]].to(self.device, non_blocking=True)
                yield x, other

    @torch.inference_mode()
    def _partners(self, buffer: Buffer, view: View) -> torch.Tensor:
        """Position of each sample's most similar neighbour; kept as long as the buffer is."""
        if self.is_resident and self._partner is not None:
            return self._partner
        held = torch.from_numpy(buffer.patterns)
        seen = [pooled(view(part.to(self.device))).cpu() for part in held.split(SIMILARITY_BATCH)]
        near = torch.from_numpy(neighbour_positions(buffer.points))
        self._partner = most_similar(torch.cat(seen), near).clone()
        return self._partner

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
        patterns = np.empty((total, *self.input_shape), self.patterns.dtype.newbyteorder("="))
        points = np.empty((total, self.inside.ndim), np.int64)
        start = 0
        for i in regions:
            region = self.regions[i]
            parts = tuple(region[dim] for dim in self.dims)
            chosen = self.inside[parts]
            stop = start + self.counts[i]
            patterns[start:stop] = read_samples(self.patterns, region, chosen, self.input_shape)
            points[start:stop] = np.argwhere(chosen) + [part.start for part in parts]
            start = stop
        return Buffer(patterns, points)


def read_samples(
    patterns: xr.DataArray, region: Region, chosen: np.ndarray, input_shape: tuple[int, ...]
) -> np.ndarray:
    """The chosen samples of one region, row-major, channels first: `(n, C, …)` in source dtype."""
    block = read_block(patterns, region)
    picked = block if chosen.all() else block[chosen]  # a mask copies
    return picked.reshape(-1, *input_shape)


def neighbour_positions(points: np.ndarray) -> np.ndarray:
    """Positions in the buffer of the samples one grid step away, diagonals too: `(n, 3**n_nav - 1)`, -1 where none is.

    points: grid points of the samples, `(n, n_nav)`.
    """
    local = points - points.min(0) + 1
    position = np.full(local.max(0) + 2, -1, np.int64)  # a border of one keeps the look-ups inside
    position[tuple(local.T)] = np.arange(len(points))
    steps = [step for step in itertools.product((-1, 0, 1), repeat=points.shape[1]) if any(step)]
    return np.stack([position[tuple((local + step).T)] for step in steps], 1)


def pooled(x: torch.Tensor) -> torch.Tensor:
    """Patterns averaged down to at most 32 along each signal dim, flat: `(B, C, …) -> (B, f)`."""
    sizes = [min(size, POOLED_SIDE) for size in x.shape[2:]]
    pool = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[len(sizes)]
    averaged: torch.Tensor = pool(x, sizes)  # type: ignore[arg-type]  # stubs know one number only
    return averaged.flatten(1)


def most_similar(features: torch.Tensor, near: torch.Tensor, *, chunk: int = 4096) -> torch.Tensor:
    """For each sample the neighbour whose features correlate best with its own: `(n, f), (n, k) -> (n,)`.

    near: positions of the candidates, -1 for none; a sample without any gets itself.
    """
    unit = features - features.mean(1, keepdim=True)
    unit = unit / unit.norm(dim=1, keepdim=True).clamp_min(1e-12)
    best = torch.arange(len(unit), device=unit.device)
    for start in range(0, len(unit), chunk):
        rows = slice(start, start + chunk)
        alike = torch.stack([(unit[rows] * unit[column.clamp_min(0)]).sum(1) for column in near[rows].T], 1)
        alike = alike.masked_fill(near[rows] < 0, -2.0)
        value, index = alike.max(1)
        found = near[rows].gather(1, index[:, None])[:, 0]
        best[rows] = torch.where(value > -2.0, found, best[rows])
    return best


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
        inside &= check_map(ds, roi).values
    if split is not None:
        inside &= check_map(ds, split, boolean=False).values == part
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
