"""What a result was made from, and the one rule for "does it exist, made the same way?".

Every result keeps its recipe in the attribute `provenance` (a run in its manifest): the settings
that decide its values, what it was made from, versions and time. Each step asks `can_reuse` first.
With the same inputs and settings the existing result is returned; otherwise an error names
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

from vaearr import names as n
from vaearr.config import Config
from vaearr.errors import ExistsError

log = logging.getLogger("vaearr")

PACKAGES = ("vaearr", "torch", "numpy", "xarray", "zarr")
FINGERPRINTS = "fingerprints"
# of the patterns: `data.fingerprint`, in earlier versions `data.sha256`
IDENTITIES = {"fingerprint", "sha256"}
MAX_DIFFERENCES = 6
MAX_CHARACTERS = 40  # of a value in a message
OTHER_NAME = "choose another name with name='…' (--name)"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a result.

    config: the settings of the step. inputs: further values that decide it, by name. fingerprints:
    of the variables that it is made from (`vaearr.store.check_inputs`).
    """

    config: Config | None
    inputs: Mapping[str, Any]
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    def as_attrs(self) -> dict[str, Any]:
        """As JSON, without versions and time."""
        recipe = dict(self.inputs)
        if self.config is not None:
            recipe["config"] = self.config.deciding()
        if self.fingerprints:
            recipe[FINGERPRINTS] = dict(self.fingerprints)
        return dict(as_json(recipe))

    def stamp(self, *packages: str) -> dict[str, Any]:
        """What the result keeps: the recipe with versions (of `packages` too) and time."""
        return {**self.as_attrs(), "versions": versions(*packages), "time": now()}

    def is_of_step(self, stored: Any) -> bool:
        """Whether a stored recipe is of the same step."""
        if not isinstance(stored, Mapping):
            return False
        return self.config is None or _stored_settings(self.config, stored) is not None

    def differences(self, stored: Mapping[str, Any]) -> str:
        """How a stored recipe of this step differs, as text; "" if it does not."""
        requested = self.as_attrs()
        fingerprints = requested.pop(FINGERPRINTS, None)
        changed = changed_inputs(stored.get(FINGERPRINTS), fingerprints)
        present = {key: stored.get(key) for key in requested}
        if self.config is not None:
            present["config"] = _stored_settings(self.config, stored)
        settings = []
        for difference in differing(present, requested):
            if not _is_fingerprint(difference[0]):
                settings.append(difference)
            elif n.PATTERNS not in changed:
                changed.append(n.PATTERNS)
        reasons = []
        if settings:
            reasons.append(f"created with different settings ({stored_and_requested(settings)})")
        if changed:
            reasons.append(f"created from other inputs: {', '.join(changed)} changed since")
        return ", ".join(reasons)


def _is_fingerprint(name: str) -> bool:
    """Whether a value identifies patterns: data.fingerprint, of joined scans data.scans.0.…"""
    return name.endswith(".fingerprint")


def _stored_settings(config: Config, recipe: Mapping[str, Any]) -> dict[str, Any] | None:
    """The deciding settings of a stored recipe; None if they are not those of the same step.

    Settings of an earlier version that no longer exist are ignored if they were empty, so had no
    effect. With any other the result counts as one of another step.
    """
    try:
        stored = dict(recipe["config"])
        fields = type(config).model_fields
        settings = {key: stored[key] for key in stored if key in fields or stored[key]}
        return config.from_attrs(settings).deciding()
    except (KeyError, TypeError, ValueError):
        return None


def changed_inputs(
    stored: Mapping[str, str] | None, present: Mapping[str, str] | None
) -> list[str]:
    """Names whose fingerprints differ; one that is missing on either side is no difference."""
    if not stored or not present:
        return []
    common = sorted(stored.keys() & present.keys())
    return [name for name in common if stored[name] != present[name]]


def can_reuse(
    what: str,
    stored: Any,
    recipe: Recipe,
    *,
    way_out: str = OTHER_NAME,
    overwrite: bool = False,
) -> bool:
    """Whether an existing result was made by this recipe, and can be returned.

    Parameters
    ----------
    what
        The existing result, as the start of a sentence ("scan.zarr already has a run 'vae'").
    stored
        Its recipe.
    recipe
        The recipe of the requested result.
    way_out
        What to do other than replacing it, for the message.
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
    stored_recipe = parsed(stored)
    if not recipe.is_of_step(stored_recipe):
        raise ExistsError(f"{what}, and it is no result of this step; {way_out}.")
    differences = recipe.differences(stored_recipe)
    if differences and not overwrite:
        raise ExistsError(
            f"{what}, {differences}; {way_out}, or replace it with overwrite=True (--overwrite)."
        )
    if not differences:
        log.info(f"{what}, created with the same settings")
    return not differences


def differing(stored: Any, requested: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """What differs between two values or nested mappings: name, stored and requested value."""
    if isinstance(stored, Mapping) and isinstance(requested, Mapping):
        differences = []
        prefix = "" if name in ("", "config") else f"{name}."
        for key in sorted({*stored, *requested}):
            old = stored.get(key)
            new = requested.get(key)
            if key in IDENTITIES and None in (old, new):
                continue  # recorded by one of two versions only
            differences += differing(old, new, f"{prefix}{key}")
        return differences
    if json.loads(json.dumps(stored)) == json.loads(json.dumps(requested)):
        return []
    return [(name, stored, requested)]


def stored_and_requested(
    differences: list[tuple[str, Any, Any]], first: str = "stored", second: str = "requested"
) -> str:
    """Differences as text, such as "stored: epochs=40, requested: epochs=20"; "" for none."""
    listed = differences[:MAX_DIFFERENCES]
    if not listed:
        return ""
    old = ", ".join(f"{name}={_shortened(value)}" for name, value, _ in listed)
    new = ", ".join(f"{name}={_shortened(value)}" for name, _, value in listed)
    text = f"{first}: {old}, {second}: {new}"
    n_more = len(differences) - len(listed)
    return f"{text}, and {n_more} more" if n_more else text


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}…"


def versions(*further: str) -> dict[str, str]:
    """Versions of Python and of the packages that decide results, and of `further` ones."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in (*PACKAGES, *further)
    }


def now() -> str:
    """The time in UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def nested(attrs: Mapping[Any, Any], key: str) -> Any:
    """An attribute that holds more than one number, text or flat list; None if it does not exist.

    Stores keep such attributes as JSON text, so that they go to netCDF too; Datasets in memory and
    stores of earlier versions hold them as they are.
    """
    return parsed(attrs.get(key))


def parsed(value: Any) -> Any:
    """The value of JSON text of an object, list or null; everything else unchanged."""
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
