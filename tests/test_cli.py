"""What the command line makes of errors that nobody foresaw."""

from __future__ import annotations

import errno
import sys
from typing import Any

import pytest

from vaearr import cli


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            FileNotFoundError(errno.ENOENT, "No such file", "a.csv"),
            66,
            "cannot read/write a.csv: No such file",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a.csv"),
            74,
            "cannot read/write a.csv: Permission denied",
        ),
        (OSError("truncated\nfile"), 74, "cannot read/write: truncated file"),
        (KeyError("x"), 70, "internal error: KeyError: 'x'; run again with --debug and report it"),
    ],
    ids=["not there", "not allowed", "without a path", "our mistake"],
)
def test_unforeseen_errors_are_one_line(
    error: Exception,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def app(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "_command", lambda: app)
    for options in ((), ("--debug",)):
        monkeypatch.setattr(sys, "argv", ["vaearr", *options])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == code
        told = capsys.readouterr().err
        assert told.endswith(f"vaearr: {line}\n")
        assert ("Traceback" in told) == bool(options)


def test_every_option_has_words() -> None:
    root: Any = cli._command()
    looks = root.commands["look"].commands
    for name, command in {**root.commands, **looks}.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", ""), f"{name} {parameter.name}"
