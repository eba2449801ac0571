"""Importing, describing and viewing stay light and change nothing else in the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vaearr
from vaearr.store import create_store

from .data import random_patterns_dataset


@pytest.fixture(scope="module")
def store_with_a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scan with attached latents as the run `vae`."""
    scan = random_patterns_dataset({"y": 5, "x": 6}).assign(
        BC=(("y", "x"), np.arange(30.0).reshape(5, 6))
    )
    path = create_store(scan, tmp_path_factory.mktemp("architecture") / "scan.zarr")
    vaearr.attach(path, np.random.default_rng(0).normal(size=(5, 6, 2)), run="vae")
    return path


def _run_script(name: str, store: Path) -> str:
    script = Path(__file__).parent / "scripts" / name
    done = subprocess.run(
        [sys.executable, str(script), str(store)], capture_output=True, text=True, check=False
    )
    return f"{done.stdout}{done.stderr}".strip()


def test_views_and_text_load_no_network_library(store_with_a_run: Path) -> None:
    assert _run_script("light_views.py", store_with_a_run) == ""


def test_views_and_text_change_nothing_in_the_process(store_with_a_run: Path) -> None:
    assert _run_script("unchanged_process.py", store_with_a_run) == ""
