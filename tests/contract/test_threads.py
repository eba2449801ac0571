"""Threads that wait for each other leave the cores to other processes, and a run says how many it
had.

How long they look before they sleep is what GNU's OpenMP runtime prints itself, with
`OMP_DISPLAY_ENV=VERBOSE`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .harness import TINY, attributes, command

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="torch brings GNU's OpenMP runtime on Linux"
)

LONGEST = (
    20_000  # looks of up to 50 ns each: a millisecond, less than another process runs at a stretch
)


def looks(*program: object, **said: str) -> set[int]:
    """How often a waiting thread looks before it sleeps, in each OpenMP runtime that the program
    loads.
    """
    told = (
        "GOMP_SPINCOUNT",
        "OMP_WAIT_POLICY",
        "MKL_NUM_THREADS",
    )  # the last by dask's nannies, in whoever starts one
    unsaid = {key: value for key, value in os.environ.items() if key not in told}
    environment = unsaid | {"OMP_DISPLAY_ENV": "VERBOSE"} | said
    done = subprocess.run(
        [*map(str, program)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    found = {int(count) for count in re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)}
    assert found, done.stderr
    return found


def test_a_command_waits_briefly_and_the_run_tells_its_threads(scan_store: Path) -> None:
    train = command("train", scan_store, "--epochs", 1, *TINY)
    assert max(looks(*train, OMP_NUM_THREADS="2")) <= LONGEST
    assert attributes(scan_store / "runs", "vae")["threads"] == 2


def test_what_the_environment_says_wins(trained_template: Path) -> None:
    assert min(looks(*command("encode", trained_template), OMP_WAIT_POLICY="ACTIVE")) > 10**6
