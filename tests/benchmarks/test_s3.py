"""Requests and bytes of stores on S3, counted at a server on loopback, of the demo and of training: `make bench`.

An epoch is training and validation together, from callback to callback; the first one of patterns that fit in memory
reads them, the later ones read nothing. Streamed ones have an allowance (`memory`) of half of the patterns, which are
read in whole shards then, or of a tenth. Validation points lie all over the scan, so they are a reading of their own.
VAEARR_BENCH_POINTS and VAEARR_BENCH_SIGNAL=400x500 set the size of the scan that is trained on twice. Nothing here can
fail on speed; it fails where a streamed epoch reads much more than there is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import vaearr as va
from vaearr import demo, store
from vaearr.config import TrainConfig
from vaearr.store.objects import Objects
from vaearr.testing import random_patterns_dataset

from ..conftest import TINY_TRAINING
from ..store.s3 import KEYS, Server, serving

pytestmark = pytest.mark.benchmarks

SIDE = int(int(os.environ.get("VAEARR_BENCH_POINTS", "65536")) ** 0.5)
HEIGHT, WIDTH = map(int, os.environ.get("VAEARR_BENCH_SIGNAL", "24x24").split("x"))
RESULTS: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    print("\n" + "\n".join(RESULTS))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    with serving() as found:
        for name, value in (
            KEYS | {"AWS_ENDPOINT_URL": found.endpoint, "VAEARR_CACHE": str(tmp_path / "cache")}
        ).items():
            monkeypatch.setenv(name, value)
        yield found


def counted(server: Server, what: str, stored: int | None = None) -> tuple[int, int]:
    """Note what was asked since the last time; returns requests and bytes read."""
    count, read, sent = (sum(found.values()) for found in (server.requests, server.sent, server.received))
    by_method = ", ".join(f"{number} {method}" for method, number in sorted(server.requests.items()))
    part = f" ({read / stored:.2f} of the patterns)" if stored else ""
    RESULTS.append(
        f"{what:44} {count:5} requests {read / 1e6:8.2f} MB read{part} {sent / 1e6:8.2f} MB written  {by_method}"
    )
    server.forget()
    return count, read


def bytes_of_patterns(url: str) -> int:
    return sum(stamp.size for stamp in Objects(url).below("patterns/c/"))


def test_demo(server: Server, tmp_path: Path) -> None:
    """Every step of the demo with the store on S3."""
    url = f"s3://{server.new_bucket()}/demo/scan.zarr"
    server.forget()
    step = ""

    def say(line: str) -> None:
        nonlocal step
        if line[1:3] == "/8":
            counted(server, step)
            step = line.split(":")[0]

    def progress(done: int, total: int, text: str) -> None:
        if done in (1, 2):
            counted(server, f"   epoch {done}", bytes_of_patterns(url))

    config = TrainConfig(epochs=int(os.environ.get("VAEARR_BENCH_EPOCHS", "3")))
    closing = demo.run_demo(tmp_path / "demo", store=url, config=config, say=say, progress=progress)
    counted(server, step)
    assert (tmp_path / "demo" / "scan.reports" / "vae" / "index.html").is_file()
    assert url in closing[0]
    assert {"latents", "grains"} <= set(store.open_store(url).variables)


@pytest.mark.parametrize("share", [4.0, 0.5, 0.1], ids=["in memory", "streamed", "streamed with little"])
def test_epochs(server: Server, share: float) -> None:
    url = f"s3://{server.new_bucket()}/lab/scan.zarr"
    ds = random_patterns_dataset({"y": SIDE, "x": SIDE}, {"dy": HEIGHT, "dx": WIDTH})
    store.create_store(ds, url)
    stored = bytes_of_patterns(url)
    n_shards = len(store.store_blocks(url))
    memory = share * ds.patterns.nbytes / 2**30
    RESULTS.append(
        f"{SIDE * SIDE} patterns of {HEIGHT}x{WIDTH}, {n_shards} shards, {stored / 1e6:.1f} MB; memory={memory:.3g}"
    )
    server.forget()
    read: list[tuple[int, int]] = []
    config = TINY_TRAINING.replace(epochs=2, memory=memory, batch_size=256)

    def on_epoch(epoch: int, row: dict[str, float]) -> None:
        read.append(counted(server, f"   epoch {epoch + 1}", stored))

    va.train(url, config=config, on_epoch=on_epoch)
    counted(server, "   health and publication")
    if share > 1:
        assert read[0][1] < 2 * stored
        assert read[1][1] < 1000
    else:
        assert read[1][1] < (2.2 if share > 0.4 else 3) * stored
