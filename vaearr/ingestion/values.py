"""Read values for scan points or samples from files and arrays, with their points."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import schema
from vaearr.errors import DataError, NoInputError, SchemaError, UsageError, did_you_mean, listed
from vaearr.sources.element_maps import SUFFIX as TSV
from vaearr.sources.element_maps import element_of, read_element_map, resample
from vaearr.sources.hdf5 import check_file
from vaearr.sources.numpy_files import read_npy
from vaearr.sources.tables import ReadAs, Table, read_table
from vaearr.store.folders import sha256_of

log = logging.getLogger("vaearr")

KNOWN_PREFIXES = ("latent_", "PCA_", "cNMF_")
Values = str | Path | np.ndarray


@dataclass(frozen=True, eq=False)
class Points:
    """Coordinates `(N, d)` in the order x, y[, z], with the line of the file of each row."""

    values: np.ndarray
    read_as: ReadAs
    origin: dict[str, Any]
    lines: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Rows:
    """Values `(N, K)` or over the full grid, with their source and the points that came with them.

    columns: names of the K columns. numbers: numbers in these names (`latent_7` is 7).
    """

    values: np.ndarray
    origin: dict[str, Any]
    columns: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    points: Points | None = None


def read_columns(
    path: str | Path, dims: Sequence[str], prefix: str | None, columns: Sequence[str]
) -> Rows:
    """Read columns of a CSV with their points.

    Parameters
    ----------
    path : str or Path
        CSV file.
    dims : sequence of str
        Dims of a point, `("x", "y")`; their columns are coordinates.
    prefix, columns
        Take columns that begin with `prefix`, or those named. Without both: columns of the first
        known prefix that occurs (`latent_`, `PCA_`, `cNMF_`), else all. Numbered columns of a
        prefix are sorted by their numbers.

    Returns
    -------
    Rows

    Raises
    ------
    DataError, NoInputError, UsageError
        If a column does not exist, or both `prefix` and `columns` are given.
    """
    table = read_table(path, dims)
    if columns and prefix:
        raise UsageError("columns and prefix both choose columns; give one of them.")
    for name in columns:
        if name not in table.values:
            raise NoInputError(
                f"{table.file} has no value column {name!r}.{did_you_mean(name, table.values)}"
            )
    if columns:
        return rows_of(table, columns)
    if prefix is None:
        prefix = _known_prefix(table.values)
    names = [name for name in table.values if name.startswith(prefix)]
    if not names:
        raise DataError(
            f"{table.file} has no value column {prefix}…; it has {listed(table.frame.columns)}."
        )
    suffixes = [name.removeprefix(prefix) for name in names]
    if not prefix or not all(map(str.isdecimal, suffixes)):
        return rows_of(table, names)
    names.sort(key=lambda name: int(name.removeprefix(prefix)))
    return replace(rows_of(table, names), numbers=tuple(sorted(map(int, suffixes))))


def _known_prefix(names: Sequence[str]) -> str:
    """The first known prefix that a name has, "" if none has one."""
    for prefix in KNOWN_PREFIXES:
        if any(name.startswith(prefix) for name in names):
            return prefix
    return ""


def rows_of(table: Table, columns: Sequence[str]) -> Rows:
    """Return the values of some columns of a table, with its points."""
    values = table.numbers(columns)
    origin = _origin(values, table.file) | {"columns": list(columns)}
    points = _points_of(table) if table.coordinates else None
    return Rows(values, origin, tuple(columns), points=points)


def _points_of(table: Table) -> Points:
    values = table.numbers(table.coordinates)
    origin = _origin(values, table.file) | {"columns": table.coordinates}
    return Points(values, table.read_as, origin, table.frame.index.to_numpy())


def read_element_maps(files: Sequence[Path], ds: xr.Dataset) -> Rows:
    """Read element maps of .tsv files; maps of another shape than the scan's are resampled."""
    shape = schema.navigation_shape(ds)
    if not schema.is_scan(ds) or len(shape) != 2:
        raise DataError(
            f"{files[0]} is a map with rows and columns, the store's samples have shape {shape}."
        )
    elements = [element_of(file) for file in files]
    if len(set(elements)) < len(elements):
        raise DataError(
            f"{files[0].parent} holds several maps of an element: {listed(elements)}; keep one of "
            "each."
        )
    maps = []
    shapes = []
    checksum = hashlib.sha256()
    for file in files:
        values = read_element_map(file)
        shapes.append(list(values.shape))
        checksum.update(file.read_bytes())
        if values.shape != shape:
            log.info(
                f"{file.name}: {values.shape} values (rows, columns) are resampled to {shape} scan "
                "points."
            )
            values = resample(values, (shape[0], shape[1]))
        maps.append(values)
    origin = {
        "file": ", ".join(file.name for file in files),
        "sha256": checksum.hexdigest(),
        "shapes": shapes,
    }
    return Rows(np.stack(maps, axis=-1), origin, tuple(elements))


