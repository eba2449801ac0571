"""Notebooks as they are stored: static outputs, no traces of a machine, short prose, no network."""

from __future__ import annotations

import re
import subprocess
import sys

import nbformat
import pytest

from tests.notebooks.running import FOLDER, outputs
from tests.notebooks.test_run import FIGURES
from vaearr.cli import app

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def test_all_are_small_and_each_is_run():
    assert [path.stem for path in NOTEBOOKS] == list(FIGURES)
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 3_000_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_with_static_outputs(path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert notebook.metadata == METADATA
    count = 0
    for number, cell in enumerate(notebook.cells):
        assert cell.metadata == {}
        assert cell.id == f"cell-{number:02d}"
        if cell.cell_type == "code":
            count += 1
            assert cell.execution_count == count
    shown = outputs(notebook)
    kinds = [kind for output in shown for kind in output.get("data", {})]
    assert set(kinds) <= {"image/png", "text/plain", "text/html"}
    assert kinds.count("image/png") == sum(FIGURES[path.stem])
    words = "".join(map(str, shown))
    assert "<script" not in words
    assert not re.search(r"/tmp/|/root/|/home/|0x[0-9a-f]{6}", words)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert not re.search(r"https?://|/home/|/root/|/Users/|/tmp/|!pip|%pip", text)
    assert "tempfile.mkdtemp()" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_commands_that_the_prose_names_exist(path):
    known = app.commands
    prose = "\n".join(
        c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown"
    )
    named = re.findall(r"^vaearr (\w[\w-]*)(.*)$", prose, re.MULTILINE) + re.findall(
        r"`vaearr (\w[\w-]*)(.*?)`", prose
    )
    assert named
    for command, rest in named:
        assert command in known, command
        found = known[command]
        if command == "look":
            found = found.get_command(None, rest.split()[0])
        options = {option for parameter in found.params for option in parameter.opts}
        assert set(re.findall(r"--[\w-]+", rest)) <= options, f"vaearr {command}{rest}"


def test_the_guard_lets_nothing_out():
    code = (
        "import runpy, socket; guard = runpy.run_path('tests/notebooks/kernel.py', run_name='guard')\n"
        "socket.socket.connect, socket.getaddrinfo = guard['connect'], guard['getaddrinfo']\n"
        "for host in ('192.0.2.1', 'example.org'):\n"
        "    try:\n"
        "        socket.create_connection((host, 80), timeout=1)\n"
        "    except ConnectionRefusedError as error:\n"
        "        assert 'notebooks need no network' in str(error)\n"
        "    else:\n"
        "        raise AssertionError(host)\n"
        "server = socket.create_server(('127.0.0.1', 0)); socket.create_connection(server.getsockname()).close()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=FOLDER.parent, timeout=60)
