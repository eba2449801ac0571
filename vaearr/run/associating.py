"""Associations of a run's latents with the maps of its store."""

from __future__ import annotations

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.metrics import choose
from vaearr.analysis.association.p_values import significance
from vaearr.analysis.association.partitions import latent_partitions
from vaearr.analysis.association.table import ASSOCIATION, METRIC, associate, latent_dims
from vaearr.analysis.association.targets import TARGET, targets_of
from vaearr.computing.progress import Progress, showing_tasks
from vaearr.config import AssociateConfig
from vaearr.errors import NoInputError, did_you_mean
from vaearr.recipe import Recipe
from vaearr.run import Run
from vaearr.run.step import is_stored, publish, step_recipe
from vaearr.store import open_store


def associate_run(run: Run, config: AssociateConfig, *, overwrite: bool, progress: Progress) -> xr.Dataset:
    """Associate latents with maps over the run's region, see `Run.associate`."""
    from dask import compute

    ds = open_store(run.path)
    latents = latents_of(ds, run.name, config.variable)
    roi = ds.get(n.run_name(n.ROI, run.name))
    targets = targets_of(ds, config.targets, roi=roi, quantiles=config.quantiles)
    used = [str(latents.name), n.run_name(n.ROI, run.name), n.BC, n.ELEMENTS, n.PHASE, *config.targets]
    labels = [str(label) for label in targets[TARGET].values]
    metrics = [metric.name for metric in choose(config.metrics)]
    recipe = step_recipe(run, config, used, {"targets": labels, "metrics": metrics})
    name = table_name(config.variable, config.name)
    if is_stored(run, recipe, tables=[name], overwrite=overwrite):
        return _opened(run, name)
    latents, targets, roi = compute(latents, targets, roi)  # read once, together
    if config.significance is None:
        with showing_tasks(progress, "comparing"):
            table = associate(latents, targets, config.metrics, roi=roi).to_dataset()
    else:
        table = significance(latents, targets, config.metrics, roi, config.significance, progress=progress)
    return _published(run, name, table, latents, recipe)


def partition_run(run: Run, reference: str, config: AssociateConfig, *, k_max: int, overwrite: bool) -> xr.Dataset:
    """Compare clusters of each latent with those of a reference, see `Run.partitions`."""
    ds = open_store(run.path)
    latents = latents_of(ds, run.name, config.variable)
    _check_reference(ds, reference)
    used = [str(latents.name), n.run_name(n.ROI, run.name), reference]
    recipe = step_recipe(run, None, used, {"reference": reference, "k_max": k_max})
    name = "_".join(["partitions", reference, *filter(None, (config.variable, config.name))])
    if is_stored(run, recipe, tables=[name], overwrite=overwrite):
        return _opened(run, name)
    roi = ds.get(n.run_name(n.ROI, run.name))
    table = latent_partitions(latents, ds[reference], roi, k_max=k_max)
    return _published(run, name, table.assign_attrs(reference_name=reference), latents, recipe)


def _published(run: Run, name: str, table: xr.Dataset, latents: xr.DataArray, recipe: Recipe) -> xr.Dataset:
    table = table.assign_attrs({n.PROVENANCE: recipe.stamp()})
    dim = latent_dims(latents)[0]
    stored = table
    if not dim.startswith(n.LATENT) and n.LATENT in table.dims:  # of another variable: over its own dimension
        stored = table.rename({n.LATENT: dim})
        if dim in latents.coords:
            stored[dim].attrs = latents[dim].attrs
    publish(run, tables={name: stored})
    return table


def _opened(run: Run, name: str) -> xr.Dataset:
    """A stored table, with the name `latent` again."""
    table = run.table(name)
    dims = next(iter(table.data_vars.values())).dims
    return table.rename({str(dim): n.LATENT for dim in dims if dim not in (METRIC, TARGET, n.LATENT)})


def _check_reference(ds: xr.Dataset, reference: str) -> None:
    """Raise NoInputError unless the Dataset holds such scores, elements or map."""
    nav = set(schema.navigation_dims(ds))
    known = [str(name) for name, values in ds.data_vars.items() if nav <= set(values.dims) and name != n.PATTERNS]
    if reference not in known:
        raise NoInputError(f"there is no reference {reference!r}.{did_you_mean(reference, known)}")


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
