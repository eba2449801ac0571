"""What a result was made from, and the one rule for "does it exist, made the same way?".

Every result keeps its recipe in the attribute `provenance` (a run in its manifest): the settings
that decide its values, what it was made from, versions and time. Each step asks `is_made` before it
works. With the same inputs and settings the existing result is returned; otherwise an error names
the differences and both ways out, another name or `overwrite`.
"""

from __future__ import annotations

import json
import logging
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from vaearr.config import Config
from vaearr.errors import ExistsError

log = logging.getLogger("vaearr")

PACKAGES = ("vaearr", "torch", "numpy", "xarray", "zarr")
FINGERPRINTS, PARENTS = "fingerprints", "parents"
IDENTITIES = {"sha256", "fingerprint"}  # of the patterns; recipes of earlier versions lack one
MOST_DIFFERENCES, MOST_CHARACTERS = 6, 40
BY_NAME = "choose another name with name='…' (--name)"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a result.

    config: the settings of the step. inputs: further things that decide it, by name. fingerprints:
    what the values of the variables were that it is made from (`vaearr.store.check_inputs`).
    """

    config: Config | None
    inputs: Mapping[str, Any]
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    def as_attrs(self) -> dict[str, Any]:
        """As JSON, without versions and time."""
        parts = dict(self.inputs)
        if self.config is not None:
            parts["config"] = self.config.deciding()
        if self.fingerprints:
            parts[FINGERPRINTS] = dict(self.fingerprints)
        plain: dict[str, Any] = json.loads(json.dumps(as_json(parts)))
        return plain

    def stamp(self, *packages: str) -> dict[str, Any]:
        """What the result keeps: the recipe with versions (of `packages` too) and time."""
        return {**self.as_attrs(), "versions": versions(*packages), "time": now()}

    def differences(self, stored: Any) -> str | None:
        """What differs from a stored recipe, in words; None for what no such step has made."""
        stored, requested = parsed(stored), self.as_attrs()
        if not isinstance(stored, Mapping):
            return None
        known = {key: stored.get(key) for key in requested}
        if self.config is not None:
            kind = type(self.config)
            try:  # a setting of an earlier version that was left empty decided nothing
                settings = dict(stored["config"])
                known["config"] = kind.from_attrs(
                    {
                        key: value
                        for key, value in settings.items()
                        if key in kind.model_fields or value
                    }
                ).deciding()
            except (KeyError, TypeError, ValueError):
                return None
        fingerprints = known.pop(FINGERPRINTS, None)
        has_both = requested.pop(FINGERPRINTS, None) and fingerprints
        parents, requested_parents = known.pop(PARENTS, None), requested.pop(PARENTS, None)
        if not has_both and isinstance(parents, Mapping) and isinstance(requested_parents, Mapping):
            common = [
                name for name in requested_parents if parents.get(name) and requested_parents[name]
            ]
            known |= {name: parents[name] for name in common}
            requested |= {name: requested_parents[name] for name in common}
        reasons = []
        changed = changed_inputs(fingerprints, self.fingerprints)
        found = []
        for name, old, new in differing(known, requested):
            if not name.endswith("fingerprint"):
                found.append((name, old, new))
            elif "patterns" not in changed:
                changed.append("patterns")
        if found:
            reasons.append(f"created with different settings ({stored_and_requested(found)})")
        if changed:
            reasons.append(f"created from other inputs: {', '.join(changed)} changed since")
        return ", ".join(reasons)


def changed_inputs(
    stored: Mapping[str, str] | None, present: Mapping[str, str] | None
) -> list[str]:
    """Names whose fingerprints differ; one that is missing on either side is no difference."""
    if not stored or not present:
        return []
    common = sorted(stored.keys() & present.keys())
    return [name for name in common if stored[name] != present[name]]


def is_made(
    what: str,
    stored: Any,
    recipe: Recipe,
    *,
    instead: str = BY_NAME,
    overwrite: bool = False,
) -> bool:
    """Whether an existing result was made by this recipe, and is returned as it is.

    Parameters
    ----------
    what
        The existing result, as a sentence begins with it ("scan.zarr already has a run 'vae'").
    stored
        Its recipe.
    recipe
        The recipe of the requested result.
    instead
        The way out other than replacing it.
    overwrite
        Whether another result is replaced.

    Returns
    -------
    bool
        False where it is to be replaced.

    Raises
    ------
    ExistsError
        If it was made differently and `overwrite` is False, or by another step.
    """
    differences = recipe.differences(stored)
    if differences is None:
        raise ExistsError(f"{what}, and it is no result of this step; {instead}.")
    if differences and not overwrite:
        raise ExistsError(
            f"{what}, {differences}; {instead}, or replace it with overwrite=True (--overwrite)."
        )
    if not differences:
        log.info(f"{what}, created with the same settings")
    return not differences


def differing(stored: Any, requested: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """What differs between two values or nested mappings: name, stored and requested value."""
    if isinstance(stored, Mapping) and isinstance(requested, Mapping):
        found = []
        before = f"{name}." if name not in ("", "config") else ""
        for key in sorted({*stored, *requested}):
            old, new = stored.get(key), requested.get(key)
            if key in IDENTITIES and None in (old, new):
                continue
            found += differing(old, new, f"{before}{key}")
        return found
    is_same = json.loads(json.dumps(stored)) == json.loads(json.dumps(requested))
    return [] if is_same else [(name, stored, requested)]


def stored_and_requested(
    found: list[tuple[str, Any, Any]], one: str = "stored", other: str = "requested"
) -> str:
    """Differences in words, such as "stored: epochs=40, requested: epochs=20"; "" for none."""
    if not found:
        return ""
    old, new = [], []
    for name, stored, requested in found[:MOST_DIFFERENCES]:
        old.append(f"{name}={_shortened(stored)}")
        new.append(f"{name}={_shortened(requested)}")
    more = len(found) - MOST_DIFFERENCES
    others = f", and {more} more" if more > 0 else ""
    return f"{one}: {', '.join(old)}, {other}: {', '.join(new)}{others}"


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def versions(*further: str) -> dict[str, str]:
    """Versions of Python and of the packages that decide results, and of `further` ones."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in (*PACKAGES, *further)
    }


def now() -> str:
    """The time in UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def nested(attrs: Mapping[Any, Any], key: str) -> Any:
    """An attribute that holds more than one number, text or flat list; None where it is not there.

    Stores keep such attributes as JSON text, so that they go to netCDF too; Datasets in memory and
    stores of earlier versions hold them as they are.
    """
    return parsed(attrs.get(key))


def parsed(value: Any) -> Any:
    """What JSON text of an object, list or null stands for; everything else as it is."""
    if isinstance(value, str) and (value[:1] in "{[" or value == "null") and value:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def as_json(value: Any) -> Any:
    """As strict JSON: NaN and infinity become null, arrays lists, anything unknown its text."""
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [as_json(item) for item in value]
    if not isinstance(value, str) and hasattr(value, "tolist"):  # arrays and their numbers
        return as_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
