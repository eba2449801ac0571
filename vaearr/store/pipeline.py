"""Reading chunks so that what is lost or damaged is an error with a name, where zarr would give zeros.

Chosen for one array handle at a time; zarr's global configuration is never touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import zarr
from zarr.abc.codec import Codec, CodecPipeline
from zarr.storage import LocalStore

from vaearr.borrowed import read_by
from vaearr.errors import DamagedError, VaearrError
from vaearr.retries import is_transient, pauses
from vaearr.store.copies import shown
from vaearr.store.folders import is_there
from vaearr.store.seals import was_published

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer, NDBuffer

MISSING = "is missing (a copy made by other programs may leave out shards that hold zeros only)"


class ReadPipeline(CodecPipeline):
    """Reads by the pipeline that the array came with; what cannot be read is named.

    is_full: every chunk is written, so that a lost one is an error, not 0; what is not is read plainly.
    """

    def __init__(self, metadata: Any, plain: CodecPipeline, is_full: bool = True) -> None:
        self.metadata, self.plain, self.is_full = metadata, plain, is_full

    async def read(
        self, batch_info: Iterable[tuple[Any, Any, Any, Any, bool]], out: NDBuffer, drop_axes: tuple[int, ...] = ()
    ) -> None:
        """Fill `out` from the parts of chunks that are named; what the disk refuses for a moment is tried again."""
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
        if self.is_full:
            batch = [(_Present(getter), *rest) for getter, *rest in batch]
        await self.plain.read(batch, out, drop_axes)

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


class _Present:
    """Bytes of a chunk that must be there."""

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
    """The same array, opened by the caller, whose lost and damaged chunks are errors; see `ReadPipeline`."""
    handle = array.async_array
    if 0 in array.chunks:
        raise damaged(handle.store_path, "has chunks of no length")
    read_by(array, ReadPipeline(handle.metadata, handle.codec_pipeline, is_full))  # the handle is ours alone
    return array
