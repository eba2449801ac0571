"""Objects of a store on S3-compatible storage, by the names that a folder's files have. Nothing else asks the server.

Keys, region and endpoint come from the usual `AWS_*` variables; plain http is used for an endpoint that says so.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vaearr.errors import NoInputError, UsageError, VaearrError, WriteError, need

if TYPE_CHECKING:
    from obstore.store import S3Store
    from zarr.abc.store import Store

ENDPOINT = "AWS_ENDPOINT_URL"
PART = 64 * 2**20  # bytes above which an object is sent in parts
PIECE = 2**20
AT_ONCE = 8  # requests side by side
RETRIES = 5
LONGEST = timedelta(minutes=2)  # over all retries of a request
TIMEOUT = timedelta(minutes=5)  # of one request
_MOST_SAID = 240  # characters of a server's answer


class ConflictError(Exception):
    """The object is there already, or is not the one that was known."""


@dataclass(frozen=True)
class Stamp:
    """An object: its name, the server's tag of its content, bytes, time of the last change by the server's clock."""

    name: str
    tag: str
    size: int
    changed: datetime


class Objects:
    """The objects below a URL; `beside` are those that lie next to it.

    options: settings of obstore's S3Store (`endpoint`, `region`, `access_key_id`, …) over those of the environment.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        parent, _, self.name = url.rstrip("/").rpartition("/")
        if parent.endswith(":/") or not self.name:
            raise UsageError(f"{url} names no store in a bucket; give a URL such as s3://bucket/scan.zarr.")
        options = dict(options or {})
        self.url = f"{parent}/{self.name}"
        self.endpoint = str(options.get("endpoint") or os.environ.get(ENDPOINT, ""))
        self.client = _client(parent, options, self.endpoint)
        self.prefix = f"{self.name}/"

    @property
    def beside(self) -> Objects:
        """The same client for names next to the store."""
        other = object.__new__(Objects)
        other.__dict__.update(self.__dict__, prefix="")
        return other

    def zarr_store(self) -> Store:
        """What zarr reads through; the store lies in it below its name."""
        from zarr.storage import ObjectStore

        return ObjectStore(self.client, read_only=True)

    def stamp(self, name: str) -> Stamp | None:
        """What the server says of an object, None where there is none."""
        import obstore

        with self._reading():
            try:
                return self._stamp(obstore.head(self.client, self.prefix + name))
            except FileNotFoundError:
                return None

    def fetch(self, name: str) -> tuple[bytes, Stamp] | None:
        """An object's bytes, None where there is none."""
        import obstore

        with self._reading():
            try:
                found = obstore.get(self.client, self.prefix + name)
                return bytes(found.bytes()), self._stamp(found.meta)
            except FileNotFoundError:
                return None

    def differs(self, name: str, tag: str) -> bool:
        """Whether an object is another than the one of this tag, or gone; one request, and no bytes where it is not."""
        import obstore
        from obstore.exceptions import NotModifiedError

        with self._reading():
            try:
                obstore.get(self.client, self.prefix + name, options={"if_none_match": tag})
            except NotModifiedError:
                return False
            except FileNotFoundError:
                pass
            return True

    def pieces(self, name: str) -> Iterator[bytes]:
        """An object piece by piece. Raises NoInputError where there is none."""
        import obstore

        with self._reading():
            for piece in obstore.get(self.client, self.prefix + name).stream(min_chunk_size=PIECE):
                yield bytes(piece)

    def download(self, name: str, file: Path) -> tuple[str, int]:
        """Write an object to a new file; returns its tag and size. The file is there whole or not at all."""
        import obstore

        part = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}")
        try:
            with self._reading():
                found = obstore.get(self.client, self.prefix + name)
                with part.open("wb") as handle:
                    for piece in found.stream(min_chunk_size=PIECE):
                        handle.write(piece)
            part.rename(file)
        finally:
            part.unlink(missing_ok=True)
        stamp = self._stamp(found.meta)
        return stamp.tag, stamp.size

    def below(self, name: str = "") -> Iterator[Stamp]:
        """All objects whose names start with a folder's."""
        import obstore

        with self._reading():
            for page in obstore.list(self.client, f"{self.prefix}{name}".rstrip("/") or None, chunk_size=1000):
                yield from map(self._stamp, page)

    def put(self, name: str, data: bytes | Path) -> str:
        """Write an object, in place of any other; returns its tag."""
        return self._put(name, data, {})

    def create(self, name: str, data: bytes) -> str:
        """Write an object where there is none. Raises ConflictError where there is one."""
        return self._put(name, data, {"mode": "create"})

    def replace(self, name: str, data: bytes, tag: str) -> str:
        """Write an object in place of the one with this tag. Raises ConflictError where it is another."""
        return self._put(name, data, {"mode": {"e_tag": tag}})

    def _put(self, name: str, data: bytes | Path, mode: dict[str, Any]) -> str:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._writing():
            try:
                return _tag(obstore.put(self.client, self.prefix + name, data, chunk_size=PART, **mode)["e_tag"])
            except (AlreadyExistsError, PreconditionError) as error:
                if isinstance(data, bytes):  # an earlier try may have come through, and its answer been lost
                    found = self.fetch(name)
                    if found is not None and found[0] == data:
                        return found[1].tag
                raise ConflictError(name) from error
            except FileNotFoundError as error:
                raise (ConflictError(name) if "e_tag" in str(mode) else error) from error

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there are passed over."""
        import obstore

        if listed := [self.prefix + name for name in names]:
            with self._writing():
                obstore.delete(self.client, listed)

    def _stamp(self, meta: Mapping[str, Any]) -> Stamp:
        return Stamp(meta["path"].removeprefix(self.prefix), _tag(meta["e_tag"]), meta["size"], meta["last_modified"])

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (VaearrError, ConflictError):
            raise
        except Exception as error:  # obstore's errors have no other base
            if isinstance(error, OSError) and error.errno is not None:  # of this machine's disk
                raise
            raise NoInputError(
                f"{self.url} cannot be reached ({_words(error)}); check the URL, the AWS_* variables and the network."
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (VaearrError, ConflictError):
            raise
        except Exception as error:
            raise WriteError(
                f"{self.url} cannot be written ({_words(error)}); check the bucket, your rights in it and the network."
            ) from error


def side_by_side(work: Any, items: Iterable[Any]) -> list[Any]:
    """`work` of each item, several at once; the first error ends it, once those under way are done."""
    stop = threading.Event()

    def one(item: Any) -> Any:
        if stop.is_set():
            return None
        try:
            return work(item)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [future.result() for future in [pool.submit(one, item) for item in items]]


def _client(parent: str, options: dict[str, Any], endpoint: str) -> S3Store:
    need("obstore", "vaearr[remote]", f"{parent}/…")
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    try:
        return S3Store.from_url(
            parent,
            config=cast(Any, {**options, **({"endpoint": endpoint} if endpoint else {})}),
            client_options={"allow_http": endpoint.lower().startswith("http://"), "timeout": TIMEOUT},
            retry_config={"max_retries": RETRIES, "retry_timeout": LONGEST},
        )
    except (BaseError, TypeError, ValueError) as error:
        raise UsageError(f"{parent}/… cannot be used ({_words(error)}); check the URL and the options.") from None


def _tag(tag: str | None) -> str:
    if not tag:
        raise WriteError("the server gives objects no tags (ETag), without which a store cannot be kept whole there.")
    return tag


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split("Debug source")[0].split())
    return f"{type(error).__name__}: {text}"[:_MOST_SAID]
