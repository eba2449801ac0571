"""What the commands share: the app, common options, options made from settings, how values are
spelt, messages.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
import yaml

import vaearr as va
from vaearr.config import Config, RoiConfig, Setting, group_of, over, placed, settings_of
from vaearr.errors import UsageError

PLAIN: Any = {
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
Given = dict[str, Any]
look = typer.Typer(
    help="Look around in a latent space, and at the data it is learned from.", **PLAIN
)


app = typer.Typer(
    name="vaearr",
    help="Scans and images as labelled arrays, with what a VAE learned of them beside.",
    **PLAIN,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"vaearr {version('vaearr')}")
        raise typer.Exit


@app.callback()
def _options(
    is_asked: Annotated[
        bool,
        typer.Option("--version", help="print the version", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


# ---- arguments and options that many commands have

Store = Annotated[
    str, typer.Argument(metavar="STORE", help="zarr store, as created by 'vaearr ingest'")
]
RunName = Annotated[
    str,
    typer.Option("--run", help="name of the run; 'vae' writes `latents`, 'b' writes `latents_b`"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps")]
Seed = Annotated[int, typer.Option(min=0, help="seed of random numbers")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Dask cluster that computes: address of its scheduler, or its scheduler file",
    ),
]
SOURCE = "prior, or fitted: the Gaussian of the latents of the run"
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an existing result")]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PACKAGE.MODULE:NAME",
        help="network that the run may name; it is imported and run; repeatable",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print machine-readable JSON")]


def trusted_run(store: str, run: str, trust: Sequence[str] | None, *, device: str = "cpu") -> Any:
    """Open a run of a store; it may name the networks that the user trusts."""
    return va.load_run(store, run, device=device, trust=trust or ())


def given(**options: Any) -> Given:
    """The options that were given; those left out keep the default of the function."""
    return {name: value for name, value in options.items() if value is not None and value != []}


# ---- options made from settings

# How numbers that belong together are spelt.
FORMS = {
    "nav_shape": "ROWSxCOLUMNS",
    "size": "ROWSxCOLUMNS",
    "window": "ROWSxCOLUMNS",
    "spacing": "ZxYxX",
    "endmembers": "X:Y",
    "quantiles": "LOW:HIGH",
    **dict.fromkeys(("x", "y", "z", "crop"), "START:STOP"),
}


def is_repeatable(setting: Setting) -> bool:
    """Whether a setting holds several items, each given by an option of its own."""
    origin = get_origin(_bare_type(setting.field.annotation))
    return origin is dict or (origin is tuple and Ellipsis in get_args(setting.field.annotation))


def optional(kind: Any, *names: str, **about: Any) -> Any:
    """An option that may be left out, as typer reads it."""
    return Annotated[kind | None, typer.Option(*names, **about)]


def option(name: str, setting: Setting, flag: str) -> Any:
    """The option of a setting, as typer reads it; what it must be is checked by the config."""
    kind = _bare_type(setting.field.annotation)
    words = _help_of(setting)
    if kind is bool:
        return optional(bool, f"{flag}/--no-{flag[2:]}", help=words)
    metavar = FORMS.get(name, {int: "NUMBER", float: "NUMBER", Path: "FILE"}.get(kind, "TEXT"))
    if get_origin(kind) is Literal:
        metavar = "|".join(map(str, get_args(kind)))
    if get_origin(kind) is dict:
        metavar = f"NAME={FORMS.get(name, 'VALUE')}"
    if is_repeatable(setting):
        return optional(list[str], flag, metavar=metavar, help=f"{words}; repeatable")
    return optional(str, flag, metavar=metavar, help=words)


def read_option(name: str, setting: Setting, flag: str, given: Any) -> Any:
    """The value that an option gives to its setting."""
    if given == "none" and setting.takes_none:
        return None
    values = given
    if get_origin(_bare_type(setting.field.annotation)) is dict:
        values = key_values(given, flag)
    if name not in FORMS:
        return values
    if isinstance(values, dict):
        return {key: numbers(text, flag, FORMS[name]) for key, text in values.items()}
    if isinstance(values, list):
        return [numbers(text, flag, FORMS[name]) for text in values]
    return numbers(values, flag, FORMS[name])


def _bare_type(annotation: Any) -> Any:
    """A type without `| None` and without what pydantic checks."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    parts = [part for part in get_args(annotation) if part is not NoneType]
    if NoneType in get_args(annotation) and len(parts) == 1:
        return _bare_type(parts[0])
    return annotation


def _help_of(setting: Setting) -> str:
    words = setting.field.description or ""
    default = setting.default
    if default in (None, "", {}, ()):
        return words
    if isinstance(default, tuple):
        default = ", ".join(map(str, default))
    return f"{words} [default: {default}]"


