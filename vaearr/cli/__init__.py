"""Command line: thin commands over the functions; one-line errors, progress bars, exit codes of `vaearr.errors`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any

from typer.main import get_command

from vaearr.cli import commands, look
from vaearr.cli.common import app, say, tell
from vaearr.errors import INTERNAL_ERROR, NoInputError, VaearrError, WriteError

__all__ = ["app", "commands", "look", "main"]

# How often a waiting OpenMP thread looks before it sleeps. The default of 300 000 can take 15 ms, in which it keeps
# a core from other processes. libgomp reads this when torch or scikit-learn is loaded; results do not depend on it.
GOMP_SPINS = "10000"

STOPS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def _explain(error: Any) -> tuple[str, int]:
    """An error as one line, and its exit code."""
    if isinstance(error, VaearrError):
        return str(error), error.exit_code
    if hasattr(error, "format_message"):  # of typer: an option or a command that is not there
        path = f"; see '{error.ctx.command_path} --help'" if getattr(error, "ctx", None) else ""
        return f"{error.format_message().rstrip('.')}{path}.", error.exit_code
    if isinstance(error, OSError):
        where = "" if error.filename is None else f" {error.filename}"
        code = NoInputError.exit_code if isinstance(error, FileNotFoundError) else WriteError.exit_code
        return f"cannot read/write{where}: {error.strerror or error}", code
    return f"internal error: {type(error).__name__}: {error}; run again with --debug and report it", INTERNAL_ERROR


class _Lines(logging.Handler):
    """What the steps have to tell, as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{'warning: ' * (record.levelno >= logging.WARNING)}{record.getMessage()}")


@cache
def _command() -> Callable[..., Any]:
    """All commands, put together once a process: that takes as long as many a command."""
    command: Any = get_command(app)
    for option in command.params:
        option.hidden = option.name == "show_completion"  # --help fits a screen
    return command


def main() -> None:
    """Entry point: whatever goes wrong is one line on stderr; `--debug` shows where it came from."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", GOMP_SPINS)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    arguments += ["--help"] * (arguments in ([], ["look"]))
    stops: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stops.append(number)
        raise SystemExit(128 + number)  # not KeyboardInterrupt: typer would end that without a word

    caught = [number for number in STOPS if signal.getsignal(number) not in (signal.SIG_IGN, None)]  # nohup stays
    log, lines = logging.getLogger("vaearr"), _Lines()
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    log.propagate = False  # Prefect prints what reaches the root
    before = {number: signal.signal(number, stop) for number in caught}
    try:
        code = _command()(arguments, standalone_mode=False)  # which says itself what typer makes of an error
        if code:
            raise SystemExit(code)
    except (Exception, SystemExit) as error:
        if stops:  # whatever a library made of the SystemExit on its way here
            tell(f"vaearr: {STOPS[stops[0]]}; nothing unfinished was published, run the same command again")
            raise SystemExit(128 + stops[0]) from None
        if isinstance(error, SystemExit):
            raise
        if "--debug" in sys.argv:
            traceback.print_exc()
        text, number = _explain(error)
        tell(f"vaearr: {' '.join(text.split())}")
        raise SystemExit(number) from None
    finally:
        log.removeHandler(lines)
        log.propagate = True
        for number, handler in before.items():
            signal.signal(number, handler)
