"""The command line in this process or in one of its own, and what a store looks like from outside."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

OK, FAILED, USAGE, BAD_DATA, NO_INPUT, UNAVAILABLE, EXISTS, CANNOT_WRITE, BUSY = (
    0,
    1,
    2,
    65,
    66,
    69,
    73,
    74,
    75,
)
HAS_MONAI = importlib.util.find_spec("monai") is not None
MONAI = "the autoencoder of volumes needs monai: pip install 'vaearr[monai]'"


def sets(*settings: object) -> tuple[str, ...]:
    """Settings as options of a command."""
    return tuple(part for setting in settings for part in ("--set", str(setting)))


TINY = sets(
    'model.options={"width": 8, "max_width": 16, "hidden": 16, "squeeze": 4}',
    *("model.latent_dim=3", "precision=float32", "device=cpu", "seed=1"),
)


@dataclass(frozen=True)
class Done:
    """What a command left behind: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of an error, without its `vaearr: `."""
        lines = [line for line in self.err.splitlines() if line.startswith("vaearr: ")]
        assert len(lines) == 1, f"expected one line of error, got:\n{self.err}"
        return lines[0].removeprefix("vaearr: ")


def vaearr(*arguments: object, code: int | None = OK) -> Done:
    """A command of vaearr, run in this process through the installed entry point; `code` is the
    exit code expected.
    """
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="vaearr")
    main, before = entry.load(), sys.argv
    sys.argv = ["vaearr", *map(str, arguments)]
    out, err, status = io.StringIO(), io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = before
    return _checked(Done(status, out.getvalue(), err.getvalue()), arguments, code)


def spawn(
    *arguments: object,
    code: int | None = OK,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Done:
    """The same in a process of its own: for what belongs to processes (signals, threads, start-up).
    Takes seconds.
    """
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )
    return _checked(Done(done.returncode, done.stdout, done.stderr), arguments, code)


def command(*arguments: object) -> list[str]:
    """The command line of `spawn`, for tests that hold the process themselves."""
    return [sys.executable, "-m", "vaearr", *map(str, arguments)]


def _checked(done: Done, arguments: tuple[object, ...], code: int | None) -> Done:
    told = f"vaearr {' '.join(map(str, arguments))}\nended with {done.code}\n{done.out}\n{done.err}"
    assert "Traceback" not in done.err, told
    assert "internal error" not in done.err, told
    assert code is None or done.code == code, told
    return done


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with its SHA-256: what must not change."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def zarr(store: Path, group: str | None = None) -> xr.Dataset:
    """The store as everyone sees it: plain xarray, without a warning, integers as they are stored."""
    return xr.open_zarr(store, group=group, mask_and_scale=False)


def attributes(store: Path, variable: str | None = None) -> dict[str, Any]:
    """The attributes in a `zarr.json`, read as JSON; of the root group without a variable."""
    folder = store if variable is None else store / variable
    return dict(json.loads((folder / "zarr.json").read_text())["attributes"])


def nested(value: Any) -> dict[str, Any]:
    """An attribute that holds settings: JSON text, in stores of earlier versions a mapping."""
    return dict(json.loads(value) if isinstance(value, str) else value)
