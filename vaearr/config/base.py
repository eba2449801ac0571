"""What all settings have in common: checks, JSON both ways, and settings as keywords."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from vaearr.errors import UsageError, did_you_mean
from vaearr.names import is_valid_name

RUN = "name of the run; 'vae' writes `latents`, 'b' writes `latents_b`"
DEVICE = "auto, cpu, cuda, cuda:1 or mps"
# what is expected, by pydantic's type of an error
EXPECTED = {
    "int_parsing": "a whole number is expected",
    "int_type": "a whole number is expected",
    "int_from_float": "a whole number is expected",
    "float_parsing": "a number is expected",
    "float_type": "a number is expected",
    "bool_parsing": "true or false is expected",
    "bool_type": "true or false is expected",
    "finite_number": "a finite number is expected",
    "greater_than": "a value above {gt} is expected",
    "greater_than_equal": "a value of {ge} or more is expected",
    "less_than": "a value below {lt} is expected",
    "less_than_equal": "a value of {le} or less is expected",
    "literal_error": "{expected} is expected",
}
MAX_VALUE_TEXT = 200  # characters of a refused value that a message shows


def _usable_name(name: str) -> str:
    if not is_valid_name(name):
        raise ValueError(f"name {name!r} must be letters, digits and _ and start with a letter")
    return name


def _ordered_ends(ends: tuple[float, float]) -> tuple[float, float]:
    if not ends[0] < ends[1]:
        raise ValueError("the interval is empty: give start < stop")
    return ends


def _ordered_quantiles(quantiles: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= quantiles[0] < quantiles[1] <= 1:
        raise ValueError("quantiles are two numbers with 0 <= low < high <= 1")
    return quantiles


Name = Annotated[str, AfterValidator(_usable_name)]
Interval = Annotated[tuple[float, float], AfterValidator(_ordered_ends)]
Quantiles = Annotated[tuple[float, float], AfterValidator(_ordered_quantiles)]


def field(default: Any, text: str, **limits: Any) -> Any:
    """Return a setting: its default, its help text, and limits such as `ge=1`.

    Instead of a default, a class of settings can be given: its own defaults then count. So
    importing builds no validator.
    """
    if isinstance(default, type):
        return Field(default_factory=default, description=text, **limits)
    return Field(default, description=text, **limits)


class Config(BaseModel):
    """Base of all settings: frozen, without unknown keys, only finite numbers, to JSON and back.

    Attributes
    ----------
    not_deciding : tuple of str
        Settings that change how fast or where a result is computed, but not its values.
    effective_with : dict
        Setting -> another one, without which it has no effect.
    without_effect : dict
        Settings of earlier versions -> the value that had no effect.
    shortcuts : dict
        Short names of settings of a group, such as beta for objective.beta.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        defer_build=True,
    )
    not_deciding: ClassVar[tuple[str, ...]] = ()
    effective_with: ClassVar[Mapping[str, str]] = {}
    without_effect: ClassVar[Mapping[str, Any]] = {}
    shortcuts: ClassVar[Mapping[str, str]] = {}

    @field_validator("*", mode="before")
    @classmethod
    def _plain_value(cls, value: Any, info: ValidationInfo) -> Any:
        """Take a text where several are expected; refuse large integers, and true as a number."""
        expected = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, str) and get_origin(expected) is tuple:
            return (value,)
        if isinstance(value, bool) and bool not in (expected, *get_args(expected)):
            raise ValueError("true and false are no values of this setting")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("whole numbers are below 2^63")
        return value

    @model_validator(mode="before")
    @classmethod
    def _without_earlier_settings(cls, values: Any) -> Any:
        """Drop settings in stores of earlier versions that had no effect."""
        if not isinstance(values, Mapping):
            return values
        kept = dict(values)
        for key, usual in cls.without_effect.items():
            if key in kept and kept[key] in (None, usual):
                del kept[key]
        return kept

    def to_attrs(self) -> dict[str, Any]:
        """Return the settings as plain JSON, as stored in attributes."""
        return self.model_dump(mode="json")

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide values, as plain JSON; files by name, without folders."""
        values = {}
        for key in type(self).model_fields:
            has_effect = key not in self.effective_with or getattr(self, self.effective_with[key])
            if has_effect and key not in self.not_deciding:
                values[key] = _with_file_names(getattr(self, key))
        plain: dict[str, Any] = to_jsonable_python(values)
        return plain

    @classmethod
    def from_attrs(cls, attrs: dict[str, Any]) -> Self:
        """Return settings from plain JSON.

        Parameters
        ----------
        attrs : dict
            Values by name, nested for groups.

        Returns
        -------
        Config
            Checked settings.

        Raises
        ------
        UsageError
            Names each wrong key and value.
        """
        try:
            return cls.model_validate(attrs)
        except ValidationError as error:
            raise UsageError(_error_text(cls, error)) from None

    def replace(self, **changes: Any) -> Self:
        """Return a checked copy with other values; `None` keeps a value."""
        changed = {key: value for key, value in changes.items() if value is not None}
        return self.from_attrs({**self.to_attrs(), **changed})


def group_of(field: FieldInfo | None) -> type[Config] | None:
    """Return the config that a field holds, if it holds one."""
    if field is not None:
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Config):
                return kind
    return None


def _with_file_names(value: Any) -> Any:
    """A setting with the names of files instead of their paths, at any depth."""
    if isinstance(value, Config):
        return value.deciding()
    if isinstance(value, dict):
        return {key: _with_file_names(item) for key, item in value.items()}
    return value.name if isinstance(value, Path) else value


def _error_text(cls: type[BaseModel], error: ValidationError) -> str:
    """All errors of a validation as sentences."""
    sentences = []
    for item in error.errors():
        location = item["loc"]
        key = ".".join(map(str, location))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            owner: type[BaseModel] = cls
            for name in location[:-1]:
                owner = group_of(owner.model_fields.get(str(name))) or owner
            hint = did_you_mean(str(location[-1]), sorted(owner.model_fields))
            sentences.append(f"{cls.__name__} has no setting {key!r}.{hint}")
        elif location:
            if item["type"] in EXPECTED:
                message = EXPECTED[item["type"]].format(**item.get("ctx", {}))
            value = _value_text(item["input"])
            sentences.append(f"{cls.__name__}.{key}: {message} (got {value}).")
        else:  # several settings do not fit together
            sentences.append(f"{cls.__name__}: {message}.")
    return " ".join(sentences)


def _value_text(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or deep nesting
        return f"a {type(value).__name__}"
    return text if len(text) <= MAX_VALUE_TEXT else f"{text[:MAX_VALUE_TEXT]}…"


# ---- settings as keywords of a function

C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Setting:
    """One setting: its path in the config, such as ("objective", "beta"), and its field."""

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
    """Return every field of a config by its name, then its shortcuts."""
    settings = {name: Setting((name,), field) for name, field in config.model_fields.items()}
    for shortcut, path in config.shortcuts.items():
        group_name, _, name = path.partition(".")
        group = group_of(config.model_fields[group_name])
        assert group is not None, path
        settings[shortcut] = Setting((group_name, name), group.model_fields[name])
    return settings


def merged(base: Any, changes: Any) -> Any:
    """Return settings with changes: mappings are merged key by key, other values replaced."""
    if not (isinstance(base, Mapping) and isinstance(changes, Mapping)):
        return changes
    return {**base, **{key: merged(base.get(key), value) for key, value in changes.items()}}


def grouped(kind: type[Config], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in the groups of a config, from settings by their names.

    Parameters
    ----------
    kind : type
        The config.
    settings : mapping
        Values by name or shortcut. A group may be a mapping or a config; None is left out where the
        setting cannot be None.

    Returns
    -------
    dict
        Values by name, nested for groups.

    Raises
    ------
    UsageError
        For an unknown name.
    """
    fields = settings_of(kind)
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in fields:
            hint = did_you_mean(name, list(fields))
            raise UsageError(f"{kind.__name__} has no setting {name!r}.{hint}")
        setting = fields[name]
        if value is None and not setting.takes_none:
            continue
        is_group = name in kind.model_fields and isinstance(value, Config | Mapping)
        path = (name,) if is_group else setting.path
        for key in reversed(path):
            value = {key: value}
        values = merged(values, value)
    return values


def resolved(kind: type[C], config: C | None, settings: Mapping[str, Any]) -> C:
    """Return a config with single settings replaced, see `grouped`; without one, of the defaults."""
    base = {} if config is None else config.model_dump(exclude_unset=True)
    return kind.from_attrs(merged(base, grouped(kind, settings)))


def refuse_unknown(
    function: Callable[..., Any], keywords: type, settings: Mapping[str, Any]
) -> None:
    """Raise UsageError for a keyword that a function does not take.

    keywords: the type of its settings, see `vaearr.config.keywords`.
    """
    names: frozenset[str] = keywords.__optional_keys__  # type: ignore[attr-defined]
    for name in settings:
        if name not in names:
            parameters = inspect.signature(function).parameters.values()
            by_name = {item.name for item in parameters if item.kind != item.POSITIONAL_ONLY}
            hint = did_you_mean(name, sorted((by_name | names) - {"self", "settings"}))
            raise UsageError(f"{function.__name__} has no argument {name!r}.{hint}")
