"""What the commands share: the app, options made from settings and keywords, what options spell, plain words."""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
import typer.core
import yaml

import vaearr as va
from vaearr.config import Config, RoiConfig, group_of, over, placed, settings_of
from vaearr.errors import UsageError

PLAIN: Any = {"pretty_exceptions_enable": False, "rich_markup_mode": None}
Given = dict[str, Any]
look = typer.Typer(help="Look around in a latent space, and at the data it is learned from.", **PLAIN)


class Commands(typer.core.TyperGroup):
    """All commands; whoever names one of `look` alone is told where it is."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and args[0] in getattr(self.commands["look"], "commands", ()):
            raise UsageError(f"there is no command {args[0]!r}: it is 'vaearr look {args[0]}'.")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="vaearr",
    cls=Commands,
    help="Scans and images as labelled arrays, with what a VAE learned of them beside.",
    **PLAIN,
)


def opt(text: str, *flags: str, **more: Any) -> Any:
    return typer.Option(*flags, help=text, **more)


def arg(text: str) -> Any:
    return typer.Argument(help=text)


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"vaearr {version('vaearr')}")
        raise typer.Exit


Version = opt("tell the version", "--version", callback=_tell_version, is_eager=True)


@app.callback()
def _options(is_asked: Annotated[bool, Version] = False) -> None:
    pass


# ---- options from docstrings, settings and keywords

SOURCE = "prior, or fitted: the Gaussian of the run's own latents"
WORDS = {  # of parameters that many commands have
    "store": "zarr store, as made by 'vaearr ingest'",
    "run": "name of the run; 'vae' writes `latents`, 'b' writes `latents_b`",
    "device": "auto, cpu, cuda, mps",
    "seed": "seed of whatever is drawn or chosen",
    "dask": "Dask workers: tcp://host:8786, a scheduler file, or local:4 on this machine",
    "trust": "package.module:Name of a network that the run may name; it is imported and run; repeatable",
    "overwrite": "replace what is there, made otherwise",
    "out": "folder to write pictures and tables into",
    "source": SOURCE,
}


def command(
    kind: type[Config] | None = None, *without: str, group: typer.Typer = app, name: str | None = None, **flags: str
) -> Callable[[Callable[..., None]], Any]:
    """Register a function as a command, whose parameters without a default are arguments and the others options.

    Their words are those of `Args:` in its docstring, as in the flows, else of WORDS; flags stand in brackets after
    the name. Those with flags are options anyway. kind: the config whose settings are options too, see `with_settings`.
    """
    with_more = with_settings(kind, *without, **flags) if kind else with_options({})

    def register(function: Callable[..., None]) -> Any:
        return group.command(name)(with_more(function))

    return register


def described(parameter: inspect.Parameter, said: Mapping[str, tuple[str, str]]) -> inspect.Parameter:
    """A parameter of a command with the words that help has for it, and its flags."""
    flags, words = said.get(parameter.name, ("", WORDS.get(parameter.name, "")))
    if flags == "argument" or (parameter.default is parameter.empty and not flags):
        return parameter.replace(annotation=Annotated[parameter.annotation, arg(words)])
    least = 0 if parameter.annotation is int else None
    spelt = opt(words, *(flags.split() or [f"--{parameter.name.replace('_', '-')}"]), min=least)
    return parameter.replace(annotation=Annotated[parameter.annotation, spelt])


@dataclass(frozen=True)
class Option:
    """An option that need not be given: what typer makes it of, and what reads it."""

    annotation: Any
    read: Callable[[Any], Any]


def option(annotation: Any, words: str, flag: str, form: str = "") -> Option:
    """An option of the type of a setting or keyword; of several items there is one for each, such as --metric.

    form: how numbers that belong together are spelt, such as START:STOP or ROWSxCOLUMNS.
    """
    takes_none = NoneType in get_args(annotation)
    parts = [_bare(part) for part in get_args(annotation) if part is not NoneType] if takes_none else [annotation]
    kind: Any = parts[0] if len(parts) == 1 else str
    origin, inner = get_origin(kind), get_args(kind)
    if kind is bool:
        return Option(Annotated[bool | None, opt(words, f"{flag}/--no-{flag[2:]}")], bool)
    if origin is tuple and inner and (takes_none or form):
        form = form or ("START:STOP" if inner == (float, float) else "AxB")
        return Option(Annotated[str | None, opt(words, flag, metavar=form)], lambda said: numbers(said, flag, form))
    if origin is dict or (origin is tuple and get_origin(inner[0]) is tuple):
        ends = origin is dict and get_origin(_bare(inner[-1])) is tuple
        metavar, read = ("X:Y", _pairs) if origin is tuple else ("NAME=START:STOP" if ends else "NAME=VALUE", _names)
        values = opt(f"{words}; repeatable", flag, metavar=metavar)
        return Option(Annotated[list[str] | None, values], lambda said: read(said, flag, inner[-1]))
    if origin is tuple:
        one, metavar = _plain_kind(inner[0])
        values = opt(f"{words}; repeatable", flag, metavar=metavar)
        return Option(Annotated[list[one] | None, values], list)  # type: ignore[valid-type]
    if origin is Literal:
        return Option(Annotated[str | None, opt(words, flag, metavar="|".join(map(str, inner)))], str)
    kind, metavar = _plain_kind(kind)
    least = 0 if kind is int else None
    return Option(Annotated[kind | None, opt(words, flag, metavar=metavar, min=least)], kind)


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _plain_kind(annotation: Any) -> tuple[Any, str]:
    """A type that typer reads, and the placeholder that help has for it."""
    kind = _bare(annotation)
    return {int: (int, "INTEGER"), float: (float, "NUMBER"), Path: (str, "FILE")}.get(kind, (str, "TEXT"))


def _pairs(said: list[str], flag: str, _: Any) -> list[tuple[float, ...]]:
    return [numbers(text, flag, "X:Y") for text in said]


def _names(said: list[str], flag: str, kind: Any) -> dict[str, Any]:
    given = key_values(said, flag)
    if get_origin(_bare(kind)) is tuple:
        return {name: plain(_as_list(value)) for name, value in given.items()}
    return dict(given) if kind in (str, Path) else {name: plain(value) for name, value in given.items()}


def _as_list(text: str) -> str:
    """`START:STOP`, of which one may be left out, as JSON; all else as it is."""
    start, colon, stop = text.partition(":")
    return f"[{start or 'null'}, {stop or 'null'}]" if colon else text


def setting_options(kind: type[Config], *without: str, **flags: str) -> dict[str, Option]:
    """An option for each setting of a config that is no group; flags: those of another name than theirs."""
    found = {}
    for name, setting in settings_of(kind).items():
        if setting.group is None and name not in without:
            words, default = setting.field.description or "", setting.default
            usual = ", ".join(default) if isinstance(default, tuple) else default
            sides = re.search(r"\((\w+(?:, \w+)+)\)", words)  # such as (rows, columns)
            form = "x".join(sides[1].upper().split(", ")) if sides and default is None else ""
            told = f"{words}{'' if usual in (None, '', {}) else f' [default: {usual}]'}"
            annotation = setting.field.annotation
            kinds: list[Any] = [get_origin(part) for part in (annotation, *get_args(annotation))]
            repeats = kinds[0] is tuple or dict in kinds
            flag = f"--{name.removesuffix('s') if repeats else name}".replace("_", "-")
            found[name] = option(annotation, told, flags.get(name, flag), form)
    return found


def with_options(options: Mapping[str, Option], *without: str) -> Callable[[Callable[..., None]], Any]:
    """Of a command: its own parameters as `described`, and further options; what these say, read, is `given` to it."""

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        own, kind = inspect.signature(function, eval_str=True), inspect.Parameter.KEYWORD_ONLY
        text, _, args = inspect.cleandoc(function.__doc__ or "").partition("\n\nArgs:\n")
        found = re.findall(r"^    (\w+)(?: \((.*?)\))?: (.*(?:\n {8}.*)*)", args, re.MULTILINE)
        said = {name: (flags, " ".join(words.split())) for name, flags, words in found}
        kept = [described(p, said) for name, p in own.parameters.items() if name not in ("given", *without)]
        more = [inspect.Parameter(name, kind, default=None, annotation=o.annotation) for name, o in options.items()]

        @functools.wraps(function)
        def call(**values: Any) -> None:
            said = {name: values.pop(name) for name in options}
            given = {name: options[name].read(value) for name, value in said.items() if value not in (None, [])}
            function(**values, **({"given": given} if options else {}))

        call.__doc__ = text
        made: Any = call
        made.__signature__ = own.replace(parameters=[*kept, *more], return_annotation=None)
        return call

    return wrap


CONFIG = "JSON, YAML or TOML file with settings; options and --set replace single ones"
BOX = tuple[float, float] | None
REGION = {side: option(BOX, "ROI box in coordinate units, half-open", f"--{side}") for side in "xyz"}
REGION["where"] = option(str, 'ROI condition on maps, such as "BC > 45"', "--where")


def with_settings(kind: type[Config], *without: str, **flags: str) -> Callable[[Callable[..., None]], Any]:
    """Of a command with `given`: an option for each setting, --config and --set; what they say is `given` to it.

    Type, default and help text of an option are those of the field. A command with `roi` has the options of a region
    too. without: settings that the command has words of its own for. flags: options of another name than theirs.
    """
    groups = "".join(
        f"; {name} ({field.description}): {', '.join(group.model_fields)}"
        for name, field in kind.model_fields.items()
        if (group := group_of(field)) and name not in without
    )
    sets = "any setting" + f", or GROUP.NAME=VALUE of a group{groups}" * bool(groups)
    options = setting_options(kind, *without, **flags) | {
        "config": Option(Annotated[Path | None, opt(CONFIG, "--config", metavar="FILE")], settings_file),
        "sets": Option(
            Annotated[list[str] | None, opt(sets, "--set", metavar="NAME=VALUE")],
            lambda said: nested_values(said, "--set"),
        ),
    }

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        region = REGION if "roi" in inspect.signature(function).parameters else {}

        @functools.wraps(function)
        def call(given: Given, **values: Any) -> None:
            base = over(placed(kind, given.pop("config", {})), placed(kind, given.pop("sets", {})))
            if region:
                sides = {name: given.pop(name) for name in REGION if name in given}
                values["roi"] = RoiConfig.from_attrs(sides) if sides else None
            function(**values, given=over(base, placed(kind, given)))

        return with_options(region | options, *(["roi"] if region else []))(call)

    return wrap


# ---- what options spell


def numbers(text: str, flag: str, form: str) -> tuple[float, ...]:
    """Numbers as a form such as START:STOP or ROWSxCOLUMNS has them."""
    separator = ":" if ":" in form else "x"
    try:
        found = tuple(map(float, text.lower().split(separator)))
    except ValueError:
        found = ()
    if not 2 <= len(found) <= (2 if separator == ":" else 3):
        raise UsageError(f"{flag} {text!r} is not {form}, such as 20{separator}90.")
    return found


def plain(text: str) -> Any:
    """JSON where it is such, else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def key_values(items: Sequence[str], flag: str) -> dict[str, str]:
    """`NAME=VALUE` texts, each name once."""
    given: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{flag} {name!r} is not NAME=VALUE.")
        if name in given:
            raise UsageError(f"{flag} {name} is given twice, as {given[name]!r} and {value!r}; give it once.")
        given[name] = value
    return given


