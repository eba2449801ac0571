"""Where a store lies: a folder, the objects below an S3 URL, or a URL that can only be read.

Every store is named by a Path, that of an S3 URL by a `StorePath` that prints as the URL. Work on it (lock, journal,
what is staged) lies in hidden siblings of `desk`: the store itself, for a URL a folder on this machine.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any, TypeVar, cast

from vaearr.errors import MissingExtraError, NoInputError, UsageError, VaearrError, WriteError, need
from vaearr.store.folders import is_there, sha256_of

if TYPE_CHECKING:
    from obstore.store import S3Store

METADATA = "zarr.json"
CACHE, ENDPOINT = "VAEARR_CACHE", "AWS_ENDPOINT_URL"
PART = 64 * 2**20  # bytes above which an object is sent in parts
AT_ONCE = 8  # requests, or files, side by side
RETRIES = 5
LONGEST = timedelta(minutes=2)  # over all retries of a request
TIMEOUT = timedelta(minutes=5)  # of one request
FRESH_SECONDS = 1.0
_TOLD: dict[Hashable, tuple[float, str | None]] = {}  # of each store: when its listing's tag was told, and the tag
_MOST_SAID = 240  # characters of a server's answer
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,3}")  # Path joins // to /

Item = TypeVar("Item")
Value = TypeVar("Value")


class ConflictError(Exception):
    """The object is there already, or is not the one that was known."""


class StorePath(PosixPath):
    """The path of a store on object storage: it has a name and prints as its URL; no file is there."""

    def __str__(self) -> str:
        return as_url(super().__str__()) or super().__str__()


def as_url(path: str | Path) -> str | None:
    """The URL of a store elsewhere, None for a path on this machine (`file:` included)."""
    text = PosixPath.__str__(path) if isinstance(path, Path) else str(path)
    found = _URL.match(text)
    if found is None or (scheme := found[1].lower()) in ("file", "local"):
        return None
    return f"{scheme}://{text[found.end() :].lstrip('/')}"


def object_url(path: str | Path) -> str | None:
    """The URL of a store on object storage, which can be written; else None."""
    url = as_url(path)
    return url.rstrip("/") if url and url.startswith("s3:") else None


def read_only_url(path: str | Path) -> str | None:
    """The URL of a store elsewhere that can only be read, None for any other and for a path."""
    return None if object_url(path) else as_url(path)


def local_path(path: str | Path) -> Path:
    """The path on this machine. Raises UsageError for a URL: what writes needs a folder."""
    if url := as_url(path):
        raise UsageError(
            f"{url} is a URL, which can only be read (open_store, batches, info); this needs a store in a folder of "
            "this machine, so copy it here first."
        )
    found = _URL.match(str(path))
    return Path("/" + str(path)[found.end() :].lstrip("/")) if found else Path(path)


def store_path(path: str | Path) -> Path:
    """A store by its one name: the real path of a folder, the StorePath of an S3 URL. Raises UsageError for others."""
    url = object_url(path)
    return StorePath(url) if url else local_path(path).expanduser().resolve()


def desk(path: str | Path) -> Path:
    """The folder on this machine beside which work on a store is kept; nothing need be there."""
    store = store_path(path)
    if not (url := object_url(store)):
        return store
    base = os.environ.get(CACHE) or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vaearr"
    key = hashlib.sha256(f"{os.environ.get(ENDPOINT, '')} {url}".encode()).hexdigest()[:16]
    return Path(base).expanduser().resolve() / key / store.name


def beside(store: Path) -> Path:
    """The path that names of files beside a store are made from; of one at a URL, in the current folder."""
    return Path.cwd() / store.name if as_url(store) else store


def read_ahead(read: Callable[[Item], Value], items: Iterable[Item], at_once: int = 1) -> Iterator[Value]:
    """`map(read, items)` in threads, in order: at most so many are done ahead of the caller, who works meanwhile."""
    ahead: deque[Future[Value]] = deque()
    with ThreadPoolExecutor(at_once) as pool:
        for item in items:
            ahead.append(pool.submit(read, item))
            if len(ahead) > at_once:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


@contextmanager
def reach(url: str, *, is_written: bool = False) -> Iterator[None]:
    """What keeps a URL from being read or written, as one line that says what to install or to check."""
    is_object = object_url(url) is not None
    try:
        yield
    except (VaearrError, ConflictError):
        raise
    except ImportError as error:
        scheme, reason = url.split(":", 1)[0], " ".join(str(error).split())
        raise MissingExtraError(f"{scheme}:// needs a package that is not installed ({reason}).") from error
    except Exception as error:  # each protocol has errors of its own
        if is_object and isinstance(error, OSError) and error.errno is not None:  # of this machine's disk
            raise
        if is_written:
            raise WriteError(
                f"{url} cannot be written ({_words(error)}); check the bucket, your rights in it and the network."
            ) from error
        check = "the AWS_* variables and the network" if is_object else "your access to it"
        raise NoInputError(f"{url} cannot be reached ({_words(error)}); check the URL, {check}.") from error


class Folder:
    """The files of a store in a folder, by their names below it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def tag(self, *, now: bool = True) -> Hashable:
        """What changes whenever the root's listing is written; None where there is none."""
        try:
            found = (self.path / METADATA).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def files(self, below: str = "") -> dict[str, int]:
        """Size of each file below a name; links are files of no size, what they lead to is not looked at."""
        found = {}
        for root, folders, names in os.walk(self.path / below):
            for name in [*names, *(name for name in folders if os.path.islink(os.path.join(root, name)))]:
                path = os.path.join(root, name)
                size = 0 if os.path.islink(path) else os.lstat(path).st_size
                found[os.path.relpath(path, self.path)] = size
        return found

    def read(self, name: str) -> bytes | None:
        """A file's bytes, None where there is none. Raises DamagedError for a link or what is no file."""
        return (self.path / name).read_bytes() if is_there(self.path, name) else None

    def sha256(self, name: str) -> str:
        """Checksum of a file."""
        return sha256_of(self.path / name)

    def odd(self, name: str) -> str:
        """What keeps a name from being that of an ordinary file; nothing where it is one."""
        path = self.path / name
        if path.is_symlink():
            return "it is a symbolic link, which may lead anywhere"
        return "" if path.is_file() else "it is not an ordinary file"  # to read a pipe is to wait for ever


