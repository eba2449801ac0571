"""Chunks of `patterns` that other processes write into a store that is being made, each whole and by one process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import zarr

from vaearr import names as n
from vaearr.store import layout
from vaearr.store.folders import sync_path
from vaearr.store.places import Folder, sha256_of

Elsewhere = Callable[[Path, Sequence[layout.Region]], Generator[tuple[Path, str], None, None]]


def from_elsewhere(
    elsewhere: Elsewhere, folder: Path, regions: Sequence[layout.Region], progress: Callable[[int, int], None] | None
) -> dict[str, str]:
    """Checksums of chunks that other processes write; what killed ones left, `seal` removes."""
    sums = {}
    with closing(elsewhere(folder, regions)) as written:  # whatever happens, nobody writes any more when it is closed
        for chunk, checksum in written:
            sums[chunk.relative_to(folder).as_posix()] = checksum
            if progress:
                progress(len(sums), len(regions))
    return sums


def chunk_file(array: zarr.Array, region: layout.Region) -> Path:
    """The file of the chunk that starts a region."""
    index = [s.start // size for s, size in zip(region.values(), array.chunks, strict=False)]
    index += [0] * (array.ndim - len(index))
    return Path(str(array.store_path).removeprefix("file://")) / array.metadata.encode_chunk_key(tuple(index))


def write_shard(folder: str | Path, region: layout.Region, values: np.ndarray) -> tuple[Path, str]:
    """Write one whole chunk of `patterns` durably; returns its file and checksum. No two processes share a chunk."""
    array = zarr.open_group(folder, mode="r+", zarr_format=3)[n.PATTERNS]
    assert isinstance(array, zarr.Array)
    array.with_config({"write_empty_chunks": True})[tuple(region.values())] = values
    file = chunk_file(array, region)
    sync_path(file)
    return file, sha256_of(Folder(file.parent), file.name)
