"""Values computed elsewhere, put into a store by their coordinates, to be analysed like its own.

What comes from a file or array is a table of rows; `Placement` says which scan point each row belongs to; a function
for each kind makes the variable of it. `vaearr.ingestion` places its side maps by the same functions.
"""

from __future__ import annotations

import hashlib
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import grid, schema
from vaearr import names as n
from vaearr.errors import DataError, ExistsError, NoInputError, SchemaError, UsageError, did_you_mean
from vaearr.placing import WHOLE, Placement, place_in_order, place_points, point_dims
from vaearr.provenance import now, versions
from vaearr.sources.ebsd_maps import phase_flags
from vaearr.sources.hdf5 import check_file
from vaearr.sources.tables import ReadAs, Table, read_table
from vaearr.store import add_variables, check_run_name, check_store, open_store, publish_run, recover, shown, staged_run

KNOWN_PREFIXES = ("latent_", "PCA_", "cNMF_")
IN_MEMORY = "an array in memory"
DAMAGED = (zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError, RecursionError)
TAKEN = (n.PATTERNS, n.PRESENT, n.RUNS, *n.OF_A_RUN)
OF_OTHER_THINGS = {n.HISTORY, n.HEALTH, n.MODEL, n.EPOCH, n.ELEMENT, n.CHANNEL, n.SAMPLE, n.DZ, n.DY, n.DX}
OF_OTHER_THINGS |= {*n.SCAN_DIMS}


def attach(
    store: str | Path,
    values: str | Path | np.ndarray | xr.DataArray | xr.Dataset,
    *,
    kind: str = n.LATENTS,
    run: str | None = None,
    name: str | None = None,
    coords: str | Path | np.ndarray | None = None,
    roi: str | xr.DataArray | None = None,
    read_as: ReadAs = "auto",
    prefix: str | None = None,
    columns: Sequence[str] = (),
    array: str | None = None,
    classes: Mapping[int, str] | None = None,
    units: str | None = None,
    say: Callable[[str], None] | None = None,
) -> xr.Dataset:
    """Add latents or maps that were computed elsewhere to a store, where they can be analysed like its own.

    Latents become a run without a model: `latents_<run>`, `roi_<run>` (the points with a value) and `/runs/<run>`, so
    that association, clustering and the report take them by `run`. All or nothing is written. Returns what was written;
    its attributes count rows placed, outside and left out, and points missing.

    values: `.npy` or `.npz` `(N,)`, `(N, L)` or over the whole grid `(y, x[, L])`, CSV with value columns, or an array;
    a DataArray over the navigation dims and at most one more, or `array` of a Dataset, is placed by its coordinates.
    kind: "latents" (needs `run`), or, under `name`: "map" (one number a point), "classes" (class numbers), "elements"
    (CSV, a column each), "scores" (of a decomposition).
    coords: points of the rows: `.npy` `(N, 2)` x, y or `(N, 3)` x, y, z, CSV or array. Not needed where the CSV of the
    values has x and y, or where rows come in row-major order (x fastest), one for every scan point or, with `roi`, one
    for every point of that region.
    roi: name of a run whose region of interest is meant, or a boolean map. Rows outside it are left out.
    read_as: whether points are "steps" or "coordinates"; "auto" decides by the rule of `vaearr.attaching`.
    prefix, columns, array: which columns of a CSV (`PCA_`, `cNMF_`, `latent_` are known) or which array of a `.npz` or
    Dataset.
    classes: names of class numbers.

    Raises ExistsError for a name that is taken; DataError for numbers of rows that do not fit (both are named),
    repeated points, infinite values; NoInputError and UsageError for files and arguments that cannot be meant.
    """
    if isinstance(values, xr.Dataset):
        values = one_of(values, array)
    if isinstance(values, xr.DataArray) and kind != n.LATENTS:
        name = name or (None if values.name is None else str(values.name))
    path, target = check_store(store), _target(kind, run, name)
    recover(path)
    ds = open_store(path, chunks=None)
    _refuse_taken(path, ds, kind, target)
    dims = point_dims(ds) if schema.is_scan(ds) else ()
    if isinstance(values, xr.DataArray):
        table = labelled_values(values, ds, dims)
    else:
        table = read_values(values, dims, prefix=prefix, columns=columns, array=array)
    points = _points(table, coords, dims)
    table, placement = _placed(ds, table, points, _region(ds, roi), read_as)
    variable = KINDS[kind](ds, table, placement, target, classes or {})
    if isinstance(values, xr.DataArray) and kind in ("map", "classes"):
        variable.attrs |= {key: values.attrs[key] for key in ("long_name", "units") if key in values.attrs}
    variable.attrs |= {} if units is None else {"units": units}
    variable.attrs[n.PROVENANCE] = _provenance(kind, table, points, placement, roi)
    result = _write(path, kind, target, variable).assign_attrs(placement.counts())
    if say:
        say(_in_words(variable, placement))
    return result