class Objects:
    """The objects of a store at an S3 URL, by the names that a folder's files have. Nothing else asks the server.

    Keys, region and endpoint come from the usual `AWS_*` variables, plain http is used for an endpoint that says so;
    options: settings of obstore's S3Store (`endpoint`, `region`, `access_key_id`, …) over them.
    """

    def __init__(self, path: str | Path, options: Mapping[str, Any] | None = None) -> None:
        url = object_url(path)
        assert url is not None
        parent, _, name = url.rpartition("/")
        if parent.endswith(":/") or not name:
            raise UsageError(f"{url} names no store in a bucket; give a URL such as s3://bucket/scan.zarr.")
        self.url = url
        settings = {"endpoint": os.environ.get(ENDPOINT, ""), **(options or {})}
        self._key = url, tuple(settings.items())
        self.client = _client(*self._key, RETRIES)

    def tag(self, *, now: bool = False) -> str | None:
        """The tag of the root's listing, a new one whenever it is written; None where there is none.

        What was told less than a second ago holds, unless it is asked for `now` or was written here since.
        """
        told, tag = _TOLD.get(self._key, (-math.inf, None))
        if now or tag is None or time.monotonic() - told > FRESH_SECONDS:
            found = self.head(METADATA)
            tag = found["e_tag"] if found else None
            _TOLD[self._key] = time.monotonic(), tag
        return tag

    def head(self, name: str) -> Mapping[str, Any] | None:
        """What the server says of an object (`e_tag`, `size`, `last_modified`), None where there is none."""
        import obstore

        with reach(self.url):
            try:
                return cast(Mapping[str, Any], obstore.head(self.client, name))
            except FileNotFoundError:
                return None

    def fetch(self, name: str) -> tuple[bytes, str] | None:
        """An object's bytes and tag, None where there is none."""
        import obstore

        with reach(self.url):
            try:
                found = obstore.get(self.client, name)
                return bytes(found.bytes()), _tag(found.meta["e_tag"])
            except FileNotFoundError:
                return None

    def read(self, name: str) -> bytes | None:
        """An object's bytes, None where there is none."""
        found = self.fetch(name)
        return found[0] if found else None

    def sha256(self, name: str) -> str:
        """Checksum of an object, read piece by piece. Raises NoInputError where there is none."""
        import obstore

        found = hashlib.sha256()
        with reach(self.url):
            for piece in obstore.get(self.client, name).stream(min_chunk_size=2**20):
                found.update(piece)
        return found.hexdigest()

    def files(self, below: str = "") -> dict[str, int]:
        """Size of each object below a name."""
        return {found["path"]: found["size"] for found in self.listed(below)}

    def listed(self, below: str = "") -> Iterator[Mapping[str, Any]]:
        """What the server says of each object below a name."""
        import obstore

        with reach(self.url):
            for page in obstore.list(self.client, below.rstrip("/") or None, chunk_size=1000):
                yield from cast(Any, page)

    def odd(self, name: str) -> str:
        """Nothing: objects are objects."""
        return ""

    def put(self, name: str, data: bytes | Path, mode: Any = None) -> str:
        """Write an object; returns its tag.

        mode: "create" where there is none, `{"e_tag": …}` in place of the one with this tag, else ConflictError is
        raised; None: in place of any.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        if name == METADATA:
            _TOLD.pop(self._key, None)
        with reach(self.url, is_written=True):
            try:
                return _tag(obstore.put(self.client, name, data, chunk_size=PART, mode=mode)["e_tag"])
            except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
                if not mode:
                    raise
                found = self.fetch(name)
                if found is not None and found[0] == data:  # an earlier try came through, and its answer was lost
                    return found[1]
                raise ConflictError(name) from error

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there are passed over."""
        import obstore

        if listed := list(names):
            _TOLD.pop(self._key, None)
            with reach(self.url, is_written=True):
                obstore.delete(self.client, listed)


