"""Third-party parts by name: networks, likelihoods, readers, metrics, methods, views."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import Any

from vaearr.errors import UntrustedError, UsageError, did_you_mean

KINDS = ("source", "model", "discriminator", "objective", "metric", "clustering", "view")


def of_packages(kind: str) -> dict[str, str]:
    """Return entry points of installed packages of a kind by name, as `module:Name`.

    Packages in the current folder are not installed: they may have come with a store.
    """
    current = Path.cwd()
    folders = [folder for folder in sys.path if Path(folder).resolve() != current]
    return _of_packages(kind, tuple(folders))


@cache
def _of_packages(kind: str, folders: tuple[str, ...]) -> dict[str, str]:
    """The same for given folders, looked up once."""
    names: dict[str, str] = {}
    for package in distributions(path=list(folders)):
        for entry in package.entry_points.select(group=f"vaearr.{kind}s"):
            names.setdefault(entry.name, entry.value)
    return names


def part(
    kind: str,
    name: str,
    known: Mapping[str, Any],
    *,
    called: str = "",
    trust: Collection[str] = (),
) -> Any:
    """Look up a part by its name.

    Parameters
    ----------
    kind
        One of `KINDS`.
    name
        Name of a part of vaearr, of an entry point of an installed package, or
        `package.module:Name`.
    known
        The parts of vaearr, or their locations as `module:Name`.
    called
        Name of the kind in messages.
    trust
        Names of the form `package.module:Name` that may be imported, because the user gave them in
        this call. A name from a store, a model folder or any other file is never imported.

    Raises
    ------
    UntrustedError
        For a name `package.module:Name` that is not in `trust`.
    UsageError
        For an unknown name, and if the module of the package cannot be imported.
    """
    called = called or kind
    location = known[name] if name in known else of_packages(kind).get(name, name)
    if not isinstance(location, str):
        return location
    if ":" not in location:
        names = sorted({*known, *of_packages(kind)})
        raise UsageError(f"there is no {called} {name!r}.{did_you_mean(name, names)}")
    if location == name and name not in trust:
        raise UntrustedError(
            f"the {called} {name!r} is named by a file and belongs neither to vaearr nor to an "
            "installed package's entry points; using it would import and run that code. If you "
            f"trust it, write trust={name!r} (--trust {name})."
        )
    try:
        return EntryPoint(name, location, f"vaearr.{kind}s").load()
    except (ImportError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{called} {name!r} cannot be loaded ({reason}); install its package here, "
            "and write it as package.module:Name."
        ) from error


def parts_of_users(*names: str) -> tuple[str, ...]:
    """Return those names that are of the form `package.module:Name`."""
    return tuple(name for name in names if ":" in name)


def trusted_names(trust: str | Collection[str]) -> tuple[str, ...]:
    """Return the parts that a user trusts, given as one name or several.

    Raises UsageError for a name that is not of the form `package.module:Name`.
    """
    names = (trust,) if isinstance(trust, str) else tuple(trust)
    for name in names:
        module, colon, attribute = name.partition(":")
        if not (module and colon and attribute):
            raise UsageError(f"trust is {name!r}; give the name of a part, as package.module:Name.")
    return names
