"""Values and points from files: `.npy`, `.npz` (never unpickled) and CSV with x, y[, z] beside value columns."""

from __future__ import annotations

import hashlib
import re
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from vaearr import schema
from vaearr.errors import DataError, NoInputError, SchemaError, UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from vaearr.attaching.placing import ReadAs

KNOWN_PREFIXES = ("latent_", "PCA_", "cNMF_")
IN_MEMORY = "an array in memory"
_DAMAGED = (zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError, RecursionError)
_NOT_A_UNIT = {"", "1", "px", "pixel", "pixels", "step", "steps"}
_STEP_NAMES = ("index", "indice", "idx", "step", "pixel", "px")


@dataclass(frozen=True, eq=False)
class Points:
    """Coordinates `(N, d)` in the order x, y[, z], how their names say they are read, and where they come from."""

    values: np.ndarray
    read_as: ReadAs
    origin: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Values:
    """Values `(N, K)` or an array over the whole grid, names of the K columns, and the points the file itself has."""

    values: np.ndarray
    columns: tuple[str, ...]
    numbers: tuple[int, ...]  # the columns' own numbers (`latent_7` is 7), else 0, 1, …
    origin: dict[str, Any] = field(default_factory=dict)
    points: Points | None = None


def read_values(
    source: str | Path | np.ndarray,
    dims: Sequence[str],
    *,
    prefix: str | None = None,
    columns: Sequence[str] = (),
    array: str | None = None,
) -> Values:
    """Values from `.npy`, `.npz` (`array` names one of several), CSV or memory.

    dims: the point dims, `("x", "y")`, whose columns in a CSV are coordinates. Of a CSV the named `columns` are taken,
    else those that begin with `prefix`, else those of the one known prefix that occurs, else all. Numbered columns come
    in the order of their numbers. Raises DataError, NoInputError or UsageError that says what is there instead.
    """
    if isinstance(source, np.ndarray):
        return _plain(source, _memory_origin(source))
    file = _existing(source)
    suffix = file.suffix.lower()
    if suffix == ".csv":
        return _csv_values(file, dims, prefix, columns)
    if prefix or columns:
        raise UsageError(f"prefix and columns choose from a CSV; {file.name} is not one.")
    values, name = _load(file, array)
    return _plain(values, _file_origin(file, values) | ({"array": name} if name else {}))


def one_of(values: xr.Dataset, array: str | None) -> xr.DataArray:
    """The variable of a Dataset that is meant: `array`, or the only one."""
    known = [str(name) for name in values.data_vars]
    if array is None and len(known) != 1:
        raise UsageError(f"the Dataset holds {len(known)} variables ({_listed(known)}); choose one with array='…'.")
    name = array or known[0]
    if name not in known:
        raise NoInputError(f"the Dataset holds no variable {name!r}.{did_you_mean(name, known)}")
    return values[name]


def labelled_values(values: xr.DataArray, ds: xr.Dataset, dims: Sequence[str]) -> Values:
    """Values of a DataArray over a store's navigation dims and at most one more, with the points that it lies on.

    dims: the point dims, none for a collection. Without coordinates it covers the whole grid. Raises SchemaError.
    """
    nav = schema.navigation_dims(ds)
    others = [dim for dim in values.dims if dim not in nav]
    if not set(nav) <= set(values.dims) or len(others) > 1:
        raise SchemaError(
            f"the array has dims {tuple(values.dims)}; expected {nav} and at most one more; rename them by .rename(…)."
        )
    placed = [dim for dim in nav if dim in values.coords]
    whole = values.transpose(*nav, *others)
    if len(placed) < len(nav) or not dims:
        for dim in nav:
            if whole.sizes[dim] != ds.sizes[dim] or (dim in placed and not whole[dim].equals(ds[dim])):
                raise SchemaError(
                    f"along {dim!r} the array has {whole.sizes[dim]} entries that are not the store's {ds.sizes[dim]}; "
                    "bring it there with .reindex_like(va.open_store(STORE).present)."
                )
    rows = np.asarray(whole.values).reshape(-1, *(whole.sizes[dim] for dim in others))
    table = _plain(rows, _memory_origin(rows))
    labels = whole[others[0]].values if others and others[0] in whole.coords else np.arange(rows.shape[-1])
    numbers = tuple(map(int, labels)) if labels.dtype.kind in "iu" else tuple(range(len(labels)))
    columns = tuple(map(str, labels)) if labels.dtype.kind in "OUT" else ()
    points = None
    if dims and len(placed) == len(nav):
        axes = dict(zip(nav, np.meshgrid(*(whole[dim].values for dim in nav), indexing="ij"), strict=True))
        points = Points(np.stack([axes[dim].ravel() for dim in dims], 1), "coordinates", _memory_origin(rows))
    return replace(table, numbers=numbers if others else (), columns=columns, points=points)