def read_array(source: Values) -> Rows:
    """Read numbers from memory or a `.npy`."""
    file = None
    if isinstance(source, np.ndarray):
        values = source
    else:
        file = Path(source).expanduser()
        values = read_npy(file)
    origin = _origin(values, file)
    if values.dtype.kind not in "biuf" or 0 in values.shape or values.ndim == 0:
        raise DataError(
            f"{origin['file']}: {values.dtype} of shape {values.shape}; expected numbers, one row "
            "for each point."
        )
    return Rows(values, origin)


def read_points(source: Values, dims: Sequence[str]) -> Points:
    """Read points `(N, d)` from a CSV with columns for all `dims`, `.npy` or memory."""
    if isinstance(source, np.ndarray) or not is_table(source):
        rows = read_array(source)
        return Points(rows.values, "auto", rows.origin)
    table = read_table(source, dims)
    if not table.coordinates:
        raise DataError(
            f"{source} has no columns {' and '.join(dims)}; it has {listed(table.values)}."
        )
    return _points_of(table)


def is_table(path: str | Path) -> bool:
    """Whether a file is a CSV or .tsv. Raises an error for anything but these and `.npy`."""
    suffix = check_file(path).suffix.lower()
    if suffix not in (".npy", ".csv", TSV):
        raise UsageError(f"{path} is {suffix or 'without a suffix'}; expected .npy, .csv or {TSV}.")
    return suffix != ".npy"


def _origin(values: np.ndarray, file: Path | None = None) -> dict[str, Any]:
    """Shape, type, file and checksum of values, for the recipe."""
    origin: dict[str, Any] = {"shape": list(values.shape), "dtype": str(values.dtype)}
    if file is None:
        checksum = hashlib.sha256(values.tobytes()).hexdigest()
        return {"file": "an array in memory", "sha256": checksum, **origin}
    return {"file": file.name, "sha256": sha256_of(file), **origin}


def rows_of_array(values: xr.DataArray, ds: xr.Dataset, dims: Sequence[str]) -> Rows:
    """Return a DataArray over a store's navigation dims and at most one more as rows.

    dims: the dims of a point, none for a collection. Without coordinates the array covers the full
    grid. Raises SchemaError.
    """
    navigation = schema.navigation_dims(ds)
    other_dims = [dim for dim in values.dims if dim not in navigation]
    if not set(navigation) <= set(values.dims) or len(other_dims) > 1:
        raise SchemaError(
            f"the array has dims {tuple(values.dims)}; expected {navigation} and at most one more; "
            "rename them by .rename(…)."
        )
    stacked = values.stack({"row": navigation}, create_index=False).transpose("row", ...)
    array = np.asarray(stacked.values)
    rows = Rows(array, _origin(array))
    if dims and set(navigation) <= set(values.coords):
        coordinates = np.stack([stacked[dim].values for dim in dims], axis=1)
        rows = replace(rows, points=Points(coordinates, "coordinates", rows.origin))
    else:
        try:
            xr.align(values, ds[list(navigation)], join="exact")
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise SchemaError(
                f"the array does not cover the store's {navigation} ({reason}); use "
                ".reindex_like(…)."
            ) from None
    for dim in other_dims:
        labels = values[dim].values  # positions where the dim has no coordinate
        if dim in values.coords and labels.dtype.kind in "iu":
            return replace(rows, numbers=tuple(map(int, labels)))
        if labels.dtype.kind in "OUT":
            return replace(rows, columns=tuple(map(str, labels)))
    return rows
