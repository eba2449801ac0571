"""Docstrings of public objects follow numpydoc, and their examples run."""

from __future__ import annotations

import doctest
import inspect
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpydoc.validate import validate

import vaearr as va

PUBLIC = [f"vaearr.{name}" for name in va.__all__ if not name.startswith("_")]
PUBLIC += [f"vaearr.Run.{name}" for name in vars(va.Run) if not name.startswith("_")]
# summary missing, not in the imperative, without a period; parameters missing or
# unknown; returned value missing; examples missing
CHECKED = {"GL08", "SS01", "SS03", "SS05", "SS06", "PR01", "PR02", "RT01", "RT03", "EX01"}
ATTRIBUTES = (property, cached_property)


def _object(name: str) -> Any:
    value: Any = va
    for part in name.split(".")[1:]:
        value = inspect.getattr_static(value, part) if value is va.Run else getattr(value, part)
    return value


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_is_complete(name: str) -> None:
    problems = []
    checked = CHECKED - {"EX01"} if isinstance(_object(name), ATTRIBUTES) else CHECKED
    for code, message in validate(name)["errors"]:
        if code in checked:
            problems.append(f"{code} {message}")
    assert not problems


@pytest.fixture(scope="module")
def folder(trained_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stores: `scan.zarr` with the runs `vae` and `pca`, `other.zarr` without a run."""
    path = tmp_path_factory.mktemp("examples")
    shutil.copytree(trained_template, path / "scan.zarr")
    va.train(path / "scan.zarr", run="pca", model="pca", latent_dim=3).encode()
    scan = va.open_store(trained_template)
    va.ingest(scan[["patterns", "present", "BC", "elements", "phase"]].load(), path / "other.zarr")
    return path


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `va`, `np`, `xr`, the Run `run` of `scan.zarr` and its Dataset `ds`."""
    monkeypatch.chdir(folder)
    run = va.load_run("scan.zarr")
    names = {"va": va, "np": np, "xr": xr, "run": run, "ds": run.ds}
    test = doctest.DocTestParser().get_doctest(
        inspect.getdoc(_object(name)) or "", names, name, None, 0
    )
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    output: list[str] = []
    result = doctest.DocTestRunner(optionflags=flags).run(test, out=output.append)
    assert not result.failed, "".join(output)
