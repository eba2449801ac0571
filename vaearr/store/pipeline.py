"""Decoding for readers: the Rust codecs of `zarrs` where they may be used, zarr-python's own elsewhere.

Chosen for one array handle at a time; zarr's global configuration is never touched. `zarrs` never writes (it writes in
place) and never works in a forked process (it hangs there). It checks checksums only where it decodes a whole shard;
for parts of a shard they are checked here, before.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
import zarr
from zarr.abc.codec import Codec, CodecPipeline
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.storage import LocalStore

from vaearr.errors import DataError
from vaearr.retries import is_transient, pauses

if TYPE_CHECKING:
    from zarr.abc.store import Store
    from zarr.core.buffer import Buffer, NDBuffer
    from zarr.core.metadata import ArrayMetadata

FAST, PLAIN = "zarrs", "zarr-python"
NEAR = 2**16  # bytes between chunks of a shard elsewhere that are fetched rather than asked around
END = 2**16  # bytes of chunks that are fetched together with the index
MOST_KNOWN = 2**14  # indices of shards elsewhere that are kept
_NOT_WRITTEN = 2**64 - 1
_PROCESS = os.getpid()  # another number later means that this process was forked


class ReadPipeline(CodecPipeline):
    """Reads by `zarrs` where it can, else by the pipeline that the array came with; a lost shard is an error, not 0."""

    def __init__(self, metadata: ArrayMetadata, store: Store, plain: CodecPipeline) -> None:
        self.metadata, self.store, self.plain = metadata, store, plain
        self.fast, self.reason = _zarrs(metadata, store, plain)
        self.sharding = checkable(metadata)
        self.known: dict[str, Buffer] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"metadata": self.metadata, "store": self.store, "plain": self.plain}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # the same object in another process

    @property
    def decoder(self) -> str:
        """Which codecs read now, and why not the fast ones."""
        if self.fast is not None and _forked():
            return f"{PLAIN} (zarrs does not work in a forked process)"
        return FAST if self.fast is not None else f"{PLAIN} ({self.reason})"

    async def read(
        self, batch_info: Iterable[tuple[Any, Any, Any, Any, bool]], out: NDBuffer, drop_axes: tuple[int, ...] = ()
    ) -> None:
        """Fill `out` from the parts of shards that are named; what the disk refuses for a moment is tried again."""
        batch = list(batch_info)
        for pause in pauses():
            try:
                return await self._read(batch, out, drop_axes)
            except Exception as error:  # codecs wrap the system's errors in their own
                if pause is None or not is_transient(error):
                    raise
                await asyncio.sleep(pause)

    async def _read(
        self, batch: list[tuple[Any, Any, Any, Any, bool]], out: NDBuffer, drop_axes: tuple[int, ...]
    ) -> None:
        if self.fast is None or _forked() or not all(self._takes(item) for item in batch):
            await self.plain.read(await self._prepared(batch), out, drop_axes)
            return
        assert isinstance(self.store, LocalStore)
        for getter, *_ in batch:
            if not (self.store.root / getter.path).exists():
                raise lost(getter)
        for getter, spec, chosen, *_ in batch:
            box = _box(chosen, spec.shape)
            if self.sharding is not None and not _is_whole(box, spec.shape):
                await asyncio.to_thread(check_chunks, self.store.root / getter.path, self.sharding, spec.shape, box)
        await self.fast.read(batch, out, drop_axes)

    async def _prepared(self, batch: list[tuple[Any, Any, Any, Any, bool]]) -> list[tuple[Any, Any, Any, Any, bool]]:
        """The same, from shards that must be there; of one elsewhere, the parts are fetched by few requests."""
        if isinstance(self.store, LocalStore) or self.sharding is None:
            return [(_Present(getter), *rest) for getter, *rest in batch]
        sharding = self.sharding

        async def one(getter: Any, spec: Any, chosen: Any, *rest: Any) -> Any:
            if not _is_box(chosen, spec.shape) or _is_whole(box := _box(chosen, spec.shape), spec.shape):
                return (_Present(getter), spec, chosen, *rest)  # zarr fetches it whole
            return (await fetched(_Present(getter), sharding, spec, box, self.known), spec, chosen, *rest)

        return list(await asyncio.gather(*(one(*item) for item in batch)))

    def _takes(self, item: tuple[Any, Any, Any, Any, bool]) -> bool:
        """Whether `zarrs` can read this part of a shard, and its checksums be checked."""
        _, spec, chosen, target, _ = item
        if not (_is_box(chosen, spec.shape) and _is_box(target, spec.shape)):
            return False
        return self.sharding is not None or _is_whole(_box(chosen, spec.shape), spec.shape)

    async def write(
        self, batch_info: Iterable[tuple[Any, Any, Any, Any, bool]], value: NDBuffer, drop_axes: tuple[int, ...] = ()
    ) -> None:
        await self.plain.write(batch_info, value, drop_axes)

    async def decode(self, chunk_bytes_and_specs: Iterable[tuple[Buffer | None, Any]]) -> Iterable[NDBuffer | None]:
        return await self.plain.decode(chunk_bytes_and_specs)

    async def encode(self, chunk_arrays_and_specs: Iterable[tuple[NDBuffer | None, Any]]) -> Iterable[Buffer | None]:
        return await self.plain.encode(chunk_arrays_and_specs)

    def evolve_from_array_spec(self, array_spec: Any) -> ReadPipeline:
        return self

    @classmethod
    def from_codecs(cls, codecs: Iterable[Codec]) -> ReadPipeline:
        raise NotImplementedError("made by `for_reading`, for an array that is open")

    @property
    def supports_partial_decode(self) -> bool:
        return self.plain.supports_partial_decode

    @property
    def supports_partial_encode(self) -> bool:
        return self.plain.supports_partial_encode

    def validate(self, **of: Any) -> None:
        self.plain.validate(**of)

    def compute_encoded_size(self, byte_length: int, array_spec: Any) -> int:
        return self.plain.compute_encoded_size(byte_length, array_spec)

    def __iter__(self) -> Iterator[Codec]:
        return iter(self.metadata.codecs)  # type: ignore[union-attr]  # zarr v3


def _is_box(chosen: Any, shape: tuple[int, ...]) -> bool:
    """Whether a selection is made of slices of step 1, one for each dim."""
    return (
        isinstance(chosen, tuple)
        and len(chosen) == len(shape)
        and all(isinstance(side, slice) and side.step in (None, 1) for side in chosen)
    )


def _box(chosen: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(*side.indices(size)[:2]) for side, size in zip(chosen, shape, strict=True))


def _is_whole(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    return box == tuple(slice(0, size) for size in shape)


def checkable(metadata: Any) -> ShardingCodec | None:
    """How shards are made up, where `check_chunks` can read them: index at the end, a checksum on each chunk."""
    sharding = metadata.codecs[0] if len(metadata.codecs) == 1 else None
    if not isinstance(sharding, ShardingCodec) or sharding.index_location.value != "end":
        return None
    index = tuple(type(codec) for codec in sharding.index_codecs)
    is_known = index == (BytesCodec, Crc32cCodec) and isinstance(sharding.codecs[-1], Crc32cCodec)
    return sharding if is_known else None


def check_chunks(shard: Path, sharding: ShardingCodec, shape: tuple[int, ...], box: tuple[slice, ...]) -> None:
    """Raise ValueError where a chunk of the box, or the index of the shard, is not what was written."""
    grid = tuple(size // side for size, side in zip(shape, sharding.chunk_shape, strict=True))
    length = 16 * math.prod(grid) + 4
    with shard.open("rb") as file:
        if shard.stat().st_size < length:
            raise ValueError(f"{shard} is cut off")
        file.seek(-length, os.SEEK_END)
        index = np.frombuffer(_checked(file.read(length), shard), "<u8").reshape(*grid, 2)
        sides = zip(box, sharding.chunk_shape, strict=True)
        for start, size in index[tuple(slice(s.start // c, -(-s.stop // c)) for s, c in sides)].reshape(-1, 2).tolist():
            if size != _NOT_WRITTEN:
                file.seek(start)
                _checked(file.read(size), shard)


def _checked(data: bytes, shard: Path | str) -> memoryview:
    """The bytes without their checksum, which must be theirs."""
    if google_crc32c.value(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ValueError(f"the checksum of a chunk in {shard} is not that of its bytes")
    return memoryview(data)[:-4]


class _Present:
    """Bytes of a shard that must be there."""

    def __init__(self, getter: Any) -> None:
        self.getter = getter

    def __getattr__(self, name: str) -> Any:
        return getattr(self.getter, name)

    async def get(self, *args: Any, **kwargs: Any) -> Buffer:
        found: Buffer | None = await self.getter.get(*args, **kwargs)
        if found is None:
            raise lost(self.getter)
        return found


class _Fetched:
    """A shard elsewhere of which some parts are in memory: `(first byte, bytes)`, in order, and its index."""

    def __init__(self, index: Buffer, parts: list[tuple[int, Buffer]]) -> None:
        self.index, self.parts = index, parts

    async def get(self, prototype: Any, byte_range: Any = None) -> Buffer:
        if isinstance(byte_range, SuffixByteRequest):
            return self.index
        start, part = next(item for item in reversed(self.parts) if item[0] <= byte_range.start)
        return part[byte_range.start - start : byte_range.end - start]


async def fetched(
    getter: _Present, sharding: ShardingCodec, spec: Any, box: tuple[slice, ...], known: dict[str, Buffer]
) -> _Fetched | _Present:
    """A shard elsewhere with the chunks of a box in memory: those that lie close together by one request.

    known: indices of shards by their names, which are asked for once. Nearly all of a shard is fetched as a whole;
    where all chunks are in the box, zarr does that itself.
    """
    grid = tuple(size // side for size, side in zip(spec.shape, sharding.chunk_shape, strict=True))
    part = tuple(slice(s.start // c, -(-s.stop // c)) for s, c in zip(box, sharding.chunk_shape, strict=True))
    length, prototype = 16 * math.prod(grid) + 4, spec.prototype
    count = math.prod(side.stop - side.start for side in part)
    if count == math.prod(grid):
        return getter
    index, end = known.get(getter.path), None
    if count * 4 > 3 * math.prod(grid):
        end = await getter.get(prototype)
    elif index is None:
        end = await getter.get(prototype, SuffixByteRequest(length + END))
    if end is not None:
        if len(end) < length:
            raise ValueError(f"{getter.path} is cut off")
        index = end[len(end) - length :]
    assert index is not None
    table = np.frombuffer(_checked(index.to_bytes(), getter.path), "<u8").reshape(*grid, 2)
    known[getter.path] = index
    while len(known) > MOST_KNOWN:
        known.pop(next(iter(known)))
    written = table[table[..., 0] != _NOT_WRITTEN].tolist()
    size = max((start + size for start, size in written), default=0) + length
    begin = size - (0 if end is None else len(end))
    spans: list[list[int]] = []
    for start, n_bytes in sorted(table[part].reshape(-1, 2).tolist()):
        if start >= begin:  # at hand, or not written
            continue
        if spans and start <= spans[-1][1] + NEAR:
            spans[-1][1] = start + n_bytes
        else:
            spans.append([start, start + n_bytes])
    parts = await asyncio.gather(*(getter.get(prototype, RangeByteRequest(*span)) for span in spans))
    at_hand = [] if end is None else [(begin, end)]
    return _Fetched(index, [*((span[0], found) for span, found in zip(spans, parts, strict=True)), *at_hand])


def lost(shard: Any) -> DataError:
    """The error for a shard that is not there: every one is written, zarr would read zeros."""
    path = shard.store.root if isinstance(shard.store, LocalStore) else shard.store
    return DataError(
        f"{path} is damaged: {shard.path} is missing; restore it from a copy or ingest again (a copy made by other "
        "programs may leave out shards that hold zeros only)."
    )


def for_reading(array: zarr.Array) -> zarr.Array:
    """The same array, opened by the caller, that reads by the fastest pipeline there is for it."""
    handle = array.async_array
    pipeline = ReadPipeline(handle.metadata, handle.store_path.store, handle.codec_pipeline)
    object.__setattr__(handle, "codec_pipeline", pipeline)  # a frozen dataclass; the handle is ours alone
    return array


def decoder_of(array: zarr.Array) -> str:
    """`zarrs`, or `zarr-python` with the reason in brackets."""
    pipeline = array.async_array.codec_pipeline
    return pipeline.decoder if isinstance(pipeline, ReadPipeline) else f"{PLAIN} (not opened by vaearr)"


def _forked() -> bool:
    return os.getpid() != _PROCESS


def _zarrs(metadata: ArrayMetadata, store: Store, plain: CodecPipeline) -> tuple[CodecPipeline | None, str]:
    """The Rust pipeline for an array, or None and the reason."""
    if not isinstance(store, LocalStore):
        return None, "zarrs reads local stores only"
    if _forked():
        return None, "zarrs does not work in a forked process"
    try:
        from zarrs import ZarrsCodecPipeline
        from zarrs._internal import CodecPipelineImpl
    except ImportError:
        return None, "zarrs is not installed"
    try:
        rust = CodecPipelineImpl(json.dumps(metadata.to_dict()), store_config=store, validate_checksums=True)
        return ZarrsCodecPipeline(metadata, store, rust, plain), ""  # type: ignore[arg-type]  # any pipeline serves
    except (TypeError, ValueError, RuntimeError) as error:
        return None, f"zarrs cannot read it: {' '.join(str(error).split())[:80]}"
