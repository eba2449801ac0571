"""Attributes in the forms that zarr and xarray write them in."""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from vaearr import names as n
from vaearr.errors import StoreWarning

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


def flat(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """The same as text, numbers and flat lists, which netCDF knows too: `vaearr.provenance.nested` reads the rest."""

    def one(value: Any) -> Any:
        if isinstance(value, bool):
            return int(value)
        kinds = {type(item) for item in value} if isinstance(value, list) else {type(value)}
        return value if kinds <= {str} or kinds <= {int, float} else json.dumps(value)

    return {key: one(value) for key, value in plain(attrs).items()}


def root_attributes(group: zarr.Group, named: object) -> dict[str, Any]:
    """Attributes of a store's root; where another program replaced them, those that `/runs` has a copy of.

    Stores of earlier versions have no copy; they are known by `/runs` and patterns that name their dims. Warns then.
    """
    own = dict(group.attrs)
    runs, patterns = group.get(n.RUNS), group.get(n.PATTERNS)
    if n.SCHEMA_VERSION in own or not isinstance(runs, zarr.Group):
        return own
    kept = dict(runs.attrs)
    if n.SCHEMA_VERSION not in kept:
        if patterns is None or n.NAVIGATION_DIMS not in patterns.attrs:
            return own
        kept = {n.SCHEMA_VERSION: n.SCHEMA}
    warnings.warn(
        f"another program replaced the attributes of {named}; 'vaearr verify {named} --relist', or the next command "
        "that writes, puts them back.",
        StoreWarning,
        stacklevel=2,
    )
    return {**own, **kept}
