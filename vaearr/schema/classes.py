"""The classes of samples: the variables that hold them, and the class of each sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, UsageError, did_you_mean
from vaearr.schema import is_categorical, meanings

CLASS = "class"
CLASS_VARIABLES = ("label", n.PHASE, n.CLUSTERS)  # the first that exists is the default
MAX_CLASSES = 1000
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
    texts = set(ds[name].values.tolist())
    return len(texts) <= MOST_CLASSES and len(texts) < ds[name].size


def class_of_each(ds: xr.Dataset, name: str) -> tuple[np.ndarray, dict[Any, str]]:
    """Code or text of each sample over the navigation dims, and code or text -> name of the class.

    Negative codes and empty texts are no class. Raises NoInputError or UsageError as `classes_of`.
    """
    values = _class_values(ds, name)
    names = {value: str(value) for value in np.unique(values).tolist()}
    if values.dtype.kind in "iu":
        names = meanings(ds[name]) or names
    return values, dict(sorted(names.items()))


def classes_of(
    ds: xr.Dataset, by: str | None = None, classes: Sequence[str] | None = None
) -> xr.DataArray | None:
    """The class of each sample by a map or coordinate, over the navigation dims.

    Codes are 0, 1, … with names in `flag_meanings`, and -1 for no class. Negative codes and empty
    texts of the variable are no class.

    by: a variable of integers, texts or booleans; None for the first that exists of label, phase
    and clusters; None is returned if there is none. classes: names of the classes to keep. Raises
    NoInputError for an unknown variable, UsageError for one that holds no classes or lacks one.
    """
    if by is None:
        existing = [name for name in CLASS_VARIABLES if name in ds.variables]
        if not existing and classes is None:
            return None
        by = [*existing, *CLASS_VARIABLES][0]
    values, names = class_of_each(ds, by)
    if values.dtype.kind in "iu":
        names = {code: name for code, name in names.items() if code >= 0}
    names.pop("", None)
    if classes is not None:
        names = _selected(names, classes, by)
    if len(names) > MAX_CLASSES:
        raise UsageError(f"{by!r} has {len(names)} classes; at most {MAX_CLASSES} are supported.")
    index = pd.Index(list(names))
    codes = index.get_indexer(pd.Index(values.ravel()))  # -1 for other values
    attrs = {
        "long_name": by,
        "flag_values": list(range(-1, len(names))),
        "flag_meanings": ["none", *names.values()],
    }
    navigation = schema.navigation_dims(ds)
    return xr.DataArray(codes.reshape(values.shape), dims=navigation, name=CLASS, attrs=attrs)


def _selected(names: dict[Any, str], classes: Sequence[str], by: str) -> dict[Any, str]:
    """Those of the classes that are requested by name. Raises UsageError for an unknown name."""
    for name in classes:
        if name not in names.values():
            hint = did_you_mean(name, list(names.values()))
            raise UsageError(f"{by!r} has no class {name!r}.{hint}")
    return {value: name for value, name in names.items() if name in classes}


def _class_values(ds: xr.Dataset, name: str) -> np.ndarray:
    """Values of a variable that holds a class for each sample; everything but integers as text."""
    navigation = schema.navigation_dims(ds)
    if name not in ds.variables:
        names = map(str, ds.variables)
        candidates = [other for other in names if set(ds[other].dims) == set(navigation)]
        raise NoInputError(
            f"there is no map or coordinate {name!r}.{did_you_mean(name, candidates)}"
        )
    variable = ds[name]
    if set(variable.dims) != set(navigation) or variable.dtype.kind not in "biuOUT":
        dims = ", ".join(map(str, variable.dims))
        raise UsageError(
            f"{name!r} ({variable.dtype} over {dims}) does not hold one class for each sample; "
            "name another map, or cluster the samples first."
        )
    values = variable.transpose(*navigation).values
    if values.dtype.kind in "iu":
        return values
    return np.array(values.tolist(), dtype=str)


def paired_samples(
    ds: xr.Dataset, positive: str, negative: str
) -> tuple[xr.DataArray, xr.DataArray, list[str]]:
    """Pair the samples of two labels by the names of their files.

    Returns the patterns `(pair, *signal)` of both labels, with the names as coordinate `pair`, and
    the names that have one of the labels only. Raises NoInputError without pairs.
    """
    if n.PATH not in ds.coords:
        raise NoInputError(
            "pairs of labels need a collection of files; of a scan give two points, X:Y."
        )
    classes = classes_of(ds, "label")
    assert classes is not None
    labels = classes.attrs["flag_meanings"][1:]
    numbers = []
    for label in (positive, negative):
        if label not in labels:
            hint = did_you_mean(label, labels)
            raise NoInputError(f"no sample has the label {label!r}.{hint}")
        indices = np.flatnonzero(classes == labels.index(label))
        paths = ds[n.PATH].values[indices]
        numbers.append({PurePath(path).name: i for path, i in zip(paths, indices, strict=True)})
    first, second = numbers
    names = sorted(first.keys() & second.keys())
    if not names:
        raise NoInputError(
            f"no file name has both labels {positive!r} and {negative!r}; pairs are files of the "
            "same name in two folders."
        )
    samples = []
    for of_label in numbers:
        chosen = ds[n.PATTERNS].isel({n.SAMPLE: [of_label[name] for name in names]})
        samples.append(chosen.drop_vars(n.SAMPLE, errors="ignore").rename({n.SAMPLE: n.PAIR}))
    unpaired = sorted(first.keys() ^ second.keys())
    return samples[0].assign_coords({n.PAIR: names}), samples[1], unpaired
