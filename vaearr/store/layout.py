"""How arrays are cut on disk: chunks that are read and written whole, codecs with a checksum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

CHUNK_BYTES = 8 * 2**20
CHUNK_SAMPLES = 1024

Region = dict[str, slice]
Dim = TypeVar("Dim", str, int)


def pattern_chunks(nav: tuple[int, ...], signal: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Chunk shape of `patterns`: near-square tiles of at most 1024 samples and 8 MiB, unless one sample is larger.

    Few and small enough files, and blocks that dask reads fast; each sample is whole. Where the grid is narrow, tiles
    are longer.
    """
    most = min(CHUNK_SAMPLES, CHUNK_BYTES // max(1, math.prod(signal) * itemsize))
    sides = [1] * len(nav)
    while math.prod(sides) * 2 <= most and (short := [i for i, side in enumerate(sides) if side < nav[i]]):
        sides[min(short, key=lambda i: (sides[i], -i))] *= 2
    return (*sides, *signal)


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
