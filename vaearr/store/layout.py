"""How arrays are cut on disk: chunks (read alone), shards (written alone), codecs with a checksum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

CHUNK_BYTES = 512 * 2**10
SHARD_BYTES = 8 * 2**20
MAX_CHUNK_SIDE, MAX_SHARD_SIDE = 8, 32
MAX_CHUNK_LENGTH, MAX_SHARD_LENGTH = 64, 1024  # one navigation dim: a collection

Region = dict[str, slice]
Dim = TypeVar("Dim", str, int)


def pattern_layout(nav: tuple[int, ...], signal: tuple[int, ...], itemsize: int) -> tuple[tuple[int, ...], ...]:
    """Chunk and shard shapes of `patterns`: near-square blocks of samples, each sample whole.

    Blocks of scan points make a read request of neighbours cheap and a shard large enough for the file system: a chunk
    stays below about 0.5 MB and a shard below about 8 MB, unless one sample is larger.
    """
    sample = math.prod(signal) * itemsize
    limits = (MAX_CHUNK_SIDE, MAX_SHARD_SIDE) if len(nav) > 1 else (MAX_CHUNK_LENGTH, MAX_SHARD_LENGTH)
    chunk = _side(len(nav), sample, CHUNK_BYTES, limits[0], 1)
    shard = _side(len(nav), sample, SHARD_BYTES, limits[1], chunk)
    return (chunk,) * len(nav) + signal, (shard,) * len(nav) + signal


def _side(n_dims: int, sample: int, budget: int, limit: int, start: int) -> int:
    side = start
    while side * 2 <= limit and (side * 2) ** n_dims * sample <= budget:
        side *= 2
    return side


def blocks(sizes: Mapping[Dim, int], block: Mapping[Dim, int]) -> Iterator[dict[Dim, slice]]:
    """Regions `{dim: slice}` that tile `sizes` in row-major order; the last one of a dim may be shorter."""
    starts = [range(0, sizes[dim], block[dim]) for dim in sizes]
    for corner in itertools.product(*starts):
        yield {dim: slice(i, min(i + block[dim], sizes[dim])) for dim, i in zip(sizes, corner, strict=True)}


def pattern_codecs() -> tuple[Any, ...]:
    """Fast to read, and checksummed: a flipped bit is an error, not a number."""
    return (BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec())


def map_codecs() -> tuple[Any, ...]:
    """For everything derived."""
    return (ZstdCodec(level=3, checksum=True),)


def fill_value(dtype: np.dtype) -> Any:
    """NaN for floats, 0 for the rest (`present`, `roi` and flags say what is not data)."""
    return np.nan if dtype.kind == "f" else np.zeros((), dtype).item()
