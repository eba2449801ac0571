"""How arrays are cut on disk, with which codecs, and in which form their attributes are kept."""

from __future__ import annotations

import itertools
import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

CHUNK_BYTES = 8 * 2**20
CHUNK_SAMPLES = 1024

Region = dict[str, slice]
Dim = TypeVar("Dim", str, int)
Item = TypeVar("Item")
Value = TypeVar("Value")


def read_ahead(
    read: Callable[[Item], Value], items: Iterable[Item], at_once: int = 1
) -> Iterator[Value]:
    """`map(read, items)` in threads, in order, at most `at_once` items ahead of the caller."""
    ahead: deque[Future[Value]] = deque()
    with ThreadPoolExecutor(at_once) as pool:
        for item in items:
            ahead.append(pool.submit(read, item))
            if len(ahead) > at_once:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def pattern_chunks(nav: tuple[int, ...], signal: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Chunk shape of `patterns`: near-square tiles of at most 1024 samples and 8 MiB, unless one
    sample is larger.

    Few and small enough files, and blocks that dask reads fast; each sample is whole. Where the
    grid is narrow, tiles are longer.
    """
    most = min(CHUNK_SAMPLES, CHUNK_BYTES // max(1, math.prod(signal) * itemsize))
    sides = [1] * len(nav)
    while math.prod(sides) * 2 <= most and (
        short := [i for i, side in enumerate(sides) if side < nav[i]]
    ):
        sides[min(short, key=lambda i: (sides[i], -i))] *= 2
    return (*sides, *signal)


def blocks(sizes: Mapping[Dim, int], block: Mapping[Dim, int]) -> Iterator[dict[Dim, slice]]:
    """Regions `{dim: slice}` that tile `sizes` in row-major order; the last one of a dim may be
    shorter.
    """
    starts = [range(0, sizes[dim], block[dim]) for dim in sizes]
    for corner in itertools.product(*starts):
        yield {
            dim: slice(i, min(i + block[dim], sizes[dim]))
            for dim, i in zip(sizes, corner, strict=True)
        }


def chunk_name(array: zarr.Array, region: tuple[slice, ...]) -> str:
    """Name, below the array, of the chunk (shard) that starts a region of its first dims."""
    index = [
        part.start // side for part, side in zip(region, array.shards or array.chunks, strict=False)
    ]
    return array.metadata.encode_chunk_key((*index, *(0,) * (array.ndim - len(index))))


def chunks_of(array: zarr.Array) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """Name and region of each chunk (shard) of an array, row-major."""
    for region in blocks(
        dict(enumerate(array.shape)), dict(enumerate(array.shards or array.chunks))
    ):
        yield chunk_name(array, tuple(region.values())), tuple(region.values())


def pattern_codecs() -> tuple[Any, ...]:
    """Fast to read, and checksummed: a flipped bit is an error, not a number."""
    return (BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec())


def map_codecs() -> tuple[Any, ...]:
    """For everything derived."""
    return (ZstdCodec(level=3, checksum=True),)


def fill_value(dtype: np.dtype) -> Any:
    """NaN for floats, 0 for the rest (`present`, `roi` and flags say what is not data)."""
    return np.nan if dtype.kind == "f" else np.zeros((), dtype).item()


def plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as plain JSON: numpy scalars and arrays and tuples become numbers and lists, all
    else text.
    """
    text = json.dumps(
        dict(attrs),
        default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value),
    )
    return dict(json.loads(text))


def flat(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """The same as text, numbers and flat lists, which netCDF knows too: `vaearr.recipe.nested`
    reads the rest.
    """
    result: dict[str, Any] = {}
    for key, value in plain(attrs).items():
        items = value if isinstance(value, list) else [value]
        is_text = all(isinstance(item, str) for item in items)
        is_numbers = all(type(item) in (int, float) for item in items)
        if isinstance(value, bool):
            result[key] = int(value)
        elif is_text or is_numbers:
            result[key] = value
        else:
            result[key] = json.dumps(value)
    return result
