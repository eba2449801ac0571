"""Probes of what a run's latents, and other variables, hold of the maps of its store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.targets import TARGET, targets_of
from vaearr.analysis.clustering.features import select_features
from vaearr.analysis.probing import probe_settled
from vaearr.config import ClusterConfig
from vaearr.config.probes import ProbeConfig
from vaearr.run import Run
from vaearr.run.step import is_stored, publish, step_recipe
from vaearr.store import open_store


def probe_run(run: Run, config: ProbeConfig, *, overwrite: bool) -> xr.Dataset:
    """Probe maps over the run's region, see `Run.probe`."""
    ds = open_store(run.path)
    of_pca = n.run_name(n.LATENTS, n.PCA)
    names = config.features or (n.LATENTS,)
    if not config.features and run.name != n.PCA and of_pca in ds:
        names = (n.LATENTS, of_pca)
    chosen = ClusterConfig(
        run=run.name, features=tuple(name for name in names if name != n.PATTERNS)
    )
    features = select_features(ds, chosen) if chosen.features else xr.Dataset()
    if n.PATTERNS in names:
        features = features.assign({n.PATTERNS: ds[n.PATTERNS]}).assign_attrs(ds.attrs)
    targets = xr.Dataset({str(target.name): target for target in _targets(ds, config.targets)})
    by = ds[config.by] if config.by in ds.variables else config.by
    roi_name = n.run_name(n.ROI, run.name)
    used = [*map(str, features.data_vars), *map(str, targets.data_vars), roi_name]
    if isinstance(by, xr.DataArray):
        used.append(str(by.name))
    recipe = step_recipe(run, config, used)
    name = f"probe_{config.name}" if config.name else "probe"
    if is_stored(run, recipe, tables=[name], overwrite=overwrite):
        return run.table(name)
    table = probe_settled(features, targets, by, ds.get(roi_name), config)
    table.attrs[n.PROVENANCE] = recipe.stamp("scikit-learn")
    publish(run, tables={name: table})
    return table


def _targets(ds: xr.Dataset, names: Sequence[str]) -> Iterator[xr.DataArray]:
    """Maps of a Dataset by name, with classes as they are; without names the usual ones, see
    `targets_of`.
    """
    nav = set(schema.navigation_dims(ds))
    if not names:
        names = [name for name in (n.BC, n.ELEMENTS, n.PHASE) if name in ds]
        if not schema.is_scan(ds) and not names:
            names = [name for name in schema.maps(ds) if n.PROVENANCE not in ds[name].attrs]
    for name in names:
        if name in ds and set(ds[name].dims) == nav and ds[name].dtype.kind in "iufb":
            yield ds[name]
            continue
        columns = targets_of(ds, (name,))
        for label in columns[TARGET].values:
            yield columns.sel({TARGET: label}, drop=True).rename(str(label))
