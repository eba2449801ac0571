"""Benchmarks use all cores (the other tests use one thread); VAEARR_BENCH_THREADS sets another number."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("VAEARR_BENCH_THREADS", len(os.sched_getaffinity(0)))))
    yield
    torch.set_num_threads(before)
