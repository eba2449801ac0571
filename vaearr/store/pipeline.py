"""Decoding for readers: zarr-python's codecs, and for shards, as older stores have them, the Rust codecs of `zarrs`.

Whole chunks cost both the same. Chosen for one array handle at a time; zarr's global configuration is never touched.
`zarrs` never writes (it writes in place) and never works in a forked process (it hangs there). It checks checksums only
where it decodes a whole shard; for parts of a shard they are checked here, before.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import google_crc32c
import numpy as np
import zarr
from zarr.abc.codec import Codec, CodecPipeline
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.storage import LocalStore

from vaearr.borrowed import read_by, rust_codecs
from vaearr.errors import DamagedError, VaearrError
from vaearr.retries import is_transient, pauses
from vaearr.store.copies import shown
from vaearr.store.folders import is_there
from vaearr.store.seals import was_published

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer, NDBuffer
    from zarr.abc.store import Store

FAST, PLAIN = "zarrs", "zarr-python"
MISSING = "is missing (a copy made by other programs may leave out shards that hold zeros only)"
_NOT_WRITTEN = 2**64 - 1
_PROCESS = os.getpid()  # another number later means that this process was forked


class ReadPipeline(CodecPipeline):
    """Reads by `zarrs` where it can, else by the pipeline that the array came with; what cannot be read is named.

    is_full: every chunk is written, so that a lost one is an error, not 0; what is not is read plainly.
    """

    def __init__(self, metadata: Any, store: Store, plain: CodecPipeline, is_full: bool = True) -> None:
        self.metadata, self.store, self.plain, self.is_full = metadata, store, plain, is_full
        self.fast, self.reason = _zarrs(metadata, store, plain) if is_full else (None, "it may have gaps")
        self.sharding = checkable(metadata)

    def __getstate__(self) -> dict[str, Any]:
        return {"metadata": self.metadata, "store": self.store, "plain": self.plain, "is_full": self.is_full}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # the same object in another process

    @property
    def decoder(self) -> str:
        """Which codecs read now, and why not the ones for shards where there are shards."""
        if self.fast is not None and _forked():
            return f"{PLAIN} (zarrs does not work in a forked process)"
        return FAST if self.fast is not None else f"{PLAIN} ({self.reason})" if self.reason else PLAIN

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
                    raise await self._named(error, batch, out, drop_axes) from error
                await asyncio.sleep(pause)

    async def _named(
        self, error: Exception, batch: list[tuple[Any, Any, Any, Any, bool]], out: NDBuffer, drop_axes: tuple[int, ...]
    ) -> Exception:
        """The error of a read, with the file that cannot be decoded where it is one."""
        if isinstance(error, (VaearrError, OSError, MemoryError)):
            return error
        for item in batch if len(batch) > 1 else ():
            try:
                await self._read([item], out, drop_axes)
            except Exception as alone:  # codecs have errors of their own
                return await self._named(alone, [item], out, drop_axes)
        return damaged(batch[0][0], f"cannot be decoded ({' '.join(str(error).split())[:160]})")

    async def _read(
        self, batch: list[tuple[Any, Any, Any, Any, bool]], out: NDBuffer, drop_axes: tuple[int, ...]
    ) -> None:
        if self.fast is None or _forked() or not all(self._takes(item) for item in batch):
            if self.is_full:
                batch = [(_Present(getter), *rest) for getter, *rest in batch]
            await self.plain.read(batch, out, drop_axes)
            return
        assert isinstance(self.store, LocalStore)
        for getter, *_ in batch:
            if not is_there(self.store.root, getter.path):
                if was_published(self.store.root / getter.path, self.store.root) is not False:
                    raise damaged(getter, MISSING)
            elif not (self.store.root / getter.path).stat().st_size:
                raise damaged(getter, "is empty")
        for getter, spec, chosen, *_ in batch:
            box = _box(chosen, spec.shape)
            if self.sharding is not None and not _is_whole(box, spec.shape):
                await asyncio.to_thread(check_chunks, self.store.root / getter.path, self.sharding, spec.shape, box)
        await self.fast.read(batch, out, drop_axes)

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
        return iter(self.metadata.codecs)


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
    if (
        not isinstance(sharding, ShardingCodec)
        or cast(Any, sharding.to_dict())["configuration"]["index_location"] != "end"
    ):
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

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        root = self.getter.store.root if isinstance(self.getter.store, LocalStore) else None
        if root is not None:
            is_there(root, self.getter.path)
        found: Buffer | None = await self.getter.get(*args, **kwargs)
        if found is None and root is not None and was_published(root / self.getter.path, root) is False:
            return None  # it holds the fill value only, in a copy that another program made
        if not found:  # no bytes are damage too, where zarr would read zeros
            raise damaged(self.getter, MISSING if found is None else "is empty")
        return found


def damaged(chunk: Any, what: str) -> DamagedError:
    """The error for the file of a chunk or shard that is not as it was written: what it is."""
    store, name = "the store", "STORE"  # one behind a URL does not know it
    if isinstance(chunk.store, LocalStore):
        store = name = shown(chunk.store.root)
    return DamagedError(
        f"{store} is damaged: {chunk.path} {what}; 'vaearr verify {name}' says what to do, or restore it from a copy."
    )


def for_reading(array: zarr.Array, *, is_full: bool = True) -> zarr.Array:
    """The same array, opened by the caller, that reads by the fastest pipeline there is for it; see `ReadPipeline`."""
    handle = array.async_array
    if 0 in array.chunks:
        raise damaged(handle.store_path, "has chunks of no length")
    pipeline = ReadPipeline(handle.metadata, handle.store_path.store, handle.codec_pipeline, is_full)
    read_by(array, pipeline)  # the handle is ours alone
    return array


def decoder_of(array: zarr.Array) -> str:
    """`zarrs`, or `zarr-python` with the reason in brackets."""
    pipeline = array.async_array.codec_pipeline
    return pipeline.decoder if isinstance(pipeline, ReadPipeline) else f"{PLAIN} (not opened by vaearr)"


def _forked() -> bool:
    return os.getpid() != _PROCESS


def _zarrs(metadata: Any, store: Store, plain: CodecPipeline) -> tuple[CodecPipeline | None, str]:
    """The Rust pipeline for an array, or None and the reason, empty where it would be of no use."""
    if not any(isinstance(codec, ShardingCodec) for codec in metadata.codecs):
        return None, ""  # whole chunks cost both the same
    if not isinstance(store, LocalStore):
        return None, "zarrs reads local stores only"
    if _forked():
        return None, "zarrs does not work in a forked process"
    try:
        from zarrs import ZarrsCodecPipeline
    except ImportError:
        return None, "zarrs is not installed"
    try:
        rust = rust_codecs(json.dumps(metadata.to_dict()), store)
        return ZarrsCodecPipeline(metadata, store, rust, plain), ""  # type: ignore[arg-type]  # any pipeline serves
    except (TypeError, ValueError, RuntimeError) as error:
        return None, f"zarrs cannot read it: {' '.join(str(error).split())[:80]}"
