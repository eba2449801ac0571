"""Values computed elsewhere, put into a store by their coordinates, to be analysed like its own.

Whatever comes, a file or an array, becomes `Rows`; `Placement` says which scan point each row belongs to; a function
for each kind makes the variable of it. `vaearr.ingestion.ingest` places its side maps by the same functions.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError, NoInputError, SchemaError, UsageError, did_you_mean
from vaearr.ingestion.placing import Placement, are_whole, place_in_order, place_points, point_dims, row_words
from vaearr.recipe import Recipe, is_made, nested
from vaearr.schema import flags, grid
from vaearr.sources.ebsd_maps import NO_PHASE
from vaearr.sources.hdf5 import check_file, in_words
from vaearr.sources.tables import ReadAs, Table, read_table
from vaearr.store import (
    add_variables,
    check_run_name,
    check_store,
    open_store,
    publish_run,
    recover,
    run_manifest,
    run_names,
    staged_run,
)
from vaearr.store.remove import removable

log = logging.getLogger("vaearr")

KNOWN_PREFIXES = ("latent_", "PCA_", "cNMF_")
NO_CLASS = {n.NOT_CLUSTERED: "no_value", n.NOISE: "no_class"}
KINDS = (n.LATENTS, "scores", n.ELEMENTS, "map", "classes")
COUNTED = {
    "n_outside": "lie outside the scan",
    "n_left_out": "on points not measured or outside the region",
    "n_missing": "scan points without a row",
}
Values = str | Path | np.ndarray


def attach(
    store: str | Path,
    values: Values | xr.DataArray | xr.Dataset,
    *,
    kind: str = n.LATENTS,
    run: str | None = None,
    name: str | None = None,
    coords: Values | None = None,
    roi: str | xr.DataArray | None = None,
    read_as: ReadAs = "auto",
    prefix: str | None = None,
    columns: Sequence[str] = (),
    array: str | None = None,
    classes: Mapping[int, str] | None = None,
    units: str | None = None,
    overwrite: bool = False,
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
    read_as: whether points are "steps" or "coordinates"; "auto" decides by the rule of `vaearr.ingestion.placing`.
    prefix, columns, array: which columns of a CSV (`PCA_`, `cNMF_`, `latent_` are known) or which array of a `.npz` or
    Dataset.
    classes: names of class numbers.

    overwrite: replace what was attached under this name, made otherwise; what was made the same way is returned.

    Raises ExistsError for a name that is taken by anything else; DataError for numbers of rows that do not fit (both
    are named), repeated points, infinite values; NoInputError and UsageError for files and arguments that cannot be
    meant.
    """
    about: dict[str, Any] = {}
    if isinstance(values, xr.Dataset):
        values = values[_meant("the Dataset", [str(key) for key in values.data_vars], array)]
    if isinstance(values, xr.DataArray) and kind != n.LATENTS:
        name = name or (None if values.name is None else str(values.name))
        about = {key: values.attrs[key] for key in ("long_name", "units") if key in values.attrs}
    path, target = check_store(store), _target(kind, run, name)
    recover(path)
    ds = open_store(path, chunks=None)
    dims = point_dims(ds) if schema.is_scan(ds) else ()
    if isinstance(values, xr.DataArray):
        rows = _labelled(values, ds, dims)
    else:
        rows = _read(values, dims, prefix, columns, array)
    if coords is not None:
        if rows.points is not None:
            raise UsageError(f"{rows.origin['file']} has points of its own; leave coords out.")
        rows = replace(rows, points=read_points(coords, point_dims(ds)))
    rows, placement = _placed(ds, rows, _region(ds, roi), read_as)
    variable = _variable(ds, rows, placement, kind, target, classes or {})
    variable.attrs |= (about if kind in ("map", "classes") else {}) | ({} if units is None else {"units": units})
    made_from = {
        "kind": f"{n.ATTACHED} {kind}",
        "values": rows.origin,
        "points": rows.points and rows.points.origin,
        "placing": placement.counts(),
        "roi": roi if roi is None or isinstance(roi, str) else "given as a map",
        "classes": classes or None,
        "units": units,
    }
    result = _keep(path, ds, kind, target, variable, Recipe(None, made_from), overwrite=overwrite)
    counts = placement.counts()
    words = [f"{counts['n_placed']} of {counts['n_rows']} rows placed by {counts['read_as']}"]
    words += [f"{counts[key]} {text}" for key, text in COUNTED.items() if counts[key]]
    log.info(f"{variable.name}: {'; '.join(words)}")
    return result.assign_attrs(counts)


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
    free = {n.PHASE, n.RECONSTRUCTION, kind}
    if not n.is_valid_name(chosen) or chosen in n.RESERVED - free or chosen.startswith(n.OF_LATER_RUNS):
        raise UsageError(
            f"{chosen!r} cannot name {kind}: it is no name of letters, digits and _, a letter first, or has a meaning "
            "of its own; choose another one."
        )
    return chosen


