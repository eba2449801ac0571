"""Carries out the plan: reads pieces of the store, holds them in their tier, hands out batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch.utils.data import IterableDataset, get_worker_info

from vaearr import names as n
from vaearr import schema
from vaearr.batching import plan as plans
from vaearr.batching import tiers
from vaearr.batching.partners import Paths, Walk, find_paths, random_walk
from vaearr.errors import UsageError
from vaearr.store import Region, read_ahead, read_block, read_into, without_dask

READERS = 4  # pieces of a buffer that are read side by side, at most
ORDER, BUFFER, WALK = 0, 1, 2  # what a random generator of an epoch is for


class Batch(NamedTuple):
    """Patterns `(B, C, …)` in their stored dtype, on the device.

    target: what a pattern is compared with; the same object as `patterns` unless neighbours are asked for. labels:
    int64 `(B,)`, -1 where missing; None without labels.
    """

    patterns: torch.Tensor
    target: torch.Tensor
    labels: torch.Tensor | None


@dataclass
class Held:
    """Samples held together: patterns `(n, C, …)`, labels `(n,)`, grid points `(n, n_nav)`, the order they go in."""

    patterns: torch.Tensor
    labels: torch.Tensor | None
    points: np.ndarray
    order: torch.Tensor
    memory: torch.Tensor | None = None  # the buffer behind `patterns`, to be used again


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How batches are made; see `batches`."""

    batch_size: int
    shuffle: bool
    seed: int
    memory: float
    device_memory: float
    device: torch.device
    rank: int
    world_size: int


