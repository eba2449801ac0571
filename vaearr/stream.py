"""Maps of a store made block by block: what is chosen is read, worked on and written; a killed run is gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from vaearr.blocks import take_rows
from vaearr.device import host_tensor
from vaearr.store import Region, Staging, pending, read_ahead, read_block, write_block

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Block:
    """One block of the grid: which of its points are chosen, and their samples `(n, C, …)` as stored."""

    region: Region
    inside: np.ndarray
    stored: torch.Tensor

    @property
    def points(self) -> np.ndarray:
        """Grid points of the samples, `(n, n_nav)`, row-major."""
        return np.argwhere(self.inside) + [part.start for part in self.region.values()]


def read_chosen(
    patterns: xr.DataArray,
    chosen: np.ndarray,
    input_shape: tuple[int, ...],
    regions: Sequence[Region],
    device: torch.device = CPU,
) -> Iterator[Block]:
    """The blocks of some regions, each read while the one before is worked on; empty ones without a read.

    patterns: navigation dims, then signal dims. chosen: boolean over the navigation grid. device: where the samples go
    next, which decides what kind of memory they wait in.
    """
    like = torch.from_numpy(np.empty(0, patterns.dtype.newbyteorder("="))).dtype

    def read(region: Region) -> Block:
        inside = chosen[tuple(region.values())]
        stored = host_tensor((int(inside.sum()), *input_shape), like, device)
        if len(stored):
            take_rows(read_block(patterns, region), np.flatnonzero(inside), stored.numpy())
        return Block(region, inside, stored)

    return read_ahead(read, regions)


def map_blocks(
    staging: Staging,
    read: Callable[[Sequence[Region]], Iterator[Block]],
    kernel: Callable[[Block], Mapping[str, np.ndarray]],
    *,
    what: str,
    say: Callable[[str], None],
    on_block: Callable[[int, int], None] | None = None,
) -> None:
    """Fill the staged variables, block by block: those that are written already are passed over.

    read: the blocks of the regions that are left, such as `read_chosen`. kernel: from a block with chosen points to
    `{variable: values (n, …)}` of these points; NaN is written elsewhere. One block is read and one written while one
    is worked on. what: the work, in a word, for who goes on with an interrupted one. on_block: told (done, in all).
    """
    left, total = pending(staging), len(staging.regions)
    if len(left) < total:
        say(f"going on with an interrupted {what}: {total - len(left)} blocks are done")
    with ThreadPoolExecutor(1) as writer:
        behind: list[Future[None]] = []
        for done, block in enumerate(read(left), total - len(left)):
            values = kernel(block) if len(block.stored) else {}
            if behind:
                behind.pop().result()
                if on_block:
                    on_block(done, total)
            behind.append(writer.submit(write_chosen, staging, block, values))
        if behind:
            behind.pop().result()
            if on_block:
                on_block(total, total)


def write_chosen(staging: Staging, block: Block, values: Mapping[str, np.ndarray]) -> None:
    """Write values `(n, …)` of a block's chosen points into every staged variable, NaN elsewhere."""
    full = {}
    for name, array in staging.arrays.items():
        each = array.shape[block.inside.ndim :]
        full[name] = np.full((*block.inside.shape, *each), np.nan, np.float32)
        if len(block.stored):
            full[name][block.inside] = values[name].reshape(-1, *each)
    write_block(staging, block.region, full)
