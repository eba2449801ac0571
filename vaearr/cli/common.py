"""What the commands share: the app, their options, settings from files and single values, progress, plain words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, overload

import typer
import typer.core

from vaearr.errors import UsageError
from vaearr.names import DEFAULT_RUN

SECTIONS = {  # of --help: every command stands in one
    "Data in": ("demo", "ingest", "attach", "info", "verify", "contrast"),
    "Learn": ("train", "import", "encode", "embed"),
    "What the latents mean": ("associate", "cluster", "layers"),
    "Look around in the latent space": (
        *("explore", "prototypes", "traverse", "manifold", "path", "scatter", "pairs"),
        *("histograms", "activations", "components", "interpolate", "sample"),
    ),
    "Judge": ("stats", "health", "describe", "unusual", "reconstruct", "judge"),
    "Results out": ("report", "export"),
    "Flows": ("run", "serve"),
}


class Sections(typer.core.TyperGroup):
    """The commands in the sections of `SECTIONS`."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a list of commands for each section."""
        width = formatter.width - 6 - max(map(len, self.commands))
        for heading, names in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(width)) for name in names])


app = typer.Typer(
    name="vaearr",
    cls=Sections,
    help="Scans and image collections as labelled arrays, a VAE learned on them, the latents written back beside them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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
NewStore = Annotated[str, typer.Argument(help="store to make, for example stores/scan.zarr")]
RunName = Annotated[str, typer.Option("--run", help="name of the run; 'vae' writes `latents`, 'b' writes `latents_b`")]
ChosenRun = Annotated[
    str | None, typer.Option("--run", help=f"name of the run; default: the one in --config, else {DEFAULT_RUN!r}")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what is there, made otherwise")]
Settings = Annotated[Path | None, typer.Option("--config", help="JSON file with settings")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="one setting, such as objective.target=self")]

BoxX = Annotated[str | None, typer.Option("--x", help="ROI box START:STOP in coordinate units, half-open")]
BoxY = Annotated[str | None, typer.Option("--y", help="ROI box START:STOP in coordinate units, half-open")]
BoxZ = Annotated[str | None, typer.Option("--z", help="ROI box START:STOP in coordinate units, half-open")]
Condition = Annotated[str | None, typer.Option("--where", help='ROI condition on maps, such as "BC > 45"')]

DaskWorkers = Annotated[
    str | None,
    typer.Option(
        "--dask", metavar="WHERE", help="Dask workers: tcp://host:8786, a scheduler file, or local:4 on this machine"
    ),
]


def settings_from(cls: Any, file: Path | None, sets: list[str] | None, base: dict[str, Any] | None = None) -> Any:
    """Settings from a base, a JSON file over it, and single `key.sub=value` changes over both."""
    values = _over(base or {}, {} if file is None else _json_object(file))
    for key, text in key_values(sets, "--set").items():
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        *path, last = key.split(".")
        inner = values
        for i, part in enumerate(path, 1):
            if inner.get(part) is None:
                inner[part] = {}
            inner = inner[part]
            if not isinstance(inner, dict):
                group = ".".join(path[:i])
                raise UsageError(
                    f"--set {key}: {group!r} is set to {inner!r} already, so nothing can be set inside it."
                )
        inner[last] = value
    return cls.from_attrs(values)


def _over(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested settings with those of another replaced."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = _over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _json_object(file: Path) -> dict[str, Any]:
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


def key_values(items: list[str] | None, option: str) -> dict[str, str]:
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


def region(x: str | None, y: str | None, z: str | None, where: str | None) -> Any:
    """The ROI of `--x`, `--y`, `--z` and `--where`; None where none is given."""
    from vaearr.config import RoiConfig

    given = {"x": box(x, "--x"), "y": box(y, "--y"), "z": box(z, "--z"), "where": where}
    return RoiConfig.from_attrs(given) if any(value is not None for value in given.values()) else None


def sides(text: str | None, option: str, kind: type) -> tuple[Any, ...] | None:
    """`AxB` or `AxBxC` as numbers."""
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.lower().split("x"))
    except ValueError:
        raise UsageError(f"{option} {text!r} is not numbers with x between them, such as 64x64.") from None


def number_pairs(items: list[str] | None, option: str) -> list[tuple[float, float]]:
    """`X:Y` texts as numbers."""
    return [pair for item in items or [] if (pair := box(item, option, "X:Y"))]


def tell(text: str) -> None:
    typer.echo(text, err=True)


def say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes, the first speaks
        tell(text)


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
