"""The encoded samples of a run: their latents, where they lie, and the classes they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, UsageError, did_you_mean
from vaearr.run import Run, StoreOrRun, load_run, open_run
from vaearr.run.nearest import filled, known_rows
from vaearr.schema import categories, is_categorical

POINT, CLASS = "point", "class"
USUAL_CLASSES = ("label", n.PHASE, n.CLUSTERS)
MOST_CLASSES = 1000


def open_encoded(store: StoreOrRun, run: str = n.DEFAULT_RUN, *, decodes: bool = False) -> Run:
    """A run of a store, with its network loaded where it `decodes`. Raises NoInputError for one that is not there, not
    encoded, or has no network."""
    found = load_run(store, run)
    _ = found.latents
    return open_run(found) if decodes else found


def latent_points(
    encoded: Run,
    by: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    dims: int | Sequence[int] | None = None,
    usual: bool = False,
) -> xr.Dataset:
    """All known samples: `vectors (point, latent)` float64, of a spatial latent the means over its positions.

    Coordinates are those of `point_coords`. by, classes: see `classes_of`; with neither, there are classes only where
    they are `usual` and one of the usual maps is there. Samples of other classes than those wanted are left out. dims:
    of the latents, None for all. Raises NoInputError where no sample is left, UsageError for a class or dimension that
    is not there.
    """
    chosen = dimensions(dims, encoded.latent_shape[0])
    found = classes_of(encoded.ds, by, classes) if by or classes is not None else None
    if found is None and usual:
        found = classes_if_any(encoded.ds, None)
    numbers, rows = known_rows(encoded)
    if found is not None and classes is not None:
        wanted = found.codes[numbers] >= 0
        numbers, rows = numbers[wanted], rows[wanted]
        if not len(numbers):
            raise NoInputError(f"no encoded sample has one of the classes {', '.join(classes)}; choose others.")
    vectors = np.nanmean(rows.reshape(*rows.shape[:2], -1)[:, chosen], axis=-1, dtype="f8")
    coords = {n.LATENT: (n.LATENT, chosen, dict(n.ATTRS[n.LATENT])), **point_coords(encoded, numbers, found)}
    attrs = {**encoded.attrs, "by": found and found.by, "n": len(numbers)}
    return xr.Dataset({"vectors": named((POINT, n.LATENT), vectors, "latent (posterior mean)")}, coords, attrs)


def point_coords(encoded: Run, numbers: np.ndarray, classes: Classes | None = None) -> dict[str, Any]:
    """Coordinates over `point`: the samples' numbers in the grid, their navigation coordinates, and their `class`."""
    coords: dict[str, Any] = {"number": (POINT, numbers, {"long_name": "number of the sample, row-major"})}
    for dim, place in zip(schema.navigation_dims(encoded.ds), np.unravel_index(numbers, encoded.grid), strict=True):
        coords[dim] = (POINT, encoded.ds[dim].values[place], dict(encoded.ds[dim].attrs))
    if classes is not None:
        attrs = {"long_name": classes.by, "flag_values": list(range(-1, len(classes.names)))}
        attrs["flag_meanings"] = ["none", *classes.names]
        coords[CLASS] = (POINT, classes.codes[numbers], attrs)
    return coords


def named(dims: str | tuple[str, ...], values: Any, long_name: str, **attrs: Any) -> tuple[Any, ...]:
    """A variable without a unit, and what it is."""
    return dims, values, {"long_name": long_name, "units": "1", **attrs}


def some(count: int, most: int, seed: int, least: int = 1) -> np.ndarray:
    """Numbers, ascending, of at most `most` of `count` samples: all, or a choice by the seed."""
    from vaearr.analysis.clustering.methods import subsample

    if seed < 0:
        raise UsageError(f"seed is {seed}; it must be a whole number, at least 0.")
    if most < least:
        raise UsageError(f"max_points is {most}; it must be at least {least}.")
    return subsample(count, most, seed)


