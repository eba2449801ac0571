"""Options made from the fields of a config, how their values are written, and `vaearr settings`."""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import click
import cloup

from vaearr.config import Config, RoiConfig, Setting, group_of, grouped, merged, settings_of
from vaearr.errors import UsageError

Command = Callable[..., None]

# How numbers that belong together are written.
FORMS = {
    "nav_shape": "ROWSxCOLUMNS",
    "size": "ROWSxCOLUMNS",
    "window": "ROWSxCOLUMNS",
    "spacing": "ZxYxX",
    "quantiles": "LOW:HIGH",
    **dict.fromkeys(("x", "y", "z"), "START:STOP"),
}
CONFIG_PREFIX = re.compile(r"\b\w+Config\.([\w.]+): ")
TYPES = {bool: "true|false", int: "INTEGER", float: "FLOAT", str: "TEXT", Path: "FILE"}


class Numbers(click.ParamType):
    """Numbers in a form such as START:STOP or ROWSxCOLUMNS; an omitted end is None."""

    def __init__(self, form: str) -> None:
        self.name = form

    def convert(self, value: str, param: Any, context: Any) -> Any:
        separator = ":" if ":" in self.name else "x"
        try:
            numbers = [float(text) if text else None for text in value.lower().split(separator)]
        except ValueError:
            numbers = []
        if len(numbers) < 2:
            self.fail(f"{value!r} is not {self.name}, such as 20{separator}90", param, context)
        return numbers


class Options:
    """The options of some settings of a config.

    flags: options that are not named after their setting, or in the singular if it is repeatable.
    """

    def __init__(
        self, settings: Mapping[str, Setting], flags: Mapping[str, str] | None = None
    ) -> None:
        self.settings = settings
        self.flags = {}
        for name, setting in settings.items():
            singular = name.removesuffix("s") if _is_repeatable(name, setting) else name
            self.flags[name] = f"--{singular.replace('_', '-')}"
        self.flags |= flags or {}

    def as_click(self) -> list[Any]:
        """Return the options; their values are checked by the config."""
        return [_option(name, self.settings[name], flag) for name, flag in self.flags.items()]

    def taken_from(self, values: dict[str, Any]) -> dict[str, Any]:
        """Take the settings that were given out of the values of a command."""
        taken = {}
        for name, setting in self.settings.items():
            value = values.pop(name)
            if value is None or value == ():
                continue
            if isinstance(setting.default, dict):
                value = key_values(value, self.flags[name])
            taken[name] = value
        return taken


def _is_repeatable(name: str, setting: Setting) -> bool:
    """Whether a setting holds several items, each given by an option of its own."""
    return name not in FORMS and isinstance(setting.default, (tuple, dict))


def _option(name: str, setting: Setting, flag: str) -> Any:
    text = setting.field.description or ""
    default = setting.default
    if isinstance(default, tuple):
        default = ", ".join(map(str, default))
    if default not in (None, "", {}):
        text = f"{text} [default: {default}]"
    annotation = setting.field.annotation
    if isinstance(default, bool):
        return cloup.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
    if name in FORMS:
        form = FORMS[name]
        return cloup.option(flag, name, type=Numbers(form), metavar=form, help=text)
    if not _is_repeatable(name, setting):
        return cloup.option(flag, name, metavar=type_name(annotation), help=text)
    metavar = "NAME=VALUE" if default == {} else type_name(get_args(annotation)[0])
    return cloup.option(flag, name, multiple=True, metavar=metavar, help=f"{text}; repeatable")


def type_name(annotation: Any) -> str:
    """Return the type of a setting as help texts name it."""
    origin = get_origin(annotation)
    parts = get_args(annotation)
    if origin is Annotated:
        return type_name(parts[0])
    if origin is Literal:
        return "|".join(map(str, parts))
    if origin is dict:
        return f"{{NAME: {type_name(parts[1])}}}"
    if origin is tuple:
        return f"[{type_name(parts[0])}, …]"
    if parts:
        return "|".join(type_name(part) for part in parts if part is not NoneType)
    return TYPES.get(annotation, "VALUE")


