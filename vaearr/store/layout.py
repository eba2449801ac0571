"""Chunks, codecs and attributes of stored arrays."""

from __future__ import annotations

import itertools
import json
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

CHUNK_BYTES = 8 * 2**20
CHUNK_SAMPLES = 1024
# fast to read, with a checksum that detects flipped bits
PATTERN_CODECS = (BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec())
MAP_CODECS = (ZstdCodec(level=3, checksum=True),)

Region = dict[str, slice]
Dim = TypeVar("Dim", str, int)
Item = TypeVar("Item")
Value = TypeVar("Value")


def read_ahead(
    read: Callable[[Item], Value], items: Iterable[Item], at_once: int = 1
) -> Generator[Value, None, None]:
    """Yield `map(read, items)` in order, computed in threads at most `at_once` items ahead."""
    ahead: deque[Future[Value]] = deque()
    with ThreadPoolExecutor(at_once) as pool:
        for item in items:
            ahead.append(pool.submit(read, item))
            if len(ahead) > at_once:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def pattern_chunks(nav: tuple[int, ...], signal: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the chunk shape of `patterns`: near-square tiles of undivided samples.

    A tile has at most 1024 samples and 8 MiB, unless one sample is larger: few files, and blocks
    that dask reads fast. On a narrow grid, tiles are longer.
    """
    max_samples = min(CHUNK_SAMPLES, CHUNK_BYTES // max(1, math.prod(signal) * itemsize))
    sides = [1] * len(nav)
    while math.prod(sides) * 2 <= max_samples:
        growing = [i for i, side in enumerate(sides) if side < nav[i]]
        if not growing:
            break
        shortest = min(growing, key=lambda i: (sides[i], -i))  # of equal sides the last
        sides[shortest] *= 2
    return (*sides, *signal)


def blocks(sizes: Mapping[Dim, int], block: Mapping[Dim, int]) -> Iterator[dict[Dim, slice]]:
    """Yield regions `{dim: slice}` that tile `sizes` in row-major order."""
    slices = []
    for dim, size in sizes.items():
        starts = range(0, size, block[dim])
        slices.append([slice(start, min(start + block[dim], size)) for start in starts])
    for region in itertools.product(*slices):
        yield dict(zip(sizes, region, strict=True))


def chunk_name(array: zarr.Array, region: tuple[slice, ...]) -> str:
    """Return the file, below the array, of the chunk (shard) at the start of a region."""
    index = [0] * array.ndim
    for axis, positions in enumerate(region):
        index[axis] = positions.start // (array.shards or array.chunks)[axis]
    return array.metadata.encode_chunk_key(tuple(index))


def chunks_of(array: zarr.Array) -> Iterator[tuple[str, tuple[slice, ...]]]:
    """Yield the file and the region of each chunk (shard) of an array, row-major."""
    sides = array.shards or array.chunks
    for block in blocks(dict(enumerate(array.shape)), dict(enumerate(sides))):
        region = tuple(block.values())
        yield chunk_name(array, region), region


def plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return attributes as JSON types: NumPy values and tuples become numbers and lists."""
    text = json.dumps(
        dict(attrs),
        default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value),
    )
    return dict(json.loads(text))


def flat(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return attributes as the types of netCDF: text, numbers, flat lists, else JSON text.

    `vaearr.recipe.nested` reads the JSON text.
    """
    result = plain(attrs)
    for key, value in result.items():
        items = value if isinstance(value, list) else [value]
        types = {type(item) for item in items}
        if isinstance(value, bool):
            result[key] = int(value)
        elif not (types <= {str} or types <= {int, float}):
            result[key] = json.dumps(value)
    return result
