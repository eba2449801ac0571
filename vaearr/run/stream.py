"""Which samples of a store, how they are read, and how what they become is put back: everywhere block by block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching.blocks import Block, Blocks, read_chosen
from vaearr.computing.progress import Progress, showing
from vaearr.errors import UsageError, did_you_mean
from vaearr.models.artifacts import TrainedModel
from vaearr.models.networks import decode_windows, encode_windows
from vaearr.run import Run
from vaearr.store import Region, Staging, pending, write_block

log = logging.getLogger("vaearr")

PARTS = {"train": n.TRAIN, "validation": n.VALIDATION}

Values = Mapping[str, np.ndarray]  # by variable, `(n, …)` of a block's chosen points; nothing for none
Made = tuple[Region, np.ndarray, Values | Callable[[], Values]]  # a block, its chosen points, what they became


def part_map(run: Run, part: str, *, most: int | None = None, seed: int = 0) -> xr.DataArray:
    """Samples of a part of the run's split as a boolean map over the navigation dims, a seeded choice of `most`.

    part: train, validation or all. Raises UsageError for another one.
    """
    if part not in (*PARTS, "all"):
        raise UsageError(f"there is no part {part!r}.{did_you_mean(part, [*PARTS, 'all'])}")
    split = run.own(n.SPLIT).load()
    inside = split == PARTS[part] if part in PARTS else split != n.OUTSIDE
    points = np.flatnonzero(inside.values)
    if most is None or len(points) <= most:
        return inside
    kept = np.zeros(inside.size, bool)
    kept[np.random.default_rng([seed, 1]).permutation(points)[:most]] = True
    return inside.copy(data=kept.reshape(inside.shape))


def example_points(run: Run, chosen: xr.DataArray, count: int, seed: int) -> np.ndarray:
    """A few of the chosen grid points `(k, navigation)`, row-major: of the validation part where it has any."""
    held_out = chosen.values & (run.own(n.SPLIT).load().values == n.VALIDATION)
    points = np.argwhere(held_out if held_out.any() else chosen.values)
    return points[np.sort(np.random.default_rng(seed).permutation(len(points))[:count])]


def chosen_blocks(run: Run, chosen: xr.DataArray) -> tuple[int, Iterator[Block]]:
    """How many blocks the store has, and its chosen samples, block by block; the next block is read meanwhile."""
    blocks = Blocks(run.ds[n.PATTERNS], schema.navigation_dims(run.ds))
    return len(blocks.regions), read_chosen(blocks, chosen.values, run.model.input_shape)


def batches_of(run: Run, chosen: xr.DataArray, batch_size: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Chosen points `(k, navigation)` and their patterns as stored `(k, C, …)`, on the model's device.

    Samples with values that are not finite are left out.
    """
    size = run.model.fitting(batch_size)
    for block in chosen_blocks(run, chosen)[1]:
        points, stored = block.points, block.stored
        if stored.is_floating_point():
            known = torch.isfinite(stored).flatten(1).all(1)
            points, stored = points[known.numpy()], stored[known]
        for start in range(0, len(points), size):
            yield points[start : start + size], stored[start : start + size].to(run.model.device)


@torch.inference_mode()
def through(
    model: TrainedModel, stored: torch.Tensor, window: Sequence[int] | None = None, overlap: float = 0.25
) -> tuple[torch.Tensor, ...]:
    """Stored patterns `(B, C, …)` as the network sees them, their posterior mean and log-variance, the mean decoded.

    window, overlap: spatial latents by windows, see `models.networks`. Nothing is learned.
    """
    seen, network = model.preprocess(stored.to(model.device, non_blocking=True)), model.network
    if window is None:
        mean, logvar = network.encode(seen)
        return seen, mean, logvar, network.decode(mean)
    mean, logvar = encode_windows(network, seen, window, overlap)
    return seen, mean, logvar, decode_windows(network, mean, window, overlap)


def write_made(
    staging: Staging,
    make: Callable[[Sequence[Region]], Iterable[Made]],
    *,
    what: str,
    progress: Progress,
) -> None:
    """Fill the staged variables, block by block: those that are written already are passed over.

    make: from the regions that are left to what becomes of each: values by variable, or a function that gives them, for
    work that goes on elsewhere; NaN is written at points not chosen. One block is written while the next is made. what:
    the work, in a word.
    """
    left, total = pending(staging), len(staging.regions)
    if len(left) < total:
        log.info(f"going on with interrupted {what}: {total - len(left)} blocks are done")
    written = _write_behind(lambda made: write_chosen(staging, *made), make(left))
    with showing(progress, what) as show:
        for done, _ in enumerate(written, total - len(left) + 1):
            show(done, total)


def _write_behind(write: Callable[[Made], None], items: Iterable[Made]) -> Iterator[None]:
    """`map(write, items)`, where one thread writes an item while the caller makes the next; yields what is written."""
    with ThreadPoolExecutor(1) as writer:
        behind: Future[None] | None = None
        for item in items:
            if behind:
                yield behind.result()
            behind = writer.submit(write, item)
        if behind:
            yield behind.result()


def write_chosen(staging: Staging, region: Region, inside: np.ndarray, values: Values | Callable[[], Values]) -> None:
    """Write values of a block's chosen points into every staged variable, NaN elsewhere."""
    known, full = values() if callable(values) else values, {}
    for name, array in staging.arrays.items():
        each = array.shape[inside.ndim :]
        full[name] = np.full((*inside.shape, *each), np.nan, np.float32)
        if known:
            full[name][inside] = known[name].reshape(-1, *each)
    write_block(staging, region, full)
