"""Variables that a step makes once: taken as they are where they were made the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import xarray as xr

from vaearr import names as n
from vaearr.recipe import Recipe, is_made, nested
from vaearr.store.remove import removable
from vaearr.store.write import add_variables


def made_once(
    path: Path,
    ds: xr.Dataset,
    names: Sequence[str],
    recipe: Recipe,
    make: Callable[[], xr.Dataset],
    *packages: str,
    overwrite: bool,
) -> xr.Dataset:
    """The variables `names` of a store, the first of which is always there, made and added unless they are.

    make: gives some of them. packages: whose versions are recorded. Raises as `recipe.is_made`.
    """
    there = [name for name in names if name in ds]
    if names[0] in ds:
        made = nested(ds[names[0]].attrs, n.PROVENANCE)
        if is_made(f"{path} already holds {names[0]!r}", made, recipe, overwrite=overwrite):
            return ds[there]
    old = removable(path, variables=there) if there else []
    found = make().reset_coords(drop=True)
    for name in found.data_vars:
        found[name].attrs[n.PROVENANCE] = recipe.stamp(*packages)
    add_variables(path, found, replacing=old)
    return found