def _region(ds: xr.Dataset, roi: str | xr.DataArray | None) -> xr.DataArray | None:
    if roi is None or isinstance(roi, xr.DataArray):
        return None if roi is None else grid.check_map(ds, roi)
    if (variable := n.run_name(n.ROI, roi)) not in ds:
        known = [str(v).removeprefix(n.ROI).removeprefix("_") or n.DEFAULT_RUN for v in ds if str(v).startswith(n.ROI)]
        raise NoInputError(f"there is no region of interest of a run {roi!r}.{did_you_mean(roi, known)}")
    return ds[variable].load()


def _placed(ds: xr.Dataset, rows: Rows, region: xr.DataArray | None, read_as: ReadAs) -> tuple[Rows, Placement]:
    """Values as rows, finite or NaN, and where each belongs."""
    shape, values, points, file = schema.navigation_shape(ds), rows.values, rows.points, rows.origin["file"]
    if points is None and len(shape) > 1 and values.shape[: len(shape)] == shape and values.ndim <= len(shape) + 1:
        values = values.reshape(-1, *values.shape[len(shape) :])
    if values.ndim > 2:
        raise DataError(f"{file} has shape {values.shape}; expected (N,), (N, L) or the grid's {shape} in front.")
    if values.dtype.kind == "f" and np.isinf(values).any():
        row = int(np.isinf(values).reshape(len(values), -1).any(axis=1).argmax())
        raise DataError(f"{file}: row {row} holds an infinite value; write NaN where there is none.")
    if points is None:
        placement = place_in_order(ds, len(values), region, what=f"{file} of shape {rows.values.shape}")
    else:
        if points.values.ndim and len(points.values) != len(values):
            raise DataError(f"{file} has {len(values)} rows, {points.origin['file']} has {len(points.values)} points.")
        way, what = points.read_as if read_as == "auto" else read_as, f"the points of {points.origin['file']}"
        placement = place_points(ds, points.values, read_as=way, what=what, lines=points.lines)
    allowed = np.ones(shape, bool) if region is None else region.values
    return replace(rows, values=values), placement.within(allowed & grid.measured(ds))


def _keep(
    store: Path, ds: xr.Dataset, kind: str, target: str, variable: xr.DataArray, recipe: Recipe, *, overwrite: bool
) -> xr.Dataset:
    """Write the variable, latents as a run with `/runs/<run>` in one step, unless it is there already."""
    is_run, made, gone, old = kind == n.LATENTS, None, {}, list[str]()
    if is_run and target in run_names(store):
        made, gone = (nested(run_manifest(store, target), "config") or {}).get(n.ATTACHED), {"runs": [target]}
    elif not is_run and target in ds.variables:
        made = nested(ds[target].attrs, n.PROVENANCE)
        gone = {"variables": [target, *(dim for dim in map(str, ds[target].dims) if dim.startswith(f"{target}_"))]}
    if gone:
        made = made if isinstance(made, Mapping) and str(made.get("kind")).startswith(n.ATTACHED) else None
        there = f"{store} already has a run {target!r}" if is_run else f"{store} already holds {target!r}"
        if is_made(there, made, recipe, instead="attach under another name", overwrite=overwrite):
            return variable.to_dataset()
        old = removable(store, **gone)
    variable.attrs[n.PROVENANCE] = stamp = recipe.stamp()
    if not is_run:
        add_variables(store, variable.to_dataset(), replacing=old)
        return variable.to_dataset()
    dim, file = n.run_name(n.LATENT, target), stamp["values"]["file"]
    inside = variable.notnull().any(dim)
    if not (count := int(inside.sum())):
        raise DataError(f"{file} holds no value for any measured scan point of the region.")
    region = inside.drop_vars(dim, errors="ignore").rename(n.run_name(n.ROI, target)).drop_attrs()
    result = xr.Dataset({v.name: v for v in (variable, region.assign_attrs({**n.ATTRS[n.ROI], "n": count}))})
    manifest: dict[str, Any] = {"run": target, "kind": n.ATTACHED, "state": n.ATTACHED, "config": {n.ATTACHED: stamp}}
    manifest |= {"roi": f"points with a value in {file}", "n_roi": count, "latent_dim": variable.sizes[dim]}
    manifest |= {key: stamp[key] for key in ("versions", "time")}
    with staged_run(store, target, replacing=old) as folder:
        publish_run(store, target, folder, manifest, result, replacing=old)
    return result


