"""Attach: read, place, write. The edge of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import grid, schema
from vaearr import names as n
from vaearr.attaching.files import Points, Values, labelled_values, one_of, read_points, read_values
from vaearr.attaching.kinds import KINDS
from vaearr.attaching.placing import Placement, ReadAs, place_in_order, place_points, point_dims
from vaearr.errors import DataError, ExistsError, NoInputError, UsageError, did_you_mean
from vaearr.provenance import now, versions
from vaearr.store import add_variables, check_run_name, check_store, open_store, publish_run, recover, shown, staged_run

_TAKEN = (n.PATTERNS, n.PRESENT, n.RUNS, *n.OF_A_RUN)
_OF_OTHER_THINGS = {n.HISTORY, n.HEALTH, n.MODEL, n.EPOCH, n.ELEMENT, n.CHANNEL, n.SAMPLE, n.DZ, n.DY, n.DX}
_OF_OTHER_THINGS |= {*n.SCAN_DIMS}


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
    read_as: whether points are "steps" or "coordinates"; "auto" decides by the rule of `vaearr.attaching.placing`.
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
    reserved = [word for word in _TAKEN if chosen == word or chosen.startswith(f"{word}_")]
    reserved += [chosen] if chosen in _OF_OTHER_THINGS else []
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
        placement = place_in_order(ds, len(values), region, what=what)
    else:
        if points.values.ndim and len(points.values) != len(values):
            raise DataError(f"{what} has {len(values)} rows, {points.origin['file']} has {len(points.values)} points.")
        way = points.read_as if read_as == "auto" else read_as
        placement = place_points(ds, points.values, read_as=way, what=f"the points of {points.origin['file']}")
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
