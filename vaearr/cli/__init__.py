"""Command line: thin commands over the functions; one-line errors, progress bars, exit codes of `vaearr.errors`."""

from __future__ import annotations

import signal
import sys
import traceback
from types import FrameType

from vaearr.cli import (
    analyse,
    data,
    explore,
    explore_spread,
    foreign,
    infer,
    judge,
    layers,
    learn,
    page,
    run,
    verify,
)
from vaearr.cli.common import app, tell
from vaearr.errors import INTERNAL_ERROR, NoInputError, VaearrError, WriteError

__all__ = [
    "analyse",
    "app",
    "data",
    "explore",
    "explore_spread",
    "foreign",
    "infer",
    "judge",
    "layers",
    "learn",
    "main",
    "page",
    "run",
    "verify",
]

STOPS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def _explain(error: Exception) -> tuple[str, int]:
    """An error as one line, and its exit code."""
    if isinstance(error, VaearrError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        where = "" if error.filename is None else f" {error.filename}"
        code = NoInputError.exit_code if isinstance(error, FileNotFoundError) else WriteError.exit_code
        return f"cannot read/write{where}: {error.strerror or error}", code
    name = type(error).__name__
    return f"internal error: {name}: {error}; run again with --debug and report it", INTERNAL_ERROR


def main() -> None:
    """Entry point: whatever goes wrong is one line on stderr; `--debug` shows where it came from."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    stops: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stops.append(number)
        raise SystemExit(128 + number)  # not KeyboardInterrupt: typer would end that without a word

    caught = [number for number in STOPS if signal.getsignal(number) not in (signal.SIG_IGN, None)]  # nohup stays
    before = {number: signal.signal(number, stop) for number in caught}
    try:
        app()
    except (Exception, SystemExit) as error:
        if stops:  # whatever a library made of the SystemExit on its way here
            tell(f"vaearr: {STOPS[stops[0]]}; nothing unfinished was published, run the same command again")
            raise SystemExit(128 + stops[0]) from None
        if isinstance(error, SystemExit):
            raise
        if debug:
            traceback.print_exc()
        text, code = _explain(error)
        tell(f"vaearr: {' '.join(text.split())}")
        raise SystemExit(code) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