# reading


@dataclass(frozen=True, eq=False)
class Points:
    """Coordinates `(N, d)` in the order x, y[, z], how their names say they are read, and where they come from."""

    values: np.ndarray
    read_as: ReadAs
    origin: dict[str, Any]
    lines: np.ndarray | None = None  # of the file, where that is text


@dataclass(frozen=True, eq=False)
class Rows:
    """Values `(N, K)` or an array over the whole grid, names of the K columns, and the points the file itself has.

    numbers: the columns' own (`latent_7` is 7), else 0, 1, …
    """

    values: np.ndarray
    origin: dict[str, Any]
    columns: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    points: Points | None = None


def _read(source: Values, dims: Sequence[str], prefix: str | None, columns: Sequence[str], array: str | None) -> Rows:
    """Values from `.npy`, `.npz` (`array` names one of several), CSV or memory.

    dims: the point dims, `("x", "y")`, whose columns in a CSV are coordinates. Of a CSV the named `columns` are taken,
    else those that begin with `prefix`, else those of the first known prefix that occurs, else all; numbered columns of
    a prefix come in the order of their numbers. Raises DataError, NoInputError or UsageError that says what is there
    instead.
    """
    if not isinstance(source, np.ndarray) and _is_csv(source):
        table = read_table(source, dims)
        if columns and prefix:
            raise UsageError("columns and prefix both say which columns are meant; give one of them.")
        for name in columns:
            if name not in table.values:
                raise NoInputError(f"{table.file} has no value column {name!r}.{did_you_mean(name, table.values)}")
        known = (start for start in KNOWN_PREFIXES if any(name.startswith(start) for name in table.values))
        start = prefix if prefix is not None else "" if columns else next(known, "")
        chosen = list(columns) or [name for name in table.values if name.startswith(start)]
        ends = [name.removeprefix(start) for name in chosen]
        if not (chosen and start and all(map(str.isdecimal, ends)) and len(set(map(int, ends))) == len(ends)):
            return _columns(table, chosen, f" {prefix}…" if prefix else "")
        rows = _columns(table, sorted(chosen, key=lambda name: int(name.removeprefix(start))))
        return replace(rows, numbers=tuple(sorted(map(int, ends))))
    if prefix or columns:
        raise UsageError("prefix and columns choose from a CSV; the values are in none.")
    values, origin = _array(source, array)
    if values.dtype.kind not in "biuf" or 0 in values.shape or values.ndim == 0:
        raise DataError(f"{origin['file']}: {values.dtype} of shape {values.shape}; expected numbers, one row a point.")
    return Rows(values, origin)


def _columns(table: Table, chosen: Sequence[str], wanted: str = "") -> Rows:
    """The values of a CSV in some columns, with its points."""
    if not chosen:
        raise DataError(f"{table.file} has no value column{wanted}. It has: {_listed(table.frame.columns)}.")
    values = table.numbers(chosen)
    origin = _origin(values, table.file) | {"columns": list(chosen)}
    return Rows(values, origin, tuple(chosen), points=_points_of(table) if table.coordinates else None)


def _points_of(table: Table) -> Points:
    values = table.numbers(table.coordinates)
    origin = _origin(values, table.file) | {"columns": table.coordinates}
    return Points(values, table.read_as, origin, table.frame.index.to_numpy())


def read_points(source: Values, dims: Sequence[str]) -> Points:
    """Points `(N, d)` from a CSV with columns for all `dims`, `.npy`, `.npz` or memory."""
    if isinstance(source, np.ndarray) or not _is_csv(source):
        values, origin = _array(source, None)
        return Points(values, "auto", origin)
    table = read_table(source, dims)
    if not table.coordinates:
        raise DataError(f"{source} has no columns {' and '.join(dims)}. It has: {_listed(table.values)}.")
    return _points_of(table)


