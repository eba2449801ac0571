"""Which samples of a store, how they are read, and how what they become is put back: everywhere
block by block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching.blocks import Block, Blocks, read_chosen
from vaearr.computing.progress import Progress, showing
from vaearr.errors import UsageError, did_you_mean
from vaearr.models.artifacts import TrainedModel
from vaearr.models.windows import decode_windows, encode_windows
from vaearr.run import Run
from vaearr.store import Region, Staging, pending, write_block

log = logging.getLogger("vaearr")

PARTS = {"train": n.TRAIN, "validation": n.VALIDATION}

Values = Mapping[
    str, np.ndarray
]  # by variable, `(n, …)` of a block's chosen points; empty for no point


class BlockResult(NamedTuple):
    """What became of a block: its chosen points, and values by variable, or a function that waits
    for them.
    """

    region: Region
    inside: np.ndarray
    values: Values | Callable[[], Values]


def part_map(run: Run, part: str, *, most: int | None = None, seed: int = 0) -> xr.DataArray:
    """Samples of a part of the run's split as a boolean map over the navigation dims, a seeded
    choice of `most`.

    part: train, validation or all. Raises UsageError for another one.
    """
    if part not in (*PARTS, "all"):
        raise UsageError(f"there is no part {part!r}.{did_you_mean(part, [*PARTS, 'all'])}")
    split = run.variable(n.SPLIT).load()
    inside = split == PARTS[part] if part in PARTS else split != n.OUTSIDE
    points = np.flatnonzero(inside.values)
    if most is None or len(points) <= most:
        return inside
    kept = np.zeros(inside.size, bool)
    kept[np.random.default_rng([seed, 1]).permutation(points)[:most]] = True
    return inside.copy(data=kept.reshape(inside.shape))


def example_points(run: Run, chosen: xr.DataArray, count: int, seed: int) -> np.ndarray:
    """A few of the chosen grid points `(k, navigation)`, row-major: of the validation part where it
    has any.
    """
    held_out = chosen.values & (run.variable(n.SPLIT).load().values == n.VALIDATION)
    points = np.argwhere(held_out if held_out.any() else chosen.values)
    return points[np.sort(np.random.default_rng(seed).permutation(len(points))[:count])]


def chosen_blocks(run: Run, chosen: xr.DataArray) -> tuple[int, Iterator[Block]]:
    """How many blocks the store has, and its chosen samples, block by block; the next block is read
    meanwhile.
    """
    blocks = Blocks(run.ds[n.PATTERNS], schema.navigation_dims(run.ds))
    return len(blocks.regions), read_chosen(blocks, chosen.values, run.model.input_shape)


def batches_of(
    run: Run, chosen: xr.DataArray, batch_size: int
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Chosen points `(k, navigation)` and their patterns as stored `(k, C, …)`, on the model's
    device.

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


class Passed(NamedTuple):
    """Samples as the network sees them, their posterior mean and log-variance, and the decoded
    mean.
    """

    target: torch.Tensor
    mean: torch.Tensor
    logvar: torch.Tensor
    decoded: torch.Tensor


@torch.inference_mode()
def through(
    model: TrainedModel,
    stored: torch.Tensor,
    window: Sequence[int] | None = None,
    overlap: float = 0.25,
    elements: np.ndarray | None = None,
) -> Passed:
    """Preprocess, encode and decode stored patterns `(B, C, …)`; nothing is learned.

    window, overlap: spatial latents window by window, see `vaearr.models.windows`. elements:
    content of each sample, for a model that explains it too.
    """
    network = model.network
    target = model.preprocess(stored.to(model.device, non_blocking=True))
    if window is None:
        mean, logvar = (
            network.encode(target) if elements is None else network.encode(target, elements)
        )
        decoded = network.decode(mean)
    else:
        mean, logvar = encode_windows(network, target, window, overlap)
        decoded = decode_windows(network, mean, window, overlap)
    return Passed(target, mean, logvar, decoded)


def write_blocks(
    staging: Staging,
    results: Iterable[BlockResult],
    *,
    what: str,
    progress: Progress,
) -> None:
    """Fill the staged variables block by block; one block is written while the next is computed.

    results: of the blocks that are `pending` in the staging. what: the work, in a word.
    """
    total = len(staging.regions)
    done = total - len(pending(staging))
    if done:
        log.info(f"resuming {what}: {done} of {total} blocks exist")
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1) as writer, showing(progress, what) as show:
        for result in results:
            if writing is not None:
                writing.result()
                done += 1
                show(done, total)
            writing = writer.submit(write_result, staging, result)
        if writing is not None:
            writing.result()
            show(total, total)


def write_result(staging: Staging, result: BlockResult) -> None:
    """Write values of a block's chosen points into every staged variable, NaN elsewhere."""
    values = result.values
    if callable(values):
        values = values()
    blocks = {}
    for name, array in staging.arrays.items():
        sample_shape = array.shape[result.inside.ndim :]
        block = np.full((*result.inside.shape, *sample_shape), np.nan, np.float32)
        if name in values:
            block[result.inside] = values[name].reshape(-1, *sample_shape)
        blocks[name] = block
    write_block(staging, result.region, blocks)