def nested_values(items: Sequence[str], flag: str) -> dict[str, Any]:
    """`NAME=VALUE` and `NAME.INNER=VALUE` as nested values, in JSON or plain; single ones go over a whole object."""
    given, found = key_values(items, flag), dict[str, Any]()
    for key in sorted(given, key=lambda key: key.count(".")):
        *path, last = key.split(".")
        inner = found
        for i, part in enumerate(path, 1):
            inner[part] = {} if inner.get(part) is None else inner[part]
            inner = inner[part]
            if not isinstance(inner, dict):
                group = ".".join(path[:i])
                raise UsageError(f"{flag} {key}: {group!r} is set to {inner!r} already; nothing can be set inside it.")
        inner[last] = plain(given[key])
    return found


READERS: dict[str, Callable[[str], Any]] = {"toml": tomllib.loads, "yaml": yaml.safe_load, "yml": yaml.safe_load}


def settings_file(file: Path) -> dict[str, Any]:
    """Settings of a file in JSON, or in what its ending says."""
    form = file.suffix.lower()[1:] if file.suffix.lower()[1:] in READERS else "json"
    try:
        values = READERS.get(form, json.loads)(file.read_text())
    except FileNotFoundError:
        raise UsageError(f"there is no settings file {file}.") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or f"it is not {form.upper()}: {' '.join(str(error).split())}"
        raise UsageError(f"{file} cannot be read as a settings file: {reason}.") from None
    if not isinstance(values, dict):
        found = f"{file} holds a {form.upper()} {type(values).__name__}"
        raise UsageError(f'{found}; settings are an object, such as {{"epochs": 20}} or epochs: 20 in YAML.')
    return values


# ---- what is told, and where files go


def refuse(is_broken: object, words: str) -> None:
    """Raise UsageError where a rule is broken: options that need or exclude others."""
    if is_broken:
        raise UsageError(words)


def tell(text: str) -> None:
    typer.echo(text, err=True)


def say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes, the first speaks
        tell(text)


def print_lines(lines: Iterable[str], *, warnings_aside: bool = False) -> None:
    """On stdout; with `warnings_aside` those lines that warn on stderr."""
    for line in lines:
        typer.echo(line, err=warnings_aside and line.startswith("warning: "))


def trusted_run(store: str, run: str, trust: Sequence[str] | None, *, device: str = "cpu") -> Any:
    """A run of a store; it may name the networks that the user trusts."""
    return va.load_run(store, run, device=device, trust=trust or ())


@contextmanager
def folder_of(out: Path | None) -> Iterator[Path | None]:
    """Where files go until all are there; told at the end."""
    if out is None:
        yield None
        return
    from vaearr.store.folders import staged

    with staged(out) as folder:
        yield folder
    say(f"files are in {out}")