def _labelled(values: xr.DataArray, ds: xr.Dataset, dims: Sequence[str]) -> Rows:
    """Values of a DataArray over a store's navigation dims and at most one more, with the points that it lies on.

    dims: the point dims, none for a collection. Without coordinates it covers the whole grid. Raises SchemaError.
    """
    nav = schema.navigation_dims(ds)
    others = [dim for dim in values.dims if dim not in nav]
    if not set(nav) <= set(values.dims) or len(others) > 1:
        raise SchemaError(
            f"the array has dims {tuple(values.dims)}; expected {nav} and at most one more; rename them by .rename(…)."
        )
    whole, points = values.transpose(*nav, *others), None
    rows = np.asarray(whole.values).reshape(-1, *(whole.sizes[dim] for dim in others))
    if dims and set(nav) <= set(values.coords):
        axes = np.meshgrid(*(whole[dim].values for dim in nav), indexing="ij")
        places = {dim: axis.ravel() for dim, axis in zip(nav, axes, strict=True)}
        points = Points(np.stack([places[dim] for dim in dims], 1), "coordinates", _origin(rows))
    else:
        try:
            xr.align(whole, xr.Dataset(coords={dim: ds[dim] for dim in nav}), join="exact")
        except ValueError as error:
            told = " ".join(str(error).split())
            raise SchemaError(f"the array does not cover the store's {nav} ({told}); use .reindex_like(…).") from None
    labels = whole[others[0]].values if others and others[0] in whole.coords else np.empty(0)
    is_numbered, is_named = labels.dtype.kind in "iu", labels.dtype.kind in "OUT"
    named, numbers = map(str, labels[: len(labels) * is_named]), map(int, labels[: len(labels) * is_numbered])
    return Rows(rows, _origin(rows), tuple(named), tuple(numbers), points)


def _is_csv(source: str | Path) -> bool:
    """Whether values lie in a CSV. Raises NoInputError, DataError or UsageError for what is no file of values."""
    suffix = check_file(source).suffix
    if suffix.lower() not in (".npy", ".npz", ".csv"):
        raise UsageError(f"{source} is {suffix or 'without a suffix'}; expected .npy, .npz or .csv.")
    return suffix.lower() == ".csv"


def _array(source: Values, array: str | None) -> tuple[np.ndarray, dict[str, Any]]:
    """An array in memory, that of a `.npy`, or the one meant of a `.npz`; and where it comes from."""
    if isinstance(source, np.ndarray):
        return source, _origin(source)
    file, more = Path(source).expanduser(), {}
    with in_words(file, "plain numbers"), file.open("rb") as opened:
        values = np.load(opened, allow_pickle=False)
        if not isinstance(values, np.ndarray):
            more = {"array": _meant(str(file), list(values.files), array)}
            values = np.asarray(values[more["array"]])
    return values, _origin(values, file) | more


def _meant(where: str, known: list[str], array: str | None) -> str:
    """The one of several arrays that is meant: `array`, or the only one."""
    if array is None and len(known) != 1:
        raise UsageError(f"{where} holds {len(known)} arrays ({_listed(known)}); choose one with array='…'.")
    if (name := array or known[0]) not in known:
        raise NoInputError(f"{where} holds no array {name!r}.{did_you_mean(name, known)}")
    return name


def _origin(values: np.ndarray, file: Path | None = None) -> dict[str, Any]:
    about = {"shape": list(values.shape), "dtype": str(values.dtype)}
    if file is None:
        digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
        return {"file": "an array in memory", "sha256": digest, **about}
    with file.open("rb") as opened:
        return {"file": file.name, "sha256": hashlib.file_digest(opened, "sha256").hexdigest(), **about}


def _listed(names: Iterable[Any]) -> str:
    known = list(map(str, names))
    return ", ".join(known[:30]) + (", …" if len(known) > 30 else "")


# what they become


