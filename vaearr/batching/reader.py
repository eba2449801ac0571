"""Carries out the plan: reads pieces of blocks, holds them in their tier, hands out batches."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch.utils.data import IterableDataset, get_worker_info

from vaearr import names as n
from vaearr import schema
from vaearr.batching import plan as plans
from vaearr.batching.partners import Paths, Walk, find_paths, random_walk
from vaearr.blocks import Blocks, corner, take_rows
from vaearr.device import host_tensor
from vaearr.errors import UsageError
from vaearr.store import read_ahead

GIB = 2**30
READERS = 4  # blocks that are read side by side, at most
FREE_SHARE = 0.7  # of the device's free memory that patterns may take; the rest is the model's
ORDER, BUFFER, WALK = 0, 1, 2  # what a random generator of an epoch is for

Tier = Literal["device", "memory", "streamed"]

# torch lacks most operations for unsigned types; the bytes are moved as these
MOVED_AS = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


class Batch(NamedTuple):
    """Patterns `(B, C, …)` in their stored dtype, on the device.

    target: what a pattern is compared with; the same object as `patterns` unless neighbours are asked for. labels:
    int64 `(B,)`, -1 where missing; None without labels. index: position of each sample on the navigation grid, int64
    `(B, n_nav)` on the CPU, so that what is made of a batch can be put back: `out[tuple(batch.index.T)] = …`.
    """

    patterns: torch.Tensor
    target: torch.Tensor
    labels: torch.Tensor | None
    index: torch.Tensor  # type: ignore[assignment]  # hides the tuple's method


@dataclass
class Held:
    """Samples held together: patterns `(n, C, …)`, labels `(n,)`, grid points `(n, n_nav)`, the order they go in."""

    patterns: torch.Tensor
    labels: torch.Tensor | None
    points: np.ndarray
    order: np.ndarray
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

    Iterating gives tensors `(B, C, …)`, each time of the next epoch; `epoch` gives any epoch from any batch on, with
    targets, labels and positions. tier: where the patterns wait. n_samples: samples of this rank; n_samples_total: of
    all ranks together.
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
        self.blocks = Blocks(ds[n.PATTERNS], schema.navigation_dims(ds))
        self.inside, self.labels, self.settings, self.device = inside, labels, settings, settings.device
        self.sample_shape, self.dtype = schema.input_shape(ds), self.blocks.dtype
        sample_bytes = int(np.prod(self.sample_shape)) * self.dtype.itemsize
        self.capacity = max(1, int(settings.memory * GIB / sample_bytes / 2))
        self.readers = max(1, min(READERS, self.capacity // self.blocks.largest))  # each holds a block
        # in order, nothing is gained by reading less than a block at a time
        self.limit = plans.piece_samples(self.capacity, self.blocks.largest) if settings.shuffle else self.capacity
        self.n_samples_total, rank, world_size = int(inside.sum()), settings.rank, settings.world_size
        if not 0 <= rank < world_size:
            raise UsageError(f"rank is {rank} of world_size {world_size}; expected 0 to {world_size - 1}.")
        if self.n_samples_total < world_size:
            raise UsageError(f"{self.n_samples_total} samples cannot be shared by {world_size} processes; use fewer.")
        counts = [int(inside[tuple(region.values())].sum()) for region in self.blocks.regions]
        share = plans.share_of(self.n_samples_total, rank, world_size)
        self.pieces = plans.plan_pieces(counts, self.limit, *share)
        self.counts = [piece.count for piece in self.pieces]
        self.n_samples, most = sum(self.counts), -(-self.n_samples_total // world_size)
        self.nbytes = most * sample_bytes
        self.tier = pick_tier(self.nbytes, settings)
        self.n_batches = -(-most // settings.batch_size)
        if self.n_batches > self.n_samples:
            raise UsageError("the ranks' shares differ by one sample, so batch_size must be at least 2.")
        self.weights = None if balance is None else sample_weights(balance, inside)
        self._resident: Held | None = None
        self._paths: tuple[Walk, Paths] | None = None
        self._spare: list[torch.Tensor] = []
        self._next, self._now = (0, 0), (0, 0)

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
        if self.tier == "streamed":
            return f"streamed ({in_bytes(self.nbytes)} through two buffers of {in_bytes(s.memory * GIB / 2)})"
        place, allowed = ("on the device", s.device_memory) if self.tier == "device" else ("in memory", s.memory)
        return f"{place} ({in_bytes(self.nbytes)} of {in_bytes(allowed * GIB)})"

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
                open_batch = open_batch or _OpenBatch(held, int(end - begin), self.device, paired=walk is not None)
                open_batch.add(held, held.order[max(begin, low) - low : min(end, high) - low], partner)
                if end > high:
                    break
                yield open_batch.close()
                batch, open_batch = batch + 1, None

    def _generator(self, number: int, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, number, self.settings.rank, *purpose])

    def _plan(self, number: int) -> plans.EpochPlan:
        groups = [list(range(len(self.pieces)))]
        if not self.is_resident:
            rng = self._generator(number, ORDER) if self.settings.shuffle else None
            groups = plans.plan_buffers(self.counts, self.capacity, rng)
        draws = [sum(self.counts[i] for i in group) for group in groups]
        if self.weights is not None:
            weights = [sum(float(self._at(self.weights, i).sum()) for i in group) for group in groups]
            draws = plans.plan_draws(weights, self.n_samples)
        bounds = plans.batch_bounds(self.n_samples, self.n_batches)
        return plans.EpochPlan(groups, np.cumsum([0, *draws]), bounds)

    def _at(self, values: np.ndarray, piece: int) -> np.ndarray:
        return np.asarray(values[tuple(self._points(piece).T)])

    def _order(self, plan: plans.EpochPlan, number: int, i: int, points: np.ndarray) -> np.ndarray:
        """Positions in the buffer, in the order in which they are handed out."""
        if not self.settings.shuffle:
            return np.arange(len(points))
        rng = self._generator(number, BUFFER, i)
        if self.weights is not None:
            weights = self.weights[tuple(points.T)]
            return rng.choice(len(points), int(plan.ends[i + 1] - plan.ends[i]), p=weights / weights.sum())
        return rng.permutation(len(points)) if self.is_resident else plans.deal(points, plan.sizes(i), rng)

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
        every = list(range(len(self.pieces)))
        if self.is_resident:
            if self._resident is None:
                memory = self._empty(self.n_samples, self.device if self.tier == "device" else torch.device("cpu"))
                self._resident = self._read(every, memory)
            yield replace(self._resident, order=self._order(plan, number, 0, self._resident.points))
            return

        def read(i: int) -> Held:
            try:
                memory = self._spare.pop()
            except IndexError:
                memory = self._empty(min(self.capacity, self.n_samples), torch.device("cpu"))
            held = self._read(plan.groups[i], memory)
            return replace(held, order=self._order(plan, number, i, held.points), memory=memory)

        for held in read_ahead(read, range(first, len(plan.groups))):
            yield held
            if held.memory is not None and len(self._spare) < 2:
                self._spare.append(held.memory)

    def _empty(self, count: int, device: torch.device) -> torch.Tensor:
        if device.type == "cpu":
            return torch.from_numpy(np.empty((count, *self.sample_shape), self.dtype))  # numpy asks for huge pages
        dtype = torch.from_numpy(np.empty(0, self.dtype)).dtype
        return torch.empty((count, *self.sample_shape), dtype=dtype, device=device)

    def _read(self, pieces: list[int], memory: torch.Tensor) -> Held:
        """The samples of some pieces, side by side in `memory`; threads read, since decoding frees Python's lock."""
        starts = np.cumsum([0, *(self.counts[i] for i in pieces)]).tolist()
        points = np.concatenate([self._points(i) for i in pieces])
        self.blocks.prepare()
        with ThreadPoolExecutor(self.readers) as pool:
            places = (memory[start : start + self.counts[i]] for start, i in zip(starts, pieces, strict=False))
            list(pool.map(self._read_piece, pieces, places))
        patterns = memory[: starts[-1]]
        labels = None
        if self.labels is not None:
            labels = torch.from_numpy(self.labels[tuple(points.T)]).to(patterns.device)
        return Held(patterns, labels, points, np.arange(0))

    def _read_piece(self, i: int, place: torch.Tensor) -> None:
        piece = self.pieces[i]
        region = self.blocks.regions[piece.block]
        sizes = tuple(part.stop - part.start for part in region.values())
        rows = np.ravel_multi_index(tuple((self._points(i) - corner(region)).T), sizes)
        here = place if place.device.type == "cpu" else host_tensor(tuple(place.shape), place.dtype, place.device)
        take_rows(self.blocks.read(piece.block), rows, here.numpy())
        if here is not place:
            place.copy_(here)

    def _points(self, i: int) -> np.ndarray:
        """Grid points of a piece's samples, `(n, n_nav)`."""
        piece = self.pieces[i]
        region = self.blocks.regions[piece.block]
        points = np.argwhere(self.inside[tuple(region.values())])
        return points[plans.in_tiles(points, self.limit)[piece.start : piece.stop]] + corner(region)


