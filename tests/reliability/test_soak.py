"""Train, encode and analyse again and again, patterns larger than the memory allowed: nothing grows.

On request: VAEARR_SOAK=4 works for that many minutes.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path
from statistics import median

import pytest

import vaearr as va
from tests.reliability.jobs import TRAINING
from vaearr.config import AssociateConfig, ClusterConfig
from vaearr.store import create_store
from vaearr.store.remove import remove
from vaearr.verifying import verify_store

from ..data import random_patterns_dataset

MINUTES = float(os.environ.get("VAEARR_SOAK", "0"))
LEAST_PASSES = 4
GROWTH = 32 * 2**20  # that memory may differ by between the first half of the passes and the second, the first left out


def _state() -> tuple[int, int, int]:
    """Resident memory in bytes, open files, threads."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident, len(os.listdir("/proc/self/fd")), threading.active_count()


@pytest.mark.skipif(not MINUTES, reason="a long run; set VAEARR_SOAK to the minutes it may take")
def test_nothing_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ds = random_patterns_dataset({"y": 96, "x": 96}, {"dy": 40, "dx": 40})
    store = create_store(ds, tmp_path / "scan.zarr")
    allowed = ds.patterns.nbytes / 2**30 / 4  # GiB: a quarter of the patterns
    del ds
    config = TRAINING.replace(epochs=1, memory=allowed)
    states: list[tuple[int, int, int]] = []
    end = time.monotonic() + 60 * MINUTES
    while time.monotonic() < end or len(states) < LEAST_PASSES:
        va.train(store, config=config)
        va.encode(store)
        va.associate_store(store, AssociateConfig(metrics=("pearson",)))
        va.cluster_store(store, ClusterConfig(method="kmeans", k=3))
        assert verify_store(store).is_healthy
        remove(store, variables=["clusters"], runs=["vae"])
        states.append(_state())
        with capsys.disabled():
            resident, files, threads = states[-1]
            print(f"\npass {len(states)}: {resident / 2**20:.0f} MiB, {files} open files, {threads} threads", end="")
    half = (len(states) + 1) // 2
    early, late = states[1 : half + 1], states[half + 1 :]  # medians: between two passes freed memory may still be held
    assert median(state[0] for state in late) - median(state[0] for state in early) < GROWTH
    assert states[-1][1] <= states[1][1]
    assert states[-1][2] <= states[1][2]
