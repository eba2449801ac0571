"""Associations of a run in a store: read, compute, write beside the run. The edge of this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.metrics import choose
from vaearr.analysis.association.p_values import significance
from vaearr.analysis.association.partitions import latent_partitions
from vaearr.analysis.association.table import ASSOCIATION, METRIC, associate, latent_dims
from vaearr.analysis.association.targets import TARGET, targets_of
from vaearr.computing.progress import Progress, showing_tasks
from vaearr.config import AssociateConfig, resolved, settings_as_keywords
from vaearr.errors import DataError, NoInputError, UsageError, did_you_mean
from vaearr.recipe import FINGERPRINTS, Recipe, changed_inputs, is_made, nested
from vaearr.run import StoreOrRun, path_of, with_run
from vaearr.store import (
    check_inputs,
    has_table,
    open_store,
    open_table,
    run_folder,
    store_path,
    write_table,
)

PARAMETERS = "parameters"


@settings_as_keywords(AssociateConfig)
def associate_store(
    store: StoreOrRun,
    config: AssociateConfig | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = True,
    **settings: Any,
) -> xr.Dataset:
    """Associate a run's latents with side maps, over the run's ROI, and keep the table in `/runs/<run>`.

    Returns `association (metric, latent, target)`, with `config.significance` also `p_value`, `p_adjusted` and
    `n_effective`. Of another variable (`config.variable`, such as `pca`) the table is kept as `association_pca`, over
    that variable's own dimension (`pca_component`).
    A table that holds what is asked, made from the same latents and maps, is returned as it is; `overwrite` replaces
    any other. Raises ExistsError where the name holds another table, NoInputError for a run that is not there or has no
    latents.
    """
    from dask import compute as dask_compute

    config = resolved(AssociateConfig, config, with_run(store, settings))
    store = path_of(store)
    run_folder(store, config.run)  # a run that is not there is told first, with the names of those that are
    ds = open_store(store)
    latents = latents_of(ds, config.run, config.variable)
    roi = ds.get(n.run_name(n.ROI, config.run))
    targets = targets_of(ds, config.targets, roi=roi, quantiles=config.quantiles)
    metrics = [item.name for item in choose(config.metrics)]
    recipe, name = _recipe(store, ds, config, targets, metrics), table_name(config.variable, config.name)
    if has_table(store, config.run, name):
        found = _opened(store, config.run, name)
        part = _part_of(found, recipe, config)
        there = f"run {config.run!r} of {store} already has the table {name!r}"
        made = found.attrs.get(PARAMETERS) if part is None else part.attrs[PARAMETERS]
        if is_made(there, made, recipe, overwrite=overwrite):
            return found if part is None else part
    latents, targets, roi = dask_compute(latents, targets, roi)  # read once, together
    if config.significance is None:
        with showing_tasks(progress, "comparing"):
            table = associate(latents, targets, config.metrics, roi=roi).to_dataset()
    else:
        table = significance(latents, targets, config.metrics, roi, config.significance, progress=progress)
    table.attrs[PARAMETERS] = recipe.as_attrs()
    write_table(store, config.run, name, _named(table, latents))
    return table


def _named(table: xr.Dataset, latents: xr.DataArray) -> xr.Dataset:
    """As it is kept: of another variable than latents, `latent` goes by the name of that variable's own dimension."""
    dim = latent_dims(latents)[0]
    if dim.startswith(n.LATENT) or n.LATENT not in table.dims:
        return table
    named = table.rename({n.LATENT: dim})
    if dim in latents.coords:
        named[dim].attrs = latents[dim].attrs
    return named


def _opened(store: Path, run: str, name: str) -> xr.Dataset:
    """A kept table, with the name `latent` again."""
    table = open_table(store, run, name)
    found = next(iter(table.data_vars.values())).dims
    return table.rename({str(dim): n.LATENT for dim in found if dim not in (METRIC, TARGET, n.LATENT)})


def partitions_store(
    store: StoreOrRun,
    config: AssociateConfig,
    reference: str,
    *,
    k_max: int = 12,
    overwrite: bool = False,
) -> xr.Dataset:
    """Clusters of each latent against those of a reference, see `latent_partitions`; kept in `/runs/<run>`.

    reference: scores (`pca`, `nmf`), `elements`, a plain map or a map of classes in the store. k_max: most clusters of
    a latent (and of a reference that is no map of classes). A table made before from the same data is returned as it
    is; `overwrite` replaces any other. Raises ExistsError for another table of this reference, NoInputError for a run,
    latents or reference that are not there, UsageError for a k_max below 2.
    """
    store = path_of(store)
    run_folder(store, config.run)
    ds = open_store(store)
    latents = latents_of(ds, config.run, config.variable)
    check_reference(ds, reference)
    used = [str(latents.name), n.run_name(n.ROI, config.run), reference]
    parents = {name: nested(ds[name].attrs, n.PROVENANCE) for name in used if name in ds}
    inputs = {"reference": reference, "k_max": k_max, "parents": parents}
    recipe = Recipe(None, inputs, check_inputs(store_path(store), parents))
    name = "_".join(["partitions", reference, *filter(None, (config.variable, config.name))])
    if has_table(store, config.run, name):
        found = _opened(store, config.run, name)
        there = f"run {config.run!r} of {store} already has the table {name!r}"
        made = {"k_max": found.attrs["k_range"][1], **found.attrs[PARAMETERS]}  # earlier tables have it there alone
        if is_made(there, made, recipe, overwrite=overwrite):
            return found
    roi = ds.get(n.run_name(n.ROI, config.run))
    found = latent_partitions(latents, ds[reference], roi, k_max=k_max)
    found = found.assign_attrs({"reference_name": reference, PARAMETERS: recipe.as_attrs()})
    write_table(store, config.run, name, _named(found, latents))
    return found


