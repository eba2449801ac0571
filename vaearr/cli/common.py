"""What the commands share: the app and its sections, arguments and options, messages."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import cloup

from vaearr.config import DEVICE, RUN
from vaearr.errors import UsageError
from vaearr.names import DEFAULT_RUN

DATA, LEARN, ANALYSE = cloup.Section("Data"), cloup.Section("Learn"), cloup.Section("Analyse")
LOOK, SHARE, HELP = cloup.Section("Look"), cloup.Section("Share"), cloup.Section("Help")
PATH = click.Path(path_type=Path)


@cloup.group(
    name="vaearr",
    sections=[DATA, LEARN, ANALYSE, LOOK, SHARE, HELP],
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 100,
    },
)
@click.version_option(
    None,
    "--version",
    package_name="vaearr",
    message="vaearr %(version)s",
    help="Print the version.",
)
def app() -> None:
    """Scans and images as labelled arrays, and what a VAE learned from them."""


def command(*examples: str, group: cloup.Group = app, **settings: Any) -> Callable[..., Any]:
    """Register a function as a command, with examples at the end of its help.

    The first sentence of its docstring is its summary. settings: of the command, such as `section`
    and `name`.
    """

    def add(function: Callable[..., None]) -> Any:
        summary = (function.__doc__ or "").partition("\n\n")[0]
        epilog = "\n".join(["\b", "Examples:", *(f"  {example}" for example in examples)])
        short_help = " ".join(summary.split())
        return group.command(short_help=short_help, epilog=epilog, **settings)(function)

    return add


# ---- arguments and options that many commands have

STORE = cloup.argument("store", metavar="STORE", help="zarr store, as created by 'vaearr ingest'")
RUN_NAME = cloup.option("--run", default=DEFAULT_RUN, help=RUN)
DEVICE_NAME = cloup.option("--device", default="auto", help=DEVICE)
SEED = cloup.option("--seed", type=click.IntRange(min=0), default=0, help="seed of random numbers")
SCHEDULER = cloup.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask cluster that computes: address of its scheduler, or its scheduler file",
)
OVERWRITE = cloup.option("--overwrite", is_flag=True, help="replace an existing result")
TRUST = cloup.option(
    "--trust",
    multiple=True,
    metavar="PACKAGE.MODULE:NAME",
    help="network that the run may name; it is imported and run; repeatable",
)
AS_JSON = cloup.option("--json", "as_json", is_flag=True, help="print machine-readable JSON")


# ---- messages, and where files are written


def refuse(is_wrong: object, words: str) -> None:
    """Raise UsageError for options that need or exclude others."""
    if is_wrong:
        raise UsageError(words)


def say(text: str) -> None:
    """Print a line on stderr; of several processes only the first prints."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)  # rich prints it above a line of progress


def next_step(
    command: str, store: str, run: str = DEFAULT_RUN, *, also: str = "", word: str = "next"
) -> str:
    """Return the line that names the next command, with the path of the store and the run."""
    words = f"vaearr {command} {shlex.quote(store)}"
    if run != DEFAULT_RUN:
        words += f" --run {run}"
    return f"{word}: '{words}{also}'"


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on stdout, warnings on stderr."""
    for line in lines:
        click.echo(line, err=line.startswith("warning: "))


@contextmanager
def folder_of(out: Path | None) -> Iterator[Path | None]:
    """Yield a hidden folder that is renamed to `out` once all files are in it; None for none."""
    if out is None:
        yield None
        return
    from vaearr.store.folders import output_folder

    with output_folder(out) as folder:
        yield folder
    say(f"files are in {out}")
