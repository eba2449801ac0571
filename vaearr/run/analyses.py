"""Analyses of the latents of a run, each stored with its recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.analysis.association.metrics import ASSOCIATION
from vaearr.analysis.association.metrics import choose as choose_metrics
from vaearr.analysis.association.partitions import latent_partitions
from vaearr.analysis.association.points import navigation_of
from vaearr.analysis.association.table import associate
from vaearr.analysis.association.targets import TARGET, columns, targets_of
from vaearr.analysis.clustering.features import select_features
from vaearr.analysis.clustering.labels import clustered
from vaearr.analysis.clustering.methods import choose as choose_method
from vaearr.analysis.clustering.tables import CLUSTER, SCORES, cluster_scores, cluster_summary
from vaearr.analysis.probing import probe
from vaearr.computing.progress import Progress, working
from vaearr.config import AssociateConfig, ClusterConfig, ProbeConfig
from vaearr.errors import NoInputError, RoiError, did_you_mean
from vaearr.run import Run
from vaearr.run.step import check_name, is_stored, step_recipe, store_result, stored_or_computed
from vaearr.store import has_table, open_store

PARTITIONS, PROBE = "partitions", "probe"
IN_A_SUMMARY = {
    CLUSTER,
    "cluster_name",
    "feature",
    "units",
    "count",
    "share",
    "mean",
    "std",
    "n",
    *SCORES,
}


def associate_run(
    run: Run, config: AssociateConfig, *, overwrite: bool, progress: Progress
) -> xr.Dataset:
    """Associate latents with maps, see `Run.associate`."""
    ds = open_store(run.path)
    roi_name = n.run_name(n.ROI, run.name)
    latents = schema.run_latents(ds, run.name)
    roi = ds.get(roi_name)
    targets = targets_of(ds, config.targets, roi=roi, quantiles=config.quantiles)
    inputs = {
        "targets": [str(label) for label in targets[TARGET].values],
        "metrics": [metric.name for metric in choose_metrics(config.metrics)],
    }
    # of the default targets changes are detected even if others were chosen
    used = [str(latents.name), roi_name, n.BC, n.ELEMENTS, n.PHASE, *config.targets]
    recipe = step_recipe(run, config, used, inputs)

    def association() -> xr.Dataset:
        table = associate(
            latents,
            targets,
            config.metrics,
            roi,
            significance=config.significance,
            progress=progress,
        )
        return table.to_dataset() if isinstance(table, xr.DataArray) else table

    name = _table_name(ASSOCIATION, config.name)
    return stored_or_computed(run, name, recipe, association, overwrite=overwrite)


def partition_run(
    run: Run, reference: str, name: str | None, *, k_max: int, overwrite: bool
) -> xr.Dataset:
    """Compare clusters of each latent with those of a reference, see `Run.partitions`."""
    ds = open_store(run.path)
    roi_name = n.run_name(n.ROI, run.name)
    latents = schema.run_latents(ds, run.name)
    navigation = set(schema.navigation_dims(ds))
    references = [
        str(variable)
        for variable in ds.data_vars
        if navigation <= set(ds[variable].dims) and variable != n.PATTERNS
    ]
    if reference not in references:
        hint = did_you_mean(reference, references)
        raise NoInputError(f"there is no reference {reference!r}.{hint}")
    used = [str(latents.name), roi_name, reference]
    recipe = step_recipe(run, None, used, {"reference": reference, "k_max": k_max})

    def partitions() -> xr.Dataset:
        with working(f"comparing clusters of each latent dimension with {reference}"):
            table = latent_partitions(latents, ds[reference], ds.get(roi_name), k_max=k_max)
        return table.assign_attrs(reference_name=reference)

    table_name = _table_name(PARTITIONS, reference, name)
    return stored_or_computed(run, table_name, recipe, partitions, overwrite=overwrite)


def probe_run(run: Run, config: ProbeConfig, *, overwrite: bool, progress: Progress) -> xr.Dataset:
    """Probe maps by the latents and other features, see `Run.probe`."""
    ds = open_store(run.path)
    roi_name = n.run_name(n.ROI, run.name)
    features = _probe_features(ds, run.name, config.features)
    targets = xr.Dataset({str(target.name): target for target in _targets(ds, config.targets)})
    by = ds[config.by] if config.by in ds.variables else config.by
    used = [*map(str, features.data_vars), *map(str, targets.data_vars), roi_name]
    if isinstance(by, xr.DataArray):
        used.append(str(by.name))
    recipe = step_recipe(run, config, used)
    roi = ds.get(roi_name)
    probe_targets = partial(
        probe, features, targets, by=by, roi=roi, config=config, progress=progress
    )
    name = _table_name(PROBE, config.name)
    return stored_or_computed(
        run, name, recipe, probe_targets, overwrite=overwrite, packages=["scikit-learn"]
    )


def _probe_features(ds: xr.Dataset, run: str, names: Sequence[str]) -> xr.Dataset:
    """Features of a probe; by default the latents of the run and of the run `pca`, if it exists."""
    pca_latents = n.run_name(n.LATENTS, n.PCA)
    if not names:
        names = [n.LATENTS]
        if run != n.PCA and pca_latents in ds:
            names = [n.LATENTS, pca_latents]
    stored_names = tuple(name for name in names if name != n.PATTERNS)
    features = select_features(ds, stored_names, run) if stored_names else xr.Dataset()
    if n.PATTERNS in names:
        features = features.assign({n.PATTERNS: ds[n.PATTERNS]}).assign_attrs(ds.attrs)
    return features


def _targets(ds: xr.Dataset, names: Sequence[str]) -> Iterator[xr.DataArray]:
    """Targets of a probe, with maps of classes unchanged; for the defaults see `targets_of`."""
    navigation = set(schema.navigation_dims(ds))
    if not names:
        names = [name for name in (n.BC, n.ELEMENTS, n.PHASE) if name in ds]
        if not schema.is_scan(ds) and not names:
            names = [name for name in schema.maps(ds) if n.PROVENANCE not in ds[name].attrs]
    for name in names:
        if name in ds and set(ds[name].dims) == navigation and ds[name].dtype.kind in "iufb":
            yield ds[name]
            continue
        entries = targets_of(ds, (name,))
        for label in entries[TARGET].values:
            yield entries.sel({TARGET: label}, drop=True).rename(str(label))


def cluster_run(run: Run, config: ClusterConfig, *, overwrite: bool) -> xr.Dataset:
    """Cluster points, see `Run.cluster`."""
    check_name(config.name, n.RESERVED | IN_A_SUMMARY)
    defaults = ClusterConfig().to_attrs()
    changed = {key: value for key, value in config.to_attrs().items() if value != defaults[key]}
    method = choose_method(config.method, changed)
    ds = open_store(run.path)
    roi_name = n.run_name(n.ROI, run.name)
    features = select_features(ds, config.features, run.name)
    recipe = step_recipe(run, config, [*map(str, features), roi_name], {"run": run.name})
    table_name = _table_name(n.CLUSTERS, config.name)
    no_clusters = xr.Dataset({"count": (CLUSTER, [])}, {CLUSTER: (CLUSTER, [])}).astype(int)
    if is_stored(run, recipe, variables=[config.name], overwrite=overwrite):
        summary = no_clusters
        if has_table(run.path, run.name, table_name):
            summary = run.table(table_name)
        return summary.assign({config.name: run.ds[config.name].load()})
    with working(f"clustering by {config.method}"):
        labels = clustered(features, config, method, ds.get(roi_name))
    labels = labels.rename(config.name).reset_coords(drop=True)
    tables = {}
    outdated = {f"{table_name}_scores", table_name}  # of the clusters that are replaced
    if (labels >= 0).any():
        summary = _cluster_summary(ds, features, labels)
        scores = _scores(ds, labels)
        if scores is not None:
            tables[f"{table_name}_scores"] = scores
            summary = summary.assign(scores[list(SCORES)]).assign_attrs(n_scored=scores.attrs["n"])
        tables[table_name] = summary
    provenance = recipe.stamp("scikit-learn", "hdbscan")
    for result in (labels, *tables.values()):
        result.attrs[n.PROVENANCE] = provenance
    store_result(run, variables=labels.to_dataset(), tables=tables, outdated=outdated)
    return tables.get(table_name, no_clusters).assign({config.name: labels})


def _cluster_summary(ds: xr.Dataset, features: xr.Dataset, labels: xr.DataArray) -> xr.Dataset:
    """Summary of the features, band contrast, elements and phases over each cluster."""
    maps = features.assign({name: ds[name] for name in (n.BC, n.ELEMENTS, n.PHASE) if name in ds})
    navigation = navigation_of(labels)
    entries = set()  # of stacks; a feature that is one of them would be listed twice
    for name in maps.data_vars:
        entries |= {label for label, _ in columns(maps[name], navigation) if label != name}
    return cluster_summary(labels, maps.drop_vars(entries & set(maps.data_vars)))


def _scores(ds: xr.Dataset, labels: xr.DataArray) -> xr.Dataset | None:
    """Agreement of clusters with the phases; None if no phase is known in the clusters."""
    if n.PHASE not in ds:
        return None
    with suppress(RoiError):
        return cluster_scores(labels, ds[n.PHASE].load())
    return None


def _table_name(*parts: str | None) -> str:
    return "_".join(part for part in parts if part)
