"""What a result is made from, and the one rule for "is it there, made the same way?".

Every result keeps its recipe in the attribute `provenance` (of a run: in its manifest): what it was made from, the
settings that decide values, versions and time. Each step asks `is_made` before it works, in Python, on the command
line and in flows: the same inputs and settings, and what is there is taken as it is, said in one line; anything else,
and an error names what differs and both ways out, another name or `overwrite`.
"""

from __future__ import annotations

import json
import logging
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from vaearr.config import Config
from vaearr.errors import ExistsError

log = logging.getLogger("vaearr")

PACKAGES = ("vaearr", "torch", "numpy", "xarray", "zarr")
MOST_DIFFERENCES, MOST_CHARACTERS = 6, 40
BY_NAME = "choose another name with name='…' (--name)"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a result: the settings of the step (`config`) and, by name, what it is made from."""

    config: Config | None
    inputs: Mapping[str, Any]

    def as_attrs(self) -> dict[str, Any]:
        """As JSON, without versions and time: equal where the same result comes out."""
        config = {} if self.config is None else {"config": self.config.deciding()}
        plain: dict[str, Any] = json.loads(json.dumps(as_json({**self.inputs, **config})))
        return plain

    def stamp(self, *packages: str) -> dict[str, Any]:
        """What the result says of itself: the recipe with versions (of `packages` too) and time."""
        return {**self.as_attrs(), "versions": versions(*packages), "time": now()}

    def differences(self, made: Any) -> str | None:
        """Between this recipe and that of what is there, in words; None for what no such step has made."""
        made, asked = parsed(made), self.as_attrs()
        if not isinstance(made, Mapping):
            return None
        known = {key: made.get(key) for key in asked}
        if self.config is not None:
            kind = type(self.config)
            try:  # what is no setting any more and was left empty decided nothing
                settings = {key: v for key, v in dict(made["config"]).items() if key in kind.model_fields or v}
                known["config"] = kind.from_attrs(settings).deciding()
            except (KeyError, TypeError, ValueError):
                return None
        found = differing(known, asked)
        more = [f"and {len(found) - MOST_DIFFERENCES} more"] if len(found) > MOST_DIFFERENCES else []
        return ", ".join([*found[:MOST_DIFFERENCES], *more])


def is_made(
    there: str,
    made: Any,
    recipe: Recipe,
    *,
    instead: str = BY_NAME,
    overwrite: bool = False,
) -> bool:
    """Whether what is there was made by this recipe, so that it is taken as it is; False: it is to be replaced.

    there: what was found, in words that a sentence begins with ("scan.zarr already has a run 'vae'"). made: its recipe
    as it was stored. instead: the way out beside replacing it. Raises ExistsError where it was made otherwise and
    `overwrite` is not asked for, and where it is no result of this step, which is never replaced.
    """
    differences = recipe.differences(made)
    if differences is None:
        raise ExistsError(f"{there}, and it is no result of this step; {instead}.")
    if differences and not overwrite:
        raise ExistsError(
            f"{there}, made otherwise (there and asked: {differences}); {instead}, or replace it with overwrite=True "
            "(--overwrite)."
        )
    how = f"made otherwise ({differences}): replaced, as asked" if differences else "made the same way"
    log.info(f"{there}, {how}")
    return not differences


def differing(one: Any, other: Any, name: str = "") -> list[str]:
    """What differs between two mappings, such as "epochs 40 and 20" or "objective.beta 1.0 and 4.0"."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        before = f"{name}." if name and name != "config" else ""
        keys = sorted({*one, *other})
        return [text for key in keys for text in differing(one.get(key), other.get(key), f"{before}{key}")]
    if json.loads(json.dumps(one)) == json.loads(json.dumps(other)):
        return []
    return [f"{name} {_shortened(one)} and {_shortened(other)}"]


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def versions(*further: str) -> dict[str, str]:
    """Versions of Python and of the packages that decide results, and of `further` ones."""
    return {"python": platform.python_version()} | {name: version(name) for name in (*PACKAGES, *further)}


def now() -> str:
    """The time in UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def nested(attrs: Mapping[Any, Any], key: str) -> Any:
    """An attribute that holds more than one number, text or flat list; None where it is not there.

    Stores keep such attributes as JSON text, so that they go to netCDF too; Datasets in memory and stores of earlier
    versions hold them as they are.
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