def _variable(
    ds: xr.Dataset, rows: Rows, placement: Placement, kind: str, target: str, words: Mapping[int, str]
) -> xr.DataArray:
    """The variable of one kind: `(navigation…)`, of latents `(navigation…, latent_<run>)`, of scores `(navigation…,
    <name>_component)`, of elements `(element, navigation…)`, under another name than `elements` over a dim
    `<name>_element`.
    """
    coords = {dim: ds[dim].variable for dim in schema.navigation_dims(ds)}
    file, values = rows.origin["file"], np.asarray(rows.values)
    values = values if values.ndim > 1 else values[:, None]
    floats = values.astype(min(np.result_type(values, "f4"), np.dtype("f8")))  # which holds all of an integer type
    if kind in ("map", "classes", n.PHASE):
        if values.shape[1] != 1:
            which = f" ({', '.join(rows.columns[:20])}); choose one with columns=" if rows.columns else ""
            raise DataError(f"{file} has {values.shape[1]} values for each point, expected one{which}.")
        label = {"long_name": rows.columns[0] if rows.columns else target}
        if kind == "map":
            on_grid, attrs = placement.on_grid(floats[:, 0], np.nan), n.ATTRS.get(target, label | {"units": "1"})
        else:
            on_grid = placement.on_grid(_codes(rows, values[:, 0]), n.NOT_CLUSTERED)
            meant = (NO_PHASE, n.PHASE) if kind == n.PHASE else (NO_CLASS, "class")
            attrs = (n.ATTRS[n.PHASE] if kind == n.PHASE else label) | flags(on_grid, words, *meant)
        return xr.DataArray(on_grid, coords, tuple(coords), target, attrs)
    labels: Sequence[Any] = rows.numbers or range(values.shape[1])
    if kind == n.ELEMENTS:
        labels = [column.split("(")[0].split("[")[0].strip() or column for column in rows.columns]  # of `Fe [wt%]`
        if not labels or len(set(labels)) < len(labels):
            raise DataError(f"{file} has the element columns {labels}; expected a CSV with each element once.")
    name, attrs = target, {"long_name": f"{target} score (attached)", "units": "1"}
    dim, of_dim = f"{target}_{n.COMPONENT}", {"long_name": n.COMPONENT}
    if kind == n.LATENTS:
        name, attrs = n.run_name(n.LATENTS, target), attrs | {"long_name": "latent (attached)"}
        dim, of_dim = n.run_name(n.LATENT, target), n.ATTRS[n.LATENT]
    elif kind == n.ELEMENTS:
        dim, of_dim, attrs = n.ELEMENT if target == n.ELEMENTS else f"{target}_{n.ELEMENT}", {}, n.ATTRS[n.ELEMENTS]
    coords[dim] = xr.Variable(dim, list(labels), of_dim)
    found = xr.DataArray(placement.on_grid(floats, np.nan), coords, tuple(coords), name, attrs)
    return found.transpose(dim, ...) if kind == n.ELEMENTS else found


def _codes(rows: Rows, numbers: np.ndarray) -> np.ndarray:
    """Class numbers in the smallest type: -1 for no class (noise, not indexed), -2 for no value."""
    if numbers.dtype.kind == "f":
        numbers = np.where(np.isnan(numbers), n.NOT_CLUSTERED, numbers)
    wrong = (numbers != np.rint(numbers)) | (numbers < n.NOT_CLUSTERED) | (numbers > np.iinfo("i4").max)
    if wrong.any():
        row, lines = int(wrong.argmax()), rows.points.lines if rows.points else None
        raise DataError(
            f"{rows.origin['file']}: {row_words(lines, row)} holds {numbers[row]:g}; "
            f"expected whole numbers of a {n.PHASE} or class, -1 for none, and {n.NOT_CLUSTERED} for no value."
        )
    return np.rint(numbers).astype("i2" if numbers.max(initial=0) <= np.iinfo("i2").max else "i4")


# side maps of an ingest


def side_map(
    ds: xr.Dataset, path: str | Path, name: str, *, words: Mapping[int, str] | None = None, units: str | None = None
) -> xr.DataArray:
    """A map from a CSV: `phase` (numbers, named by `words`), `elements` (all columns, in `units`), or any in float32.

    Coordinates that are whole numbers are step numbers, others are in the scan's units. The attributes say where it
    comes from and count scan points without a line (`n_missing`), lines outside the scan and columns without a name.
    """
    kind = name if name in (n.PHASE, n.ELEMENTS) else "map"
    table = read_table(path, point_dims(ds))
    if not table.coordinates or not table.values:
        wanted = f"{', '.join(point_dims(ds))} and at least one column of values"
        raise DataError(f"{table.file} has no column for {wanted}. It has: {_listed(table.frame.columns)}.")
    rows = _columns(table, table.values if kind == n.ELEMENTS else [table.meant(name)])
    points, lines = table.numbers(table.coordinates), table.frame.index.to_numpy()
    way: ReadAs = "steps" if are_whole(points) else "coordinates"
    placement = place_points(ds, points, read_as=way, what=str(table.file), lines=lines)
    found = _variable(ds, rows, placement, kind, name, words or {})
    counts = placement.within(grid.measured(ds)).counts()
    about = {"source": table.file.name, "column": ", ".join(rows.columns), "n_dropped": table.n_dropped}
    about |= {key: counts[key] for key in ("n_missing", "n_outside")} | ({} if units is None else {"units": units})
    return (found.astype("f4") if found.dtype.kind == "f" else found).assign_attrs(about)
