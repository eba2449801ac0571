"""What the commands share: the app, options made from settings, what options spell, progress, plain words."""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
import typer.core
import yaml

from vaearr.config import Config, RoiConfig, Setting, group_of, over, placed, settings_of
from vaearr.errors import UsageError

PLAIN: Any = {"pretty_exceptions_enable": False, "rich_markup_mode": None}
LOOKS: dict[str, Any] = {}  # the commands of `look`, by name
Given = dict[str, Any]


class Commands(typer.core.TyperGroup):
    """All commands; whoever names one of `look` alone is told where it is."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in LOOKS:
            raise UsageError(f"there is no command {args[0]!r}: it is 'vaearr look {args[0]}'.")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="vaearr",
    cls=Commands,
    help="Scans and image collections as labelled arrays, a VAE learned on them, the latents written back beside them.",
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


Store = Annotated[str, arg("zarr store, as made by 'vaearr ingest'")]  # text: a path takes a slash out of a URL
RunName = Annotated[str, opt("name of the run; 'vae' writes `latents`, 'b' writes `latents_b`", "--run")]
Device = Annotated[str, opt("auto, cpu, cuda, mps")]
Seed = Annotated[int, opt("seed of whatever is drawn or chosen", min=0)]
DASK = "Dask workers: tcp://host:8786, a scheduler file, or local:4 on this machine"
Dask = Annotated[str | None, opt(DASK, "--dask", metavar="WHERE")]
Overwrite = Annotated[bool, opt("replace what is there, made otherwise", "--overwrite")]
Folder = Annotated[Path | None, opt("folder to write pictures and tables into")]
CONFIG = opt("JSON, YAML or TOML file with settings; options and --set replace single ones", "--config", metavar="FILE")
REGION: dict[str, Any] = {
    name: Annotated[str | None, opt("ROI box START:STOP in coordinate units, half-open", f"--{name}")] for name in "xyz"
} | {"where": Annotated[str | None, opt('ROI condition on maps, such as "BC > 45"', "--where")]}


def with_settings(kind: type[Config], *without: str, **flags: str) -> Callable[[Callable[..., None]], Any]:
    """Of a command with `given`: an option for each setting, --config and --set; what they say is `given` to it.

    Type, default and help text of an option are those of the field; of lists there is one for each item, such as
    --metric. A command with `roi` has the options of a region too. without: settings that the command has words of its
    own for. flags: options of another name than theirs.
    """
    options = {n: s for n, s in settings_of(kind).items() if s.group is None and n not in without}
    spelt = {n: _spelling(setting) for n, setting in options.items()}
    called = {n: flags.get(n, f"--{n.removesuffix('s') if spelt[n][1] else n}".replace("_", "-")) for n in options}
    groups = "".join(
        f"; {name} ({field.description}): {', '.join(group.model_fields)}"
        for name, field in kind.model_fields.items()
        if (group := group_of(field)) and name not in without
    )
    sets = "any setting" + f", or GROUP.NAME=VALUE of a group{groups}" * bool(groups)

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True)
        region = REGION if "roi" in own.parameters else {}
        more = region | {name: _option(called[name], setting, *spelt[name][:2]) for name, setting in options.items()}
        more["config"] = Annotated[Path | None, CONFIG]
        more["sets"] = Annotated[list[str] | None, opt(sets, "--set", metavar="NAME=VALUE")]

        @functools.wraps(function)
        def call(**values: Any) -> None:
            base = placed(kind, settings_file(values.pop("config")))
            base = over(base, placed(kind, nested_values(values.pop("sets"), "--set")))
            said = {name: values.pop(name) for name in options}
            read = {n: spelt[n][2](value, called[n]) for n, value in said.items() if value not in (None, [])}
            if region:
                values["roi"] = roi_of(**{name: values.pop(name) for name in REGION})
            function(**values, given=over(base, placed(kind, read)))

        call.__signature__ = with_options(own, more, "given", "roi")  # type: ignore[attr-defined]
        return call

    return wrap


def with_options(own: inspect.Signature, more: Mapping[str, Any], *without: str) -> inspect.Signature:
    """A command's signature with further options, none of which must be given."""
    kind = inspect.Parameter.KEYWORD_ONLY
    kept = [p for p in own.parameters.values() if p.name not in without]
    added = [inspect.Parameter(name, kind, default=None, annotation=annotation) for name, annotation in more.items()]
    return own.replace(parameters=[*kept, *added], return_annotation=None)


def _spelling(setting: Setting) -> tuple[str, bool, Callable[[Any, str], Any]]:
    """How an option spells a setting: its placeholder, whether it repeats, and what reads it.

    Numbers and choices are read by the config itself.
    """
    annotation = setting.field.annotation
    parts = [part for part in get_args(annotation) if part is not NoneType] if setting.takes_none else [annotation]
    kind: Any = parts[0] if len(parts) == 1 else str
    origin, inner = get_origin(kind), get_args(kind)
    words = {int: "INTEGER", float: "NUMBER"}
    if origin is dict:
        read = str if inner[1] in (str, Path) else plain
        return "NAME=VALUE", True, lambda said, flag: {k: read(v) for k, v in key_values(said, flag).items()}
    if origin is tuple and setting.takes_none:
        names = re.search(r"\((\w+(?:, \w+)+)\)", setting.field.description or "")  # such as (rows, columns)
        form = "x".join(names[1].upper().split(", ")) if names else "AxB"
        count = None if Ellipsis in inner else len(inner)
        return form, False, lambda said, flag: _sides(said, flag, form, count)
    if origin is tuple:
        is_pair = get_origin(inner[0]) is tuple
        return ("X:Y", True, pairs) if is_pair else (words.get(inner[0], "TEXT"), True, lambda said, flag: said)
    return "|".join(map(str, inner)) if origin is Literal else words.get(kind, "TEXT"), False, lambda said, flag: said