class _OpenBatch:
    """A batch on its way: filled from one buffer or from several, then sent to the device."""

    def __init__(self, held: Held, size: int, device: torch.device, *, paired: bool) -> None:
        self.device, self.filled = device, 0

        def empty(like: torch.Tensor) -> torch.Tensor:
            shape = (size, *like.shape[1:])
            if like.device.type == "cpu":
                return host_tensor(shape, like.dtype, device)
            return torch.empty(shape, dtype=like.dtype, device=like.device)

        self.parts = [empty(held.patterns) for _ in range(1 + paired)]
        self.labels = None if held.labels is None else empty(held.labels)
        self.index = torch.empty((size, held.points.shape[1]), dtype=torch.int64)

    def add(self, held: Held, chosen: np.ndarray, partner: torch.Tensor | None) -> None:
        """Further samples: positions in a buffer."""
        place = slice(self.filled, self.filled + len(chosen))
        index = torch.from_numpy(chosen).to(held.patterns.device)
        pick_rows(held.patterns, index, self.parts[0][place])
        if partner is not None:
            pick_rows(held.patterns, partner[index], self.parts[1][place])
        if self.labels is not None and held.labels is not None:
            pick_rows(held.labels, index, self.labels[place])
        self.index[place] = torch.from_numpy(held.points[chosen])
        self.filled = place.stop

    def close(self) -> Batch:
        """The batch on the device; the copy does not wait."""
        sent = [part.to(self.device, non_blocking=True) for part in self.parts]
        labels = None if self.labels is None else self.labels.to(self.device, non_blocking=True)
        return Batch(sent[0], sent[-1], labels, self.index)


def pick_rows(held: torch.Tensor, index: torch.Tensor, out: torch.Tensor) -> None:
    """`out[:] = held[index]`, for every dtype; on the CPU by one thread, as the others decode."""
    if held.device.type == "cpu":
        np.take(held.numpy(), index.numpy(), axis=0, out=out.numpy(), mode="clip")
        return
    moved = MOVED_AS.get(held.dtype, held.dtype)
    torch.index_select(held.view(moved), 0, index, out=out.view(moved))


def sample_weights(classes: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Weight of each grid point in a draw: 1 / size of its class, 1 on average; points below 0 have the average."""
    ids, member, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    sizes = np.bincount(member.ravel(), weights=inside.ravel(), minlength=len(ids))
    known = (ids >= 0) & (sizes > 0)
    average = sizes[known].sum() / max(1, known.sum())
    weights = np.where(known, average / np.maximum(sizes, 1), 1.0)
    return weights[member].reshape(classes.shape)


def pick_tier(nbytes: int, settings: Settings) -> Tier:
    """The fastest place that holds `nbytes` of patterns within the allowances."""
    device = settings.device
    if device.type != "cpu" and nbytes <= min(settings.device_memory * GIB, FREE_SHARE * _free(device)):
        return "device"
    return "memory" if nbytes <= settings.memory * GIB else "streamed"


def _free(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return float(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return float("inf")


def in_bytes(nbytes: float) -> str:
    """Bytes in words: `11 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1024
    return f"{nbytes:.3g} GiB"
