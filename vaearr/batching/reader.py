"""Carries out the plan: reads pieces of blocks, holds them in their tier, hands out batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from dask.utils import format_bytes

from vaearr import names as n
from vaearr import schema
from vaearr.batching import plan
from vaearr.batching.blocks import Blocks, corner, take_rows
from vaearr.batching.plan import Walk
from vaearr.computing.device import host_tensor, pick_device
from vaearr.errors import RoiError, UsageError, did_you_mean
from vaearr.schema.grid import check_map
from vaearr.store import read_ahead

GIB = 2**30
READERS = 4  # blocks that are read side by side, at most
FREE_SHARE = 0.7  # of the device's free memory that patterns may take; the rest is the model's
CPU = torch.device("cpu")
ORDER, BUFFER, WALK = 0, 1, 2  # what a random generator of an epoch is for

# torch lacks most operations for unsigned types; the bytes are moved as these
MOVED_AS = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}

Columns = dict[
    str, torch.Tensor
]  # `patterns` (n, C, …), `index` (n, n_nav) on the CPU, and where wanted `labels` (n,)


class Batch(NamedTuple):
    """Patterns `(B, C, …)` in their stored dtype, on the device.

    target: what a pattern is compared with; None unless neighbours are asked for. labels: int64
    `(B,)`, -1 where missing; None without labels. index: position of each sample on the navigation
    grid, int64 `(B, n_nav)` on the CPU, so that what is made of a batch can be put back:
    `out[tuple(batch.index.T)] = …`.
    """

    patterns: torch.Tensor
    target: torch.Tensor | None
    labels: torch.Tensor | None
    index: torch.Tensor  # type: ignore[assignment]  # hides the tuple's method


class PatternBatches:
    """Shuffled torch batches of a Dataset's patterns, each sample once per epoch.

    Iterating gives patterns `(B, C, …)` in their stored dtype, each time of the next epoch. `epoch`
    gives any epoch from any batch on, with targets, labels and positions. The same seed and epoch
    give the same batches.

    Parameters
    ----------
    ds : xarray.Dataset
        Its dask chunks, of any shape and with any lazy steps, are what is read. A Dataset without
        dask is divided as it would be stored.
    variable : str
        Another variable over the navigation dims to take batches of, such as `latents`; NaN stays
        NaN.
    batch_size : int
        Samples of a batch.
    roi : xarray.DataArray, optional
        Boolean map of the samples to use. Default: the measured ones, of a run's variable the run's
        ROI.
    split : xarray.DataArray, optional
        A stored split, of which only the samples of `part` are used.
    part : int
        `names.TRAIN` (1) or `names.VALIDATION` (2).
    shuffle : bool
        Random order; else the order of the blocks.
    seed : int
        Of the order.
    memory, device_memory : float
        GiB of memory and of the device that samples may take; more is streamed.
    device : torch.device or str
        Where batches are needed.
    rank, world_size : int
        This process and the number of processes; each gets its own share.
    labels : array of int, optional
        Class of each grid point, -1 where unknown, handed out with the batches.
    balance : array of int, optional
        Classes by which samples are drawn, with replacement, so that each class is equally
        frequent.

    Raises
    ------
    RoiError
        If no sample is chosen.
    SchemaError
        If the Dataset is not valid.
    UsageError
        If the variable does not exist or a number is out of range.
    """

    def __init__(
        self,
        ds: xr.Dataset,
        *,
        variable: str = n.PATTERNS,
        batch_size: int = 256,
        roi: xr.DataArray | None = None,
        split: xr.DataArray | None = None,
        part: int = n.TRAIN,
        shuffle: bool = True,
        seed: int = 0,
        memory: float = 2.0,
        device_memory: float = 8.0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
        labels: np.ndarray | xr.DataArray | None = None,
        balance: np.ndarray | xr.DataArray | None = None,
    ) -> None:
        schema.validate(ds)
        _check_numbers(batch_size, seed, memory, device_memory)
        if balance is not None and (not shuffle or world_size > 1):
            raise UsageError(
                "balance draws samples at random from the whole scan: shuffle=True, in one process."
            )
        values, self.sample_shape = _samples_of(ds, variable)
        if roi is None and variable != n.PATTERNS:
            roi = ds.get(_roi_name(variable))
        self.inside = _chosen(ds, roi, split, part)
        self.labels = _class_map("labels", labels, ds)
        classes = _class_map("balance", balance, ds)
        self.weights = None if classes is None else sample_weights(classes, self.inside)
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.device = pick_device(str(device))
        self.blocks = Blocks(values, schema.navigation_dims(ds))
        self.dtype = self.blocks.dtype
        sample_bytes = math.prod(self.sample_shape) * self.dtype.itemsize
        self.capacity = max(
            1, int(memory * GIB / sample_bytes / 2)
        )  # samples of a buffer, of which there are two
        self.readers = max(
            1, min(READERS, self.capacity // self.blocks.largest)
        )  # each holds a block
        self.limit = (
            self.capacity
        )  # in order, nothing is gained by reading less than a block at a time
        if shuffle:
            self.limit = plan.piece_samples(self.capacity, self.blocks.largest)
        self.n_samples_total = int(self.inside.sum())
        largest_share = self._take_share(batch_size, world_size)
        self.nbytes = largest_share * sample_bytes
        self.allowed = {"device": device_memory * GIB, "memory": memory * GIB}
        self.tier = pick_tier(self.nbytes, self.allowed, self.device)
        self._resident: Columns | None = None
        self._paths: tuple[plan.View, plan.Paths] | None = None
        self._next = 0

    def _take_share(self, batch_size: int, world_size: int) -> int:
        """Plan the pieces and batches of this rank; shares are equal to within one. Returns the
        largest share.
        """
        total = self.n_samples_total
        if total < world_size:
            raise UsageError(
                f"{total} samples cannot be shared by {world_size} processes; use fewer."
            )
        first, stop = total * self.rank // world_size, total * (self.rank + 1) // world_size
        counts = [int(self.inside[tuple(region.values())].sum()) for region in self.blocks.regions]
        self.pieces = plan.plan_pieces(counts, self.limit, first, stop)
        self.counts = [piece.stop - piece.start for piece in self.pieces]
        self.n_samples = stop - first
        largest_share = math.ceil(total / world_size)
        n_batches = math.ceil(largest_share / batch_size)
        if n_batches > self.n_samples:
            raise UsageError(
                "the ranks' shares differ by one sample, so batch_size must be at least 2."
            )
        self.bounds = plan.batch_bounds(self.n_samples, n_batches)
        return largest_share

    def __len__(self) -> int:
        """Batches of an epoch; the same for every epoch and on every rank."""
        return len(self.bounds) - 1

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.sample_shape))
        return f"<{len(self)} batches of {self.n_samples} samples, {shape} {self.dtype}, {self.describe()}>"

    def describe(self) -> str:
        """Where the patterns wait, such as `in memory (11.00 MiB of 2.00 GiB)`."""
        held = format_bytes(self.nbytes)
        if self.tier == "streamed":
            return f"streamed ({held} through two buffers of {format_bytes(int(self.allowed['memory'] / 2))})"
        place = "on the device" if self.tier == "device" else "in memory"
        return f"{place} ({held} of {format_bytes(int(self.allowed[self.tier]))})"

    def __iter__(self) -> Iterator[torch.Tensor]:
        number, self._next = self._next, self._next + 1
        return (batch.patterns for batch in self.epoch(number))

    def epoch(self, number: int, *, start: int = 0, walk: Walk | None = None) -> Iterator[Batch]:
        """An epoch from batch `start` on; a pure function of the seed, the number, the rank and the
        settings.

        Buffers that lie wholly before `start` are not read. walk: how to find each sample's
        partner, among the chosen samples that are in memory at the same time; `target` is then the
        partner's pattern. Another one every epoch.
        """
        if start >= len(self):
            return
        groups, ends = self._plan(number)
        first = int(np.searchsorted(ends, self.bounds[start], side="right")) - 1
        batch, parts = start, list[Columns]()  # of the batch, which may begin in the buffer before
        for i, (held, order) in enumerate(self._buffers(groups, ends, number, first), first):
            partners = self._partners(held, walk, number, i) if walk else None
            while batch < len(self) and self.bounds[batch] < ends[i + 1]:
                begin, end = (
                    max(self.bounds[batch], ends[i]),
                    min(self.bounds[batch + 1], ends[i + 1]),
                )
                rows = torch.from_numpy(order[begin - ends[i] : end - ends[i]])
                parts.append({key: self._picked(values, rows) for key, values in held.items()})
                if partners is not None:
                    parts[-1]["target"] = self._picked(
                        held["patterns"], partners[rows.to(partners.device)]
                    )
                if end < self.bounds[batch + 1]:
                    break
                yield self._batch(parts)
                batch, parts = batch + 1, []

    def _plan(self, number: int) -> tuple[list[list[int]], np.ndarray]:
        """Pieces of each buffer of an epoch; buffer g holds the stream of samples from `ends[g]` to
        `ends[g + 1]`.
        """
        groups = [list(range(len(self.pieces)))]
        if self.tier == "streamed":
            rng = self._generator(number, ORDER) if self.shuffle else None
            groups = plan.plan_buffers(self.counts, self.capacity, rng)
        sizes: Sequence[float] = self.counts
        if self.weights is not None:
            sizes = [
                float(self.weights[tuple(self._points(i).T)].sum()) for i in range(len(self.pieces))
            ]
        ends = np.cumsum([0.0, *(sum(sizes[i] for i in group) for group in groups)])
        return groups, np.round(ends / ends[-1] * self.n_samples).astype(int)

    def _generator(self, number: int, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, number, self.rank, *purpose])

    def _order(self, number: int, i: int, points: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Positions in a buffer with these grid points, in the order in which they are handed out."""
        if not self.shuffle:
            return np.arange(len(points))
        rng = self._generator(number, BUFFER, i)
        if self.weights is not None:
            weights = self.weights[tuple(points.T)]
            return rng.choice(len(points), int(ends[i + 1] - ends[i]), p=weights / weights.sum())
        if self.tier != "streamed":
            return rng.permutation(len(points))
        n_batches = round(len(points) * len(self) / self.n_samples)
        return plan.deal(points, n_batches, rng)

    def _partners(self, held: Columns, walk: Walk, number: int, i: int) -> torch.Tensor:
        """Each sample's partner in this epoch; where all samples stay, the paths between them stay
        too.
        """
        if self.tier == "streamed" or self._paths is None or self._paths[0] is not walk.view:
            found = plan.find_paths(held["patterns"], held["index"].numpy(), walk.view, self.device)
            self._paths = walk.view, found
        return plan.random_walk(self._paths[1], walk.steps, self._generator(number, WALK, i))

    def _buffers(
        self, groups: list[list[int]], ends: np.ndarray, number: int, first: int
    ) -> Iterator[tuple[Columns, np.ndarray]]:
        """The buffers of an epoch from `first` on and their orders, each read while the one before
        is handed out.
        """
        if self.tier != "streamed":
            if self._resident is None:
                memory = self._memory(self.n_samples, self.device if self.tier == "device" else CPU)
                self._resident = self._read(groups[0], memory)
            yield self._resident, self._order(number, 0, self._resident["index"].numpy(), ends)
            return
        memories = [self._memory(min(self.capacity, self.n_samples), CPU) for _ in range(2)]

        def read(i: int) -> tuple[Columns, np.ndarray]:
            held = self._read(groups[i], memories[i % 2])
            return held, self._order(number, i, held["index"].numpy(), ends)

        yield from read_ahead(read, range(first, len(groups)))

    def _memory(self, count: int, device: torch.device) -> torch.Tensor:
        """For so many samples."""
        dtype = torch.from_numpy(np.empty(0, self.dtype)).dtype
        return torch.empty((count, *self.sample_shape), dtype=dtype, device=device)

    def _picked(self, held: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """`held[rows]`, for every dtype, where it is held; on the CPU by one thread, as the others
        decode.
        """
        shape, moved = (len(rows), *held.shape[1:]), MOVED_AS.get(held.dtype, held.dtype)
        if held.device.type == "cpu":
            out = host_tensor(shape, held.dtype, self.device)
            np.take(held.numpy(), rows.cpu().numpy(), axis=0, out=out.numpy(), mode="clip")
            return out
        return torch.index_select(held.view(moved), 0, rows.to(held.device)).view(held.dtype)

    def _batch(self, parts: Sequence[Columns]) -> Batch:
        """The parts of a batch, one after the other, on the device; the copy does not wait."""
        whole = {
            key: torch.cat([p[key] for p in parts]) if parts[1:] else parts[0][key]
            for key in parts[0]
        }
        moved = {
            key: v if key == "index" else v.to(self.device, non_blocking=True)
            for key, v in whole.items()
        }
        return Batch(moved["patterns"], moved.get("target"), moved.get("labels"), moved["index"])

    def _read(self, pieces: Sequence[int], memory: torch.Tensor) -> Columns:
        """The samples of some pieces, side by side in `memory`; threads read, since decoding frees
        Python's lock.
        """
        points = [self._points(piece) for piece in pieces]
        _ = self.blocks.graph  # what blocks share is computed before the threads begin
        places = memory.split([*map(len, points), len(memory) - sum(map(len, points))])
        with ThreadPoolExecutor(self.readers) as pool:
            _ = list(pool.map(self._read_piece, pieces, points, places))
        index = np.concatenate(points)
        held = {"patterns": memory[: len(index)], "index": torch.from_numpy(index)}
        if self.labels is not None:
            held["labels"] = torch.from_numpy(self.labels[tuple(index.T)]).to(memory.device)
        return held

    def _read_piece(self, i: int, points: np.ndarray, place: torch.Tensor) -> None:
        block = self.pieces[i].block
        region = self.blocks.regions[block]
        sizes = tuple(part.stop - part.start for part in region.values())
        rows = np.ravel_multi_index(tuple((points - corner(region)).T), sizes)
        here = (
            place
            if place.device.type == "cpu"
            else host_tensor(tuple(place.shape), place.dtype, place.device)
        )
        take_rows(self.blocks.read(block), rows, here.numpy())
        if here is not place:
            place.copy_(here)

    def _points(self, i: int) -> np.ndarray:
        """Grid points of a piece's samples, `(n, n_nav)`."""
        block, start, stop = self.pieces[i]
        region = self.blocks.regions[block]
        points = np.argwhere(self.inside[tuple(region.values())])
        return points[plan.in_tiles(points, self.limit)[start:stop]] + corner(region)


batches = PatternBatches


def _check_numbers(batch_size: int, seed: int, memory: float, device_memory: float) -> None:
    are_whole = isinstance(batch_size, int) and isinstance(seed, int)
    if not (
        are_whole and batch_size >= 1 and seed >= 0 and 0 < memory < math.inf and device_memory >= 0
    ):
        given = f"batch_size is {batch_size}, seed {seed}, memory {memory}, device_memory {device_memory}"
        raise UsageError(
            f"{given}; expected whole numbers of at least 1 and 0, and GiB, which must be positive."
        )


def _samples_of(ds: xr.Dataset, variable: str) -> tuple[xr.DataArray, tuple[int, ...]]:
    """The variable with the navigation dims first, and the shape of one sample of it."""
    if variable == n.PATTERNS:
        return ds[n.PATTERNS], schema.input_shape(ds)
    nav = schema.navigation_dims(ds)
    names = [str(name) for name, values in ds.data_vars.items() if set(nav) <= set(values.dims)]
    if variable not in names:
        raise UsageError(
            f"there is no variable {variable!r} over {', '.join(nav)}.{did_you_mean(variable, names)}"
        )
    values = ds[variable].transpose(*nav, ...)
    return values, values.shape[len(nav) :] or (1,)


def _roi_name(variable: str) -> str:
    """Name of the ROI that belongs to a run's variable, `roi_b` for `latents_b`."""
    for name in (n.LATENTS_STD, n.LATENTS, n.RECONSTRUCTION_ERROR):
        if variable.startswith(name):
            return n.ROI + variable.removeprefix(name)
    return n.ROI


def _chosen(
    ds: xr.Dataset, roi: xr.DataArray | None, split: xr.DataArray | None, part: int
) -> np.ndarray:
    """Which points of the navigation grid batches are made of."""
    inside = np.ones(schema.navigation_shape(ds), bool)
    if n.PRESENT in ds:
        inside &= ds[n.PRESENT].transpose(*schema.navigation_dims(ds)).values
    if roi is not None:
        inside &= check_map(ds, roi).values
    if split is not None:
        inside &= check_map(ds, split, boolean=False).values == part
    if not inside.any():
        raise RoiError("no sample is left by the ROI and the split; widen the ROI.")
    return inside


def _class_map(
    what: str, values: np.ndarray | xr.DataArray | None, ds: xr.Dataset
) -> np.ndarray | None:
    if values is None:
        return None
    shape = schema.navigation_shape(ds)
    plain = (
        check_map(ds, values, boolean=False).values if isinstance(values, xr.DataArray) else values
    )
    if plain.shape != shape or plain.dtype.kind not in "iu":
        raise UsageError(
            f"{what} is {plain.dtype} of shape {plain.shape}; expected integers of shape {shape}."
        )
    return plain.astype(np.int64)


def sample_weights(classes: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Weight of each grid point in a draw: 1 / size of its class, 1 on average; points below 0 have
    the average.
    """
    ids, member = np.unique(classes, return_inverse=True)
    sizes = np.bincount(member.ravel(), weights=inside.ravel(), minlength=len(ids))
    known = (ids >= 0) & (sizes > 0)
    average = sizes[known].sum() / max(1, known.sum())
    weights = np.where(known, average / np.maximum(sizes, 1), 1.0)
    return weights[member].reshape(classes.shape)


def pick_tier(nbytes: int, allowed: Mapping[str, float], device: torch.device) -> str:
    """The fastest place that holds so many bytes of patterns: "device", "memory", or neither,
    "streamed".
    """
    free = math.inf
    if device.type == "cuda":
        free = float(torch.cuda.mem_get_info(device)[0])
    elif device.type == "mps":
        free = float(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    if device.type != "cpu" and nbytes <= min(allowed["device"], FREE_SHARE * free):
        return "device"
    return "memory" if nbytes <= allowed["memory"] else "streamed"