def _write(store: Path, kind: str, target: str, variable: xr.DataArray) -> xr.Dataset:
    if kind == n.LATENTS:
        return _publish_latents(store, target, variable, variable.attrs[n.PROVENANCE])
    result = variable.to_dataset()
    add_variables(store, result)
    return result


def _target(kind: str, run: str | None, name: str | None) -> str:
    """The run's name for latents, the variable's for the rest."""
    if kind not in KINDS:
        raise UsageError(f"nothing of kind {kind!r} can be attached.{did_you_mean(kind, list(KINDS))}")
    if kind == n.LATENTS:
        if run is None or name is not None:
            raise UsageError("latents are attached as a run: give run='…' (and no name).")
        check_run_name(run)
        return run
    chosen = name or (n.ELEMENTS if kind == n.ELEMENTS else "")
    if not chosen or run is not None:
        raise UsageError(f"{kind} are attached as a variable: give name='…' (and no run).")
    reserved = [word for word in TAKEN if chosen == word or chosen.startswith(f"{word}_")]
    reserved += [chosen] if chosen in OF_OTHER_THINGS else []
    if reserved or (chosen == n.ELEMENTS and kind != n.ELEMENTS):
        belongs = reserved[0] if reserved else n.ELEMENTS
        raise UsageError(f"{chosen!r} cannot name {kind}: {belongs!r} has a meaning of its own; choose another name.")
    if not n.is_valid_name(chosen):
        raise UsageError(f"{chosen!r} cannot be a variable name; use letters, digits and _, a letter first.")
    return chosen


def _refuse_taken(store: Path, ds: xr.Dataset, kind: str, target: str) -> None:
    variable = n.run_name(n.LATENTS, target) if kind == n.LATENTS else target
    if variable in ds.variables:
        raise ExistsError(f"{shown(store)} already holds {variable!r}; attach under another name.")


def _region(ds: xr.Dataset, roi: str | xr.DataArray | None) -> xr.DataArray | None:
    if roi is None or isinstance(roi, xr.DataArray):
        return None if roi is None else grid.check_map(ds, roi)
    variable = n.run_name(n.ROI, roi)
    if variable not in ds:
        known = [n.DEFAULT_RUN if v == n.ROI else str(v).removeprefix(f"{n.ROI}_") for v in ds.data_vars
                 if v == n.ROI or str(v).startswith(f"{n.ROI}_")]  # fmt: skip
        raise NoInputError(f"there is no region of interest of a run {roi!r}.{did_you_mean(roi, known)}")
    return ds[variable].load()


def _points(table: Values, coords: str | Path | np.ndarray | None, dims: tuple[str, ...]) -> Points | None:
    if coords is None:
        return table.points
    if table.points is not None:
        raise UsageError(f"{table.origin['file']} has points of its own; leave coords out.")
    if not dims:
        raise UsageError("the samples are a collection without coordinates; give one row per sample, in their order.")
    return read_points(coords, dims)


