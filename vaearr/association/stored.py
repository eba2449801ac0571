"""Associations of a run in a store: read, compute, write beside the run. The edge of this package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.association.metrics import choose
from vaearr.association.table import ASSOCIATION, associate
from vaearr.association.targets import targets_of
from vaearr.config import AssociateConfig
from vaearr.errors import NoInputError, did_you_mean

PARAMETERS = "parameters"


def associate_store(store: str | Path, config: AssociateConfig | None = None) -> xr.DataArray:
    """Associate the latents of a run with side maps, over the run's ROI, and keep the table in `/runs/<run>`.

    A table made before with the same parameters from the same latents and maps is returned as it is; any other is
    replaced, since it can always be made again. Raises NoInputError where the run has no latents.
    """
    from vaearr.store import open_store, write_table

    config = config or AssociateConfig()
    ds = open_store(store)
    latents = run_latents(ds, config.run)
    targets = targets_of(ds, config.targets)
    parameters = _parameters(ds, config, [str(label) for label in targets["target"].values])
    existing = stored_table(store, config.run)
    if existing is not None and existing.attrs.get(PARAMETERS) == parameters:
        return existing
    roi = ds.get(n.run_name(n.ROI, config.run))
    table = associate(latents, targets, config.metrics, roi=roi)
    table.attrs[PARAMETERS] = parameters
    write_table(store, config.run, ASSOCIATION, table.to_dataset(), replace=existing is not None)
    return table


def run_latents(ds: xr.Dataset, run: str) -> xr.DataArray:
    """Latents of a run, lazy. Raises NoInputError, naming the runs there are, if it has none."""
    variable = n.run_name(n.LATENTS, run)
    if variable not in ds:
        known = schema.runs(ds)
        raise NoInputError(
            f"the store holds no latents of a run {run!r}.{did_you_mean(run, known)} Encode the run first."
        )
    return ds[variable]


def stored_table(store: str | Path, run: str) -> xr.DataArray | None:
    """The association table of a run, or None if none was made."""
    from vaearr.store import open_table

    try:
        return open_table(store, run, ASSOCIATION)[ASSOCIATION].load()
    except NoInputError:
        return None


def _parameters(ds: xr.Dataset, config: AssociateConfig, labels: list[str]) -> dict[str, Any]:
    """What decides the table, as JSON: settings, targets and where latents and maps come from."""
    used = [
        n.run_name(n.LATENTS, config.run),
        n.run_name(n.ROI, config.run),
        n.BC,
        n.ELEMENTS,
        n.PHASE,
        *config.targets,
    ]
    parents = {name: ds[name].attrs.get(n.PROVENANCE) for name in dict.fromkeys(used) if name in ds}
    settings = {
        "run": config.run,
        "targets": labels,
        "metrics": [item.name for item in choose(config.metrics)],
        "parents": parents,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain
