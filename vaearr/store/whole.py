"""A store for readers: what is missing, empty or not as it was published is an error with a name, where zarr would
give NaN or 0, and what the disk refuses for a moment is tried again."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import zarr
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.registry import register_pipeline
from zarr.storage import LocalStore, WrapperStore

from vaearr import names as n
from vaearr.computing.borrowed import BatchedCodecPipeline
from vaearr.errors import DamagedError, VaearrError
from vaearr.store.folders import is_there
from vaearr.store.listing import SEAL, parse_seal
from vaearr.store.places import METADATA, reach
from vaearr.store.retries import is_transient, pauses

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer, BufferPrototype, NDBuffer
    from zarr.abc.store import ByteRequest

MISSING = "is missing (a copy made by other programs may leave out chunks that hold zeros only)"
SMALL, MOST_KEPT = 2**16, 1000  # bytes of a file, and files, that are kept in memory of a store at a URL
_CHUNK = re.compile(r"(.+)/c(/\d+)*")
_OPENING = threading.Lock()


class WholeStore(WrapperStore[Store]):
    """Reads through another store; `shown` is its name for users, `url` where it is not on this machine.

    What the checksums of an array name must be there; on this machine it must also be what was written, but for
    patterns, whose own checksum is enough: theirs would cost too much at each read.
    """

    def __init__(self, store: Store, shown: str, url: str | None = None) -> None:
        super().__init__(store)
        self.shown, self.url = shown, url
        self._seals: dict[str, dict[str, str] | None] = {}
        self.token = uuid.uuid4().hex
        self._small: dict[str, Buffer] = {}  # what was read from a URL; a published file stays what it is

    def _with_store(self, store: Store) -> WholeStore:
        return WholeStore(store, self.shown, self.url)

    def __dask_tokenize__(self) -> str:
        return self.token

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of a file, None for one that never was. Raises DamagedError."""
        prototype = prototype or default_buffer_prototype()
        for pause in pauses():
            try:
                return await self._whole(key, prototype, byte_range)
            except OSError as error:
                if pause is None or not is_transient(error):
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("the last try returns or raises")

    async def _whole(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None) -> Buffer | None:
        array = found[1] if (found := _CHUNK.fullmatch(key)) else key.rpartition("/")[0]
        what = ""
        for _ in range(2):  # another array may have taken its place meanwhile
            data = await self._get(key, prototype, byte_range)
            what = await self._wrong(array, key, data, is_part=byte_range is not None)
            if not what:
                return data
            self._seals.pop(array, None)
        raise damaged(self, key, what)

    async def _get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None) -> Buffer | None:
        if isinstance(self._store, LocalStore):
            is_there(self._store.root, key)
        if byte_range is None and key in self._small:
            return self._small[key]
        with reach(self.url) if self.url else nullcontext():
            found = await self._store.get(key, prototype, byte_range)
        may_stay = self.url and byte_range is None and not key.startswith(f"{n.PATTERNS}/")
        if may_stay and found and len(found) <= SMALL and len(self._small) < MOST_KEPT:
            self._small[key] = found
        return found

    async def _wrong(self, array: str, key: str, data: Buffer | None, *, is_part: bool) -> str:
        """What is wrong with the bytes of a file; nothing where they are those that were written."""
        if data is not None and not len(data):
            return "is empty"
        is_metadata = key.endswith(METADATA)
        if not array or (data is None and is_metadata and self.url):
            return ""
        if data is not None and (is_part or array == n.PATTERNS or self.url):
            return ""
        seal = await self._seal(array)
        if seal is None:  # of an earlier version, or written by other programs
            return MISSING if data is None and array == n.PATTERNS and not is_metadata else ""
        digest = seal.get(key.removeprefix(f"{array}/"))
        if digest is None:
            return ""
        if data is None:
            return "is missing"
        return "" if hashlib.sha256(data.to_bytes()).hexdigest() == digest else "is not what was written"

    async def _seal(self, array: str) -> dict[str, str] | None:
        if array not in self._seals:
            data = await self._get(f"{array}/{SEAL}", default_buffer_prototype(), None)
            try:
                self._seals[array] = None if data is None else parse_seal(data.to_bytes().decode())
            except ValueError:  # `vaearr verify` tells
                self._seals[array] = None
        return self._seals[array]


class NamingPipeline(BatchedCodecPipeline):
    """zarr's own, but that a chunk which cannot be decoded is named."""

    async def read_batch(
        self, batch_info: Iterable[tuple[Any, Any, Any, Any, bool]], out: NDBuffer, drop_axes: tuple[int, ...] = ()
    ) -> None:
        """Fill `out` from the parts of chunks that are named. Raises DamagedError."""
        batch = list(batch_info)
        try:
            await super().read_batch(batch, out, drop_axes)
        except (VaearrError, OSError, MemoryError):
            raise
        except Exception as error:  # codecs have errors of their own
            if len(batch) > 1:
                for item in batch:
                    await self.read_batch([item], out, drop_axes)
            chunk = batch[0][0]
            what = f"cannot be decoded ({' '.join(str(error).split())[:160]})"
            raise damaged(chunk.store, chunk.path, what) from error


register_pipeline(NamingPipeline)


@contextmanager
def naming() -> Iterator[None]:
    """Arrays that are opened meanwhile name their damaged chunks; those of other programs stay as they are."""
    with _OPENING, zarr.config.set({"codec_pipeline.path": f"{NamingPipeline.__module__}.{NamingPipeline.__name__}"}):
        yield


def damaged(store: Any, name: str, what: str) -> DamagedError:
    """The error for a file of a store that is not as it was written: which, and what it is."""
    shown = getattr(store, "shown", store)
    return DamagedError(
        f"{shown} is damaged: {name} {what}; 'vaearr verify {shown}' says what to do, or restore it from a copy."
    )