def _placed(
    ds: xr.Dataset, table: Values, points: Points | None, region: xr.DataArray | None, read_as: ReadAs
) -> tuple[Values, Placement]:
    """Values as rows, finite or NaN, and where each belongs."""
    shape, values = schema.navigation_shape(ds), table.values
    if points is None and values.shape[: len(shape)] == shape and values.ndim - len(shape) in (0, 1) and len(shape) > 1:
        values = values.reshape(-1, *values.shape[len(shape) :])
    if values.ndim > 2:
        raise DataError(
            f"{table.origin['file']} has shape {values.shape}; expected (N,), (N, L) or the grid's {shape} in front."
        )
    if values.dtype.kind == "f" and np.isinf(values).any():
        row = int(np.isinf(values).reshape(len(values), -1).any(axis=1).argmax())
        raise DataError(f"{table.origin['file']}: row {row} holds an infinite value; write NaN where there is none.")
    table = replace(table, values=values)
    what = str(table.origin["file"])
    if points is None:
        placement = place_in_order(ds, len(values), region, what=f"{what} of shape {table.values.shape}")
    else:
        if points.values.ndim and len(points.values) != len(values):
            raise DataError(f"{what} has {len(values)} rows, {points.origin['file']} has {len(points.values)} points.")
        way = points.read_as if read_as == "auto" else read_as
        placement = place_points(
            ds, points.values, read_as=way, what=f"the points of {points.origin['file']}", lines=points.lines
        )
    allowed = np.ones(shape, bool) if region is None else region.values
    if n.PRESENT in ds:
        allowed = allowed & ds[n.PRESENT].values
    return table, placement.within(allowed)


def _publish_latents(store: Path, run: str, latents: xr.DataArray, made: dict[str, Any]) -> xr.Dataset:
    """The latents as a run: variables and `/runs/<run>` in one step."""
    dim = n.run_name(n.LATENT, run)
    inside = latents.notnull().any(dim)
    count = int(inside.sum())
    if not count:
        raise DataError(f"{made['values']['file']} holds no value for any measured scan point of the region.")
    roi = inside.drop_vars(dim, errors="ignore").rename(n.run_name(n.ROI, run))
    roi = roi.drop_attrs().assign_attrs({**n.ATTRS[n.ROI], "n": count})
    manifest = {
        "run": run,
        "kind": n.ATTACHED,
        "state": n.ATTACHED,
        "config": {n.ATTACHED: made},
        "roi": f"points with a value in {made['values']['file']}",
        "n_roi": count,
        "latent_dim": latents.sizes[dim],
        "versions": made["versions"],
        "time": made["time"],
    }
    result = xr.Dataset({latents.name: latents, roi.name: roi})
    with staged_run(store, run) as folder:
        publish_run(store, run, folder, manifest, result)
    return result


def _provenance(
    kind: str, table: Values, points: Points | None, placement: Placement, roi: str | xr.DataArray | None
) -> dict[str, Any]:
    return {
        "kind": f"{n.ATTACHED} {kind}",
        "values": table.origin,
        "points": None if points is None else points.origin,
        "placing": placement.counts(),
        "roi": roi if roi is None or isinstance(roi, str) else "given as a map",
        "versions": versions(),
        "time": now(),
    }


def _in_words(variable: xr.DataArray, placement: Placement) -> str:
    c = placement.counts()
    parts = [f"{c['n_placed']} of {c['n_rows']} rows placed by {c['read_as']}"]
    for key, text in (
        ("n_outside", "lie outside the scan"),
        ("n_left_out", "on points not measured or outside the region"),
        ("n_missing", "scan points without a row"),
    ):
        if c[key]:
            parts.append(f"{c[key]} {text}")
    return f"{variable.name}: {'; '.join(parts)}"


# reading


