"""Read samples of a store block by block, encode and decode them, write results back."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.batching.blocks import Block, Blocks, read_chosen
from vaearr.computing.progress import Progress, showing
from vaearr.models.artifacts import TrainedModel
from vaearr.models.windows import decode_windows, encode_windows
from vaearr.run import Run
from vaearr.run.decode import BATCH_SIZE
from vaearr.store import Region, StagedVariables, read_ahead, write_block

log = logging.getLogger("vaearr")

PARTS = {"train": n.TRAIN, "validation": n.VALIDATION}

Values = Mapping[str, np.ndarray]  # by variable, `(n, …)` of the chosen points of a block


class BlockResult(NamedTuple):
    """Results of a block, at its chosen points."""

    region: Region
    inside: np.ndarray
    values: Values


def part_map(run: Run, part: str) -> xr.DataArray:
    """Boolean map of a part of the split: train, validation or all."""
    split = run.variable(n.SPLIT).load()
    if part not in PARTS:
        return split != n.OUTSIDE
    return split == PARTS[part]


def subset_map(mask: xr.DataArray, max_samples: int, seed: int) -> xr.DataArray:
    """A seeded choice of at most `max_samples` samples of a boolean map."""
    samples = np.flatnonzero(mask.values)
    if len(samples) <= max_samples:
        return mask
    selected = np.zeros(mask.size, bool)
    selected[np.random.default_rng([seed, 1]).permutation(samples)[:max_samples]] = True
    return mask.copy(data=selected.reshape(mask.shape))


def example_points(run: Run, chosen: xr.DataArray, count: int, seed: int) -> np.ndarray:
    """A few chosen grid points `(k, navigation)`, row-major; validation points if there are any."""
    is_validation = chosen.values & (run.variable(n.SPLIT).values == n.VALIDATION)
    points = np.argwhere(is_validation if is_validation.any() else chosen.values)
    return points[np.sort(np.random.default_rng(seed).permutation(len(points))[:count])]


def chosen_blocks(run: Run, chosen: xr.DataArray) -> tuple[int, Iterator[Block]]:
    """The number of blocks of the store, and its chosen samples, block by block, read ahead."""
    blocks = Blocks(run.ds[n.PATTERNS], schema.navigation_dims(run.ds))
    return len(blocks.regions), read_chosen(blocks, chosen.values, run.model.input_shape)


def pattern_batches(run: Run, chosen: xr.DataArray) -> Iterator[torch.Tensor]:
    """Stored patterns `(k, C, …)` of chosen points, on the device of the model.

    Samples with values that are not finite are left out.
    """
    size = run.model.fitting(BATCH_SIZE)
    for block in chosen_blocks(run, chosen)[1]:
        patterns = block.stored
        if patterns.is_floating_point():
            patterns = patterns[torch.isfinite(patterns).flatten(1).all(1)]
        for start in range(0, len(patterns), size):
            yield patterns[start : start + size].to(run.model.device)


class Decoded(NamedTuple):
    """Preprocessed samples, their posterior mean and log-variance, and the decoded mean."""

    target: torch.Tensor
    mean: torch.Tensor
    logvar: torch.Tensor
    decoded: torch.Tensor


@torch.inference_mode()
def encode_and_decode(
    model: TrainedModel,
    stored: torch.Tensor,
    window: Sequence[int] | None = None,
    overlap: float = 0.25,
    elements: np.ndarray | None = None,
) -> Decoded:
    """Preprocess, encode and decode stored patterns `(B, C, …)`.

    window, overlap: of spatial latents, see `vaearr.models.windows`. elements: content of each
    sample, for a model that explains it.
    """
    network = model.network
    target = model.preprocess(stored.to(model.device, non_blocking=True))
    if window is not None:
        mean, logvar = encode_windows(network, target, window, overlap)
        return Decoded(target, mean, logvar, decode_windows(network, mean, window, overlap))
    extra = () if elements is None else (elements,)
    mean, logvar = network.encode(target, *extra)
    return Decoded(target, mean, logvar, network.decode(mean))


def write_blocks(
    staged: StagedVariables,
    unwritten: Sequence[Region],
    results: Iterable[BlockResult],
    *,
    what: str,
    progress: Progress,
) -> None:
    """Fill the staged variables; one block is written while the next is computed.

    unwritten: the blocks that were `pending` at the start. results: of these. what: the work, in a
    word.
    """
    total = len(staged.regions)
    done = total - len(unwritten)
    if done:
        log.info(f"resuming {what}: {done} of {total} blocks exist")
    with showing(progress, what) as show:
        for _ in read_ahead(partial(write_result, staged), results):
            done += 1
            show(done, total)


def write_result(staged: StagedVariables, result: BlockResult) -> None:
    """Write the values of a block into every staged variable, NaN at points not chosen."""
    values = result.values
    blocks = {}
    for name, array in staged.arrays.items():
        sample_shape = array.shape[result.inside.ndim :]
        block = np.full((*result.inside.shape, *sample_shape), np.nan, np.float32)
        if name in values:
            block[result.inside] = values[name].reshape(-1, *sample_shape)
        blocks[name] = block
    write_block(staged, result.region, blocks)