class PatternBatches(IterableDataset[torch.Tensor]):
    """Batches of patterns from a Dataset, made by `batches`.

    Iterating gives tensors `(B, C, …)`, each time of the next epoch; `epoch` gives any epoch from any batch on.
    tier: where the patterns wait. n_samples: samples of this rank; n_samples_total: of all ranks together.
    """

    def __init__(
        self,
        ds: xr.Dataset,
        inside: np.ndarray,
        settings: Settings,
        *,
        labels: np.ndarray | None = None,
        balance: np.ndarray | None = None,
    ) -> None:
        self.patterns, self.inside, self.labels = without_dask(ds[n.PATTERNS]), inside, labels
        self.settings, self.device = settings, settings.device
        self.input_shape = schema.input_shape(ds)
        self.dtype = self.patterns.dtype.newbyteorder("=")
        self.n_samples_total = int(inside.sum())
        sample_bytes = int(np.prod(self.input_shape)) * self.dtype.itemsize
        self.capacity = max(1, int(settings.memory * tiers.GIB / sample_bytes / 2))
        self.pieces, most = self._share()
        self.counts = [piece.count for piece in self.pieces]
        self.n_samples = sum(self.counts)
        self.nbytes = most * sample_bytes
        self.tier = tiers.pick_tier(self.nbytes, settings.memory, settings.device_memory, self.device)
        self.n_batches = -(-most // settings.batch_size)
        if self.n_batches > self.n_samples:
            raise UsageError("the ranks' shares differ by one sample, so batch_size must be at least 2.")
        self.weights = None if balance is None else sample_weights(balance, inside)
        self._resident: Held | None = None
        self._paths: tuple[Walk, Paths] | None = None
        self._spare: list[torch.Tensor] = []
        self._next, self._now = (0, 0), (0, 0)

    def _share(self) -> tuple[list[plans.Piece], int]:
        """The pieces of this rank, cut by the allowance alone so that all ranks cut alike; the size of a share."""
        rank, world_size = self.settings.rank, self.settings.world_size
        if not 0 <= rank < world_size:
            raise UsageError(f"rank is {rank} of world_size {world_size}; expected 0 to {world_size - 1}.")
        if self.n_samples_total < world_size:
            raise UsageError(f"{self.n_samples_total} samples cannot be shared by {world_size} processes; use fewer.")
        # in order, nothing is gained by reading less than a chunk at a time
        chunk = _chunk_samples(self.patterns, self.inside.ndim)
        limit = tiers.piece_samples(self.capacity, chunk) if self.settings.shuffle else self.capacity
        self.readers = max(1, min(READERS, self.capacity // chunk))  # each holds a chunk
        regions = regions_of(self.patterns, self.inside.ndim, limit)
        found = (plans.around_chosen(region, self.inside) for region in regions)
        regions = [region for region in found if region]
        counts = [int(self.inside[tuple(region.values())].sum()) for region in regions]
        low, high = plans.share_of(self.n_samples_total, rank, world_size)
        return plans.plan_pieces(regions, counts, low, high), -(-self.n_samples_total // world_size)

    def __len__(self) -> int:
        """Batches of an epoch; the same for every epoch and on every rank."""
        return self.n_batches

    @property
    def is_resident(self) -> bool:
        """Whether all samples of this rank are held, on the device or in RAM."""
        return self.tier != "streamed"

    def describe(self) -> str:
        """Where the patterns wait, such as `in memory (11 MiB of 2 GiB)`."""
        s = self.settings
        allowed = s.device_memory if self.tier == "device" else s.memory
        buffer_bytes = int(s.memory * tiers.GIB / 2)
        return tiers.in_words(self.tier, self.nbytes, allowed, buffer_bytes)

    def __iter__(self) -> Iterator[torch.Tensor]:
        number, start = self._next
        self._next, self._now = (number + 1, 0), (number, start)
        for done, batch in enumerate(self.epoch(number, start=start), start + 1):
            self._now = (number, done)
            yield batch.patterns
        self._now = (number + 1, 0)

    def state_dict(self) -> dict[str, int]:
        """The epoch that runs and the batches of it that were handed out."""
        return {"epoch": self._now[0], "batch": self._now[1], "n_batches": len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next iteration goes on where this state was taken. Raises UsageError for one of other batches."""
        if state["n_batches"] != len(self):
            raise UsageError(
                f"the state is of epochs of {state['n_batches']} batches, not {len(self)}; use the same settings."
            )
        number, start = state["epoch"], state["batch"]
        self._next = self._now = (number, start) if start < len(self) else (number + 1, 0)

    def epoch(self, number: int, *, start: int = 0, walk: Walk | None = None) -> Iterator[Batch]:
        """An epoch from batch `start` on; a pure function of the seed, the number, the rank and the settings.

        Buffers that lie wholly before `start` are not read. walk: how to find each sample's partner, among the chosen
        samples that are in memory at the same time; `target` is then the partner's pattern. Another one every epoch.
        """
        if get_worker_info() is not None:
            raise UsageError("these batches read ahead by themselves; use them as they are or with num_workers=0.")
        if start >= len(self):
            return
        plan = self._plan(number)
        batch, open_batch = start, None
        first = plan.first_buffer(start)
        for i, held in enumerate(self._buffers(plan, number, first), first):
            low, high = plan.ends[i], plan.ends[i + 1]
            partner = self._partners(held, walk, number, i) if walk else None
            while batch < len(self) and plan.bounds[batch] < high:
                begin, end = plan.bounds[batch], plan.bounds[batch + 1]
                open_batch = open_batch or _OpenBatch(self, held, int(end - begin), paired=walk is not None)
                open_batch.add(held, held.order[max(begin, low) - low : min(end, high) - low], partner)
                if end > high:
                    break
                yield open_batch.close()
                batch, open_batch = batch + 1, None

    def _generator(self, number: int, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, number, self.settings.rank, *purpose])

    def _plan(self, number: int) -> plans.EpochPlan:
        bounds = plans.batch_bounds(self.n_samples, self.n_batches)
        if self.is_resident:
            groups = [list(range(len(self.pieces)))]
        else:
            rng = self._generator(number, ORDER) if self.settings.shuffle else None
            groups = plans.plan_buffers(self.counts, self.capacity, rng)
        draws = [sum(self.counts[i] for i in group) for group in groups]
        if self.weights is not None:
            weights = [sum(float(self._weights_of(self._points(i)).sum()) for i in group) for group in groups]
            draws = plans.plan_draws(weights, self.n_samples)
        return plans.EpochPlan(groups, np.cumsum([0, *draws]), bounds)

    def _weights_of(self, points: np.ndarray) -> np.ndarray:
        assert self.weights is not None
        return self.weights[tuple(points.T)]

    def _order(self, plan: plans.EpochPlan, number: int, i: int, points: np.ndarray) -> torch.Tensor:
        """Positions in the buffer, in the order in which they are handed out."""
        if not self.settings.shuffle:
            return torch.arange(len(points))
        rng = self._generator(number, BUFFER, i)
        if self.weights is not None:
            weights = self._weights_of(points)
            order = rng.choice(len(points), int(plan.ends[i + 1] - plan.ends[i]), p=weights / weights.sum())
        elif self.is_resident:
            order = rng.permutation(len(points))
        else:
            order = plans.deal(points, plan.sizes(i), rng)
        return torch.from_numpy(order)

    def _partners(self, held: Held, walk: Walk, number: int, i: int) -> torch.Tensor:
        """Each sample's partner in this epoch; where all samples stay, the paths between them stay too."""
        if not self.is_resident:
            paths = find_paths(held.patterns, held.points, walk.view, self.device)
        else:
            if self._paths is None or self._paths[0].view is not walk.view:
                self._paths = walk, find_paths(held.patterns, held.points, walk.view, self.device)
            paths = self._paths[1]
        return random_walk(paths, walk.steps, self._generator(number, WALK, i))

    def _buffers(self, plan: plans.EpochPlan, number: int, first: int) -> Iterator[Held]:
        """The buffers of an epoch from `first` on, each read while the one before is handed out."""
        if self.is_resident:
            held = self._resident = self._resident or self._read_all()
            order = self._order(plan, number, 0, held.points).to(held.patterns.device)
            yield replace(held, order=order)
            return
        numbers = range(first, len(plan.groups))
        for held in read_ahead(lambda i: self._read_buffer(plan, number, i), numbers):
            yield held
            if held.memory is not None and len(self._spare) < 2:
                self._spare.append(held.memory)

    def _read_buffer(self, plan: plans.EpochPlan, number: int, i: int) -> Held:
        try:
            memory = self._spare.pop()
        except IndexError:
            memory = self._empty(min(self.capacity, self.n_samples))
        points = np.concatenate([self._points(piece) for piece in plan.groups[i]])
        patterns, start = memory.numpy(), 0
        with ThreadPoolExecutor(self.readers) as pool:  # decoding leaves Python's lock alone
            order, reads = pool.submit(self._order, plan, number, i, points), []
            for piece in plan.groups[i]:
                reads.append(pool.submit(self._read, piece, patterns[start : start + self.counts[piece]]))
                start += self.counts[piece]
            for done in reads:
                done.result()
        return Held(memory[:start], self._labels_at(points), points, order.result(), memory)

    def _read_all(self) -> Held:
        """All samples of this rank, on the device by way of one piece at a time."""
        points = np.concatenate([self._points(i) for i in range(len(self.pieces))])
        on_device = self.tier == "device"
        patterns = self._empty(self.n_samples, self.device if on_device else torch.device("cpu"))
        aside = self._empty(0)
        if on_device:
            aside = tiers.host_tensor((max(self.counts), *self.input_shape), patterns.dtype, self.device)
        start = 0
        for i, count in enumerate(self.counts):
            place = patterns[start : start + count]
            self._read(i, aside[:count].numpy() if on_device else place.numpy())
            if on_device:
                place.copy_(aside[:count])
            start += count
        labels = self._labels_at(points)
        return Held(patterns, labels if labels is None else labels.to(patterns.device), points, torch.empty(0))

    def _empty(self, count: int, device: torch.device | str = "cpu") -> torch.Tensor:
        if torch.device(device).type == "cpu":
            return torch.from_numpy(np.empty((count, *self.input_shape), self.dtype))  # numpy asks for huge pages
        dtype = torch.from_numpy(np.empty(0, self.dtype)).dtype
        return torch.empty((count, *self.input_shape), dtype=dtype, device=device)

    def _labels_at(self, points: np.ndarray) -> torch.Tensor | None:
        return None if self.labels is None else torch.from_numpy(self.labels[tuple(points.T)])

    def _read(self, i: int, out: np.ndarray) -> None:
        piece = self.pieces[i]
        chosen = self.inside[tuple(piece.region.values())]
        read_samples(self.patterns, piece.region, chosen, out, start=piece.start)

    def _points(self, i: int) -> np.ndarray:
        """Grid points of a piece's samples, `(n, n_nav)`."""
        piece = self.pieces[i]
        parts = tuple(piece.region.values())
        return np.argwhere(self.inside[parts])[piece.start : piece.stop] + [part.start for part in parts]


class _OpenBatch:
    """A batch on its way: filled from one buffer or from several, then sent to the device."""

    def __init__(self, of: PatternBatches, held: Held, size: int, *, paired: bool) -> None:
        self.of, self.filled = of, 0

        def empty(like: torch.Tensor) -> torch.Tensor:
            shape = (size, *like.shape[1:])
            if like.device.type == "cpu":
                return tiers.host_tensor(shape, like.dtype, of.device)
            return torch.empty(shape, dtype=like.dtype, device=like.device)

        self.parts = [empty(held.patterns) for _ in range(1 + paired)]
        self.labels = None if held.labels is None else empty(held.labels)

    def add(self, held: Held, index: torch.Tensor, partner: torch.Tensor | None) -> None:
        """Further samples: positions in a buffer."""
        place = slice(self.filled, self.filled + len(index))
        tiers.pick_rows(held.patterns, index, self.parts[0][place])
        if partner is not None:
            tiers.pick_rows(held.patterns, partner[index], self.parts[1][place])
        if self.labels is not None and held.labels is not None:
            tiers.pick_rows(held.labels, index, self.labels[place])
        self.filled = place.stop

    def close(self) -> Batch:
        """The batch on the device; the copy does not wait."""
        sent = [part.to(self.of.device, non_blocking=True) for part in self.parts]
        labels = None if self.labels is None else self.labels.to(self.of.device, non_blocking=True)
        return Batch(sent[0], sent[-1], labels)


def sample_weights(classes: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Weight of each grid point in a draw: 1 / size of its class, 1 on average; points below 0 have the average."""
    ids, member, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    sizes = np.bincount(member.ravel(), weights=inside.ravel(), minlength=len(ids))
    known = (ids >= 0) & (sizes > 0)
    average = sizes[known].sum() / max(1, known.sum())
    weights = np.where(known, average / np.maximum(sizes, 1), 1.0)
    return weights[member].reshape(classes.shape)


def read_samples(
    patterns: xr.DataArray, region: Region, chosen: np.ndarray, out: np.ndarray, *, start: int = 0
) -> None:
    """The chosen samples of one region from `start` on, row-major, channels first, into `out` `(n, C, …)`.

    Where the whole region is chosen it is decoded straight into `out`.
    """
    signal = patterns.shape[chosen.ndim :]
    if chosen.all() and len(out) == chosen.size:
        read_into(patterns, region, out.reshape(*chosen.shape, *signal))
        return
    rows = np.flatnonzero(chosen)[start : start + len(out)]
    block = read_block(patterns, region)
    np.take(block.reshape(chosen.size, *out.shape[1:]), rows, axis=0, out=out, mode="clip")


def regions_of(patterns: xr.DataArray, n_nav: int, limit: int = 2**62) -> list[Region]:
    """Read requests of at most `limit` points that cover the grid: parts of the dask chunks, else of the shards."""
    sizes = {str(dim): size for dim, size in list(patterns.sizes.items())[:n_nav]}
    shard: Sequence[int]
    if patterns.chunks:
        shard = [patterns.chunksizes[dim][0] for dim in sizes]
    else:
        shard = patterns.encoding.get("shards") or patterns.encoding.get("chunks") or patterns.shape
    chunk = patterns.encoding.get("chunks") or (1,) * n_nav
    return plans.unit_regions(sizes, shard[:n_nav], chunk[:n_nav], limit)


def _chunk_samples(patterns: xr.DataArray, n_nav: int) -> int:
    """Samples of the smallest part that can be decoded alone."""
    return math.prod((patterns.encoding.get("chunks") or (1,))[:n_nav])