@dataclass(frozen=True, eq=False)
class Points:
    """Coordinates `(N, d)` in the order x, y[, z], how their names say they are read, and where they come from."""

    values: np.ndarray
    read_as: ReadAs
    origin: dict[str, Any]
    lines: np.ndarray | None = None  # of the file, where that is text


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
    if file.suffix.lower() == ".csv":
        return table_values(read_table(file, dims), prefix, columns)
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
    table = read_table(file, dims)
    found = table_points(table)
    if found is None:
        raise DataError(f"{file} has no columns {' and '.join(dims)}. It has: {_listed(table.values)}.")
    return found


def table_points(table: Table) -> Points | None:
    """The points of a CSV, None where it has none."""
    if not table.coordinates:
        return None
    values = table.numbers(table.coordinates)
    origin = _file_origin(table.file, values) | {"columns": table.coordinates}
    return Points(values, table.read_as, origin, table.frame.index.to_numpy())


def table_values(table: Table, prefix: str | None = None, columns: Sequence[str] = ()) -> Values:
    """The values of a CSV in the columns that are meant, with its points."""
    chosen, numbers = _in_order(*_chosen(table.file, table.values, prefix, columns))
    values = table.numbers(chosen)
    return Values(
        values, chosen, numbers, _file_origin(table.file, values) | {"columns": list(chosen)}, table_points(table)
    )


def _existing(source: str | Path) -> Path:
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
    except (ValueError, EOFError, OSError, KeyError, OverflowError, MemoryError, *DAMAGED) as error:
        reason = "it holds objects, or is damaged" if "pickle" in str(error) else " ".join(str(error).split())
        raise DataError(f"{file} cannot be read as plain numbers ({reason}); save it again with numpy.save.") from None
    if not isinstance(values, np.ndarray):
        raise DataError(f"{file}: {name!r} is no array; save it again with numpy.savez.")
    return values, name


def _plain(values: np.ndarray, origin: dict[str, Any]) -> Values:
    if values.dtype.kind not in "biuf" or 0 in values.shape or values.ndim == 0:
        raise DataError(f"{origin['file']}: {values.dtype} of shape {values.shape}; expected numbers, one row a point.")
    return Values(values, (), (), origin)


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


def _file_origin(file: Path, values: np.ndarray) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"file": file.name, "sha256": digest, "shape": list(values.shape), "dtype": str(values.dtype)}


def _memory_origin(values: np.ndarray) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
    return {"file": IN_MEMORY, "sha256": digest, "shape": list(values.shape), "dtype": str(values.dtype)}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:30]) + (", …" if len(names) > 30 else "")


# what they become


def _latents_of(
    ds: xr.Dataset, values: Values, placement: Placement, name: str, classes: Mapping[int, str]
) -> xr.DataArray:
    """Latents of a run that was made elsewhere: `(navigation…, latent_<run>)`. `name` is the run's."""
    dim = n.run_name(n.LATENT, name)
    one = _stack(ds, values, placement, n.run_name(n.LATENTS, name), dim, values.numbers)
    one[dim].attrs.update(n.ATTRS[n.LATENT])
    return one.assign_attrs(long_name="latent (attached)", units="1")


def _scores_of(
    ds: xr.Dataset, values: Values, placement: Placement, name: str, classes: Mapping[int, str]
) -> xr.DataArray:
    """Scores of a decomposition: `(navigation…, <name>_component)`."""
    dim = f"{name}_{n.COMPONENT}"
    one = _stack(ds, values, placement, name, dim, values.numbers)
    one[dim].attrs["long_name"] = n.COMPONENT
    return one.assign_attrs(long_name=f"{name} score (attached)", units="1")


