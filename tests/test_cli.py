"""What the command line makes of errors that nobody foresaw."""

from __future__ import annotations

import errno
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from vaearr import cli
from vaearr.cli.common import option


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
    error: Exception, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
    """From the docstring of its command, its setting or the words that many commands share."""
    root: Any = cli._command()
    looks = root.commands["look"].commands
    for name, command in {**root.commands, **looks}.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", ""), f"{name} {parameter.name}"
            assert not re.search(r"\{|Args:", parameter.help.replace("{y}_{x}", "")), f"{name} {parameter.name}"


@pytest.mark.parametrize(
    ("annotation", "form", "said", "read"),
    [
        (tuple[float, float], "LOW:HIGH", "-3:3", (-3.0, 3.0)),
        (tuple[int, int] | None, "ROWSxCOLUMNS", "60x80", (60.0, 80.0)),
        (tuple[tuple[float, float], ...], "", ["1:2", "3:4"], [(1.0, 2.0), (3.0, 4.0)]),
        (dict[str, Path], "", ["BC=a.csv"], {"BC": "a.csv"}),
        (dict[int, float] | None, "", ["0=1.5"], {"0": 1.5}),
        (tuple[int, ...], "", [3], [3]),
        (bool, "", True, True),
    ],
)
def test_what_options_spell(annotation: Any, form: str, said: Any, read: Any) -> None:
    assert option(annotation, "words", "--flag", form).read(said) == read
