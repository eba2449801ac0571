"""Two training processes of one thread against one of two threads.

VAEARR_BENCH_POINTS sets the points of the scan. Nothing here can fail on speed: machines differ and
are shared.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vaearr as va
from vaearr.store import create_store

from ..data import random_patterns_dataset
from .test_ratios import SIDE

pytestmark = pytest.mark.benchmarks


def test_torchrun(tmp_path: Path) -> None:
    """Two training processes of one thread against one of two: each update of the two learns from
    two batches.
    """
    path = create_store(
        random_patterns_dataset({"y": SIDE, "x": SIDE}, {"dy": 60, "dx": 60}),
        tmp_path / "scan.zarr",
    )
    threads: dict[int, dict[str, str]] = {
        1: {},
        2: {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    }
    shared = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    alone = [sys.executable, "-m"]
    together = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
    seconds = {}
    for count, start in ((1, alone), (2, together)):
        name = f"run{count}"
        settings = ["--epochs", "2", "--set", "epoch_samples=0", "--batch-size", str(128 // count)]
        command = [
            *start,
            "vaearr",
            *(["--"] if count == 2 else []),
            "train",
            str(path),
            "--run",
            name,
            *settings,
        ]
        subprocess.run(command, env=shared | threads[count], check=True, capture_output=True)
        seconds[count] = float(va.store.open_table(path, name, "history")["seconds"].values.min())
    print(
        f"{'an epoch of training, 128 in a batch':44}{seconds[1]:8.2f} s alone, {seconds[2]:8.2f} s by torchrun: "
        f"{seconds[1] / seconds[2]:5.2f} x"
    )
    assert seconds[2] > 0
