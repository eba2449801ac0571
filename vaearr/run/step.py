"""The one rule of all stored steps: created already, created differently, or to be computed and
published.

A step names the parts of its result, variables of the store and tables of the run. Each part keeps
the same recipe in its attribute `provenance`, and all parts appear together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import xarray as xr

from vaearr import names as n
from vaearr.config import Config
from vaearr.errors import UsageError
from vaearr.recipe import BY_NAME, FINGERPRINTS, PARENTS, Recipe, changed_inputs, is_made, nested
from vaearr.run import Run
from vaearr.store import check_inputs, has_table, write_results
from vaearr.store.listing import attributes_of
from vaearr.store.remove import removable

OF_TABLES = "parameters"  # attribute with the recipe in tables of earlier versions


def step_recipe(
    run: Run, config: Config | None, names: Iterable[str], inputs: Mapping[str, Any] | None = None
) -> Recipe:
    """The recipe of a step: its settings, further inputs, and the variables that it reads.

    names: of variables, or of entries such as "latents: 3" of latents, or "Fe" of elements.
    """
    ds = run.ds
    used = []
    for name in names:
        variable = name.split(": ")[0]
        used.append(variable if variable in ds.variables else n.ELEMENTS)
    used = [name for name in dict.fromkeys(used) if name in ds.variables]
    parents = {name: nested(ds[name].attrs, n.PROVENANCE) for name in used}
    return Recipe(config, {**(inputs or {}), PARENTS: parents}, check_inputs(run.path, used))


def is_stored(
    run: Run,
    recipe: Recipe,
    *,
    variables: Sequence[str] = (),
    tables: Sequence[str] = (),
    instead: str = BY_NAME,
    overwrite: bool = False,
) -> bool:
    """Whether all these variables and tables exist, created by this recipe.

    Raises ExistsError if one was created differently and is not to be replaced.
    """
    exist = [(name, name) for name in variables if name in run.ds.variables]
    exist += [(name, _key(run, name)) for name in tables if has_table(run.path, run.name, name)]
    n_made = 0
    for name, key in exist:
        attributes = attributes_of(run.path / key)
        stored = nested(attributes, n.PROVENANCE) or nested(attributes, OF_TABLES)
        n_made += is_made(
            f"{run.path} already holds {name!r}",
            stored,
            recipe,
            instead=instead,
            overwrite=overwrite,
        )
    return n_made == len([*variables, *tables])


def publish(
    run: Run, *, variables: xr.Dataset | None = None, tables: Mapping[str, xr.Dataset] | None = None
) -> None:
    """Publish the parts of a result together, instead of those of the same names."""
    write_results(
        run.path,
        variables=variables,
        run=run.name,
        tables=tables,
        replacing=replaced(run, variables=variables or (), tables=tables or ()),
    )


def replaced(run: Run, *, variables: Iterable[Any] = (), tables: Iterable[str] = ()) -> list[str]:
    """The keys of those variables and tables that exist, for a publication in their place."""
    keys = [_key(run, name) for name in tables]
    return removable(run.path, [*map(str, variables), *keys])


def current_table(run: Run, name: str) -> xr.Dataset | None:
    """A table of the run; None if there is none, or what it was created from has changed since."""
    if not has_table(run.path, run.name, name):
        return None
    table = run.table(name)
    recipe = table.attrs.get(n.PROVENANCE) or table.attrs.get(OF_TABLES) or {}
    fingerprints = recipe.get(FINGERPRINTS) or {}
    changed = changed_inputs(fingerprints, check_inputs(run.path, fingerprints))
    return None if changed else table


def check_name(
    name: str, taken: Collection[str] = n.RESERVED, beginnings: tuple[str, ...] = n.OF_LATER_RUNS
) -> None:
    """Raise UsageError for a name that a result cannot have."""
    if not n.is_valid_name(name):
        raise UsageError(f"{name!r} cannot be a name; use letters, digits and _, a letter first.")
    if name in taken or name.startswith(beginnings):
        raise UsageError(
            f"{name!r} has a meaning of its own; choose another name with name='…' (--name)."
        )


def _key(run: Run, table: str) -> str:
    return f"{n.RUNS}/{run.name}/{table}"
