"""Command line: thin commands over the functions; one-line errors, progress bars, exit codes of
`vaearr.errors`.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from vaearr.cli import data, help, look, pages, steps
from vaearr.cli.common import app, say
from vaearr.computing.signals import handled_by
from vaearr.errors import INTERNAL_ERROR, NoInputError, VaearrError, WriteError

__all__ = ["app", "data", "help", "look", "main", "pages", "steps"]

# Number of times that a waiting OpenMP thread spins before it sleeps. The default of 300 000 can
# take 15 ms, in which it blocks a core. libgomp reads this when torch or scikit-learn is loaded;
# results do not depend on it.
GOMP_SPINS = "10000"

# Messages name a setting in both spellings, as in "overwrite=True (--overwrite)". The command line
# keeps the second.
BOTH_SPELLINGS = re.compile(r"(?:\w+=(?:\([^)]*\)|\[[^\]]*\]|\S+?),? )+\((--[^)]+)\)")

STOPS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def _explain(error: Any) -> tuple[str, int]:
    """An error as one line, and its exit code."""
    if isinstance(error, VaearrError):
        return BOTH_SPELLINGS.sub(r"\1", str(error)), error.exit_code
    if isinstance(error, click.ClickException):  # such as an unknown option or command
        context = getattr(error, "ctx", None)
        message = error.format_message()
        if message[-1] not in ".?":
            message += "."
        if context:
            message += f" See '{context.command_path} --help'."
        return message, error.exit_code
    if isinstance(error, OSError):
        file = "" if error.filename is None else f" {error.filename}"
        message = f"cannot read/write{file}: {error.strerror or error}"
        if isinstance(error, FileNotFoundError):
            return message, NoInputError.exit_code
        return message, WriteError.exit_code
    return (
        f"internal error: {type(error).__name__}: {error}; run again with --debug and report it",
        INTERNAL_ERROR,
    )


class _Lines(logging.Handler):
    """The log of the steps as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        say(f"{prefix}{record.getMessage()}")


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Print the log of the steps on stderr inside the block."""
    log = logging.getLogger("vaearr")
    lines = _Lines()
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    log.propagate = False  # Prefect prints what reaches the root logger
    try:
        yield
    finally:
        log.removeHandler(lines)
        log.propagate = True


def main() -> None:
    """Run the command line: an error is one line on stderr; `--debug` shows its traceback."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", GOMP_SPINS)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if arguments in ([], ["look"]):
        arguments.append("--help")
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise SystemExit(128 + number)  # click would end a KeyboardInterrupt without a message

    with _log_on_stderr(), handled_by(stop):
        try:
            code = app(arguments, prog_name="vaearr", standalone_mode=False)
        except (Exception, SystemExit) as error:
            if received:  # a library may have replaced the SystemExit
                code = 128 + received[0]
                message = (
                    f"{STOPS[received[0]]}; nothing unfinished was published, run the same command "
                    "again"
                )
            elif isinstance(error, SystemExit):
                raise
            else:
                if "--debug" in sys.argv:
                    traceback.print_exc()
                message, code = _explain(error)
            click.echo(f"vaearr: {' '.join(message.split())}", err=True)
        if code:
            raise SystemExit(code)
