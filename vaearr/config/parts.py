"""Parts of a user's own packages, by name: networks, likelihoods, readers, metrics, methods, views."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from vaearr.errors import UsageError, did_you_mean

KINDS = ("source", "model", "discriminator", "objective", "metric", "clustering", "view")


def of_packages(kind: str) -> dict[str, str]:
    """Parts that installed packages have as entry points of the group `vaearr.<kind>s`: name -> `module:Name`."""
    return _of_packages(kind, tuple(sys.path))


@cache
def _of_packages(kind: str, folders: tuple[str, ...]) -> dict[str, str]:
    """The same, looked up once for the folders that packages come from."""
    return {entry.name: entry.value for entry in entry_points(group=f"vaearr.{kind}s")}


def part(kind: str, name: str, known: Mapping[str, Any], *, called: str = "") -> Any:
    """A part by its name: a known one, one of an installed package, or what `package.module:Name` names.

    kind: one of KINDS; known: the parts themselves, or where they are, as `module:Name`; called: the kind in words.
    Settings and runs hold no more than the name, so that every process finds the part. Raises UsageError for a name
    that nothing has, and where the package's module cannot be imported.
    """
    place = known[name] if name in known else of_packages(kind).get(name, name)
    if not isinstance(place, str):
        return place
    if ":" not in place:
        raise UsageError(
            f"there is no {called or kind} {name!r}.{did_you_mean(name, sorted({*known, *of_packages(kind)}))}"
        )
    try:
        return EntryPoint(name, place, f"vaearr.{kind}s").load()
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{called or kind} {name!r} cannot be loaded ({' '.join(str(error).split())}); install its package here, "
            "and write it as package.module:Name."
        ) from error
