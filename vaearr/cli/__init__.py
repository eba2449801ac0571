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
from types import FrameType
from typing import Any

import click

from vaearr.cli import data, help, look, pages, steps
from vaearr.cli.common import app, say
from vaearr.errors import INTERNAL_ERROR, NoInputError, VaearrError, WriteError

__all__ = ["app", "data", "help", "look", "main", "pages", "steps"]

# How often a waiting OpenMP thread looks before it sleeps. The default of 300 000 can take 15 ms,
# in which it keeps a core from other processes. libgomp reads this when torch or scikit-learn is
# loaded; results do not depend on it.
GOMP_SPINS = "10000"

# Messages name a setting in both spellings, as in "overwrite=True (--overwrite)". The command line
# shows its own.
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
        code = (
            NoInputError.exit_code if isinstance(error, FileNotFoundError) else WriteError.exit_code
        )
        return f"cannot read/write{file}: {error.strerror or error}", code
    return (
        f"internal error: {type(error).__name__}: {error}; run again with --debug and report it",
        INTERNAL_ERROR,
    )


class _Lines(logging.Handler):
    """The log of the steps as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        say(f"{prefix}{record.getMessage()}")


def main() -> None:
    """Run the command line: an error is one line on stderr; `--debug` shows where it came from."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", GOMP_SPINS)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if arguments in ([], ["look"]):
        arguments.append("--help")
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise SystemExit(128 + number)  # not KeyboardInterrupt: click would end that without a word

    log = logging.getLogger("vaearr")
    lines = _Lines()
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    log.propagate = False  # Prefect prints what reaches the root
    handlers: dict[int, Any] = {}
    for number in STOPS:
        if signal.getsignal(number) not in (
            signal.SIG_IGN,
            None,
        ):  # ignored ones stay so, as under nohup
            handlers[number] = signal.signal(number, stop)
    try:
        code = app(arguments, prog_name="vaearr", standalone_mode=False)  # errors: see _explain
        if code:
            raise SystemExit(code)
    except (Exception, SystemExit) as error:
        if received:  # whatever a library made of the SystemExit on its way here
            word = STOPS[received[0]]
            click.echo(
                f"vaearr: {word}; nothing unfinished was published, run the same command again",
                err=True,
            )
            raise SystemExit(128 + received[0]) from None
        if isinstance(error, SystemExit):
            raise
        if "--debug" in sys.argv:
            traceback.print_exc()
        message, code = _explain(error)
        click.echo(f"vaearr: {' '.join(message.split())}", err=True)
        raise SystemExit(code) from None
    finally:
        log.removeHandler(lines)
        log.propagate = True
        for number, handler in handlers.items():
            signal.signal(number, handler)
