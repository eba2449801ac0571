"""Read pieces of blocks as planned, hold them in a tier of memory, yield batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from dask.utils import format_bytes

from vaearr import names as n
from vaearr import schema
from vaearr.batching import plan
from vaearr.batching.blocks import Blocks, corner, take_rows
from vaearr.batching.partners import Paths, View, Walk, find_paths, random_walk
from vaearr.computing.device import CPU, host_tensor, pick_device
from vaearr.errors import RoiError, UsageError, did_you_mean
from vaearr.schema.grid import check_map, measured
from vaearr.store import read_ahead

GIB = 2**30
MAX_READERS = 4  # threads, of which each holds a block
FREE_SHARE = 0.7  # of the device's free memory that patterns may take; the rest is the model's
ORDER, BUFFER, WALK = 0, 1, 2  # purposes of random generators of an epoch


class Batch(NamedTuple):
    """Patterns `(B, C, …)` in their stored dtype, on the device.

    target: patterns of the partners; None without a walk. labels: int64 `(B,)`, -1 where missing;
    None without labels. index: position of each sample on the navigation grid, int64 `(B, n_nav)`
    on the CPU, so that results can be put back: `out[tuple(batch.index.T)] = …`.
    """

    patterns: torch.Tensor
    target: torch.Tensor | None
    labels: torch.Tensor | None
    index: torch.Tensor  # type: ignore[assignment]  # hides the tuple's method


class Buffer(NamedTuple):
    """Samples that are held together: their patterns `(n, C, …)`, grid points `(n, n_nav)`, and
    positions in the order of the stream.
    """

    patterns: torch.Tensor
    points: np.ndarray
    order: np.ndarray


class PatternBatches:
    """Shuffled torch batches of a Dataset's patterns; an epoch is one pass over all samples.

    Iterating yields patterns `(B, C, …)` in their stored dtype, of the next epoch each time.
    `epoch` yields any epoch from any batch on, with targets, labels and positions. The same seed
    and epoch give the same batches.

    Parameters
    ----------
    ds : xarray.Dataset
        Its dask chunks, of any shape and with any lazy steps, are read. A Dataset without dask is
        divided as it would be stored.
    variable : str
        Another variable over the navigation dims to take batches of, such as `latents`; NaN stays
        NaN.
    batch_size : int
        Samples of a batch.
    roi : xarray.DataArray, optional
        Boolean map of the samples to use. Default: the measured ones; of a run's variable those of
        the run's ROI.
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
        This process and the number of processes; each gets a share of the samples.
    labels : array of int, optional
        Class of each grid point, -1 where unknown, returned with the batches.
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

    Examples
    --------
    >>> batches = va.batches(ds, batch_size=16, roi=ds.roi, split=ds.split)
    >>> patterns = next(iter(batches))
    >>> patterns.shape[1:], patterns.dtype
    (torch.Size([1, 9, 11]), torch.uint8)
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
        _check_numbers(batch_size, memory)
        if balance is not None and (not shuffle or world_size > 1):
            raise UsageError(
                "balance draws samples at random; set shuffle=True and use one process."
            )
        values, self.sample_shape = _samples_of(ds, variable)
        if roi is None and variable != n.PATTERNS:
            roi = ds.get(_roi_name(variable))
        self.inside = _chosen(ds, roi, split, part)
        self.labels = _class_map("labels", labels, ds)
        self.sample_weights = sample_weights(_class_map("balance", balance, ds), self.inside)
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.device = pick_device(str(device))
        self.blocks = Blocks(values, schema.navigation_dims(ds))
        sample_bytes = math.prod(self.sample_shape) * self.blocks.dtype.itemsize
        self.allowed = {"device": device_memory * GIB, "memory": memory * GIB}
        # samples of a buffer, of which there are two
        self.capacity = max(1, int(self.allowed["memory"] / sample_bytes / 2))
        piece_samples = plan.piece_samples(self.capacity, self.blocks.largest)
        self.max_piece_samples = piece_samples if shuffle else self.capacity
        self.n_samples_total = int(self.inside.sum())
        largest_share = math.ceil(self.n_samples_total / world_size)
        self.nbytes = largest_share * sample_bytes
        self.tier = pick_tier(self.nbytes, self.allowed, self.device)
        self._plan_share(batch_size, world_size)
        self._resident: Buffer | None = None
        self._paths: tuple[View, Paths] | None = None
        self._next = 0

    def _plan_share(self, batch_size: int, world_size: int) -> None:
        """Set the pieces and the bounds of the batches of this process."""
        total = self.n_samples_total
        if total < world_size:
            raise UsageError(
                f"{total} samples cannot be shared by {world_size} processes; use fewer."
            )
        shares = plan.even_bounds(total, world_size).tolist()
        first = shares[self.rank]
        stop = shares[self.rank + 1]
        self.n_samples = stop - first
        n_chosen = [
            int(self.inside[tuple(region.values())].sum()) for region in self.blocks.regions
        ]
        self.pieces = plan.plan_pieces(n_chosen, self.max_piece_samples, first, stop)
        self.counts = [piece.stop - piece.start for piece in self.pieces]
        n_batches = math.ceil(math.ceil(total / world_size) / batch_size)
        if n_batches > self.n_samples:
            raise UsageError(
                "the ranks' shares differ by one sample, so batch_size must be at least 2."
            )
        self.batch_bounds = plan.even_bounds(self.n_samples, n_batches)

    def __len__(self) -> int:
        """Batches of an epoch; the same for every epoch and on every rank."""
        return len(self.batch_bounds) - 1

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.sample_shape))
        samples = f"{self.n_samples} samples, {shape} {self.blocks.dtype}"
        return f"<{len(self)} batches of {samples}, {self.describe()}>"

    def describe(self) -> str:
        """Return where the patterns are held, such as `in memory (11.00 MiB of 2.00 GiB)`."""
        held = format_bytes(self.nbytes)
        if self.tier == "streamed":
            buffer = format_bytes(int(self.allowed["memory"] / 2))
            return f"streamed ({held} through two buffers of {buffer})"
        location = "on the device" if self.tier == "device" else "in memory"
        return f"{location} ({held} of {format_bytes(int(self.allowed[self.tier]))})"

    def __iter__(self) -> Iterator[torch.Tensor]:
        epoch = self._next
        self._next += 1
        return (batch.patterns for batch in self.epoch(epoch))

    def epoch(self, number: int, *, start: int = 0, walk: Walk | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch, which depend on seed, number, rank and settings only.

        Parameters
        ----------
        number : int
            Number of the pass over all samples. A training may count shorter epochs.
        start : int
            The first batch; buffers that lie completely before it are not read.
        walk : Walk, optional
            How to find a partner for each sample among the samples that are held at the same time;
            another one in every epoch. `target` is then the partner's pattern.

        Yields
        ------
        Batch
            Patterns, targets, labels and positions.
        """
        if start >= len(self):
            return
        buffers, buffer_bounds = self._plan(number)
        first = int(np.searchsorted(buffer_bounds, self.batch_bounds[start], side="right")) - 1
        bounds = self.batch_bounds[start:]
        batch_ends = set(bounds.tolist())
        parts: list[Batch] = []  # of a batch, which may begin in the previous buffer
        held = self._read_buffers(buffers, buffer_bounds, number, first)
        for i, buffer in enumerate(held, first):
            begin = buffer_bounds[i]
            partners = None
            if walk is not None:
                partners = self._partners(buffer, walk, self._generator(number, WALK, i))
            for low, high in plan.batch_cuts(bounds, begin, buffer_bounds[i + 1]):
                rows = buffer.order[low - begin : high - begin]
                parts.append(self._part(buffer, rows, partners))
                if high in batch_ends:
                    yield self._batch(parts)
                    parts = []

    def _plan(self, number: int) -> tuple[list[list[int]], np.ndarray]:
        """Pieces of each buffer of an epoch, and the bounds of the buffers in the stream.

        With balance, a buffer yields samples in proportion to the weights of those it holds.
        """
        buffers = [list(range(len(self.pieces)))]
        if self.tier == "streamed":
            rng = self._generator(number, ORDER) if self.shuffle else None
            buffers = plan.plan_buffers(self.counts, self.capacity, rng)
        sizes = np.array(self.counts, float)
        if self.sample_weights is not None:
            for i in range(len(sizes)):
                points = self._points(i)
                sizes[i] = self.sample_weights[tuple(points.T)].sum()
        buffer_sizes = [sizes[pieces].sum() for pieces in buffers]
        buffer_bounds = np.cumsum([0.0, *buffer_sizes])
        buffer_bounds = np.round(buffer_bounds / buffer_bounds[-1] * self.n_samples)
        return buffers, buffer_bounds.astype(int)

    def _generator(self, number: int, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, number, self.rank, *purpose])

    def _read_buffers(
        self, buffers: list[list[int]], buffer_bounds: np.ndarray, number: int, first: int
    ) -> Iterator[Buffer]:
        """Yield buffers from `first` on, while the next one is read."""
        if self.tier != "streamed":
            if self._resident is None:
                device = self.device if self.tier == "device" else CPU
                memory = self._memory(self.n_samples, device)
                self._resident = self._read(buffers[0], memory)
            order = self._order(self._resident.points, number, 0, self.n_samples)
            yield self._resident._replace(order=order)
            return
        capacity = min(self.capacity, self.n_samples)
        memories = [self._memory(capacity, CPU), self._memory(capacity, CPU)]

        def read(i: int) -> Buffer:
            buffer = self._read(buffers[i], memories[i % 2])
            n_samples = int(buffer_bounds[i + 1] - buffer_bounds[i])
            return buffer._replace(order=self._order(buffer.points, number, i, n_samples))

        yield from read_ahead(read, range(first, len(buffers)))

    def _memory(self, n_samples: int, device: torch.device) -> torch.Tensor:
        dtype = torch.from_numpy(np.empty(0, self.blocks.dtype)).dtype
        return torch.empty((n_samples, *self.sample_shape), dtype=dtype, device=device)

    def _read(self, pieces: Sequence[int], memory: torch.Tensor) -> Buffer:
        """Read the samples of some pieces into `memory`, in threads."""
        piece_points = [self._points(i) for i in pieces]
        points = np.concatenate(piece_points)
        patterns = memory[: len(points)]
        targets = patterns.split([self.counts[i] for i in pieces])
        _ = self.blocks.graph  # computes shared results before the threads start
        n_threads = max(1, min(MAX_READERS, self.capacity // self.blocks.largest))
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(self._read_piece, pieces, piece_points, targets))
        return Buffer(patterns, points, np.arange(len(points)))

    def _points(self, i: int) -> np.ndarray:
        """Grid points of a piece's samples, `(n, n_nav)`."""
        block, start, stop = self.pieces[i]
        region = self.blocks.regions[block]
        points = np.argwhere(self.inside[tuple(region.values())])
        order = plan.in_tiles(points, self.max_piece_samples)[start:stop]
        return points[order] + corner(region)

    def _read_piece(self, i: int, points: np.ndarray, target: torch.Tensor) -> None:
        block = self.pieces[i].block
        region = self.blocks.regions[block]
        sizes = [extent.stop - extent.start for extent in region.values()]
        positions = (points - corner(region)).T
        rows = np.ravel_multi_index(tuple(positions), sizes)
        host = target
        if target.device.type != "cpu":
            host = host_tensor(tuple(target.shape), target.dtype, target.device)
        take_rows(self.blocks.read(block), rows, host.numpy())
        if host is not target:
            target.copy_(host)

    def _order(self, points: np.ndarray, number: int, i: int, n_samples: int) -> np.ndarray:
        """Positions in buffer i, with these grid points, in the order of the stream."""
        if not self.shuffle:
            return np.arange(len(points))
        rng = self._generator(number, BUFFER, i)
        if self.sample_weights is not None:
            weights = self.sample_weights[tuple(points.T)]
            return rng.choice(len(points), n_samples, p=weights / weights.sum())
        if self.tier != "streamed":
            return rng.permutation(len(points))
        n_batches = round(len(points) * len(self) / self.n_samples)
        return plan.deal(points, n_batches, rng)

    def _partners(self, buffer: Buffer, walk: Walk, rng: np.random.Generator) -> np.ndarray:
        """Position of each sample's partner.

        If the samples stay in memory, their paths are kept while `walk.view` is the same object.
        """
        if self.tier == "streamed" or self._paths is None or self._paths[0] is not walk.view:
            paths = find_paths(buffer.patterns, buffer.points, walk.view, self.device)
            self._paths = walk.view, paths
        return random_walk(self._paths[1], walk.steps, rng)

    def _part(self, buffer: Buffer, rows: np.ndarray, partners: np.ndarray | None) -> Batch:
        """The samples of a batch that a buffer holds."""
        index = buffer.points[rows]
        target = None
        if partners is not None:
            target = self._select(buffer.patterns, partners[rows])
        labels = None
        if self.labels is not None:
            labels = torch.from_numpy(self.labels[tuple(index.T)])
        patterns = self._select(buffer.patterns, rows)
        return Batch(patterns, target, labels, torch.from_numpy(index))

    def _select(self, held: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """`held[rows]`; on the CPU in one thread, as other threads decode."""
        if held.device.type == "cpu":
            shape = (len(rows), *held.shape[1:])
            selected = host_tensor(shape, held.dtype, self.device)
            take_rows(held.numpy(), rows, selected.numpy())
            return selected
        # index_select does not take uint16 and uint32, so their bytes are selected
        numbers = torch.from_numpy(rows).to(held.device)
        selected = held.view(torch.uint8).index_select(0, numbers)
        return selected.view(held.dtype)

    def _batch(self, parts: Sequence[Batch]) -> Batch:
        patterns, targets, labels, index = zip(*parts, strict=True)
        return Batch(
            self._concatenated(patterns),
            self._concatenated(targets),
            self._concatenated(labels),
            torch.cat(index),
        )

    def _concatenated(self, parts: Sequence[torch.Tensor | None]) -> Any:
        """One tensor on the device, copied without waiting."""
        if parts[0] is None:
            return None
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)  # type: ignore[arg-type]
        return tensor.to(self.device, non_blocking=True)


batches = PatternBatches


def _check_numbers(batch_size: int, memory: float) -> None:
    if batch_size < 1 or not 0 < memory < math.inf:
        raise UsageError(
            f"batch_size is {batch_size}, memory {memory}; both must be positive, memory in GiB."
        )


def _samples_of(ds: xr.Dataset, variable: str) -> tuple[xr.DataArray, tuple[int, ...]]:
    """The variable with the navigation dims first, and the shape of one sample of it."""
    if variable == n.PATTERNS:
        return ds[n.PATTERNS], schema.input_shape(ds)
    nav = schema.navigation_dims(ds)
    names = [str(name) for name in ds.data_vars if set(nav) <= set(ds[name].dims)]
    if variable not in names:
        hint = did_you_mean(variable, names)
        raise UsageError(f"there is no variable {variable!r} over {', '.join(nav)}.{hint}")
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
    """Boolean over the navigation dims: the samples of which batches are made."""
    inside = measured(ds)
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
    """Classes of grid points as int64."""
    if values is None:
        return None
    if isinstance(values, xr.DataArray):
        values = check_map(ds, values, boolean=False).values
    shape = schema.navigation_shape(ds)
    if values.shape != shape or values.dtype.kind not in "iu":
        raise UsageError(
            f"{what} is {values.dtype} of shape {values.shape}; expected integers of shape {shape}."
        )
    return values.astype(np.int64)


def sample_weights(classes: np.ndarray | None, inside: np.ndarray) -> np.ndarray | None:
    """Return the weight of each grid point in sampling: 1 / size of its class, 1 on average.

    Points with a class below 0 have the average weight. None without classes.
    """
    if classes is None:
        return None
    ids, member = np.unique(classes, return_inverse=True)
    sizes = np.bincount(member.ravel(), weights=inside.ravel(), minlength=len(ids))
    has_samples = (ids >= 0) & (sizes > 0)
    average = sizes[has_samples].sum() / max(1, has_samples.sum())
    weights = np.where(has_samples, average / np.maximum(sizes, 1), 1.0)
    return weights[member].reshape(classes.shape)


def pick_tier(nbytes: int, allowed: Mapping[str, float], device: torch.device) -> str:
    """Return the fastest tier that holds so many bytes: "device" (CUDA only), "memory", or neither:
    "streamed".
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if nbytes <= min(allowed["device"], FREE_SHARE * free):
            return "device"
    return "memory" if nbytes <= allowed["memory"] else "streamed"