def _elements_of(
    ds: xr.Dataset, values: Values, placement: Placement, name: str, classes: Mapping[int, str]
) -> xr.DataArray:
    """Element maps: `(element, navigation…)`; under another name than `elements`, over a dim `<name>_element`."""
    if not values.columns:
        raise DataError(f"{values.origin['file']} names no elements; expected a CSV with one column for each element.")
    labels = _elements(values.origin["file"], values.columns)
    dim = n.ELEMENT if name == n.ELEMENTS else f"{name}_{n.ELEMENT}"
    return _stack(ds, values, placement, name, dim, labels).transpose(dim, ...).assign_attrs(n.ATTRS[n.ELEMENTS])


def _map_of(
    ds: xr.Dataset, values: Values, placement: Placement, name: str, classes: Mapping[int, str]
) -> xr.DataArray:
    """One value for each scan point, NaN where there is none."""
    grid = placement.on_grid(_as_float(_single(values)), np.nan)
    return _variable(ds, grid, name).assign_attrs(n.ATTRS.get(name, {"long_name": _label(values, name), "units": "1"}))


def _classes_of(
    ds: xr.Dataset, values: Values, placement: Placement, name: str, classes: Mapping[int, str]
) -> xr.DataArray:
    """One class number for each scan point: -1 for no class (noise, not indexed), -2 where there is no value."""
    numbers = _single(values)
    if numbers.dtype.kind == "f":
        numbers = np.where(np.isnan(numbers), n.NOT_CLUSTERED, numbers)
    wrong = (numbers != np.rint(numbers)) | (numbers < n.NOT_CLUSTERED) | (numbers > np.iinfo("i4").max)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{values.origin['file']}: row {row} holds {numbers[row]:g}; expected whole class numbers, -1 for no class "
            f"and {n.NOT_CLUSTERED} for no value."
        )
    grid = placement.on_grid(np.rint(numbers).astype("i4"), n.NOT_CLUSTERED)
    found = [int(code) for code in np.unique(grid) if code >= 0]
    words = {n.NOT_CLUSTERED: "no_value", n.NOISE: "no_class"} | {code: f"class_{code}" for code in found}
    words |= {int(code): "_".join(str(word).split()) for code, word in classes.items() if str(word).strip()}
    words = dict(sorted(words.items()))
    attrs = {"long_name": _label(values, name), "flag_values": list(words), "flag_meanings": " ".join(words.values())}
    small = grid.max(initial=0) <= np.iinfo("i2").max
    return _variable(ds, grid.astype("i2") if small else grid, name).assign_attrs(attrs)


def _elements(file: object, columns: Sequence[str]) -> list[str]:
    """Names of elements from columns such as `Fe [wt%]`."""
    labels = [column.split("(")[0].split("[")[0].strip() or column for column in columns]
    if len(set(labels)) < len(labels):
        raise DataError(f"{file} has element columns {', '.join(labels)}; expected each once.")
    return labels


def _stack(ds: xr.Dataset, values: Values, placement: Placement, name: str, dim: str, labels: Any) -> xr.DataArray:
    rows = _as_float(values.values if values.values.ndim > 1 else values.values[:, None])
    grid = placement.on_grid(rows, np.nan)
    index = list(labels) or list(range(rows.shape[1]))
    return _variable(ds, grid, name, dim).assign_coords({dim: (dim, index)})


def _variable(ds: xr.Dataset, grid: np.ndarray, name: str, *further: str) -> xr.DataArray:
    nav = schema.navigation_dims(ds)
    coords = {dim: ds[dim].variable for dim in nav}
    return xr.DataArray(grid, dims=(*nav, *further), coords=coords, name=name)


def _single(values: Values) -> np.ndarray:
    rows = values.values
    if rows.ndim > 1 and rows.shape[1] != 1:
        which = f" ({', '.join(values.columns[:20])}); choose one with columns=" if values.columns else ""
        raise DataError(f"{values.origin['file']} has {rows.shape[1]} values for each point, expected one{which}.")
    return np.asarray(rows).reshape(-1)