def check_reference(ds: xr.Dataset, reference: str) -> None:
    """Raise NoInputError unless the Dataset holds such scores, elements or map."""
    nav = set(schema.navigation_dims(ds))
    known = [str(k) for k, v in ds.data_vars.items() if nav <= set(v.dims) and k != n.PATTERNS]
    if reference not in known:
        raise NoInputError(f"there is no reference {reference!r}.{did_you_mean(reference, known)}")


def current_table(store: Path, ds: xr.Dataset, run: str, *, variable: str | None = None) -> xr.Dataset | None:
    """The run's stored table, if there is one and it was made from the latents and maps of `ds`; else None."""
    name = table_name(variable)
    if not has_table(store, run, name):
        return None
    table = _opened(store, run, name)
    try:
        config = AssociateConfig.from_attrs(table.attrs[PARAMETERS]["config"])
        roi = ds.get(n.run_name(n.ROI, config.run))
        targets = targets_of(ds, config.targets, roi=roi, quantiles=config.quantiles)
        # the metrics are those that the table names: what a store names is never looked up as code
        recipe = _recipe(store, ds, config, targets, table.attrs[PARAMETERS]["metrics"])
        differences = recipe.differences(table.attrs[PARAMETERS])
    except (KeyError, TypeError, NoInputError, UsageError, DataError):
        return None
    return None if differences else table


def table_name(variable: str | None, name: str | None = None) -> str:
    """Name of the table in `/runs/<run>`."""
    return "_".join([ASSOCIATION, *filter(None, (variable, name))])


def latents_of(ds: xr.Dataset, run: str, variable: str | None = None) -> xr.DataArray:
    """A run's latents, or another variable with one dim beside the navigation dims, such as PCA scores; lazy."""
    if variable is None:
        return schema.run_latents(ds, run)
    dims = schema.navigation_dims(ds)
    known = [str(k) for k, v in ds.data_vars.items() if set(dims) < set(v.dims) and len(v.dims) == len(dims) + 1]
    if variable not in known:
        raise NoInputError(
            f"the store has no variable {variable!r} with one value per component at each scan point; 'vaearr embed "
            f"STORE' writes pca and nmf.{did_you_mean(variable, known)}"
        )
    return ds[variable]


def _part_of(table: xr.Dataset, recipe: Recipe, config: AssociateConfig) -> xr.Dataset | None:
    """What is asked, out of a table of the same latents and maps that holds more; None where it does not."""
    made, asked = table.attrs.get(PARAMETERS), recipe.as_attrs()
    if not isinstance(made, dict) or asked["config"]["significance"] is not None:
        return None
    if AssociateConfig.from_attrs(made["config"]).quantiles != config.quantiles:
        return None
    metrics, targets, parents = asked["metrics"], asked["targets"], made.get("parents", {})
    if changed_inputs(made.get(FINGERPRINTS), asked.get(FINGERPRINTS)):
        return None
    is_whole = set(metrics) <= set(table[METRIC].values) and set(targets) <= set(table[TARGET].values)
    if not is_whole or any(name not in parents or parents[name] != of for name, of in asked["parents"].items()):
        return None
    return table[[ASSOCIATION]].sel({METRIC: metrics, TARGET: targets}).assign_attrs(table.attrs | {PARAMETERS: asked})


def _recipe(
    store: str | Path, ds: xr.Dataset, config: AssociateConfig, targets: xr.DataArray, metrics: Sequence[str]
) -> Recipe:
    """What decides the table: the settings, their targets and metrics, where latents and maps come from."""
    variable = config.variable or n.run_name(n.LATENTS, config.run)
    used: Sequence[str] = [variable, n.run_name(n.ROI, config.run), n.BC, n.ELEMENTS, n.PHASE, *config.targets]
    inputs = {
        "targets": [str(label) for label in targets[TARGET].values],
        "metrics": list(metrics),
        "parents": {name: nested(ds[name].attrs, n.PROVENANCE) for name in dict.fromkeys(used) if name in ds},
    }
    return Recipe(config, inputs, check_inputs(store_path(store), inputs["parents"]))
