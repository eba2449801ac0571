"""What the command line makes of errors that nobody foresaw."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from vaearr import cli


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """`main` with an app that raises the given error; gives the exit code."""
    handlers = {number: signal.getsignal(number) for number in cli.STOPS}

    def run(error: BaseException, *options: str) -> int:
        def app(*args: object, **kwargs: object) -> None:
            raise error

        monkeypatch.setattr(cli, "_command", lambda: app)
        monkeypatch.setattr(sys, "argv", ["vaearr", *options])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert isinstance(stop.value.code, int)
        return stop.value.code

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "a.csv"), 66, "cannot read/write a.csv: No such file"),
        (PermissionError(errno.EACCES, "Permission denied", "a.csv"), 74, "cannot read/write a.csv: Permission denied"),
        (OSError("truncated\nfile"), 74, "cannot read/write: truncated file"),
        (KeyError("x"), 70, "internal error: KeyError: 'x'; run again with --debug and report it"),
    ],
    ids=["not there", "not allowed", "without a path", "our mistake"],
)
def test_unforeseen_errors_are_one_line(
    run_main: Callable[..., int], capsys: pytest.CaptureFixture[str], error: Exception, code: int, line: str
) -> None:
    assert run_main(error) == code
    assert capsys.readouterr().err == f"vaearr: {line}\n"
    assert run_main(error, "--debug") == code
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith(f"vaearr: {line}\n")
