"""The table of capabilities names only commands, options, functions and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import vaearr as va
from vaearr.cli import app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "tests/capabilities.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| (.*) \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
CODE = re.findall(r"`([^`]+)`", PAGE)


def test_every_line_is_there() -> None:
    numbers = [int(number) for number, *_ in ROWS]
    assert numbers == [*range(1, 99), 101, 102, 103]
    for number, capability, command, tests in ROWS:
        is_struck = capability.startswith("**struck**")
        assert is_struck or (command and tests), f"line {number} has no command or no test"


@pytest.mark.parametrize("row", [row for row in ROWS if row[3]], ids=lambda row: row[0])
def test_tests_exist(row: tuple[str, ...]) -> None:
    path = ""
    for name in re.findall(r"`([^`]+)`", row[3]):
        path, _, test = name.partition("::") if name.startswith("tests/") else (path, "", name[2:])
        text = (ROOT / path).read_text()
        assert not test or re.search(rf"^def {test}\(", text, re.MULTILINE), f"{path} has no {test}"


@pytest.mark.parametrize("code", [code for code in CODE if code.startswith("vaearr ")])
def test_commands_and_options_exist(code: str) -> None:
    command: Any = app
    words = code.split()[1:]
    while words and hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
    known = {
        option
        for parameter in command.params
        for option in [*parameter.opts, *parameter.secondary_opts]
    }
    for word in words:
        if word.startswith("-"):
            assert word.partition("=")[0] in known, f"{code!r}: there is no option {word}"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\bva\.(\w+)", PAGE))))
def test_functions_exist(name: str) -> None:
    assert hasattr(va, name)
