"""What the commands share: the app, options made from settings, what options spell, progress, plain words."""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, overload

import typer
import typer.core

from vaearr.config import Config, RoiConfig, Setting, group_of, over, placed, settings_of
from vaearr.errors import UsageError

ORDER = (  # of the commands in --help
    *("demo", "ingest", "attach", "info", "verify", "train", "import", "encode", "reconstruct", "associate", "cluster"),
    *("embed", "judge", "look", "explore", "report", "export", "run", "serve"),
)


class Listed(typer.core.TyperGroup):
    """Commands in a list, each with as much of its first sentence as the screen is wide."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        names = self.list_commands(ctx)
        width = formatter.width - 6 - max(map(len, names))
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.commands[name].get_short_help_str(width)) for name in names])


class Commands(Listed):
    """All commands as data flow through them; whoever names one of `look` alone is told where it is."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=ORDER.index)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in self.commands["look"].commands:  # type: ignore[attr-defined]
            raise UsageError(f"there is no command {args[0]!r}: it is 'vaearr look {args[0]}'.")
        return super().resolve_command(ctx, args)


PLAIN: Any = {"no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False}
PLAIN["rich_markup_mode"] = None
app = typer.Typer(
    name="vaearr",
    cls=Commands,
    help="Scans and image collections as labelled arrays, a VAE learned on them, the latents written back beside them.",
    **PLAIN,
)
look = typer.Typer(cls=Listed, help="Look around in a latent space, and at the data it is learned from.", **PLAIN)
app.add_typer(look, name="look", short_help="Pictures and numbers of a latent space: vaearr look --help")


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"vaearr {version('vaearr')}")
        raise typer.Exit


Version = typer.Option("--version", help="tell the version", callback=_tell_version, is_eager=True)


@app.callback()
def _options(is_asked: Annotated[bool, Version] = False) -> None:
    pass


# text, since a path takes a slash out of a URL
Store = Annotated[str, typer.Argument(help="zarr store, as made by 'vaearr ingest'")]
RunName = Annotated[str, typer.Option("--run", help="name of the run; 'vae' writes `latents`, 'b' writes `latents_b`")]
BoxX = Annotated[str | None, typer.Option("--x", help="ROI box START:STOP in coordinate units, half-open")]
BoxY = Annotated[str | None, typer.Option("--y", help="ROI box START:STOP in coordinate units, half-open")]
BoxZ = Annotated[str | None, typer.Option("--z", help="ROI box START:STOP in coordinate units, half-open")]
Condition = Annotated[str | None, typer.Option("--where", help='ROI condition on maps, such as "BC > 45"')]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps")]
Seed = Annotated[int, typer.Option(min=0, help="seed of whatever is drawn or chosen")]
DaskWorkers = Annotated[
    str | None,
    typer.Option(
        "--dask", metavar="WHERE", help="Dask workers: tcp://host:8786, a scheduler file, or local:4 on this machine"
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what is there, made otherwise")]
CONFIG = typer.Option("--config", metavar="FILE", help="JSON file with settings; options and --set replace single ones")


@dataclass(frozen=True)
class Spelling:
    """How an option spells the value of a setting; numbers and choices are read by the config itself."""

    metavar: str
    many: bool = False
    read: Callable[[Any, str], Any] = lambda said, flag: said


def _spelling(setting: Setting) -> Spelling:
    parts = [part for part in get_args(setting.field.annotation) if part is not type(None)]
    is_union = get_origin(setting.field.annotation) in (Union, UnionType)
    kind = setting.field.annotation if not is_union else parts[0] if len(parts) == 1 else str
    origin, inner = get_origin(kind), get_args(kind)
    if origin is dict:
        read = str if inner[1] in (str, Path) else plain
        return Spelling("NAME=VALUE", True, lambda said, flag: {k: read(v) for k, v in key_values(said, flag).items()})
    if origin is tuple and not is_union:
        return Spelling("X:Y", True, number_pairs) if get_origin(inner[0]) is tuple else Spelling(_word(inner[0]), True)
    if origin is tuple:
        names = re.search(r"\((\w+(?:, \w+)+)\)", setting.field.description or "")  # such as (rows, columns)
        form = "x".join(names[1].upper().split(", ")) if names else "AxB"
        count = None if Ellipsis in inner else len(inner)
        return Spelling(form, False, lambda said, flag: _sides(said, flag, form, count))
    return Spelling("|".join(map(str, inner)) if origin is Literal else _word(kind))


def _word(kind: Any) -> str:
    return {int: "INTEGER", float: "NUMBER"}.get(kind, "TEXT")


def _sides(text: str, flag: str, form: str, count: int | None) -> list[float]:
    """`AxB` or `AxBxC` as numbers."""
    try:
        numbers = [float(part) if "." in part else int(part) for part in text.lower().split("x")]
    except ValueError:
        numbers = []
    if not numbers or len(numbers) != (count or len(numbers)):
        raise UsageError(f"{flag} {text!r} is not {form}, such as {'x'.join(['60', '80', '40'][: count or 2])}.")
    return numbers


def with_settings(kind: type[Config], *without: str, **flags: str) -> Callable[[Callable[..., None]], Any]:
    """Of a command with `given`: an option for each setting, --config and --set; what they say is `given` to it.

    Type, default and help text of an option are those of the field; of lists there is one for each item, such as
    --metric. without: settings that the command has words of its own for. flags: options of another name than theirs.
    """
    options = {n: s for n, s in settings_of(kind).items() if s.group is None and n not in without}
    spelt = {n: _spelling(setting) for n, setting in options.items()}
    called = {n: flags.get(n, f"--{n.removesuffix('s') if spelt[n].many else n}".replace("_", "-")) for n in options}
    words = "".join(
        f"; {name} ({field.description}): {', '.join(group.model_fields)}"
        for name, field in kind.model_fields.items()
        if (group := group_of(field)) and name not in without
    )
    sets = "any setting" + f", or GROUP.NAME=VALUE of a group{words}" * bool(words)

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True)
        more = {name: _option(called[name], setting, spelt[name]) for name, setting in options.items()}
        more |= {
            "config": Annotated[Path | None, CONFIG],
            "sets": Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=sets)],
        }

        @functools.wraps(function)
        def call(**values: Any) -> None:
            base = placed(kind, settings_file(values.pop("config")))
            base = over(base, placed(kind, nested_values(values.pop("sets"), "--set")))
            said = {name: values.pop(name) for name in options}
            read = {n: spelt[n].read(value, called[n]) for n, value in said.items() if value not in (None, [])}
            function(**values, given=over(base, placed(kind, read)))

        call.__signature__ = with_options(own, more, "given")  # type: ignore[attr-defined]
        return call

    return wrap


