"""Parts of a user's own packages, by name: networks, metrics, methods, views, readers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vaearr.errors import UsageError, did_you_mean


def part(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    """A part by its name: one that is known, one of an installed package, or what `package.module:Name` names.

    kind: such as "metric"; packages name theirs as entry points of the group `vaearr.metrics`. Settings and runs hold
    no more than the name, so that every process finds the part. Raises UsageError for a name that nothing has, and
    where the package's module cannot be imported.
    """
    if name in known:
        return known[name]
    others = {entry.name: entry.value for entry in entry_points(group=f"vaearr.{kind}s")}
    place = others.get(name, name)
    if ":" not in place:
        raise UsageError(f"there is no {kind} {name!r}.{did_you_mean(name, sorted({*known, *others}))}")
    try:
        return EntryPoint(name, place, f"vaearr.{kind}s").load()
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{kind} {name!r} cannot be loaded ({' '.join(str(error).split())}); install its package where this runs, "
            "and write it as package.module:Name."
        ) from error
