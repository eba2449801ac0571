"""The encoded samples of a run: their latents, where they lie, and the classes they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError, NoInputError, UsageError, did_you_mean
from vaearr.run import Run, load_run
from vaearr.schema import is_categorical, meanings

POINT = "point"
USUAL_CLASSES = ("label", n.PHASE, n.CLUSTERS)
MOST_CLASSES = 1000


def open_encoded(store: str | Path | Run, run: str) -> Run:
    """A run of a store. Raises NoInputError for one that is not there or not encoded."""
    found = load_run(store, run)
    _ = found.latents
    return found


def point_coords(encoded: Run, numbers: np.ndarray) -> dict[str, Any]:
    """Coordinates over `point`: the samples' numbers in the grid, and their navigation coordinates."""
    coords: dict[str, Any] = {"number": (POINT, numbers, {"long_name": "number of the sample, row-major"})}
    for dim, place in zip(schema.navigation_dims(encoded.ds), np.unravel_index(numbers, encoded.grid), strict=True):
        coords[dim] = (POINT, encoded.ds[dim].values[place], dict(encoded.ds[dim].attrs))
    return coords


def pooled(rows: np.ndarray) -> np.ndarray:
    """One value per dimension: `(k, L[, lz, ly, lx]) -> (k, L)` float64, means over the positions that are known."""
    values = rows.reshape(*rows.shape[:2], -1).astype("f8")
    known = np.isfinite(values)
    count = known.sum(-1)
    total = np.where(known, values, 0.0).sum(-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def all_vectors(encoded: Run) -> tuple[np.ndarray, np.ndarray]:
    """Numbers `(k,)` and pooled latents `(k, L)` of all known samples. Raises NoInputError where there are none."""
    parts = [(numbers, pooled(rows)) for numbers, rows in encoded.latent_blocks()]
    if not parts:
        raise NoInputError(f"run {encoded.name!r} of {encoded.path} has no point with known latents; encode it again.")
    numbers = np.concatenate([part[0] for part in parts])
    order = np.argsort(numbers)
    return numbers[order], np.concatenate([part[1] for part in parts])[order]


def check_seed(seed: int) -> None:
    """Raise UsageError for a seed below 0."""
    if seed < 0:
        raise UsageError(f"seed is {seed}; it must be a whole number, at least 0.")


def some(count: int, most: int, seed: int) -> np.ndarray:
    """Numbers, ascending, of at most `most` of `count` samples: all, or a choice by the seed."""
    from vaearr.analysis.clustering.methods import subsample

    check_seed(seed)
    return subsample(count, most, seed)


def some_rows(encoded: Run, max_points: int, seed: int, *, pool: bool = False) -> tuple[np.ndarray, np.ndarray, int]:
    """Numbers `(k,)`, latents `(k, values)` of at most `max_points` known samples by the seed, and how many are known.

    pool: means over positions in place of all values of a spatial latent. Raises DataError where a mask left
    positions out and `pool` is not set.
    """
    if max_points < 2:
        raise UsageError(f"max_points is {max_points}; it must be at least 2.")
    known = np.concatenate([np.zeros(0, int), *(numbers for numbers, _ in encoded.latent_blocks())])
    if len(known) < 2:
        raise NoInputError(f"run {encoded.name!r} of {encoded.path} has {len(known)} known samples; this needs two.")
    chosen = np.sort(known)[some(len(known), max_points, seed)]
    width = encoded.latent_shape[0] if pool else int(np.prod(encoded.latent_shape))
    values = np.empty((len(chosen), width), np.float64)
    for numbers, rows in encoded.latent_blocks():
        wanted = np.isin(numbers, chosen)
        found = pooled(rows[wanted]) if pool else rows[wanted].reshape(-1, width)
        values[np.searchsorted(chosen, numbers[wanted])] = found
    if not np.isfinite(values).all():
        raise DataError(
            f"the latents of run {encoded.name!r} are missing at some positions, where a mask left them out; use the "
            "mean of each dimension with pooled=True (--pooled), for a path space='plane' (--space plane)."
        )
    return chosen, values, len(known)


@dataclass(frozen=True, eq=False)
class Classes:
    """A class for each sample. codes: `(samples,)`, -1 for none; names of the codes 0, 1, …."""

    by: str
    codes: np.ndarray
    names: list[str]


def class_names(ds: xr.Dataset) -> list[str]:
    """Variables and coordinates of a Dataset that may name classes, the usual ones first."""
    nav = schema.navigation_dims(ds)
    found = [
        str(name)
        for name, v in ds.variables.items()
        if set(v.dims) == set(nav) and name not in nav and (v.dtype.kind in "OUT" or is_categorical(ds[name]))
    ]
    return sorted(found, key=lambda name: (name not in USUAL_CLASSES, found.index(name)))


def classes_of(ds: xr.Dataset, by: str | None) -> Classes:
    """Classes of a Dataset's samples by one of its maps or coordinates: codes with names, texts, booleans, integers.

    by: None for the first there is of label, phase, clusters. Codes below 0 and empty texts are no class. Raises
    NoInputError for a name that is not there, UsageError for one that holds amounts or more than 1000 classes.
    """
    nav = schema.navigation_dims(ds)
    if by is None:
        by = next((name for name in USUAL_CLASSES if name in ds.variables), None)
        if by is None:
            raise NoInputError(f"the store has none of {', '.join(USUAL_CLASSES)}; name a map.{_choices(ds)}")
    if by not in ds.variables:
        raise NoInputError(f"there is no map or coordinate {by!r}.{did_you_mean(by, class_names(ds))}")
    variable = ds[by]
    if set(variable.dims) != set(nav) or variable.dtype.kind not in "biuOUT":
        raise UsageError(
            f"{by!r} ({variable.dtype} over {', '.join(map(str, variable.dims))}) does not hold one class for each "
            f"sample.{_choices(ds)}"
        )
    values = variable.transpose(*nav).values.ravel()
    if variable.dtype.kind in "iu":
        flags = meanings(variable) if is_categorical(variable) else {}
        codes = [code for code in (sorted(flags) or np.unique(values).tolist()) if code >= 0]
        found = {code: flags.get(code, str(code)) for code in codes}
    else:
        values = np.asarray([str(value) for value in values], dtype=str)
        found = {text: str(text) for text in np.unique(values) if text}
    if len(found) > MOST_CLASSES:
        raise UsageError(f"{by!r} has {len(found)} classes; at most {MOST_CLASSES} can be told apart.")
    numbers = np.full(len(values), -1)
    if found:
        keys = np.asarray(list(found))
        place = np.minimum(np.searchsorted(keys, values), len(keys) - 1)
        numbers = np.where(keys[place] == values, place, -1)
    return Classes(by, numbers, list(found.values()))


def classes_if_any(ds: xr.Dataset, by: str | None) -> Classes | None:
    """`classes_of`; None where none is asked for and neither label, phase nor clusters is there."""
    if by is None and not any(name in ds.variables for name in USUAL_CLASSES):
        return None
    return classes_of(ds, by)


def _choices(ds: xr.Dataset) -> str:
    known = class_names(ds)
    return f" There are: {', '.join(known)}." if known else " Cluster the samples first: 'vaearr cluster STORE'."


def only_classes(classes: Classes, wanted: Sequence[str]) -> Classes:
    """Some of the classes, in their order; samples of the others have none. Raises UsageError for one not there."""
    if not wanted or len(set(wanted)) != len(wanted):
        raise UsageError(f"the classes {list(wanted)} must be one or more different names.")
    for name in wanted:
        if name not in classes.names:
            raise UsageError(f"{classes.by!r} has no class {name!r}.{did_you_mean(name, classes.names)}")
    kept = [code for code, name in enumerate(classes.names) if name in wanted]
    new = np.full(len(classes.names) + 1, -1)  # the last for -1
    new[kept] = np.arange(len(kept))
    return Classes(classes.by, new[classes.codes], [classes.names[code] for code in kept])


def kept_classes(ds: xr.Dataset, by: str | None, wanted: Sequence[str]) -> Classes:
    """`classes_of`, of which only some are wanted."""
    return only_classes(classes_of(ds, by), wanted)


def class_coords(classes: Classes, numbers: np.ndarray) -> dict[str, Any]:
    """The class of each point, as a coordinate over `point`: codes with their names."""
    attrs = {"long_name": classes.by, "flag_values": list(range(-1, len(classes.names)))}
    return {"class": (POINT, classes.codes[numbers], attrs | {"flag_meanings": ["none", *classes.names]})}


def dimensions(chosen: int | list[int] | tuple[int, ...] | None, size: int) -> list[int]:
    """Latent dimensions as a list; None for all. Raises UsageError for one that is not there or given twice."""
    dims = list(range(size)) if chosen is None else [chosen] if isinstance(chosen, int) else list(chosen)
    wrong = [d for d in dims if isinstance(d, bool) or not isinstance(d, int | np.integer) or not 0 <= d < size]
    if wrong or not dims or len(set(dims)) != len(dims):
        raise UsageError(f"the dimensions {dims} must be different whole numbers from 0 to {size - 1}.")
    return [int(d) for d in dims]
