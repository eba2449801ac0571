"""Results of analyses, made in memory, kept in the store that their data came from."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import ExistsError, UsageError
from vaearr.recipe import log, now, versions
from vaearr.run import Run, StoreOrRun, path_of
from vaearr.store import (
    check_run_name,
    has_table,
    open_store,
    open_table,
    write_results,
)
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
    """Write results into a store, under the names they are given by: `va.keep(ds, grains=labels, texture=pca)`.

    data: the store, a Dataset that was opened from one, or a Run. run: where tables go; default: `vae`, or that Run.
    What lies over the store's navigation dims becomes variables: a DataArray the variable `grains`; a Dataset
    all of its variables, whose common beginning becomes the name. Everything else, such as
    an association, becomes a table of `run`, see `va.load_run(…).table(name)`. All results are checked before the first
    is written, and each appears complete or not at all. One that exists with the same values is left as it is;
    `overwrite` replaces another that vaearr made.

    Returns the opened store. Raises ExistsError for a name that holds other values, SchemaError for results of another
    grid, UsageError for names with a meaning of their own, NoInputError for a run that is not there.
    """
    path = path_of(data)
    if isinstance(data, Run):
        run = data.name
    run = run or n.DEFAULT_RUN
    ds = open_store(path, chunks=None)
    signal, to_do = schema.signal_dims(ds), []
    for name, result in results.items():
        check_run_name(name)
        if name in n.RESERVED or name.startswith(n.OF_LATER_RUNS):
            raise UsageError(f"{name!r} has a meaning of its own; keep the result by another name.")
        if is_map := not {*schema.navigation_dims(ds)}.isdisjoint(result.dims):
            made = _named(name, result)
            others = [d for d in map(str, made.dims) if d in signal and not _is_same_axis(made, ds, d)]
            made = made.rename({dim: f"{name}_{dim}" for dim in others})  # of binned or cropped patterns
            there = ds[[v for v in ds.data_vars if v == name or v in made]]
        else:
            made = result.to_dataset(name=result.name or name) if isinstance(result, xr.DataArray) else result
            there = open_table(path, run, name) if has_table(path, run, name) else xr.Dataset()
        if _is_alike(there, made):
            log.info(f"{path} already holds {name!r}, with the same values")
            continue
        if there.data_vars and not overwrite:
            raise ExistsError(
                f"{path} already holds {name!r}, with other values; keep it by another name, or replace it with "
                "overwrite=True."
            )
        to_do.append((name, made, [*map(str, there.data_vars)], is_map))
    variables, tables, replaced = xr.Dataset(), {}, list[str]()
    for name, made, gone, is_map in to_do:
        if is_map:
            stamped = _stamped(made, name, block_shape(path))
            variables = variables.merge(stamped, join="exact", compat="equals", combine_attrs="override")
            replaced += removable(path, gone)
        else:
            tables[name] = made
            replaced += [f"{n.RUNS}/{run}/{name}"] if gone else []
    if to_do:
        kept = variables if variables else None
        write_results(path, variables=kept, run=run, tables=tables, replacing=replaced)
    return open_store(path)


def _named(name: str, result: Result) -> xr.Dataset:
    """Variables of a result by the name it is kept by."""
    if isinstance(result, xr.DataArray):
        return result.rename(name).reset_coords(drop=True).to_dataset()
    known = [*map(str, result.data_vars)]
    main = min(known, key=len)
    if not all(one == main or one.startswith(f"{main}_") for one in known):
        raise UsageError(
            f"{name!r} holds {', '.join(map(repr, known))}, whose names have no common beginning; keep one after the "
            f"other, such as {main}=result[{main!r}]."
        )
    return result.rename({v: name + str(v).removeprefix(main) for v in result.variables if str(v).startswith(main)})


def _stamped(made: xr.Dataset, name: str, block: Mapping[str, int]) -> xr.Dataset:
    """Maps that say they were kept, cut like the patterns."""
    stamp = {n.PROVENANCE: {"kept": name, "versions": versions(), "time": now()}}
    maps = {v: one.assign_attrs(stamp) for v, one in made.data_vars.items() if {*block} & {*one.dims}}
    return made.assign(
        {v: one.chunk({d: side for d, side in block.items() if d in one.dims}) for v, one in maps.items()}
    )


def _is_same_axis(one: xr.Dataset, other: xr.Dataset, dim: str) -> bool:
    return one.sizes[dim] == other.sizes[dim] and (dim not in one.coords or one[dim].equals(other[dim]))


def _is_alike(one: xr.Dataset, other: xr.Dataset) -> bool:
    """Whether both hold the same variables with the same values, whatever their attributes and coordinates say."""
    return {*one.data_vars} == {*other.data_vars} and all(
        one[v].dims == other[v].dims and one[v].variable.equals(other[v].variable) for v in one.data_vars
    )
