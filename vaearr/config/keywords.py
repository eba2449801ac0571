"""Every setting of a step is a keyword of its function: its name, type and default are those of the config's field."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic.fields import FieldInfo

from vaearr.config.base import Config, group_of
from vaearr.errors import UsageError, did_you_mean

C = TypeVar("C", bound=Config)
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Setting:
    """One setting: its place in the config, such as ("objective", "beta"), and the field that says all about it."""

    path: tuple[str, ...]
    field: FieldInfo

    @property
    def default(self) -> Any:
        return self.field.get_default(call_default_factory=True)

    @property
    def group(self) -> type[Config] | None:
        """The config that this setting holds, if it holds one."""
        return group_of(self.field)

    @property
    def takes_none(self) -> bool:
        return type(None) in get_args(self.field.annotation)


def settings_of(config: type[Config]) -> dict[str, Setting]:
    """Every field of a config by its name, then its shortcuts: settings of its groups that have a name of their own."""
    found = {name: Setting((name,), field) for name, field in config.model_fields.items()}
    for name, place in config.shortcuts.items():
        group, _, inner = place.partition(".")
        below = group_of(config.model_fields[group])
        assert below is not None, place
        found[name] = Setting((group, inner), below.model_fields[inner])
    return found


def over(base: Any, changes: Any) -> Any:
    """Settings with others over them: mappings key by key, all else as a whole."""
    if not (isinstance(base, Mapping) and isinstance(changes, Mapping)):
        return changes
    return {**base, **{key: over(base.get(key), value) for key, value in changes.items()}}


def placed(kind: type[Config], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their names as the nested ones that a config is made from; a group also as a mapping or config.

    None leaves a setting as it is where it cannot be None itself. Raises UsageError for an unknown name.
    """
    known, values = settings_of(kind), dict[str, Any]()
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"{kind.__name__} has no setting {name!r}.{did_you_mean(name, list(known))}")
        whole = name in kind.model_fields and isinstance(value, Config | Mapping)  # `model`: a name, or the group
        path = (name,) if whole else known[name].path
        if value is not None or known[name].takes_none:
            values = over(values, functools.reduce(lambda inner, key: {key: inner}, reversed(path), value))
    return values


def resolved(kind: type[C], config: C | None, given: Mapping[str, Any]) -> C:
    """The settings `config`, by default all as they are, with single ones over them, see `placed`."""
    base = {} if config is None else config.model_dump(exclude_unset=True)
    return kind.from_attrs(over(base, placed(kind, given)))


def settings_as_keywords(kind: type[Config]) -> Callable[[F], F]:
    """Of a function with `config` and `**settings`: its signature names all of them, and no other name is taken."""

    def wrap(function: F) -> F:
        own = inspect.signature(function)
        parameters = {name: p for name, p in own.parameters.items() if p.kind is not p.VAR_KEYWORD}
        for name, setting in settings_of(kind).items():
            default, annotation = setting.default, setting.field.annotation
            new = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            parameters.setdefault(name, new)

        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            for name in given:
                if name not in parameters:
                    known = did_you_mean(name, list(parameters))
                    raise UsageError(f"{function.__name__} has no argument {name!r}.{known}")
            return function(*args, **given)

        call.__signature__ = own.replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
        call.settings = kind  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return wrap
