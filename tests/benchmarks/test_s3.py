"""Requests and bytes of stores on S3, counted at a server on loopback, of the demo and of training: `make bench`.

The first epoch of patterns that fit in memory reads them, the later ones read nothing. Streamed ones have an allowance
(`memory`) of half of the patterns, which are read in whole shards then, or of a tenth. Validation points lie all over
the scan, so they are a reading of their own. VAEARR_BENCH_POINTS and VAEARR_BENCH_SIGNAL=400x500 set the size of the
scan that is read, VAEARR_BENCH_EPOCHS the demo's training. Nothing here can fail on speed; it fails where a streamed
epoch reads much more than there is.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

import vaearr as va
from vaearr import names as n
from vaearr import store
from vaearr.batching import batches
from vaearr.cli import demo
from vaearr.config import SplitConfig, TrainConfig
from vaearr.schema import grid
from vaearr.store.places import Objects

from ..contract.bucket import Bucket
from ..data import random_patterns_dataset

pytestmark = pytest.mark.benchmarks

SIDE = int(int(os.environ.get("VAEARR_BENCH_POINTS", "65536")) ** 0.5)
HEIGHT, WIDTH = map(int, os.environ.get("VAEARR_BENCH_SIGNAL", "24x24").split("x"))
LINES: list[str] = []


def counted(bucket: Bucket, what: str, stored: int | None = None) -> tuple[int, int]:
    """Note what was asked since the last time; returns requests and bytes read."""
    count, read, sent = (sum(found.values()) for found in (bucket.requests, bucket.sent, bucket.received))
    by_method = ", ".join(f"{number} {method}" for method, number in sorted(bucket.requests.items()))
    part = f" ({read / stored:.2f} of the patterns)" if stored else ""
    LINES.append(
        f"{what:44} {count:5} requests {read / 1e6:8.2f} MB read{part} {sent / 1e6:8.2f} MB written  {by_method}"
    )
    bucket.forget()
    return count, read


def bytes_of_patterns(url: str) -> int:
    return sum(Objects(url).files("patterns/c/").values())


def test_demo(bucket: Bucket, tmp_path: Path) -> None:
    """Every step of the demo with the store on S3."""
    url = f"{bucket.url}/demo/scan.zarr"
    bucket.forget()
    step = ""

    class Steps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            nonlocal step
            line = record.getMessage()
            if line[1:3] == "/8":
                counted(bucket, step)
                step = line.split(":")[0]

    config = TrainConfig(epochs=int(os.environ.get("VAEARR_BENCH_EPOCHS", "3")))
    log, steps = logging.getLogger("vaearr"), Steps()
    log.setLevel(logging.INFO)
    log.addHandler(steps)
    closing = demo.run_demo(tmp_path / "demo", store=url, config=config)
    log.removeHandler(steps)
    counted(bucket, step)
    assert (tmp_path / "demo" / "scan.reports" / "vae" / "index.html").is_file()
    assert url in closing[0]
    assert {"latents", "grains"} <= set(store.open_store(url).variables)


@pytest.mark.parametrize("share", [4.0, 0.5, 0.1], ids=["in memory", "streamed", "streamed with little"])
def test_epochs(bucket: Bucket, share: float) -> None:
    """What the reader asks for in two epochs; nothing is computed with the patterns."""
    url = f"{bucket.url}/lab/scan.zarr"
    made = random_patterns_dataset({"y": SIDE, "x": SIDE}, {"dy": HEIGHT, "dx": WIDTH})
    store.create_store(made, url)
    stored, memory = bytes_of_patterns(url), share * made.patterns.nbytes / 2**30
    what = f"{SIDE * SIDE} patterns of {HEIGHT}x{WIDTH}, {len(store.store_blocks(url))} shards, {stored / 1e6:.1f} MB"
    LINES.append(f"{what}, read with memory={memory:.3g}")
    ds = store.open_store(url, chunks=None)
    split = grid.split(va.roi(ds), SplitConfig(), seed=0)
    parts = {}
    for name, value in (("training", n.TRAIN), ("validation", n.VALIDATION)):
        allowed = memory * float((split == value).mean())
        parts[name] = batches(ds, split=split, part=value, memory=allowed, device="cpu", batch_size=256, shuffle=True)
    bucket.forget()
    read: dict[str, int] = {}
    for epoch in (1, 2):
        for name, found in parts.items():
            seen = sum(len(batch) for batch in found)
            assert seen == found.n_samples_total
            read[f"{name} {epoch}"] = counted(bucket, f"   epoch {epoch}, {name}, {found.tier}", stored)[1]
    if share > 1:
        assert read["training 2"] == read["validation 2"] == 0
    else:
        assert read["training 2"] < (1.1 if share > 0.4 else 4.1) * stored  # with little, a chunk is read four times
