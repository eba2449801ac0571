"""Attributes in the forms that zarr and xarray write them in."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# NaN as xarray writes it into the attributes of a zarr v3 array
NAN_ATTRIBUTE = base64.b64encode(np.array(np.nan, "<f8").tobytes()).decode()


def plain(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as plain JSON: numpy scalars and arrays, tuples and paths become numbers, lists and text."""

    def simple(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray):
            return [simple(v) for v in value.tolist()]
        if isinstance(value, Mapping):
            return {str(k): simple(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [simple(v) for v in value]
        if isinstance(value, Path):
            return str(value)
        return value

    return {str(key): simple(value) for key, value in attrs.items()}