def _option(flag: str, setting: Setting, spelling: Spelling) -> Any:
    usual = ", ".join(setting.default) if isinstance(setting.default, tuple) else setting.default
    default = "" if usual in (None, "", {}) else f" [default: {usual}]"
    text = f"{setting.field.description}{default}{'; repeatable' * spelling.many}"
    if setting.field.annotation is bool:
        return Annotated[bool | None, typer.Option(f"{flag}/--no-{flag[2:]}", help=text)]
    kind: Any = list[str] | None if spelling.many else str | None
    return Annotated[kind, typer.Option(flag, metavar=spelling.metavar, help=text)]


def with_options(own: inspect.Signature, more: Mapping[str, Any], *without: str) -> inspect.Signature:
    """A command's signature with further options, none of which must be given."""
    kind = inspect.Parameter.KEYWORD_ONLY
    kept = [p for p in own.parameters.values() if p.name not in without]
    added = [inspect.Parameter(name, kind, default=None, annotation=annotation) for name, annotation in more.items()]
    return own.replace(parameters=[*kept, *added], return_annotation=None)


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
            if inner.get(part) is None:
                inner[part] = {}
            inner = inner[part]
            if not isinstance(inner, dict):
                group = ".".join(path[:i])
                raise UsageError(
                    f"{option} {key}: {group!r} is set to {inner!r} already, so nothing can be set inside it."
                )
        inner[last] = plain(given[key])
    return found


def settings_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        values = json.loads(file.read_text())
    except FileNotFoundError:
        raise UsageError(f"there is no settings file {file}.") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read as a settings file: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not JSON: {error}.") from None
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise UsageError(f'{file} holds a JSON {kind}; settings are an object, such as {{"epochs": 20}}.')
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


@overload
def box(text: str, option: str, form: str = ...) -> tuple[float, float]: ...
@overload
def box(text: str | None, option: str, form: str = ...) -> tuple[float, float] | None: ...
def box(text: str | None, option: str, form: str = "START:STOP") -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        start, stop = map(float, text.split(":"))
    except ValueError:
        raise UsageError(f"{option} {text!r} is not {form}, such as 20:90.") from None
    return start, stop


def number_pairs(items: Sequence[str] | None, option: str) -> list[tuple[float, float]]:
    """`X:Y` texts as numbers."""
    return [box(item, option, "X:Y") for item in items or []]


def region(x: str | None, y: str | None, z: str | None, where: str | None) -> RoiConfig | None:
    """The ROI of `--x`, `--y`, `--z` and `--where`; None where none is given."""
    given = {"x": box(x, "--x"), "y": box(y, "--y"), "z": box(z, "--z"), "where": where}
    return RoiConfig.from_attrs(given) if any(value is not None for value in given.values()) else None


def tell(text: str) -> None:
    typer.echo(text, err=True)


def say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes, the first speaks
        tell(text)


def print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)


def table_lines(rows: Mapping[Any, Iterable[float]], columns: Iterable[Any], width: int) -> list[str]:
    """Numbers of each latent dimension under each other."""
    head = "latent " + " ".join(f"{name:>{width}}" for name in columns)
    return [head, *(f"{i:>6} " + " ".join(f"{float(v):>{width}.4g}" for v in values) for i, values in rows.items())]


@contextmanager
def bar(what: str) -> Iterator[Callable[..., None]]:
    """A progress bar on a terminal, ten lines elsewhere; `progress(done, total, text)` moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)

        def progress(done: int, total: int, text: str = what) -> None:
            bar.update(task, completed=done, total=total, description=text)
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