def _option(flag: str, setting: Setting, metavar: str, repeats: bool) -> Any:
    usual = ", ".join(setting.default) if isinstance(setting.default, tuple) else setting.default
    default = "" if usual in (None, "", {}) else f" [default: {usual}]"
    text = f"{setting.field.description}{default}{'; repeatable' * repeats}"
    if setting.field.annotation is bool:
        return Annotated[bool | None, opt(text, f"{flag}/--no-{flag[2:]}")]
    kind: Any = list[str] | None if repeats else str | None
    return Annotated[kind, opt(text, flag, metavar=metavar)]


def _sides(text: str, flag: str, form: str, count: int | None) -> list[float]:
    """`AxB` or `AxBxC` as numbers."""
    try:
        numbers = [float(part) if "." in part else int(part) for part in text.lower().split("x")]
    except ValueError:
        numbers = []
    if not numbers or len(numbers) != (count or len(numbers)):
        raise UsageError(f"{flag} {text!r} is not {form}, such as {'x'.join(['60', '80', '40'][: count or 2])}.")
    return numbers


def plain(text: str) -> Any:
    """JSON where it is such, else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def nested_values(items: Sequence[str] | None, option: str) -> dict[str, Any]:
    """`NAME=VALUE` and `NAME.INNER=VALUE` as nested values, in JSON or plain; single ones go over a whole object."""
    given, found = key_values(items, option), dict[str, Any]()
    for key in sorted(given, key=lambda key: key.count(".")):
        *path, last = key.split(".")
        inner = found
        for i, part in enumerate(path, 1):
            inner[part] = {} if inner.get(part) is None else inner[part]
            inner = inner[part]
            if not isinstance(inner, dict):
                group = ".".join(path[:i])
                raise UsageError(
                    f"{option} {key}: {group!r} is set to {inner!r} already; nothing can be set inside it."
                )
        inner[last] = plain(given[key])
    return found


READERS: dict[str, Callable[[str], Any]] = {"json": json.loads, "toml": tomllib.loads}
READERS |= dict.fromkeys(("yaml", "yml"), yaml.safe_load)


def settings_file(file: Path | None) -> dict[str, Any]:
    """Settings of a file in JSON, or in what its ending says."""
    if file is None:
        return {}
    form = file.suffix.lower()[1:] if file.suffix.lower()[1:] in READERS else "json"
    try:
        values = READERS[form](file.read_text())
    except FileNotFoundError:
        raise UsageError(f"there is no settings file {file}.") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or f"it is not {form.upper()}: {' '.join(str(error).split())}"
        raise UsageError(f"{file} cannot be read as a settings file: {reason}.") from None
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise UsageError(
            f'{file} holds a {form.upper()} {kind}; settings are an object, such as {{"epochs": 20}}, epochs = 20 in '
            "TOML or epochs: 20 in YAML."
        )
    return values


def key_values(items: Sequence[str] | None, option: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{option} {name!r} is not NAME=VALUE.")
        if name in given:
            raise UsageError(f"{option} {name} is given twice, as {given[name]!r} and {value!r}; give it once.")
        given[name] = value
    return given


def box(text: str, option: str, form: str = "START:STOP") -> tuple[float, float]:
    try:
        start, stop = map(float, text.split(":"))
    except ValueError:
        raise UsageError(f"{option} {text!r} is not {form}, such as 20:90.") from None
    return start, stop


def pairs(items: Sequence[str], option: str) -> list[tuple[float, float]]:
    """`X:Y` texts as numbers."""
    return [box(item, option, "X:Y") for item in items]


def roi_of(where: str | None = None, **boxes: str | None) -> RoiConfig | None:
    """The ROI of `--x`, `--y`, `--z` and `--where`; None where none is given."""
    given: Given = {name: box(text, f"--{name}") for name, text in boxes.items() if text is not None}
    given |= {} if where is None else {"where": where}
    return RoiConfig.from_attrs(given) if given else None


def tell(text: str) -> None:
    typer.echo(text, err=True)


def say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes, the first speaks
        tell(text)


def print_lines(lines: Iterable[str], *, warnings_aside: bool = False) -> None:
    """On stdout; with `warnings_aside` those lines that warn on stderr."""
    for line in lines:
        typer.echo(line, err=warnings_aside and line.startswith("warning: "))


@contextmanager
def bar(what: str) -> Iterator[Callable[..., None]]:
    """A progress bar on a terminal, ten lines elsewhere; `progress(done, total, text)` moves it."""
    from rich.console import Console
    from rich.progress import Progress, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        task = shown.add_task(what, total=None)

        def progress(done: int, total: int, text: str = what) -> None:
            shown.update(task, completed=done, total=total, description=text)
            if not console.is_terminal and done * 10 // total > (done - 1) * 10 // total:
                say(f"{text}: {done} of {total}")

        yield progress


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
