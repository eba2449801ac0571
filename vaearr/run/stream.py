"""Maps of a store made block by block: what is chosen is worked on and written; a killed run is gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from vaearr.blocks import Block
from vaearr.store import Region, Staging, pending, write_block

Item = TypeVar("Item")


def write_behind(write: Callable[[Item], object], items: Iterable[Item]) -> Iterator[object]:
    """`map(write, items)`, where one thread writes an item while the caller makes the next; yields what is written."""
    with ThreadPoolExecutor(1) as writer:
        behind: Future[object] | None = None
        for item in items:
            if behind:
                yield behind.result()
            behind = writer.submit(write, item)
        if behind:
            yield behind.result()


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

    read: the blocks of the regions that are left, as by `blocks.read_chosen`. kernel: from a block with chosen points
    to `{variable: values (n, …)}` of these points; NaN is written elsewhere. One block is read and one written while
    one is worked on. what: the work, in a word, for who goes on with an interrupted one. on_block: told (done, in all).
    """
    left, total = pending(staging), len(staging.regions)
    if len(left) < total:
        say(f"going on with an interrupted {what}: {total - len(left)} blocks are done")
    made = ((block, kernel(block) if len(block.stored) else {}) for block in read(left))
    for done, _ in enumerate(write_behind(lambda item: write_chosen(staging, *item), made), total - len(left) + 1):
        if on_block:
            on_block(done, total)


def write_chosen(staging: Staging, block: Block, values: Mapping[str, np.ndarray]) -> None:
    """Write values `(n, …)` of a block's chosen points into every staged variable, NaN elsewhere."""
    full = {}
    for name, array in staging.arrays.items():
        each = array.shape[block.inside.ndim :]
        full[name] = np.full((*block.inside.shape, *each), np.nan, np.float32)
        if len(block.stored):
            full[name][block.inside] = values[name].reshape(-1, *each)
    write_block(staging, block.region, full)
