"""Results of your own analyses, kept in the store that their data came from."""

from __future__ import annotations

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
    """Write results into a store, under the names that they are given by: `va.keep(ds,
    grains=labels)`.

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
        If a name has a meaning of its own, or a Dataset of maps is given.
    NoInputError
        If the run does not exist.
    """
    path = path_of(data)
    if run is None:
        run = data.name if isinstance(data, Run) else n.DEFAULT_RUN
    ds = open_store(path, chunks=None)
    nav = schema.navigation_dims(ds)
    maps: dict[str, xr.DataArray] = {}
    tables: dict[str, xr.Dataset] = {}
    replaced: list[str] = []
    for name, result in results.items():
        check_name(name)
        is_map = not set(nav).isdisjoint(result.dims)
        if is_map and isinstance(result, xr.Dataset):
            first, *_ = result.data_vars
            raise UsageError(
                f"{name!r} holds maps; keep them one after the other, such as {first}=result[{first!r}]."
            )
        stored = xr.Dataset()
        if isinstance(result, xr.DataArray):
            result = result.rename(name if is_map else result.name or name).to_dataset()
        if is_map:
            key = name
            result = result.reset_coords(drop=True)
            stored = ds[[name]] if name in ds.data_vars else stored
        else:
            key = f"{n.RUNS}/{run}/{name}"
            stored = open_table(path, run, name) if has_table(path, run, name) else stored
        if _has_same_values(stored, result):
            log.info(f"{path} already holds {name!r}, with the same values")
            continue
        if stored.data_vars and not overwrite:
            raise ExistsError(
                f"{path} already holds {name!r}, with other values; keep it by another name, or replace it with "
                "overwrite=True."
            )
        replaced += removable(path, [key])
        if is_map:
            block = {dim: side for dim, side in block_shape(path).items() if dim in result.dims}
            stamp = {n.PROVENANCE: {"kept": name, "versions": versions(), "time": now()}}
            maps[name] = result[name].assign_attrs(stamp).chunk(block)
        else:
            tables[name] = result
    if maps or tables:
        variables = None
        if maps:
            variables = xr.merge(
                maps.values(), join="exact", compat="equals", combine_attrs="override"
            )
        write_results(path, variables=variables, run=run, tables=tables, replacing=replaced)
    return open_store(path)


def _has_same_values(one: xr.Dataset, other: xr.Dataset) -> bool:
    """Whether both hold the same variables, whatever their attributes and coordinates."""
    if set(one.data_vars) != set(other.data_vars):
        return False
    return all(one[name].variable.equals(other[name].variable) for name in one.data_vars)