def read_points(source: str | Path | np.ndarray, dims: Sequence[str]) -> Points:
    """Points `(N, d)` from a CSV with columns for all `dims`, `.npy`, `.npz` or memory."""
    if isinstance(source, np.ndarray):
        return Points(source, "auto", _memory_origin(source))
    file = _existing(source)
    if file.suffix.lower() != ".csv":
        values, _ = _load(file, None)
        return Points(values, "auto", _file_origin(file, values))
    from vaearr.sources.csv_files import read_csv

    frame = read_csv(file)
    found = _points(file, frame, dims)[0]
    if found is None:
        raise DataError(f"{file} has no columns {' and '.join(dims)}. It has: {_listed(_named(frame))}.")
    return found


def _existing(source: str | Path) -> Path:
    from vaearr.sources.hdf5 import check_file

    file = check_file(source)
    if file.suffix.lower() not in (".npy", ".npz", ".csv"):
        raise UsageError(f"{file} is {file.suffix or 'without a suffix'}; expected .npy, .npz or .csv.")
    return file


def _load(file: Path, array: str | None) -> tuple[np.ndarray, str | None]:
    """The array of a `.npy`, or the one meant of a `.npz` with its name."""
    try:
        if file.suffix.lower() == ".npy":
            if array:
                raise UsageError(f"array={array!r} chooses from a .npz; {file.name} holds one array.")
            return np.load(file, mmap_mode="r", allow_pickle=False), None
        with np.load(file, allow_pickle=False) as bundle:
            known = list(bundle.files)
            if array is None and len(known) != 1:
                raise UsageError(f"{file} holds {len(known)} arrays ({_listed(known)}); choose one with array='…'.")
            name = array or known[0]
            if name not in known:
                raise NoInputError(f"{file} holds no array {name!r}.{did_you_mean(name, known)}")
            values = bundle[name]
    except (UsageError, NoInputError):
        raise
    except (ValueError, EOFError, OSError, KeyError, OverflowError, MemoryError, *_DAMAGED) as error:
        reason = "it holds objects, or is damaged" if "pickle" in str(error) else " ".join(str(error).split())
        raise DataError(f"{file} cannot be read as plain numbers ({reason}); save it again with numpy.save.") from None
    if not isinstance(values, np.ndarray):
        raise DataError(f"{file}: {name!r} is no array; save it again with numpy.savez.")
    return values, name


def _plain(values: np.ndarray, origin: dict[str, Any]) -> Values:
    if values.dtype.kind not in "biuf" or 0 in values.shape or values.ndim == 0:
        raise DataError(f"{origin['file']}: {values.dtype} of shape {values.shape}; expected numbers, one row a point.")
    return Values(values, (), (), origin)


def _csv_values(file: Path, dims: Sequence[str], prefix: str | None, columns: Sequence[str]) -> Values:
    from vaearr.sources.csv_files import numbers_of, read_csv

    frame = read_csv(file)
    points, taken = _points(file, frame, dims)
    others = [name for name in _named(frame) if name not in taken]
    chosen, numbers = _in_order(*_chosen(file, others, prefix, columns))
    values = np.stack([numbers_of(frame, name, file, dtype="f8") for name in chosen], axis=1)
    return Values(values, chosen, numbers, _file_origin(file, values) | {"columns": list(chosen)}, points)


