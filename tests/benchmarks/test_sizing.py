"""What a size costs: rates measured here and now, then extrapolated, up to 10^9 patterns: `make bench`.

Extrapolated are times that grow with the number of patterns (association with n log n) and bytes per pattern; the plan
of an epoch and the region are measured at their real size. VAEARR_BENCH_POINTS sets the size that is measured.
"""

from __future__ import annotations

import math
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vaearr as va
from vaearr.batching.plan import plan_buffers, plan_pieces
from vaearr.config import TrainConfig
from vaearr.run.train import train
from vaearr.store import open_store
from vaearr.store.layout import blocks
from vaearr.testing import synthetic_scan, write_scan_files

pytestmark = pytest.mark.benchmarks

POINTS = int(os.environ.get("VAEARR_BENCH_POINTS", "9216"))
SIDE = int(POINTS**0.5)
SIZES = (131_670, 10**7, 10**9)
GIB = 2**30
LINES: list[str] = []


def _seconds(work: Callable[[], object], rounds: int = 3) -> float:
    best = math.inf
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def _bytes(*folders: Path) -> int:
    return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())


def test_times_and_bytes(tmp_path: Path) -> None:
    count = SIDE * SIDE
    files = write_scan_files(synthetic_scan(SIDE, SIDE), tmp_path)
    stores = iter(tmp_path / f"scan{i}.zarr" for i in range(3))
    ingesting = _seconds(lambda: va.ingest(files["patterns"], next(stores), maps={"BC": files["BC"]}))
    store = tmp_path / "scan0.zarr"
    memory = 16 * SIDE * SIDE * 3600 / GIB / 32  # half of the patterns: streamed, as a store that does not fit
    train(store, config=TrainConfig(epochs=3, memory=memory))
    epoch = min(va.store.open_table(store, "vae", "history")["seconds"].values)
    encoding = _seconds(lambda: va.encode(store), rounds=1)
    ds = open_store(store).load()
    associating = _seconds(lambda: va.associate(ds.latents, ds.BC, metrics="all")) / (count * math.log2(count))
    pattern = _bytes(store / "patterns") / count
    code = _bytes(*(store / name for name in ("latents", "latents_std", "reconstruction_error"))) / count
    LINES.append(
        f"measured on {count} patterns of 60x60 uint8, streamed, 32 latents: ingest {count / ingesting:.0f}/s, "
        f"training {count / epoch:.0f}/s, encode {count / encoding:.0f}/s; {pattern:.0f} bytes a pattern, "
        f"{code:.0f} its latents"
    )
    for n_points in SIZES:
        hours = [n_points / count * seconds / 3600 for seconds in (ingesting, epoch, encoding)]
        associated = associating * n_points * math.log2(n_points) / 3600
        LINES.append(
            f"{n_points:13,} patterns: {n_points * pattern / 1e9:9.1f} GB, ingest {hours[0]:8.3f} h, an epoch "
            f"{hours[1]:8.3f} h, encode {hours[2]:8.3f} h, latents {n_points * code / 1e9:7.2f} GB, seven metrics of "
            f"32 latents {associated:8.3f} h"
        )
    assert count / encoding > 0


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
