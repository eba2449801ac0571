"""The rule of all stored steps: return what exists, refuse what differs, or compute and publish.

A step names the parts of its result: variables of the store and tables of the run. Each part keeps
the recipe in its attribute `provenance`, and all parts appear together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import xarray as xr

from vaearr import names as n
from vaearr.config import Config
from vaearr.errors import DamagedError, DataError, UsageError
from vaearr.recipe import FINGERPRINTS, OTHER_NAME, Recipe, can_reuse, changed_inputs, nested
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
    used: list[str] = []
    for name in names:
        variable = name.split(": ")[0]
        if variable not in ds.variables:  # an element, or a sum of elements
            variable = n.ELEMENTS
        if variable in ds.variables and variable not in used:
            used.append(variable)
    return Recipe(config, inputs or {}, check_inputs(run.path, used))


def is_stored(
    run: Run,
    recipe: Recipe,
    *,
    variables: Sequence[str] = (),
    tables: Sequence[str] = (),
    way_out: str = OTHER_NAME,
    overwrite: bool = False,
) -> bool:
    """Whether all these variables and tables exist, created by this recipe.

    Raises ExistsError if one was created differently and is not to be replaced. way_out: what to do
    other than replacing it, for the message.
    """
    keys = [(name, name) for name in variables if name in run.ds.variables]
    keys += [(name, _key(run, name)) for name in tables if has_table(run.path, run.name, name)]
    n_current = 0
    for name, key in keys:
        attrs = attributes_of(run.path / key)
        stored = nested(attrs, n.PROVENANCE) or nested(attrs, OF_TABLES)
        existing = f"{run.path} already holds {name!r}"
        n_current += can_reuse(existing, stored, recipe, way_out=way_out, overwrite=overwrite)
    return n_current == len(variables) + len(tables)


def stored_or_computed(
    run: Run,
    name: str,
    recipe: Recipe,
    compute: Callable[[], xr.Dataset],
    *,
    overwrite: bool,
    packages: Sequence[str] = (),
) -> xr.Dataset:
    """The stored table of this recipe; otherwise compute it and publish it with the recipe.

    packages: those whose versions are recorded in addition to the usual ones.
    """
    if is_stored(run, recipe, tables=[name], overwrite=overwrite):
        return run.table(name)
    table = compute()
    table.attrs[n.PROVENANCE] = recipe.stamp(*packages)
    store_result(run, tables={name: table})
    return table


def store_result(
    run: Run,
    *,
    variables: xr.Dataset | None = None,
    tables: Mapping[str, xr.Dataset] | None = None,
    outdated: Collection[str] = (),
) -> None:
    """Publish the parts of a result together; existing ones of the same names are replaced.

    outdated: tables that are removed even if the result has none of this name.
    """
    write_results(
        run.path,
        variables=variables,
        run=run.name,
        tables=tables,
        replacing=to_replace(run, variables=variables or (), tables={*(tables or ()), *outdated}),
    )


def to_replace(run: Run, *, variables: Iterable[Any] = (), tables: Iterable[str] = ()) -> list[str]:
    """The keys of those variables and tables that exist and can be replaced."""
    return removable(run.path, [*map(str, variables), *(_key(run, name) for name in tables)])


def current_table(run: Run, name: str) -> xr.Dataset | None:
    """A table of the run; None if it does not exist or its inputs have changed since."""
    if not has_table(run.path, run.name, name):
        return None
    table = run.table(name)
    recipe = table.attrs.get(n.PROVENANCE) or table.attrs.get(OF_TABLES) or {}
    fingerprints = recipe.get(FINGERPRINTS) or {}
    try:
        present = check_inputs(run.path, fingerprints)
    except DamagedError:
        raise
    except DataError:  # an input was itself created from values that have changed
        return None
    return None if changed_inputs(fingerprints, present) else table


def check_name(
    name: str, taken: Collection[str] = n.RESERVED, beginnings: tuple[str, ...] = n.PREFIXES_OF_RUNS
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
