"""What a result depends on besides its data and settings: versions and time."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version

PACKAGES = ("vaearr", "torch", "numpy", "xarray", "zarr")


def versions(*further: str) -> dict[str, str]:
    """Versions of Python and of the packages that decide results, and of `further` ones."""
    return {"python": platform.python_version()} | {name: version(name) for name in (*PACKAGES, *further)}


def now() -> str:
    """The time in UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