def settings_options(
    kind: type[Config],
    *names: str,
    without: Sequence[str] = (),
    flags: Mapping[str, str] | None = None,
) -> Callable[[Command], Command]:
    """Add options for settings of a config, --config and --set to a command.

    The command gets their values as its keyword `settings`, nested like the config. names: settings
    that have an option, by default all but groups and those in `without`. flags: see `Options`.
    """
    settings = settings_of(kind)
    names = names or tuple(
        name for name, setting in settings.items() if setting.group is None and name not in without
    )
    options = Options({name: settings[name] for name in names}, flags)
    step = kind.__name__.removesuffix("Config").lower()
    config_option = cloup.option(
        "--config",
        type=click.Path(path_type=Path),
        help="JSON, YAML or TOML file with settings; options and --set replace single ones",
    )
    set_option = cloup.option(
        "--set",
        "sets",
        multiple=True,
        metavar="NAME=VALUE",
        help=f"any setting that 'vaearr settings {step}' lists; repeatable",
    )

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def call(config: Path | None, sets: Sequence[str], **values: Any) -> None:
            chosen = grouped(kind, settings_file(config) if config else {})
            chosen = merged(chosen, grouped(kind, nested_values(sets, "--set")))
            chosen = merged(chosen, grouped(kind, options.taken_from(values)))
            with named_as(options.flags):
                command(**values, settings=chosen)

        return cloup.option_group("Settings", *options.as_click(), config_option, set_option)(call)

    return decorate


@contextmanager
def named_as(flags: Mapping[str, str]) -> Iterator[None]:
    """Name a refused setting by its option, or by --set, instead of its place in a config."""

    def option(match: re.Match[str]) -> str:
        setting = match[1]
        return flags.get(setting, f"--set {setting}") + ": "

    try:
        yield
    except UsageError as error:
        text = CONFIG_PREFIX.sub(option, str(error))
        error.args = (re.sub(r"\b\w+Config has no setting", "there is no setting", text),)
        raise


def roi_options(command: Command) -> Command:
    """Add --x, --y, --z and --where; the command gets the keyword `roi`, None without any."""
    options = Options(settings_of(RoiConfig))

    @functools.wraps(command)
    def call(**values: Any) -> None:
        conditions = options.taken_from(values)
        roi = None
        if conditions:
            with named_as(options.flags):
                roi = RoiConfig.from_attrs(conditions)
        command(**values, roi=roi)

    return cloup.option_group("Region of interest", *options.as_click())(call)


def setting_table(kind: type[Config], group: str = "") -> list[dict[str, Any]]:
    """Return name, type, default and description of each setting of a config and its groups."""
    rows: list[dict[str, Any]] = []
    for name, field in kind.model_fields.items():
        inner = group_of(field)
        if inner is not None:
            rows += setting_table(inner, f"{group}{name}.")
            continue
        default = field.get_default(call_default_factory=True)
        rows.append(
            {
                "name": f"{group}{name}",
                "type": type_name(field.annotation),
                "default": list(default) if isinstance(default, tuple) else default,
                "help": field.description,
            }
        )
    return rows


# ---- how values are written


def plain(text: str) -> Any:
    """Return a value in JSON, or the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def key_values(texts: Sequence[str], flag: str) -> dict[str, str]:
    """Return the values of `NAME=VALUE` texts, each name once."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{flag} {name!r} is not NAME=VALUE.")
        if name in values:
            raise UsageError(
                f"{flag} {name} is given twice, as {values[name]!r} and {value!r}; give it once."
            )
        values[name] = value
    return values


def nested_values(texts: Sequence[str], flag: str) -> dict[str, Any]:
    """Return `NAME=VALUE` and `NAME.INNER=VALUE` as nested values; single ones replace those of an
    object.
    """
    values = key_values(texts, flag)
    nested: dict[str, Any] = {}
    for key in sorted(values, key=lambda key: key.count(".")):
        *path, last = key.split(".")
        inner = nested
        for name in path:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise UsageError(
                    f"{flag} {key}: {name!r} is set to {inner!r} already; nothing can be set "
                    "inside it."
                )
        inner[last] = plain(values[key])
    return nested


def settings_file(file: Path) -> dict[str, Any]:
    """Read settings from a file: TOML or YAML by its ending, else JSON."""
    import yaml

    parsers: dict[str, Callable[[str], Any]] = {
        "toml": tomllib.loads,
        "yaml": yaml.safe_load,
        "yml": yaml.safe_load,
    }
    form = file.suffix.lower()[1:]
    if form not in parsers:
        form = "json"
    try:
        values = parsers.get(form, json.loads)(file.read_text())
    except FileNotFoundError:
        raise UsageError(f"there is no settings file {file}.") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read as a settings file: {error.strerror}.") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{file} cannot be read as a settings file: it is not {form.upper()}: {reason}."
        ) from None
    if not isinstance(values, dict):
        raise UsageError(
            f"{file} holds a {form.upper()} {type(values).__name__}; settings are an object, "
            'such as {"epochs": 20} or epochs: 20 in YAML.'
        )
    return values
