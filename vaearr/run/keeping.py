"""Keep results of your analyses in the store of their data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import ExistsError, UsageError
from vaearr.recipe import log, now, versions
from vaearr.run import Run, StoreOrRun, path_of
from vaearr.run.step import check_name
from vaearr.store import has_table, open_store, open_table, write_results
from vaearr.store.read import block_shape
from vaearr.store.remove import removable

Result = xr.Dataset | xr.DataArray


def keep(
    data: StoreOrRun,
    *,
    run: str | None = None,
    overwrite: bool = False,
    **results: Result,
) -> xr.Dataset:
    """Write results into a store, under the names of the keywords.

    All results are checked before the first is written, and all appear together. A result that
    exists with the same values is left as it is.

    Parameters
    ----------
    data
        The store, a Dataset that was opened from one, or a Run.
    run
        Run that tables go to; default: "vae", or the Run that is given.
    overwrite
        Replace results with other values that vaearr wrote.
    **results
        A DataArray over navigation dims becomes a variable of the store. Everything else, such as
        an association, becomes a table of the run, see ``va.load_run(…).table(name)``.

    Returns
    -------
    xarray.Dataset
        The opened store.

    Raises
    ------
    ExistsError
        If a name holds other values.
    SchemaError
        If a map lies on another grid.
    UsageError
        If a name is reserved, or a Dataset of maps is given.
    NoInputError
        If the run does not exist.

    Examples
    --------
    >>> labels = va.cluster(ds[["latents", "BC"]], method="kmeans", k=3)
    >>> va.keep("scan.zarr", grains=labels).grains.dims
    ('y', 'x')
    """
    path = path_of(data)
    if run is None:
        run = data.name if isinstance(data, Run) else n.DEFAULT_RUN
    ds = open_store(path, chunks=None)
    navigation = set(schema.navigation_dims(ds))
    maps: dict[str, xr.DataArray] = {}
    tables: dict[str, xr.Dataset] = {}
    for name, result in results.items():
        check_name(name)
        if navigation.isdisjoint(result.dims):
            table = _as_table(name, result)
            stored = open_table(path, run, name) if has_table(path, run, name) else None
            if _is_new(path, name, stored, table, overwrite):
                tables[name] = table
        else:
            values = _as_map(name, result)
            if _is_new(path, name, ds.get(name), values, overwrite):
                maps[name] = values
    if maps or tables:
        replaced = removable(path, [*maps, *(f"{n.RUNS}/{run}/{name}" for name in tables)])
        variables = _to_write(ds, maps)
        write_results(path, variables=variables, run=run, tables=tables, replacing=replaced)
    return open_store(path)


def _as_table(name: str, result: Result) -> xr.Dataset:
    if isinstance(result, xr.Dataset):
        return result
    return result.to_dataset(name=result.name or name)


def _as_map(name: str, result: Result) -> xr.DataArray:
    if isinstance(result, xr.Dataset):
        first = next(iter(result.data_vars))
        raise UsageError(
            f"{name!r} holds maps; keep them one after the other, such as "
            f"{first}=result[{first!r}]."
        )
    return result.rename(name).reset_coords(drop=True)


def _to_write(ds: xr.Dataset, maps: Mapping[str, xr.DataArray]) -> xr.Dataset | None:
    """The maps in the blocks of the store, with their provenance."""
    if not maps:
        return None
    sizes = block_shape(ds)
    prepared = []
    for name, values in maps.items():
        provenance = {"kept": name, "versions": versions(), "time": now()}
        block = {dim: size for dim, size in sizes.items() if dim in values.dims}
        prepared.append(values.assign_attrs({n.PROVENANCE: provenance}).chunk(block))
    return xr.merge(prepared, join="exact", compat="equals", combine_attrs="override")


def _is_new(path: Path, name: str, stored: Any, result: Result, overwrite: bool) -> bool:
    """Whether a result is to be written. Raises ExistsError if another one would be replaced."""
    if stored is None:
        return True
    is_same = bool(stored.drop_vars(stored.coords).equals(result.drop_vars(result.coords)))
    if is_same:
        log.info(f"{path} already holds {name!r}, with the same values")
    elif not overwrite:
        raise ExistsError(
            f"{path} already holds {name!r}, with other values; keep it by another name, or "
            "replace it with overwrite=True."
        )
    return not is_same
