"""Samples of a store as pictures with their labels: a few of each class, by a seeded choice."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import NoInputError, UsageError, did_you_mean
from vaearr.run.facts import class_names, class_of_each
from vaearr.schema.grid import measured
from vaearr.store import read_block
from vaearr.views.common import brief, robust_limits, unit
from vaearr.views.kinds import builder
from vaearr.views.pictures import COLUMNS, LIMITS, Row, pictures, sheet

MOST_ROWS = 12
Places = tuple[str, np.ndarray]  # what stands in front of a row, and the places of its samples


@builder("samples")
def data_sheet(ds: xr.Dataset, *, by: str | None = None, columns: int = COLUMNS, seed: int = 0) -> Any:
    """Samples as they are stored, chosen by chance: a row for each class, or three rows where there are none.

    Each picture has a grey scale (of colours a brightness) of its own, from its 0.5 % to its 99.5 % percentile; of
    volumes the middle slice is shown. Above each stands its number or its coordinates.

    Parameters
    ----------
    by : variable or coordinate of classes; default: `label`, else the first (for a scan its phase) with two or more
    columns : most samples of each class
    seed : of the choice

    At most 12 classes are shown, the first. Raises NoInputError for a variable that is not there and for a store none
    of whose samples can be used, UsageError for a number of columns below 1.
    """
    if columns < 1:
        raise UsageError(f"the number of columns is {columns}; it must be at least 1.")
    by = _chosen(ds, by)
    rows, n_classes = _rows(ds, by, columns, np.random.default_rng(seed))
    lines = [
        Row(words, [_scaled(image) for image in _pictures(ds, places)], (0, 1), [_where(ds, place) for place in places])
        for words, places in rows
    ]
    return sheet(lines, _heading(ds, by, len(rows), n_classes))


def _chosen(ds: xr.Dataset, by: str | None) -> str | None:
    known = class_names(ds)
    if by is None:
        present = measured(ds)
        telling = (name for name in known if len(np.unique(class_of_each(ds, name)[0][present])) > 1)
        return next(telling, None)
    if by not in known:
        raise NoInputError(f"the store has no variable of classes {by!r}.{did_you_mean(by, known)}")
    return by


def _rows(ds: xr.Dataset, by: str | None, columns: int, rng: np.random.Generator) -> tuple[list[Places], int]:
    """The rows, and the number of classes with a sample."""
    present = measured(ds)
    if not present.any():
        raise NoInputError(f"none of the {schema.samples_word(ds)} can be used; there is nothing to show.")
    if by is None:
        places = _some(np.argwhere(present), 3 * columns, rng)
        count = math.ceil(len(places) / columns)
        return [("", places[i * columns : (i + 1) * columns]) for i in range(count)], 0
    codes, known = class_of_each(ds, by)
    found = []
    for code, name in known.items():
        own = np.argwhere((codes == code) & present)
        if len(own):
            found.append((f"{brief(name.replace('_', ' '), 14)}\n{len(own):,}", _some(own, columns, rng)))
    if not found:
        raise NoInputError(f"no sample has a class of {by!r}; choose another variable.")
    return found[:MOST_ROWS], len(found)


def _some(places: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return places[np.sort(rng.permutation(len(places))[:most])]


def _region(ds: xr.Dataset, place: np.ndarray) -> dict[str, slice]:
    return {dim: slice(i, i + 1) for dim, i in zip(schema.navigation_dims(ds), map(int, place), strict=True)}


def _pictures(ds: xr.Dataset, places: np.ndarray) -> np.ndarray:
    signal = schema.signal_dims(ds)
    shape = tuple(ds.sizes[dim] for dim in signal)
    values = np.stack([read_block(ds[n.PATTERNS], _region(ds, place)).reshape(shape) for place in places])
    return pictures(xr.DataArray(values, dims=("picture", *signal), name=n.PATTERNS))


def _scaled(image: np.ndarray) -> np.ndarray:
    low, high = robust_limits(image, LIMITS)
    return np.asarray(np.clip((image - low) / (high - low), 0, 1))


def _where(ds: xr.Dataset, place: np.ndarray) -> str:
    nav = schema.navigation_dims(ds)
    values = [(dim, ds[dim].values[int(i)]) for dim, i in zip(nav, place, strict=True)][::-1]
    if not schema.is_scan(ds):
        return brief(values[0][1], 14)
    return ", ".join(f"{value:.4g}" for _, value in values)


def _heading(ds: xr.Dataset, by: str | None, n_rows: int, n_classes: int) -> str:
    words = f"{schema.samples_word(ds)} by {by}" if by else schema.samples_word(ds)
    if n_rows < n_classes:
        words += f", {n_rows} of {n_classes} classes"
    if n.Z in schema.signal_dims(ds):
        words += ", middle slices"
    if schema.is_scan(ds):
        dims = ", ".join(schema.navigation_dims(ds)[::-1])
        units = unit(ds[schema.navigation_dims(ds)[-1]].attrs)
        words += f" at {dims}" + (f" in {units}" if units else "")
    return words
