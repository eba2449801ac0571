"""The classes of samples: variables and coordinates that hold them, and the class of each sample."""

from __future__ import annotations

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.schema import is_categorical, meanings

MOST_CLASSES = 40  # different texts of a coordinate that is taken for classes


def class_names(ds: xr.Dataset) -> list[str]:
    """Variables and coordinates with a class for each sample, `label` first.

    Codes with names (`flag_values`), and text with at most 40 different values. The ROI, the split
    and clusters are no classes, and neither are groups such as subjects.
    """
    dims = set(schema.navigation_dims(ds))
    results = set(schema.cluster_maps(ds))
    classes = []
    for name in map(str, ds.variables):
        is_of_a_run = name.split("_")[0] in (n.ROI, n.SPLIT)
        if set(ds[name].dims) != dims or name in results or is_of_a_run:
            continue
        if is_categorical(ds[name]) or _is_short_text(ds, name):
            classes.append(name)
    return sorted(classes, key=lambda name: (name != "label", name))


def _is_short_text(ds: xr.Dataset, name: str) -> bool:
    """Whether a coordinate of a collection holds text that repeats, and names no group or file."""
    if ds[name].ndim > 1 or ds[name].dtype.kind not in "UTO":
        return False
    if name.lower() in {*n.GROUPS, n.PATH}:
        return False
    return len(np.unique(_values(ds, name))) <= min(MOST_CLASSES, ds[name].size - 1)


def class_of_each(ds: xr.Dataset, name: str) -> tuple[np.ndarray, dict[int, str]]:
    """Code of each sample over the navigation dims, below 0 for no class; and code -> name."""
    values = _values(ds, name)
    if is_categorical(ds[name]):
        return values, meanings(ds[name]) or {int(code): str(code) for code in np.unique(values)}
    words, codes = np.unique(values, return_inverse=True)
    return codes.reshape(values.shape), dict(enumerate(map(str, words)))


def _values(ds: xr.Dataset, name: str) -> np.ndarray:
    values = np.asarray(ds[name].transpose(*schema.navigation_dims(ds)).values)
    return np.array(values.tolist(), dtype=str) if values.dtype.kind in "UTO" else values
