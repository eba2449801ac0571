"""What the command line makes of errors that nobody foresaw."""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Iterator
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

    monkeypatch.setattr(cli, "app", app)
    for options in ((), ("--debug",)):
        monkeypatch.setattr(sys, "argv", ["vaearr", *options])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == code
        told = capsys.readouterr().err
        assert told.endswith(f"vaearr: {line}\n")
        assert ("Traceback" in told) == bool(options)


def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_every_option_has_words_and_examples_are_commands() -> None:
    for path, command in commands(cli.app, "vaearr"):
        assert command.help, path
        for parameter in command.params:
            assert getattr(parameter, "help", ""), f"{path} {parameter.name}"
        examples = command.epilog.splitlines()[2:]
        assert examples, path
        for example in examples:
            assert example.strip().startswith(path)
            words = shlex.split(example.strip().removeprefix(path))
            command.make_context(path, words)  # parses the options