def with_settings(
    kind: type[Config],
    *,
    without: Sequence[str] = (),
    flags: Mapping[str, str] | None = None,
    has_roi: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each setting of a config, --config and --set.

    The command gets what they say as its keyword `settings`, nested like the config. Type, default
    and help text of an option are those of the field. without: settings that the command has
    parameters of its own for. flags: options of another name than their setting's. has_roi: also
    --x, --y, --z and --where, of which the command gets its keyword `roi`, None without any.
    """
    known = {}
    names_of_flags = {}
    of_roi = settings_of(RoiConfig) if has_roi else {}
    for name, setting in {**settings_of(kind), **of_roi}.items():
        if setting.group is None and name not in without:
            known[name] = setting
            plain_name = name.removesuffix("s") if is_repeatable(setting) else name
            names_of_flags[name] = (flags or {}).get(name, f"--{plain_name.replace('_', '-')}")
    options = {name: option(name, setting, names_of_flags[name]) for name, setting in known.items()}
    options["config"] = optional(
        Path,
        "--config",
        metavar="FILE",
        help="JSON, YAML or TOML file with settings; options and --set replace single ones",
    )
    options["sets"] = optional(
        list[str], "--set", metavar="NAME=VALUE", help=_help_of_set(kind, without)
    )

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def call(config: Path | None, sets: list[str] | None, **values: Any) -> None:
            settings = placed(kind, settings_file(config) if config else {})
            settings = over(settings, placed(kind, nested_values(sets or [], "--set")))
            read = {}
            for name, setting in known.items():
                value = values.pop(name)
                if value is not None and value != []:
                    read[name] = read_option(name, setting, names_of_flags[name], value)
            if has_roi:
                conditions = {name: read.pop(name) for name in of_roi if name in read}
                values["roi"] = RoiConfig.from_attrs(conditions) if conditions else None
            command(**values, settings=over(settings, placed(kind, read)))

        signature = inspect.signature(command, eval_str=True)
        parameters = [p for p in signature.parameters.values() if p.name not in ("settings", "roi")]
        for name, annotation in options.items():
            parameters.append(
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
                )
            )
        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # read by typer
        return call

    return wrap


def _help_of_set(kind: type[Config], without: Sequence[str]) -> str:
    groups = []
    for name, field in kind.model_fields.items():
        group = group_of(field)
        if group is not None and name not in without:
            groups.append(f"; {name} ({field.description}): {', '.join(group.model_fields)}")
    if not groups:
        return "any setting"
    return f"any setting, or GROUP.NAME=VALUE of a group{''.join(groups)}"


# ---- how values are spelt


def numbers(text: str, flag: str, form: str) -> list[float | None]:
    """Numbers in a form such as START:STOP or ROWSxCOLUMNS; an end that is left out is None."""
    separator = ":" if ":" in form else "x"
    try:
        values = [float(part) if part else None for part in text.lower().split(separator)]
    except ValueError:
        values = []
    if len(values) < 2:
        raise UsageError(f"{flag} {text!r} is not {form}, such as 20{separator}90.")
    return values


def plain(text: str) -> Any:
    """A value in JSON, or the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def key_values(texts: Sequence[str], flag: str) -> dict[str, str]:
    """`NAME=VALUE` texts, each name once."""
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
    """`NAME=VALUE` and `NAME.INNER=VALUE` as nested values; single ones replace those of a whole
    object.
    """
    values = key_values(texts, flag)
    nested: dict[str, Any] = {}
    for key in sorted(values, key=lambda key: key.count(".")):
        *path, last = key.split(".")
        inner = nested
        for part in path:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise UsageError(
                    f"{flag} {key}: {part!r} is set to {inner!r} already; nothing can be set inside it."
                )
        inner[last] = plain(values[key])
    return nested


READERS: dict[str, Callable[[str], Any]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
    "yml": yaml.safe_load,
}


def settings_file(file: Path) -> dict[str, Any]:
    """Settings of a file: TOML or YAML by its ending, else JSON."""
    ending = file.suffix.lower()[1:]
    form = ending if ending in READERS else "json"
    try:
        values = READERS[form](file.read_text())
    except FileNotFoundError:
        raise UsageError(f"there is no settings file {file}.") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = (
            getattr(error, "strerror", None)
            or f"it is not {form.upper()}: {' '.join(str(error).split())}"
        )
        raise UsageError(f"{file} cannot be read as a settings file: {reason}.") from None
    if not isinstance(values, dict):
        raise UsageError(
            f"{file} holds a {form.upper()} {type(values).__name__}; settings are an object, such as "
            '{"epochs": 20} or epochs: 20 in YAML.'
        )
    return values


# ---- messages, and where files go


def refuse(is_wrong: object, words: str) -> None:
    """Raise UsageError for options that need or exclude others."""
    if is_wrong:
        raise UsageError(words)


def say(text: str) -> None:
    """Print a line on stderr; of several processes only the first prints."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(text, err=True)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on stdout, warnings on stderr."""
    for line in lines:
        typer.echo(line, err=line.startswith("warning: "))


@contextmanager
def folder_of(out: Path | None) -> Iterator[Path | None]:
    """A hidden folder that takes the name `out` once all files are in it; None for none."""
    if out is None:
        yield None
        return
    from vaearr.store.folders import staged

    with staged(out) as folder:
        yield folder
    say(f"files are in {out}")
