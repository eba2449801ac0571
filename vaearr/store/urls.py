"""Stores that are not on this machine: recognise their URLs, reach them in words, refuse to write where none can."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaearr.errors import MissingExtraError, NoInputError, UsageError, VaearrError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?=[^/]|$)|([A-Za-z][A-Za-z0-9+.-]+):///?")  # Path joins // to /
_LOCAL = {"file", "local"}
_WRITABLE = {"s3"}


def as_url(path: str | Path) -> str | None:
    """The URL of a store elsewhere, None for a path on this machine (`file:` included)."""
    found = _URL.match(str(path))
    scheme = (found[1] or found[2]).lower() if found else ""
    return f"{scheme}://{str(path)[len(scheme) + 1 :].lstrip('/')}" if found and scheme not in _LOCAL else None


def copied_url(path: str | Path) -> str | None:
    """The URL of a store that is read and written by way of a working copy on this machine, see `copies`; else None."""
    url = as_url(path)
    return url.rstrip("/") if url and url.split(":", 1)[0] in _WRITABLE else None


def read_only_url(path: str | Path) -> str | None:
    """The URL of a store elsewhere that can only be read, None for any other and for a path."""
    return None if copied_url(path) else as_url(path)


def local_path(path: str | Path) -> Path:
    """The path on this machine. Raises UsageError for a URL: what writes needs a folder."""
    url = as_url(path)
    if url is not None:
        raise UsageError(
            f"{url} is a URL, which can only be read (open_store, batches, info); this needs a store in a folder of "
            "this machine, so copy it here first."
        )
    found = _URL.match(str(path))
    return Path("/" + str(path)[found.end() :].lstrip("/")) if found else Path(path)


@contextmanager
def reach(url: str) -> Iterator[None]:
    """What keeps a URL from being read, as one line that says what to install or to check."""
    scheme = url.split(":", 1)[0]
    try:
        yield
    except VaearrError:
        raise
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise MissingExtraError(f"{scheme}:// needs a package that is not installed ({reason}).") from error
    except Exception as error:  # each protocol has errors of its own
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise NoInputError(f"{url} cannot be reached ({reason}); check the URL and your access to it.") from error
