"""Benchmarks print what they found, and use all cores (other tests: one); VAEARR_BENCH_THREADS sets
another number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import vaearr as va
from vaearr.computing.device import pick_device
from vaearr.testing import write_scan_files

from ..data import random_patterns_dataset


@pytest.fixture(scope="session", autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("VAEARR_BENCH_THREADS", len(os.sched_getaffinity(0)))))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def _table(request: pytest.FixtureRequest, _threads: None) -> Iterator[None]:
    """What a module gathers in `LINES`, printed when all of it ran."""
    yield
    if lines := getattr(request.module, "LINES", None):
        print(
            "\n".join(
                [f"\n{torch.get_num_threads()} threads, device {pick_device('auto')}", *lines]
            )
        )


@pytest.fixture(scope="module")
def files(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Files of a scan of random patterns, in the module's size."""
    side, signal = request.module.SIDE, {"dy": request.module.HEIGHT, "dx": request.module.WIDTH}
    return write_scan_files(
        random_patterns_dataset({"y": side, "x": side}, signal), tmp_path_factory.mktemp("bench")
    )


@pytest.fixture(scope="module")
def store(files: dict[str, Path]) -> Path:
    """The same as a store."""
    path = files["patterns"].parent / "scan.zarr"
    va.ingest(files["patterns"], path)
    return path
