"""Associations of a run's latents with the maps of its store."""

from __future__ import annotations

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.metrics import ASSOCIATION, choose
from vaearr.analysis.association.partitions import latent_partitions
from vaearr.analysis.association.table import associate
from vaearr.analysis.association.targets import TARGET, targets_of
from vaearr.computing.progress import Progress
from vaearr.config import AssociateConfig
from vaearr.errors import NoInputError, did_you_mean
from vaearr.run import Run
from vaearr.run.step import is_stored, publish, step_recipe
from vaearr.store import open_store


def associate_run(
    run: Run, config: AssociateConfig, *, overwrite: bool, progress: Progress
) -> xr.Dataset:
    """Associate latents with maps over the run's region, see `Run.associate`."""
    ds = open_store(run.path)
    latents = schema.run_latents(ds, run.name)
    roi = ds.get(n.run_name(n.ROI, run.name))
    targets = targets_of(ds, config.targets, roi=roi, quantiles=config.quantiles)
    used = [
        str(latents.name),
        n.run_name(n.ROI, run.name),
        n.BC,
        n.ELEMENTS,
        n.PHASE,
        *config.targets,
    ]
    labels = [str(label) for label in targets[TARGET].values]
    metrics = [metric.name for metric in choose(config.metrics)]
    recipe = step_recipe(run, config, used, {"targets": labels, "metrics": metrics})
    name = "_".join(filter(None, [ASSOCIATION, config.name]))
    if is_stored(run, recipe, tables=[name], overwrite=overwrite):
        return run.table(name)
    table = associate(
        latents,
        targets,
        config.metrics,
        roi,
        significance=config.significance,
        progress=progress,
    )
    if isinstance(table, xr.DataArray):
        table = table.to_dataset()
    table = table.assign_attrs({n.PROVENANCE: recipe.stamp()})
    publish(run, tables={name: table})
    return table


def partition_run(
    run: Run, reference: str, name: str | None, *, k_max: int, overwrite: bool
) -> xr.Dataset:
    """Compare clusters of each latent with those of a reference, see `Run.partitions`."""
    ds = open_store(run.path)
    latents = schema.run_latents(ds, run.name)
    _check_reference(ds, reference)
    used = [str(latents.name), n.run_name(n.ROI, run.name), reference]
    recipe = step_recipe(run, None, used, {"reference": reference, "k_max": k_max})
    name = "_".join(filter(None, ["partitions", reference, name]))
    if is_stored(run, recipe, tables=[name], overwrite=overwrite):
        return run.table(name)
    roi = ds.get(n.run_name(n.ROI, run.name))
    table = latent_partitions(latents, ds[reference], roi, k_max=k_max)
    table = table.assign_attrs({"reference_name": reference, n.PROVENANCE: recipe.stamp()})
    publish(run, tables={name: table})
    return table


def _check_reference(ds: xr.Dataset, reference: str) -> None:
    """Raise NoInputError unless the Dataset holds such scores, elements or map."""
    nav = set(schema.navigation_dims(ds))
    known = [
        str(name)
        for name, values in ds.data_vars.items()
        if nav <= set(values.dims) and name != n.PATTERNS
    ]
    if reference not in known:
        raise NoInputError(f"there is no reference {reference!r}.{did_you_mean(reference, known)}")
