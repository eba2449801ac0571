"""Add values that were computed elsewhere to a store.

A file or an array is read as `Rows`; `Placement` holds the scan point of each row; the rows on the
grid become a variable. `vaearr.ingestion.ingest` joins side maps by the same functions.
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
from vaearr.recipe import Recipe, can_reuse, nested
from vaearr.schema import flags, grid
from vaearr.sources.ebsd_maps import NO_PHASE
from vaearr.sources.element_maps import map_files
from vaearr.sources.tables import ReadAs, read_table
from vaearr.store import (
    check_run_name,
    finish_run,
    open_store,
    stage_run,
    store_of,
    write_results,
)
from vaearr.store.remove import removable

log = logging.getLogger("vaearr")

NO_CLASS = {n.NOT_CLUSTERED: "no_value", n.NOISE: "no_class"}
KINDS = (n.LATENTS, "scores", n.ELEMENTS, "map", "classes")
COUNTS_IN_LOG = {
    "n_outside": "lie outside the scan",
    "n_left_out": "on points not measured or outside the region",
    "n_missing": "scan points without a row",
}


class HasPath(Protocol):
    """A run."""

    @property
    def path(self) -> Path:
        """Its store."""


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
    """Add latents or maps that were computed elsewhere to a store.

    Latents become a run without a model: `latents_<run>`, `roi_<run>` (the points with a value) and
    `/runs/<run>`, so that association, clustering and the report accept them by `run`. Either
    everything is written or nothing.

    Parameters
    ----------
    store : path, Dataset opened from a store, or Run
        Store to add to.
    values : path, array or DataArray
        `.npy` `(N,)`, `(N, L)` or over the full grid `(y, x[, L])`; CSV with value columns; or an
        array. A DataArray over the navigation dims and at most one more is placed by its
        coordinates.
    kind : {"latents", "map", "classes", "elements", "scores"}
        Latents need `run`, all others `name`. A map has one number for each point, classes have
        class numbers, scores are those of a decomposition. Elements are read from a CSV with a
        column for each, from a .tsv map that is named after its element, or from a folder of such
        maps; these are resampled to the grid of the scan.
    run, name : str
        Name of the run, or of the variable.
    coords : path or array, optional
        Points of the rows: `.npy` `(N, 2)` x, y or `(N, 3)` x, y, z, CSV or array. Not needed where
        the CSV of the values has x and y, or where rows are in row-major order (x fastest), one
        for every scan point or, with `roi`, one for every point of that region.
    roi : str or DataArray, optional
        Name of a run whose region of interest is meant, or a boolean map. Rows outside it are left
        out.
    read_as : {"auto", "steps", "coordinates"}
        Meaning of the points; "auto" decides by the rule of `vaearr.ingestion.placing`.
    prefix, columns
        Columns of a CSV (`PCA_`, `cNMF_`, `latent_` are known prefixes).
    classes : mapping, optional
        Names of class numbers.
    units : str, optional
        Unit of the values.
    overwrite : bool
        Replace what was attached under this name with different settings; an equal result is
        returned unchanged.

    Returns
    -------
    xr.Dataset
        The variables that were written. Its attributes count rows placed, outside and left out,
        and scan points without a row.

    Raises
    ------
    ExistsError
        If the name is taken by another result.
    DataError
        If the number of rows does not fit, points are repeated, or values are infinite.
    NoInputError, UsageError
        If a file does not exist, or arguments contradict each other.

    Examples
    --------
    >>> hardness = xr.zeros_like(ds.BC, dtype="float32")
    >>> ds = va.attach("scan.zarr", hardness, kind="map", name="hardness")
    >>> ds.hardness.dims
    ('y', 'x')
    """
    if not isinstance(store, str | Path | xr.Dataset):
        store = store.path
    path = store_of(store)
    ds = open_store(path, chunks=None)
    if isinstance(values, xr.DataArray) and kind != n.LATENTS:
        name = name or str(values.name or "")
    target = _target(kind, run, name)
    rows = _read(ds, values, kind, prefix, columns)
    if coords is not None:
        rows = _with_points(ds, rows, coords)
    rows, placement = _placed(ds, rows, _region(ds, roi), read_as)
    counts = _logged_counts(target, placement)
    variable = _variable(ds, rows, placement, kind, target, classes or {})
    variable.attrs.update(_given_attributes(values, kind, units))
    inputs = {
        "kind": f"{n.ATTACHED} {kind}",
        "values": rows.origin,
        "points": rows.points and rows.points.origin,
        "placing": counts,
        "roi": "given as a map" if isinstance(roi, xr.DataArray) else roi,
        "classes": classes or None,
        "units": units,
    }
    recipe = Recipe(None, inputs)
    if _is_attached(path, ds.get(variable.name), recipe, overwrite=overwrite):
        return variable.to_dataset().assign_attrs(counts)
    variable.attrs[n.PROVENANCE] = recipe.stamp()
    return _write(path, ds, variable, kind, target).assign_attrs(counts)


def _with_points(ds: xr.Dataset, rows: Rows, coords: Values) -> Rows:
    """The rows with points that are given apart from the values."""
    if rows.points is not None:
        raise UsageError(f"{rows.origin['file']} contains the points; leave coords out.")
    return replace(rows, points=read_points(coords, point_dims(ds)))


def _given_attributes(values: Any, kind: str, units: str | None) -> dict[str, Any]:
    """Long name and units of a map that is given as a DataArray, and the units argument."""
    attrs = {}
    if isinstance(values, xr.DataArray) and kind in ("map", "classes"):
        attrs = {key: values.attrs[key] for key in ("long_name", "units") if key in values.attrs}
    if units is not None:
        attrs["units"] = units
    return attrs


def _is_attached(
    path: Path, existing: xr.DataArray | None, recipe: Recipe, *, overwrite: bool
) -> bool:
    """Whether a variable was attached by the same recipe. Raises ExistsError, see `can_reuse`."""
    if existing is None:
        return False
    stored = nested(existing.attrs, n.PROVENANCE)
    is_attached = isinstance(stored, Mapping) and str(stored.get("kind")).startswith(n.ATTACHED)
    return can_reuse(
        f"{path} already holds {existing.name!r}",
        stored if is_attached else None,
        recipe,
        way_out="attach under another name",
        overwrite=overwrite,
    )


def _write(
    path: Path, ds: xr.Dataset, variable: xr.DataArray, kind: str, target: str
) -> xr.Dataset:
    """Write a variable into the store in place of one of the same name."""
    node = f"{n.RUNS}/{target}" if kind == n.LATENTS else target
    replaced = removable(path, [node]) if variable.name in ds else []
    if kind == n.LATENTS:
        return _publish_latents(path, target, variable, replaced)
    result = variable.to_dataset()
    write_results(path, variables=result, replacing=replaced)
    return result


def _publish_latents(
    path: Path, run: str, latents: xr.DataArray, replaced: list[str]
) -> xr.Dataset:
    """Write latents as a run without a model; its region is the points with a value."""
    dim = n.run_name(n.LATENT, run)
    stamp = latents.attrs[n.PROVENANCE]
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
    with stage_run(path, run, replacing=replaced) as folder:
        finish_run(path, run, folder, manifest, maps, replacing=replaced)
    return maps


def _read(
    ds: xr.Dataset,
    values: Values | xr.DataArray,
    kind: str,
    prefix: str | None,
    columns: Sequence[str],
) -> Rows:
    """Read the values from a file or memory."""
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
            "prefix and columns choose columns of a CSV, but the values are an array; leave them "
            "out."
        )
    return read_array(values)


def _target(kind: str, run: str | None, name: str | None) -> str:
    """Return the name of the run for latents, else of the variable."""
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
    is_reserved = chosen in n.RESERVED - {n.PHASE, n.RECONSTRUCTION, kind}
    if not n.is_valid_name(chosen) or is_reserved or chosen.startswith(n.PREFIXES_OF_RUNS):
        raise UsageError(
            f"{chosen!r} cannot name {kind}: it is reserved or no name of letters, digits and _, "
            "a letter first; choose another one."
        )
    return chosen


def _region(ds: xr.Dataset, roi: str | xr.DataArray | None) -> xr.DataArray | None:
    if roi is None:
        return None
    if isinstance(roi, xr.DataArray):
        return grid.check_map(ds, roi)
    variable = n.run_name(n.ROI, roi)
    if variable not in ds:
        regions = [name for name in ds if str(name).startswith(n.ROI)]
        raise NoInputError(
            f"there is no region of interest of a run {roi!r} ({variable}). "
            f"Known: {listed(regions)}."
        )
    return ds[variable].load()


def _placed(
    ds: xr.Dataset, rows: Rows, region: xr.DataArray | None, read_as: ReadAs
) -> tuple[Rows, Placement]:
    """Return values of shape `(N,)` or `(N, K)`, finite or NaN, and the scan points of the rows."""
    shape = schema.navigation_shape(ds)
    file = rows.origin["file"]
    points = rows.points
    values = rows.values
    if points is None and values.shape[: len(shape)] == shape:
        values = values.reshape(-1, *values.shape[len(shape) :])
    if values.ndim > 2:
        raise DataError(
            f"{file} has shape {rows.values.shape}; expected (N,), (N, L) or first the grid's "
            f"{shape}."
        )
    if values.dtype.kind == "f" and np.isinf(values).any():
        row = int(np.argwhere(np.isinf(values))[0][0])
        raise DataError(
            f"{file}: row {row} holds an infinite value; write NaN where there is none."
        )
    if points is None:
        what = f"{file} of shape {rows.values.shape}"
        placement = place_in_order(ds, len(values), region, what=what)
    else:
        points_file = points.origin["file"]
        if points.values.ndim and len(points.values) != len(values):
            raise DataError(
                f"{file} has {len(values)} rows, {points_file} has {len(points.values)} points."
            )
        placement = place_points(
            ds,
            points.values,
            read_as=points.read_as if read_as == "auto" else read_as,
            what=f"the points of {points_file}",
            lines=points.lines,
        )
    allowed = grid.measured(ds)
    if region is not None:
        allowed = allowed & region.values
    return replace(rows, values=values), placement.within(allowed)


def _logged_counts(name: str, placement: Placement) -> dict[str, Any]:
    """Log how many rows were placed and how many points have none; return these counts."""
    counts = placement.counts()
    parts = [f"{counts['n_placed']} of {counts['n_rows']} rows placed by {counts['read_as']}"]
    for key, text in COUNTS_IN_LOG.items():
        if counts[key]:
            parts.append(f"{counts[key]} {text}")
    log.info(f"{name}: {'; '.join(parts)}")
    return counts


def _variable(
    ds: xr.Dataset,
    rows: Rows,
    placement: Placement,
    kind: str,
    target: str,
    class_names: Mapping[int, str],
) -> xr.DataArray:
    """Return the rows on the grid, as the variable of a kind."""
    coords = {dim: ds[dim].variable for dim in schema.navigation_dims(ds)}
    if kind not in ("map", "classes", n.PHASE):
        return _columns_on_grid(rows, placement, kind, target, coords)
    n_columns = rows.values.shape[1] if rows.values.ndim > 1 else 1
    if n_columns != 1:
        choice = f" ({listed(rows.columns)}); choose one with columns=" if rows.columns else ""
        raise DataError(
            f"{rows.origin['file']} has {n_columns} values for each point, expected one{choice}."
        )
    values = rows.values.reshape(-1)
    long_name = rows.columns[0] if rows.columns else target
    if kind == "map":
        on_grid = placement.on_grid(_as_floats(values), np.nan)
        attrs = n.ATTRS.get(target, {"long_name": long_name, "units": "1"})
    else:
        on_grid = placement.on_grid(_codes(rows, values), n.NOT_CLUSTERED)
        attrs = {"long_name": long_name} | flags(on_grid, class_names, NO_CLASS, "class")
        if kind == n.PHASE:
            attrs = n.ATTRS[n.PHASE] | flags(on_grid, class_names, NO_PHASE, n.PHASE)
    return xr.DataArray(on_grid, coords, tuple(coords), target, dict(attrs))


def _columns_on_grid(
    rows: Rows, placement: Placement, kind: str, target: str, coords: dict[str, xr.Variable]
) -> xr.DataArray:
    """Latents, elements or scores on the grid, with a dim for the columns."""
    values = _as_floats(rows.values.reshape(len(rows.values), -1))
    labels: Sequence[Any] = rows.numbers or range(values.shape[1])
    name = target
    if kind == n.LATENTS:
        name = n.run_name(n.LATENTS, target)
        dim = n.run_name(n.LATENT, target)
        dim_attrs = n.ATTRS[n.LATENT]
        attrs = {"long_name": "latent (attached)", "units": "1"}
    elif kind == n.ELEMENTS:
        dim = n.ELEMENT if target == n.ELEMENTS else f"{target}_{n.ELEMENT}"
        dim_attrs = {}
        attrs = n.ATTRS[n.ELEMENTS]
        labels = _elements_of(rows)
    else:
        dim = f"{target}_{n.COMPONENT}"
        dim_attrs = {"long_name": n.COMPONENT}
        attrs = {"long_name": f"{target} score (attached)", "units": "1"}
    coords[dim] = xr.Variable(dim, list(labels), dim_attrs)
    on_grid = placement.on_grid(values, np.nan)
    variable = xr.DataArray(on_grid, coords, tuple(coords), name, dict(attrs))
    return variable.transpose(dim, ...) if kind == n.ELEMENTS else variable


def _as_floats(values: np.ndarray) -> np.ndarray:
    """Return values as float32 or float64, whichever holds all values of their type."""
    return values.astype(min(np.result_type(values, "f4"), np.dtype("f8")))


def _elements_of(rows: Rows) -> list[str]:
    """Return the elements that the columns are named after: `Fe [wt%]` is Fe."""
    elements: list[str] = []
    for column in rows.columns:
        symbol = column.split("(")[0].split("[")[0].strip()
        elements.append(symbol or column)
    if not elements or len(set(elements)) < len(elements):
        raise DataError(
            f"{rows.origin['file']} has the element columns {listed(elements)}; expected a CSV "
            "with each element once."
        )
    return elements


def _codes(rows: Rows, numbers: np.ndarray) -> np.ndarray:
    """Return class numbers as integers, -1 for no class (noise, not indexed), -2 for no value."""
    if numbers.dtype.kind == "f":
        numbers = np.where(np.isnan(numbers), n.NOT_CLUSTERED, numbers)
    is_out_of_range = (numbers < n.NOT_CLUSTERED) | (numbers > np.iinfo("i4").max)
    is_wrong = is_out_of_range | (numbers != np.rint(numbers))
    if is_wrong.any():
        row = int(is_wrong.argmax())
        lines = rows.points.lines if rows.points else None
        raise DataError(
            f"{rows.origin['file']}: {row_words(lines, row)} holds {numbers[row]:g}; expected "
            "whole numbers of a phase or class, -1 for none, -2 for no value."
        )
    fits_int16 = numbers.max(initial=0) <= np.iinfo("i2").max
    return np.rint(numbers).astype("i2" if fits_int16 else "i4")


def side_map(
    ds: xr.Dataset,
    path: str | Path,
    name: str,
    *,
    class_names: Mapping[int, str] | None = None,
    units: str = "1",
) -> xr.DataArray:
    """Read a map for the scan points of a Dataset.

    Coordinates that are whole numbers are step numbers, others are in the units of the scan.

    Parameters
    ----------
    ds
        A scan.
    path
        A CSV; for elements also a .tsv map or a folder of them.
    name
        `phase` (numbers), `elements` (all columns), or any other map.
    class_names
        Names of phase numbers.
    units
        Unit of elements.

    Returns
    -------
    xarray.DataArray
        The map over the navigation dims (elements: `element` first), in float32 or integers. Its
        attributes name the file and count scan points without a row (`n_missing`) and rows outside
        the scan.
    """
    kind = name if name in (n.PHASE, n.ELEMENTS) else "map"
    element_files = map_files(path) if kind == n.ELEMENTS else []
    read_as: ReadAs = "auto"
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
        is_whole = are_whole(table.numbers(table.coordinates))
        read_as = "steps" if is_whole else "coordinates"
    rows, placement = _placed(ds, rows, None, read_as)
    counts = _logged_counts(name, placement)
    variable = _variable(ds, rows, placement, kind, name, class_names or {})
    variable.attrs |= {
        "source": rows.origin["file"],
        "column": ", ".join(rows.columns),
        "n_missing": counts["n_missing"],
        "n_outside": counts["n_outside"],
    }
    if kind == n.ELEMENTS:
        variable.attrs["units"] = units
    return variable.astype("f4") if variable.dtype.kind == "f" else variable
