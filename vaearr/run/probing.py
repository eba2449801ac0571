"""Probes of a run in a store: read, compute, write beside the run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.targets import TARGET, targets_of
from vaearr.analysis.clustering.features import select_features
from vaearr.analysis.probing import FEATURES, PREDICTED, RESIDUAL, probe_settled
from vaearr.config import ClusterConfig, resolved, settings_as_keywords
from vaearr.config.probes import ProbeConfig
from vaearr.recipe import Recipe, is_made, nested
from vaearr.run import StoreOrRun, path_of, with_run
from vaearr.run.associating import PARAMETERS
from vaearr.store import check_inputs, has_table, open_store, open_table, run_folder, write_results
from vaearr.store.remove import removable


@settings_as_keywords(ProbeConfig)
def probe_store(
    store: StoreOrRun, config: ProbeConfig | None = None, *, overwrite: bool = False, **settings: Any
) -> xr.Dataset:
    """How well a run's latents, and other variables, tell maps of a store, over the run's ROI; kept in `/runs/<run>`.

    The table `probe` (`probe_<name>`) as `probe` gives it. With `config.maps` also variables of the store:
    `<target>_predicted_<features>`, and of numbers `<target>_residual_<features>`. A table made the same way is
    returned as it is; `overwrite` replaces any other. Raises ExistsError where the name holds another table,
    NoInputError for a run, feature or target that is not there, and what `probe` raises.
    """
    config = resolved(ProbeConfig, config, with_run(store, settings))
    path = path_of(store)
    run_folder(path, config.run)
    ds = open_store(path)
    names = config.features or (n.LATENTS,)
    of_pca = n.run_name(n.LATENTS, n.PCA)
    if not config.features and config.run != n.PCA and of_pca in ds:
        names = (n.LATENTS, of_pca)
    chosen = ClusterConfig(run=config.run, features=tuple(name for name in names if name != n.PATTERNS))
    features = select_features(ds, chosen) if chosen.features else xr.Dataset()
    if n.PATTERNS in names:
        features = features.assign({n.PATTERNS: ds[n.PATTERNS]}).assign_attrs(ds.attrs)
    targets = xr.Dataset({str(one.name): one for one in targets_as_maps(ds, config.targets)})
    by = ds[config.by] if config.by in ds.variables else config.by
    roi = ds.get(n.run_name(n.ROI, config.run))
    used = [*features.data_vars, *targets.data_vars, config.by, n.run_name(n.ROI, config.run)]
    parents = {str(name): nested(ds[name].attrs, n.PROVENANCE) for name in used if name in ds}
    variables = [str(name).split(": ")[0] for name in used if name is not None]
    if any(name not in ds for name in variables):
        variables.append(n.ELEMENTS)  # whose entries are targets and features by their own names
    recipe = Recipe(config, {"parents": parents}, check_inputs(path, variables))
    name = "_".join(["probe", *filter(None, [config.name])])
    is_there = has_table(path, config.run, name)
    if is_there:
        found = open_table(path, config.run, name)
        there = f"run {config.run!r} of {path} already has the table {name!r}"
        if is_made(there, found.attrs.get(PARAMETERS), recipe, overwrite=overwrite):
            return found
    found = probe_settled(features, targets, by, roi, config)
    found.attrs |= {PARAMETERS: recipe.as_attrs()}
    maps = _as_variables(found, recipe)
    same = [key for key in maps if key in ds and recipe.differences(nested(ds[key].attrs, n.PROVENANCE)) == ""]
    replaced = [str(key) for key in maps if key in ds and (overwrite or key in same)]  # `same`: it was cut short here
    old = removable(path, replaced)
    table = found.drop_dims([dim for dim in found.dims if dim in ds.dims])
    replaced = [*old, f"{n.RUNS}/{config.run}/{name}"] if is_there else old
    write_results(path, variables=maps or None, run=config.run, tables={name: table}, replacing=replaced)
    return found


def targets_as_maps(ds: xr.Dataset, names: Sequence[str]) -> Iterator[xr.DataArray]:
    """Maps of a Dataset by name, with classes as they are; without names the usual ones, see `targets_of`."""
    nav = set(schema.navigation_dims(ds))
    if not names:
        names = [name for name in (n.BC, n.ELEMENTS, n.PHASE) if name in ds]
        if not schema.is_scan(ds) and not names:
            names = [name for name in schema.maps(ds) if n.PROVENANCE not in ds[name].attrs]
    for name in names:
        if name in ds and set(ds[name].dims) == nav and ds[name].dtype.kind in "iufb":
            yield ds[name]
        else:
            found = targets_of(ds, (name,))
            yield from (found.sel({TARGET: label}, drop=True).rename(str(label)) for label in found[TARGET].values)


def _as_variables(found: xr.Dataset, recipe: Recipe) -> xr.Dataset:
    """Predicted maps and residuals, each as a variable of the store."""
    maps = {}
    for what in (PREDICTED, RESIDUAL):
        for target, features in product(found[TARGET].values, found[FEATURES].values) if what in found else ():
            one = found[what].sel({TARGET: target, FEATURES: features}, drop=True)
            if one.notnull().any():
                key = "_".join([*re.findall(r"\w+", str(target)), what, str(features)])
                maps[key] = one.astype("f4").assign_attrs(long_name=f"{target} {what} from {features}")
                maps[key].attrs[n.PROVENANCE] = recipe.stamp("scikit-learn")
    return xr.Dataset(maps).reset_coords(drop=True)