def some_rows(encoded: Run, max_points: int, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Numbers `(k,)`, latents `(k, values)` of at most `max_points` known samples by the seed; how many are known."""
    numbers, rows = known_rows(encoded)
    if len(numbers) < 2:
        raise NoInputError(f"run {encoded.name!r} of {encoded.path} has one known sample; this needs two.")
    chosen = some(len(numbers), max_points, seed, least=2)
    return numbers[chosen], filled(encoded, rows[chosen]).reshape(len(chosen), -1).astype("f8"), len(numbers)


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


def classes_of(ds: xr.Dataset, by: str | None, wanted: Sequence[str] | None = None) -> Classes:
    """Classes of a Dataset's samples by one of its maps or coordinates: codes with names, texts, booleans, integers.

    by: None for the first there is of label, phase, clusters. Codes below 0 and empty texts are no class. wanted: only
    these, in their order; samples of the others have none. Raises NoInputError for a name that is not there, UsageError
    for one that holds amounts or more than 1000 classes, or lacks a wanted one.
    """
    import pandas as pd

    nav, known = schema.navigation_dims(ds), class_names(ds)
    there = f" There are: {', '.join(known)}." if known else " Cluster the samples first: 'vaearr cluster STORE'."
    if by is None and not (usual := [name for name in USUAL_CLASSES if name in ds.variables]):
        raise NoInputError(f"the store has none of {', '.join(USUAL_CLASSES)}; name a map.{there}")
    by = by or usual[0]
    if by not in ds.variables:
        raise NoInputError(f"there is no map or coordinate {by!r}.{did_you_mean(by, known)}")
    variable = ds[by]
    if set(variable.dims) != set(nav) or variable.dtype.kind not in "biuOUT":
        raise UsageError(
            f"{by!r} ({variable.dtype} over {', '.join(map(str, variable.dims))}) does not hold one class for each "
            f"sample.{there}"
        )
    values = variable.transpose(*nav).values.ravel()
    if variable.dtype.kind in "iu":
        found: dict[Any, str] = dict(sorted(categories(variable).items()))
    else:
        values = np.asarray([str(value) for value in values], dtype=str)
        found = {text: str(text) for text in np.unique(values) if text}
    if wanted is not None:
        if not wanted or len(set(wanted)) != len(wanted):
            raise UsageError(f"the classes {list(wanted)} must be one or more different names.")
        for name in wanted:
            if name not in found.values():
                raise UsageError(f"{by!r} has no class {name!r}.{did_you_mean(name, list(found.values()))}")
        found = {code: name for code, name in found.items() if name in wanted}
    if len(found) > MOST_CLASSES:
        raise UsageError(f"{by!r} has {len(found)} classes; at most {MOST_CLASSES} can be told apart.")
    numbers = pd.Index(list(found)).get_indexer(values)  # -1 for all others
    return Classes(by, numbers, list(found.values()))


def classes_if_any(ds: xr.Dataset, by: str | None) -> Classes | None:
    """`classes_of`; None where none is asked for and neither label, phase nor clusters is there."""
    if by is None and not any(name in ds.variables for name in USUAL_CLASSES):
        return None
    return classes_of(ds, by)


def dimensions(chosen: int | Sequence[int] | None, size: int, count: int | None = None) -> list[int]:
    """Latent dimensions as a list; None for all. Raises UsageError unless they are there, different, and `count`."""
    dims = list(range(size)) if chosen is None else [chosen] if isinstance(chosen, int) else list(chosen)
    wrong = [d for d in dims if isinstance(d, bool) or not isinstance(d, int | np.integer) or not 0 <= d < size]
    if wrong or not dims or len(set(dims)) != len(dims):
        raise UsageError(f"the dimensions {dims} must be different whole numbers from 0 to {size - 1}.")
    if count is not None and len(dims) != count:
        raise UsageError(f"a plane is of two dimensions, {len(dims)} were given: {dims}.")
    return [int(d) for d in dims]