def _chosen(
    file: Path, others: list[str], prefix: str | None, columns: Sequence[str]
) -> tuple[tuple[str, ...], str | None]:
    """The value columns that are meant, and the prefix they share by rule."""
    if columns and prefix:
        raise UsageError("columns and prefix both say which columns are meant; give one of them.")
    for name in columns:
        if name not in others:
            raise NoInputError(f"{file} has no value column {name!r}.{did_you_mean(name, others)}")
    if columns:
        return tuple(columns), None
    if prefix is None:
        families = [p for p in KNOWN_PREFIXES if any(name.startswith(p) for name in others)]
        if len(families) > 1:
            raise UsageError(f"{file} has columns {' and '.join(f'{p}…' for p in families)}; choose one with prefix=.")
        prefix = families[0] if families else None
    fitting = tuple(name for name in others if prefix is None or name.startswith(prefix))
    if not fitting:
        raise DataError(f"{file} has no value column{f' {prefix}…' if prefix else ''}. It has: {_listed(others)}.")
    return fitting, prefix


def _in_order(names: tuple[str, ...], prefix: str | None) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Columns and their numbers, 0, 1, … where not all have one. Those of a prefix are sorted by number."""
    found = [re.fullmatch(r"(.*?)(\d{1,9})", name) for name in names]
    stems = {match[1] for match in found if match}
    numbers = tuple(int(match[2]) for match in found if match)
    if len(numbers) != len(names) or len(stems) != 1 or len(set(numbers)) != len(numbers):
        return names, tuple(range(len(names)))
    if prefix is None:
        return names, numbers
    pairs = sorted(zip(numbers, names, strict=True))
    return tuple(name for _, name in pairs), tuple(number for number, _ in pairs)


def _named(frame: pd.DataFrame) -> list[str]:
    names = [str(column) for column in frame.columns]
    return [name for name in names if not name.startswith("\0") and not name.lower().startswith("unnamed:")]


def _points(file: Path, frame: pd.DataFrame, dims: Sequence[str]) -> tuple[Points | None, set[str]]:
    """The points of a CSV, None where it has none, and the columns that are coordinates of any kind."""
    from vaearr.sources.csv_files import numbers_of, plain_name
    from vaearr.sources.tables import COORDINATES

    meant = {**COORDINATES, "z": tuple(name.replace("y", "z") for name in COORDINATES["y"])}
    found: dict[str, list[str]] = {}
    for dim in dims:
        ranked = [(meant[dim].index(plain_name(name)), name != name.lower(), name)
                  for name in _named(frame) if plain_name(name) in meant[dim]]  # fmt: skip
        found[dim] = [name for *_, name in sorted(ranked)]
    given = [dim for dim in dims if found[dim]]
    if not given:
        return None, set()
    if len(given) < len(dims):
        lacking = ", ".join(dim for dim in dims if dim not in given)
        raise DataError(f"{file} has a column for {', '.join(given)} but none for {lacking}; expected one for each.")
    names = [found[dim][0] for dim in dims]
    forms = [{_form(name, dim) for name in found[dim]} for dim in dims]
    common = set.intersection(*forms)
    beside = {name for dim in dims for name in found[dim] if _form(name, dim) in common}
    values = np.stack([numbers_of(frame, name, file, dtype="f8") for name in names], axis=1)
    origin = _file_origin(file, values) | {"columns": names}
    return Points(values, _read_as(names), origin), beside | set(names)


def _form(name: str, dim: str) -> str:
    """A coordinate's column name with its letter replaced, so that `x_um` and `y_um` are alike; `X` is not `x`."""
    return re.sub(f"^([iI]?){dim.upper()}", r"\1#!", re.sub(f"^([iI]?){dim}", r"\1#", name))


def _read_as(names: list[str]) -> ReadAs:
    """What the names say: a step number, a position with a unit, or nothing."""
    from vaearr.sources.csv_files import plain_name

    if any(plain_name(name)[1:] in (*_STEP_NAMES, "i") or plain_name(name).startswith("i") for name in names):
        return "steps"
    units = [re.search(r"[\[(]([^\])]*)[\])]\s*$", name) for name in names]
    return "coordinates" if any(match and match[1].strip().lower() not in _NOT_A_UNIT for match in units) else "auto"


def _file_origin(file: Path, values: np.ndarray) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"file": file.name, "sha256": digest, "shape": list(values.shape), "dtype": str(values.dtype)}


def _memory_origin(values: np.ndarray) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
    return {"file": IN_MEMORY, "sha256": digest, "shape": list(values.shape), "dtype": str(values.dtype)}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:30]) + (", …" if len(names) > 30 else "")
