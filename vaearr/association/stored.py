"""Associations of a run in a store: read, compute, write beside the run. The edge of this package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.association.metrics import choose
from vaearr.association.table import ASSOCIATION, associate
from vaearr.association.targets import targets_of
from vaearr.config import AssociateConfig
from vaearr.errors import NoInputError, UsageError, did_you_mean

PARAMETERS = "parameters"


def associate_store(store: str | Path, config: AssociateConfig | None = None) -> xr.DataArray:
    """Associate the latents of a run with side maps, over the run's ROI, and keep the table in `/runs/<run>`.

    A table made before with the same parameters from the same latents and maps is returned as it is; any other is
    replaced, since it can always be made again. Raises NoInputError for a run that is not there or has no latents.
    """
    from vaearr.store import open_store, run_folder, write_table

    config = config or AssociateConfig()
    run_folder(store, config.run)  # a run that is not there is told first, with the names of those that are
    ds = open_store(store)
    latents, targets = run_latents(ds, config.run), targets_of(ds, config.targets)
    parameters = _parameters(ds, config.run, config.targets, config.metrics, targets)
    existing = _stored(store, config.run)
    if existing is not None and existing.attrs.get(PARAMETERS) == parameters:
        return existing
    table = associate(latents, targets, config.metrics, roi=ds.get(n.run_name(n.ROI, config.run)))
    table.attrs[PARAMETERS] = parameters
    write_table(store, config.run, ASSOCIATION, table.to_dataset(), replace=existing is not None)
    return table


def current_table(store: str | Path, ds: xr.Dataset, run: str) -> xr.DataArray | None:
    """The run's stored table, if there is one and it was made from the latents and maps of `ds`; else None."""
    table = _stored(store, run)
    if table is None:
        return None
    parameters = table.attrs.get(PARAMETERS, {})
    try:
        asked, metrics = parameters["asked"], parameters["metrics"]
        now = _parameters(ds, run, asked, metrics, targets_of(ds, asked))
    except (KeyError, NoInputError, UsageError):
        return None
    return table if now == parameters else None


def run_latents(ds: xr.Dataset, run: str) -> xr.DataArray:
    """Latents of a run, lazy. Raises NoInputError, naming the runs that have some, if it has none."""
    variable = n.run_name(n.LATENTS, run)
    if variable not in ds:
        hint = did_you_mean(run, schema.runs(ds))
        raise NoInputError(f"run {run!r} has no latents: 'vaearr encode STORE --run {run}' writes them.{hint}")
    return ds[variable]


def _stored(store: str | Path, run: str) -> xr.DataArray | None:
    from vaearr.store import has_table, open_table

    return open_table(store, run, ASSOCIATION)[ASSOCIATION] if has_table(store, run, ASSOCIATION) else None


def _parameters(
    ds: xr.Dataset, run: str, asked: Sequence[str], metrics: Sequence[str], targets: xr.DataArray
) -> dict[str, Any]:
    """What decides the table, as JSON: run, targets, metrics, and where latents and maps come from."""
    used = [n.run_name(n.LATENTS, run), n.run_name(n.ROI, run), n.BC, n.ELEMENTS, n.PHASE, *asked]
    settings = {
        "run": run,
        "asked": list(asked),
        "targets": [str(label) for label in targets["target"].values],
        "metrics": [item.name for item in choose(metrics)],
        "parents": {name: ds[name].attrs.get(n.PROVENANCE) for name in dict.fromkeys(used) if name in ds},
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain
