"""What the plan of an epoch costs at sizes that nobody has here: `make bench`."""

from __future__ import annotations

import math
import time
import tracemalloc

import numpy as np
import pytest

from vaearr.batching.plan import plan_buffers, plan_pieces
from vaearr.store.layout import blocks

pytestmark = pytest.mark.benchmarks

SIZES = (131_670, 10**7, 10**9)
GIB = 2**30
LINES: list[str] = []


@pytest.mark.parametrize("n_points", SIZES)
def test_the_plan_of_an_epoch(n_points: int) -> None:
    side = math.isqrt(n_points)
    inside = np.ones((side, side), dtype=bool)
    tracemalloc.start()
    began = time.perf_counter()
    regions = blocks({"y": side, "x": side}, {"y": 32, "x": 32})
    pieces = plan_pieces([int(inside[tuple(r.values())].sum()) for r in regions], 256, 0, side * side)
    groups = plan_buffers([piece.stop - piece.start for piece in pieces], GIB // 3600, np.random.default_rng(0))
    seconds = time.perf_counter() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(piece.stop - piece.start for piece in pieces) == side * side
    assert sum(map(len, groups)) == len(pieces)
    LINES.append(
        f"{n_points:13,} patterns: plan of an epoch {seconds:6.1f} s, {peak / 2**20:7.0f} MiB in {len(pieces)} reads; "
        f"region {inside.nbytes / 2**20:5.0f} MiB"
    )
