"""What all settings are made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from vaearr.errors import UsageError, did_you_mean

RUN = "name of the run; 'vae' writes `latents`, 'b' writes `latents_b`"
DEVICE = "auto, cpu, cuda, cuda:1, mps …"
MOST_SHOWN = 200  # characters of a value that cannot be meant


def field(default: Any, text: str, **limits: Any) -> Any:
    """A setting: its default, what help and forms say of it, and limits such as `ge=1`."""
    return Field(default, description=text, **limits)


class Config(BaseModel):
    """Base of all settings: frozen, no unknown keys, finite numbers only, JSON both ways (which knows no NaN)."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
    passing: ClassVar[tuple[str, ...]] = ()  # settings that say where and how fast, and decide no value
    shortcuts: ClassVar[Mapping[str, str]] = {}  # short name -> setting of a group, such as beta -> objective.beta

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_number_of_its_own(cls, value: Any, info: ValidationInfo) -> Any:
        """No whole number that the machine has no form for, and no truth value in the place of a number."""
        expected = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and bool not in (expected, *get_args(expected)):
            raise ValueError("true and false are no values of this setting")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("whole numbers are below 2^63")
        return value

    def to_attrs(self) -> dict[str, Any]:
        """Plain JSON-ready dict, as stored in attributes."""
        return self.model_dump(mode="json")

    def deciding(self) -> dict[str, Any]:
        """The settings that decide values, JSON-ready; of a file its name, since where it lay says nothing."""
        named = {key: _named(getattr(self, key)) for key in type(self).model_fields if key not in self.passing}
        plain: dict[str, Any] = to_jsonable_python(named)
        return plain

    @classmethod
    def from_attrs(cls, attrs: dict[str, Any]) -> Self:
        """Settings from such a dict. Raises UsageError that names each wrong key or value in words."""
        try:
            return cls.model_validate(attrs)
        except ValidationError as error:
            raise UsageError(_in_words(cls, error)) from None

    def replace(self, **changes: Any) -> Self:
        """A copy with the given values; `None` means "leave as it is". Validated like new settings."""
        given = {key: value for key, value in changes.items() if value is not None}
        return self.from_attrs({**self.to_attrs(), **given})


def group_of(field: FieldInfo | None) -> type[Config] | None:
    """The config that a field holds, if it holds one."""
    parts = () if field is None else (field.annotation, *get_args(field.annotation))
    return next((part for part in parts if isinstance(part, type) and issubclass(part, Config)), None)


def _named(value: Any) -> Any:
    """A setting with the names of files only, at any depth."""
    if isinstance(value, Config):
        return value.deciding()
    if isinstance(value, dict):
        return {key: _named(item) for key, item in value.items()}
    return value.name if isinstance(value, Path) else value


def _in_words(cls: type[BaseModel], error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or cls.__name__
        if item["type"] == "extra_forbidden":
            owner: type[BaseModel] = cls
            for part in item["loc"][:-1]:
                owner = group_of(owner.model_fields.get(str(part))) or owner
            known = did_you_mean(str(item["loc"][-1]), sorted(owner.model_fields))
            parts.append(f"{cls.__name__} has no setting {key!r}.{known}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            if item["loc"]:
                parts.append(f"{cls.__name__}.{key}: {message} (got {_shortened(item['input'])}).")
            else:  # of several settings together
                parts.append(f"{cls.__name__}: {message}.")
    return " ".join(parts)


def _shortened(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or nested as often
        return f"a {type(value).__name__}"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