Place = Folder | Objects


def place(path: str | Path, options: Mapping[str, Any] | None = None) -> Place:
    """The files of a store, wherever they are; nothing need be there. options: see `Objects`."""
    return Objects(path, options) if object_url(path) else Folder(store_path(path))


def stamped(metadata: bytes) -> bytes:
    """Metadata whose bytes, and so their tag, are their own: blanks and tabs at the end, which JSON allows."""
    return metadata.rstrip() + b"\n" + bytes(b" \t"[int(bit)] for bit in f"{uuid.uuid4().int:0128b}")


@lru_cache(maxsize=8)
def _client(url: str, settings: tuple[tuple[str, Any], ...], retries: int) -> S3Store:
    need("obstore", "vaearr[remote]", url)
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    given = {key: value for key, value in settings if value}
    try:
        return S3Store.from_url(
            url,
            config=cast(Any, given),
            client_options={"allow_http": str(given.get("endpoint", "")).startswith("http://"), "timeout": TIMEOUT},
            retry_config={"max_retries": retries, "retry_timeout": LONGEST},
        )
    except (BaseError, TypeError, ValueError) as error:
        raise UsageError(f"{url} cannot be used ({_words(error)}); check the URL and the options.") from None


def _tag(tag: str | None) -> str:
    if not tag:
        raise WriteError("the server gives objects no tags (ETag), without which a store cannot be kept whole there.")
    return tag


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split("Debug source")[0].split())
    return f"{type(error).__name__}: {text}"[:_MOST_SAID]
