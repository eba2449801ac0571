"""Values computed elsewhere, put into a store by their coordinates, to be analysed like its own.

Whatever comes, a file or an array, becomes `Rows`; `Placement` says which scan point each row
belongs to; a function for each kind makes the variable of it. `vaearr.ingestion.ingest` places its
side maps by the same functions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import DataError, NoInputError, UsageError, did_you_mean, listed
from vaearr.ingestion.placing import (
    Placement,
    are_whole,
    place_in_order,
    place_points,
    point_dims,
    row_words,
)
from vaearr.ingestion.values import (
    Rows,
    Values,
    is_table,
    read_array,
    read_columns,
    read_element_maps,
    read_points,
    rows_of,
    rows_of_array,
)
from vaearr.recipe import Recipe, is_made, nested
from vaearr.schema import flags, grid
from vaearr.sources.ebsd_maps import NO_PHASE
from vaearr.sources.element_maps import map_files
from vaearr.sources.tables import ReadAs, read_table
from vaearr.store import (
    check_run_name,
    open_store,
    publish_run,
    staged_run,
    store_of,
    write_results,
)
from vaearr.store.remove import removable

log = logging.getLogger("vaearr")

NO_CLASS = {n.NOT_CLUSTERED: "no_value", n.NOISE: "no_class"}
KINDS = (n.LATENTS, "scores", n.ELEMENTS, "map", "classes")
COUNTED = {
    "n_outside": "lie outside the scan",
    "n_left_out": "on points not measured or outside the region",
    "n_missing": "scan points without a row",
}


class HasPath(Protocol):
    """A run, which knows its store."""

    @property
    def path(self) -> Path:
        """The store."""


def attach(
    store: str | Path | xr.Dataset | HasPath,
    values: Values | xr.DataArray,
    *,
    kind: str = n.LATENTS,
    run: str | None = None,
    name: str | None = None,
    coords: Values | None = None,
    roi: str | xr.DataArray | None = None,
    read_as: ReadAs = "auto",
    prefix: str | None = None,
    columns: Sequence[str] = (),
    classes: Mapping[int, str] | None = None,
    units: str | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """Add latents or maps that were computed elsewhere to a store, where they can be analysed like
    its own.

    Latents become a run without a model: `latents_<run>`, `roi_<run>` (the points with a value) and
    `/runs/<run>`, so that association, clustering and the report take them by `run`. All or nothing
    is written.

    Parameters
    ----------
    store : path, Dataset opened from a store, or Run
        Store to add to.
    values : path, array or DataArray
        `.npy` `(N,)`, `(N, L)` or over the whole grid `(y, x[, L])`; CSV with value columns; or an
        array. A DataArray over the navigation dims and at most one more is placed by its
        coordinates.
    kind : {"latents", "map", "classes", "elements", "scores"}
        Latents need `run`, all others `name`. A map has one number for each point, classes have
        class numbers, scores are those of a decomposition. Elements come from a CSV with a column
        for each, or from a .tsv map that is named by its element, or a folder of such; the map is
        resampled to the grid of the scan.
    run, name : str
        Name of the run, or of the variable.
    coords : path or array, optional
        Points of the rows: `.npy` `(N, 2)` x, y or `(N, 3)` x, y, z, CSV or array. Not needed where
        the CSV of the values has x and y, or where rows come in row-major order (x fastest), one
        for every scan point or, with `roi`, one for every point of that region.
    roi : str or DataArray, optional
        Name of a run whose region of interest is meant, or a boolean map. Rows outside it are left
        out.
    read_as : {"auto", "steps", "coordinates"}
        What points are; "auto" decides by the rule of `vaearr.ingestion.placing`.
    prefix, columns
        Which columns of a CSV (`PCA_`, `cNMF_`, `latent_` are known).
    classes : mapping, optional
        Names of class numbers.
    units : str, optional
        Unit of the values.
    overwrite : bool
        Replace what was attached under this name with different settings; an equal result is
        returned as it is.

    Returns
    -------
    xr.Dataset
        What was written. Its attributes count rows placed, outside and left out, and points
        missing.

    Raises
    ------
    ExistsError
        If the name is taken by anything else.
    DataError
        For numbers of rows that do not fit (both are named), repeated points, and infinite values.
    NoInputError, UsageError
        For files that do not exist and arguments that do not go together.
    """
    attrs: dict[str, Any] = {} if units is None else {"units": units}
    if isinstance(values, xr.DataArray) and kind != n.LATENTS:
        if name is None and values.name is not None:
            name = str(values.name)
        if kind in ("map", "classes"):
            attrs = {
                key: values.attrs[key] for key in ("long_name", "units") if key in values.attrs
            } | attrs
    path = store_of(store if isinstance(store, str | Path | xr.Dataset) else store.path)
    target = _target(kind, run, name)
    ds = open_store(path, chunks=None)
    rows = _read(ds, values, kind, prefix, columns)
    if coords is not None:
        if rows.points is not None:
            raise UsageError(f"{rows.origin['file']} has its own points; leave coords out.")
        rows = replace(rows, points=read_points(coords, point_dims(ds)))
    rows, placement = _placed(ds, rows, _region(ds, roi), read_as)
    counts = _counts(target, placement)
    variable = _variable(ds, rows, placement, kind, target, classes or {}).assign_attrs(attrs)
    made_from = {
        "kind": f"{n.ATTACHED} {kind}",
        "values": rows.origin,
        "points": rows.points and rows.points.origin,
        "placing": counts,
        "roi": roi if roi is None or isinstance(roi, str) else "given as a map",
        "classes": classes or None,
        "units": units,
    }
    recipe = Recipe(None, made_from)
    replaced: list[str] = []
    if variable.name in ds:
        stored = nested(ds[variable.name].attrs, n.PROVENANCE)
        is_attached = isinstance(stored, Mapping) and str(stored.get("kind")).startswith(n.ATTACHED)
        existing = f"{path} already holds {variable.name!r}"
        if is_made(
            existing,
            stored if is_attached else None,
            recipe,
            instead="attach under another name",
            overwrite=overwrite,
        ):
            return variable.to_dataset().assign_attrs(counts)
        replaced = removable(path, [f"{n.RUNS}/{target}" if kind == n.LATENTS else target])
    variable.attrs[n.PROVENANCE] = recipe.stamp()
    if kind == n.LATENTS:
        result = _publish_latents(path, target, variable, replaced)
    else:
        result = variable.to_dataset()
        write_results(path, variables=result, replacing=replaced)
    return result.assign_attrs(counts)


def _publish_latents(
    path: Path, run: str, latents: xr.DataArray, replaced: list[str]
) -> xr.Dataset:
    """Write latents as a run without a model, whose region is the points with a value."""
    dim, stamp = n.run_name(n.LATENT, run), latents.attrs[n.PROVENANCE]
    file = stamp["values"]["file"]
    roi = latents.notnull().any(dim).drop_vars(dim, errors="ignore")
    count = int(roi.sum())
    if not count:
        raise DataError(f"{file} holds no value for any measured scan point of the region.")
    roi.attrs = {**n.ATTRS[n.ROI], "n": count}
    maps = xr.Dataset({latents.name: latents, n.run_name(n.ROI, run): roi})
    manifest = {
        "run": run,
        "kind": n.ATTACHED,
        "state": n.ATTACHED,
        "config": {n.ATTACHED: stamp},
        "roi": f"points with a value in {file}",
        "n_roi": count,
        "latent_dim": latents.sizes[dim],
        "versions": stamp["versions"],
        "time": stamp["time"],
    }
    with staged_run(path, run, replacing=replaced) as folder:
        publish_run(path, run, folder, manifest, maps, replacing=replaced)
    return maps


def _read(
    ds: xr.Dataset,
    values: Values | xr.DataArray,
    kind: str,
    prefix: str | None,
    columns: Sequence[str],
) -> Rows:
    """The values to attach, from a file or memory."""
    dims = point_dims(ds) if schema.is_scan(ds) else ()
    if isinstance(values, xr.DataArray):
        return rows_of_array(values, ds, dims)
    if not isinstance(values, np.ndarray):
        element_files = map_files(values) if kind == n.ELEMENTS else []
        if element_files:
            return read_element_maps(element_files, ds)
        if is_table(values):
            return read_columns(values, dims, prefix, columns)
    if prefix or columns:
        raise UsageError(
            "prefix and columns choose columns of a CSV, but the values are an array; leave them out."
        )
    return read_array(values)


def _target(kind: str, run: str | None, name: str | None) -> str:
    """The run's name for latents, the variable's for the rest."""
    if kind not in KINDS:
        raise UsageError(
            f"nothing of kind {kind!r} can be attached.{did_you_mean(kind, list(KINDS))}"
        )
    if kind == n.LATENTS:
        if run is None or name is not None:
            raise UsageError("latents are attached as a run: give run='…' (and no name).")
        check_run_name(run)
        return run
    chosen = name or (n.ELEMENTS if kind == n.ELEMENTS else "")
    if not chosen or run is not None:
        raise UsageError(f"{kind} are attached as a variable: give name='…' (and no run).")
    free = {n.PHASE, n.RECONSTRUCTION, kind}
    if (
        not n.is_valid_name(chosen)
        or chosen in n.RESERVED - free
        or chosen.startswith(n.OF_LATER_RUNS)
    ):
        raise UsageError(
            f"{chosen!r} cannot name {kind}: it is no name of letters, digits and _, a letter first, or has a meaning "
            "of its own; choose another one."
        )
    return chosen


def _region(ds: xr.Dataset, roi: str | xr.DataArray | None) -> xr.DataArray | None:
    if roi is None:
        return None
    if isinstance(roi, xr.DataArray):
        return grid.check_map(ds, roi)
    variable = n.run_name(n.ROI, roi)
    if variable not in ds:
        known = [str(name) for name in ds if str(name).startswith(n.ROI)]
        raise NoInputError(
            f"there is no region of interest of a run {roi!r} ({variable}). Known: {listed(known)}."
        )
    return ds[variable].load()


def _placed(
    ds: xr.Dataset, rows: Rows, region: xr.DataArray | None, read_as: ReadAs
) -> tuple[Rows, Placement]:
    """Values as rows, finite or NaN, and where each belongs."""
    shape, file, values, points = (
        schema.navigation_shape(ds),
        rows.origin["file"],
        rows.values,
        rows.points,
    )
    if points is None and values.shape[: len(shape)] == shape:
        values = values.reshape(-1, *values.shape[len(shape) :])
    if values.ndim > 2:
        raise DataError(
            f"{file} has shape {rows.values.shape}; expected (N,), (N, L) or the grid's {shape} in front."
        )
    if values.dtype.kind == "f" and np.isinf(values).any():
        row = int(np.argwhere(np.isinf(values))[0][0])
        raise DataError(
            f"{file}: row {row} holds an infinite value; write NaN where there is none."
        )
    if points is None:
        placement = place_in_order(
            ds, len(values), region, what=f"{file} of shape {rows.values.shape}"
        )
    else:
        of_file = points.origin["file"]
        if points.values.ndim and len(points.values) != len(values):
            raise DataError(
                f"{file} has {len(values)} rows, {of_file} has {len(points.values)} points."
            )
        way = points.read_as if read_as == "auto" else read_as
        what = f"the points of {of_file}"
        placement = place_points(ds, points.values, read_as=way, what=what, lines=points.lines)
    allowed = grid.measured(ds) if region is None else grid.measured(ds) & region.values
    return replace(rows, values=values), placement.within(allowed)


def _counts(name: str, placement: Placement) -> dict[str, Any]:
    """How many rows were placed and how many points have none, which is logged."""
    counts = placement.counts()
    words = [f"{counts['n_placed']} of {counts['n_rows']} rows placed by {counts['read_as']}"]
    words += [f"{counts[key]} {text}" for key, text in COUNTED.items() if counts[key]]
    log.info(f"{name}: {'; '.join(words)}")
    return counts


def _variable(
    ds: xr.Dataset,
    rows: Rows,
    placement: Placement,
    kind: str,
    target: str,
    words: Mapping[int, str],
) -> xr.DataArray:
    """The variable that values of a kind become; words: names of class or phase numbers."""
    coords = {dim: ds[dim].variable for dim in schema.navigation_dims(ds)}
    values = np.asarray(rows.values)
    attrs: dict[str, Any]
    if kind in ("map", "classes", n.PHASE):
        n_columns = values.shape[1] if values.ndim > 1 else 1
        if n_columns != 1:
            choice = f" ({listed(rows.columns)}); choose one with columns=" if rows.columns else ""
            raise DataError(
                f"{rows.origin['file']} has {n_columns} values for each point, expected one{choice}."
            )
        attrs = {"long_name": rows.columns[0] if rows.columns else target}
        if kind == "map":
            on_grid = placement.on_grid(_as_floats(values.reshape(-1)), np.nan)
            attrs = n.ATTRS.get(target, attrs | {"units": "1"})
        else:
            on_grid = placement.on_grid(_codes(rows, values.reshape(-1)), n.NOT_CLUSTERED)
            if kind == n.PHASE:
                attrs = n.ATTRS[n.PHASE] | flags(on_grid, words, NO_PHASE, n.PHASE)
            else:
                attrs |= flags(on_grid, words, NO_CLASS, "class")
        return xr.DataArray(on_grid, coords, tuple(coords), target, dict(attrs))

    values = _as_floats(values.reshape(len(values), -1))
    name, dim, dim_attrs = target, f"{target}_{n.COMPONENT}", {"long_name": n.COMPONENT}
    labels: Sequence[Any] = rows.numbers or range(values.shape[1])
    attrs = {"long_name": f"{target} score (attached)", "units": "1"}
    if kind == n.LATENTS:
        name, dim, dim_attrs = (
            n.run_name(n.LATENTS, target),
            n.run_name(n.LATENT, target),
            n.ATTRS[n.LATENT],
        )
        attrs["long_name"] = "latent (attached)"
    elif kind == n.ELEMENTS:
        dim, dim_attrs = n.ELEMENT if target == n.ELEMENTS else f"{target}_{n.ELEMENT}", {}
        labels, attrs = _elements_of(rows), n.ATTRS[n.ELEMENTS]
    coords[dim] = xr.Variable(dim, list(labels), dim_attrs)
    variable = xr.DataArray(
        placement.on_grid(values, np.nan), coords, tuple(coords), name, dict(attrs)
    )
    return variable.transpose(dim, ...) if kind == n.ELEMENTS else variable


def _as_floats(values: np.ndarray) -> np.ndarray:
    """Values as floats that hold all values of their type."""
    return values.astype(min(np.result_type(values, "f4"), np.dtype("f8")))


def _elements_of(rows: Rows) -> list[str]:
    """Elements by the names of columns: `Fe [wt%]` is Fe."""
    elements: list[str] = []
    for column in rows.columns:
        symbol = column.split("(")[0].split("[")[0].strip()
        elements.append(symbol or column)
    if not elements or len(set(elements)) < len(elements):
        raise DataError(
            f"{rows.origin['file']} has the element columns {listed(elements)}; expected a CSV with each element once."
        )
    return elements


def _codes(rows: Rows, numbers: np.ndarray) -> np.ndarray:
    """Class numbers in the smallest type: -1 for no class (noise, not indexed), -2 for no value."""
    if numbers.dtype.kind == "f":
        numbers = np.where(np.isnan(numbers), n.NOT_CLUSTERED, numbers)
    wrong = (
        (numbers != np.rint(numbers)) | (numbers < n.NOT_CLUSTERED) | (numbers > np.iinfo("i4").max)
    )
    if wrong.any():
        row, lines = int(wrong.argmax()), rows.points.lines if rows.points else None
        raise DataError(
            f"{rows.origin['file']}: {row_words(lines, row)} holds {numbers[row]:g}; "
            f"expected whole numbers of a {n.PHASE} or class, -1 for none, and {n.NOT_CLUSTERED} for no value."
        )
    return np.rint(numbers).astype("i2" if numbers.max(initial=0) <= np.iinfo("i2").max else "i4")


def side_map(
    ds: xr.Dataset,
    path: str | Path,
    name: str,
    *,
    words: Mapping[int, str] | None = None,
    units: str = "1",
) -> xr.DataArray:
    """A map from a CSV: `phase` (numbers, named by `words`), `elements` (all columns, in `units`),
    or any in float32.

    Coordinates that are whole numbers are step numbers, others are in the scan's units. The
    attributes say where it comes from and count scan points without a line (`n_missing`), lines
    outside the scan and columns without a name.
    """
    kind = name if name in (n.PHASE, n.ELEMENTS) else "map"
    element_files = map_files(path) if kind == n.ELEMENTS else []
    way: ReadAs = "auto"
    if element_files:
        rows = read_element_maps(element_files, ds)
    else:
        table = read_table(path, point_dims(ds))
        if not table.coordinates or not table.values:
            needed = f"{', '.join(point_dims(ds))} and at least one column of values"
            raise DataError(
                f"{table.file} has no column for {needed}; it has {listed(table.frame.columns)}."
            )
        rows = rows_of(table, table.values if kind == n.ELEMENTS else [table.meant(name)])
        way = "steps" if are_whole(table.numbers(table.coordinates)) else "coordinates"
    rows, placement = _placed(ds, rows, None, way)
    counts = _counts(name, placement)
    attrs = {
        "source": rows.origin["file"],
        "column": ", ".join(rows.columns),
        "n_missing": counts["n_missing"],
        "n_outside": counts["n_outside"],
    }
    if kind == n.ELEMENTS:
        attrs["units"] = units
    variable = _variable(ds, rows, placement, kind, name, words or {}).assign_attrs(attrs)
    return variable.astype("f4") if variable.dtype.kind == "f" else variable
