"""A layer-wise comparison kept as a table of its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import UsageError
from vaearr.recipe import Recipe, is_made, nested
from vaearr.store import check_store, has_table, open_table, recover, run_manifest, write_table

NAME = "layers"
TAKEN = n.RESERVED | {n.SHEETS, n.LATENT_STATISTICS}
BEGINNINGS = (*n.OF_LATER_RUNS, "association", "partitions", f"{n.CLUSTERS}_")  # of tables of other analyses


def check_table_name(name: str) -> None:
    """Raise UsageError for a name that a comparison cannot be kept under."""
    if name in TAKEN or name.startswith(BEGINNINGS):
        raise UsageError(f"{name!r} has a meaning of its own; choose another name with name='…' (--name).")
    if not n.is_valid_name(name):
        raise UsageError(f"{name!r} cannot be a name; use letters, digits and _, a letter first.")


def _is_alike(one: xr.Dataset, two: xr.Dataset) -> bool:
    """Whether two comparisons came out the same, as files of the same name may have changed."""
    names = ("l2", "rms_a", "rms_b")
    return all(
        one[name].shape == two[name].shape and np.allclose(one[name], two[name], rtol=1e-3, atol=1e-6) for name in names
    )


def keep_layers(
    store: str | Path,
    run: str,
    found: xr.Dataset,
    *,
    name: str = NAME,
    about: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """Keep a comparison as table `name` of `/runs/<run>`; returns it with its provenance.

    about: which samples were compared. The same comparison again is left as it is; `overwrite` replaces another. Raises
    ExistsError where the name holds another table, NoInputError for a run that is not there, UsageError for a name that
    has another meaning.
    """
    check_table_name(name)
    path = check_store(store)
    recover(path)
    weights = run_manifest(path, run).get("weights_sha256")
    settings = {key: found.attrs[key] for key in ("part", "level", "top", "n")}
    inputs = {"run": run, "weights_sha256": weights, "config": settings, "samples": about or {}}
    recipe, is_there = Recipe(None, inputs), has_table(path, run, name)
    if is_there:
        known = open_table(path, run, name)
        made = nested(known.attrs, n.PROVENANCE)
        if isinstance(made, dict) and not _is_alike(known, found):
            made = {**made, "samples": "as they were"}
        there = f"run {run!r} of {path} already holds {name!r}"
        if is_made(there, made, recipe, overwrite=overwrite):
            return known
    stamped = found.assign_attrs({n.PROVENANCE: recipe.stamp("scipy")})
    write_table(path, run, name, stamped, replace=is_there)
    return stamped
