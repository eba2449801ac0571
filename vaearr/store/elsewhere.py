"""Shards that other processes write into a store that is being made: they return the file and checksum of each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path

from vaearr import names as n
from vaearr.store.layout import Region

Elsewhere = Callable[[Path, Sequence[Region]], Generator[tuple[Path, str], None, None]]


def from_elsewhere(
    elsewhere: Elsewhere, folder: Path, regions: Sequence[Region], progress: Callable[[int, int], None] | None
) -> dict[Path, str]:
    """Wait until all shards are written; returns their checksums. What killed processes left is removed."""
    sums = {}
    with closing(elsewhere(folder, regions)) as written:  # whatever happens, nobody writes any more when it is closed
        for shard, checksum in written:
            sums[shard] = checksum
            if progress:
                progress(len(sums), len(regions))
    for left in (folder / n.PATTERNS).rglob("*.partial"):
        left.unlink()
    return sums
