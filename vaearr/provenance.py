"""What a result depends on besides its data and settings: versions and time; records of it as strict JSON."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

PACKAGES = ("vaearr", "torch", "numpy", "xarray", "zarr")


def versions(*further: str) -> dict[str, str]:
    """Versions of Python and of the packages that decide results, and of `further` ones."""
    return {"python": platform.python_version()} | {name: version(name) for name in (*PACKAGES, *further)}


def now() -> str:
    """The time in UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def nested(attrs: Mapping[Any, Any], key: str) -> Any:
    """An attribute that holds more than one number, text or flat list; None where it is not there.

    Stores keep such attributes as JSON text, so that they go to netCDF too; Datasets in memory and stores of earlier
    versions hold them as they are.
    """
    return parsed(attrs.get(key))


def parsed(value: Any) -> Any:
    """What JSON text of an object, list or null stands for; everything else as it is."""
    if isinstance(value, str) and (value[:1] in "{[" or value == "null") and value:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def as_json(value: Any) -> Any:
    """As strict JSON: NaN and infinity become null, arrays lists, anything unknown its text."""
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [as_json(item) for item in value]
    if not isinstance(value, str) and hasattr(value, "tolist"):  # arrays and their numbers
        return as_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