def _as_float(rows: np.ndarray) -> np.ndarray:
    """Floats as they are (half precision as single); integers in the float that holds them all."""
    rows = np.asarray(rows)
    if rows.dtype.kind != "f":
        return rows.astype("f4" if rows.dtype.itemsize <= 2 else "f8")
    return rows.astype(np.dtype(f"f{min(max(rows.dtype.itemsize, 4), 8)}"))


def _label(values: Values, name: str) -> str:
    return values.columns[0] if len(values.columns) == 1 else name


Build = Callable[[xr.Dataset, Values, Placement, str, Mapping[int, str]], xr.DataArray]
KINDS: dict[str, Build] = {
    "latents": _latents_of,
    "scores": _scores_of,
    "elements": _elements_of,
    "map": _map_of,
    "classes": _classes_of,
}


# side maps of an ingest


def map_array(path: str | Path, name: str, ds: xr.Dataset) -> xr.DataArray:
    """A map from a CSV as a float32 variable, NaN where the file has no value."""
    table = read_table(path, point_dims(ds))
    column = table.meant(name)
    values, about = _beside(ds, table, [column])
    attrs = n.ATTRS.get(name, {"long_name": column})
    return _variable(ds, values[..., 0].astype("f4"), name).assign_attrs(attrs | about)


def element_array(path: str | Path, ds: xr.Dataset, units: str) -> xr.DataArray:
    """Element maps from a CSV as one float32 variable (element, y, x): all columns beside the coordinates."""
    table = read_table(path, point_dims(ds))
    values, about = _beside(ds, table, table.values)
    labels = _elements(table.file, table.values)
    found = _variable(ds, values.astype("f4"), n.ELEMENTS, n.ELEMENT).assign_coords({n.ELEMENT: labels})
    return found.transpose(n.ELEMENT, ...).assign_attrs(n.ATTRS[n.ELEMENTS] | {"units": units} | about)


def phase_array(path: str | Path, ds: xr.Dataset, names: Mapping[int, str]) -> xr.DataArray:
    """Phase numbers from a CSV as an int16 variable with CF flags; -1 = not indexed, -2 = no entry."""
    table = read_table(path, point_dims(ds))
    column = table.meant(n.PHASE)
    numbers = table.numbers([column])[:, 0]
    wrong = np.isfinite(numbers) & ((numbers % 1 != 0) | (numbers < n.PHASE_UNKNOWN) | (numbers > np.iinfo("i2").max))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{table.file} line {table.frame.index[row]}, column {column!r}: {numbers[row]:g}; expected a phase "
            f"number, or -1 for not indexed."
        )
    values, about = _beside(ds, table, [column])
    grid = np.nan_to_num(values[..., 0], nan=n.PHASE_MISSING).astype("i2")
    return _variable(ds, grid, n.PHASE).assign_attrs(phase_flags(grid, names) | about)


def _beside(ds: xr.Dataset, table: Table, columns: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
    """Columns of a CSV on the grid `(navigation…, K)`, NaN elsewhere, and where they come from.

    Coordinates that are whole numbers are step numbers, others are in the scan's units.
    """
    points = table_points(table)
    if points is None or not columns:
        wanted = f"{', '.join(point_dims(ds))} and at least one column of values"
        raise DataError(f"{table.file} has no column for {wanted}. It has: {_listed(list(map(str, table.frame)))}.")
    is_whole = bool((np.abs(points.values - np.rint(points.values)) <= WHOLE).all())
    way: ReadAs = "steps" if is_whole else "coordinates"
    placement = place_points(ds, points.values, read_as=way, what=str(table.file), lines=points.lines)
    measured = ds[n.PRESENT].values if n.PRESENT in ds else np.ones(placement.shape, bool)
    about = {"source": table.file.name, "column": ", ".join(columns), "n_dropped": table.n_dropped}
    about |= {"n_missing": placement.within(measured).n_missing, "n_outside": placement.n_outside}
    return placement.on_grid(table.numbers(columns), np.nan), about
