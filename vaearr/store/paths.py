"""Paths of stores. A URL can only be opened for reading."""

from __future__ import annotations

import re
from pathlib import Path

from vaearr.errors import UsageError

METADATA = "zarr.json"
COPY_COMMANDS = {
    "s3": "aws s3 cp --recursive {url} {name}",
    "gs": "gcloud storage cp --recursive {url} .",
}
COPY_BY_HTTP = "wget --recursive --no-parent --no-host-directories {url}/"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,3}")  # Path joins // to /


def as_url(path: str | Path) -> str | None:
    """Return a path as a URL, None for a path of this machine."""
    text = str(path)
    match = _URL.match(text)
    if match is None:
        return None
    rest = text[match.end() :].strip("/")
    return f"{match[1].lower()}://{rest}"


def store_path(path: str | Path) -> Path:
    """Return the resolved path of a store. Raises UsageError for a URL."""
    url = as_url(path)
    if url is None:
        return Path(path).expanduser().resolve()
    name = url.rpartition("/")[2]
    command = COPY_COMMANDS.get(url.split(":")[0], COPY_BY_HTTP).format(url=url, name=name)
    raise UsageError(
        f"{url} is a URL, which only va.open_store and xr.open_zarr read; copy the store to this "
        f"machine first: '{command}'."
    )
