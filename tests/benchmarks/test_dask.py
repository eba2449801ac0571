"""Two processes against one with two threads, as ratios inside one run: Dask workers, torchrun; the cost of a task.

VAEARR_BENCH_POINTS sets the points of the scan. Nothing here can fail on speed: machines differ and are shared.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr import computing
from vaearr.store import create_store, store_blocks

from ..data import random_patterns_dataset
from .test_ratios import POINTS, SIDE

pytestmark = pytest.mark.benchmarks
distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")

LINES: list[str] = [f"{POINTS} patterns of 60x60, 2 workers of one thread"]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with computing.connected("local:2") as made:
        yield made


def _compare(what: str, work: Callable[[Any], object], client: Any, rounds: int = 2) -> None:
    """The best round of each side; the first one, in which workers import what they need, is left out."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    work(client)
    for _ in range(rounds):
        for side in seconds:
            began = time.perf_counter()
            work(client if side else None)
            seconds[side].append(time.perf_counter() - began)
    without, with_dask = min(seconds[False]), min(seconds[True])
    LINES.append(f"{what:44}{without:8.2f} s without, {with_dask:8.2f} s with Dask: {without / with_dask:5.2f} x")


def test_encode(client: Any, tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": SIDE, "x": SIDE}, {"dy": 60, "dx": 60})
    path = create_store(ds, tmp_path / "scan.zarr")
    va.train(path, epochs=1, epoch_samples=256, device="cpu")

    def work(dask: Any) -> None:
        store = shutil.copytree(path, tmp_path / "work.zarr", copy_function=_link)
        va.encode(store, dask=dask)
        shutil.rmtree(store)

    assert not {"latents"} & set(xr.open_zarr(path))
    _compare(f"encode, {len(store_blocks(path))} blocks", work, client)


def _link(one: str, two: str) -> None:
    Path(two).hardlink_to(one)


def test_association(client: Any) -> None:
    rng = np.random.default_rng(0)
    latents = xr.DataArray(rng.normal(size=(SIDE, SIDE, 32)).astype("f4"), dims=("y", "x", "latent"))
    target = xr.DataArray(rng.integers(0, 255, (SIDE, SIDE)).astype("f4"), dims=("y", "x"))

    def work(dask: Any) -> None:
        with computing.connected(dask):
            va.associate(latents, target, "all")

    _compare(f"association, 7 metrics of {SIDE * SIDE} points x 32", work, client)


def test_torchrun(tmp_path: Path) -> None:
    """Two training processes of one thread against one of two: each update of the two learns from two batches."""
    path = create_store(random_patterns_dataset({"y": SIDE, "x": SIDE}, {"dy": 60, "dx": 60}), tmp_path / "scan.zarr")
    threads: dict[int, dict[str, str]] = {1: {}, 2: {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}}
    shared = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    alone = [sys.executable, "-m"]
    together = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
    seconds = {}
    for count, start in ((1, alone), (2, together)):
        name = f"run{count}"
        settings = ["--epochs", "2", "--set", "epoch_samples=0", "--batch-size", str(128 // count)]
        command = [*start, "vaearr", *(["--"] if count == 2 else []), "train", str(path), "--run", name, *settings]
        subprocess.run(command, env=shared | threads[count], check=True, capture_output=True)
        seconds[count] = float(va.store.open_table(path, name, "history")["seconds"].values.min())
    LINES.append(
        f"{'an epoch of training, 128 in a batch':44}{seconds[1]:8.2f} s alone, {seconds[2]:8.2f} s by torchrun: "
        f"{seconds[1] / seconds[2]:5.2f} x"
    )
    assert seconds[2] > 0


def test_cost_of_a_task(client: Any) -> None:
    began = time.perf_counter()
    count = sum(1 for _ in computing.each(client, _nothing, range(500)))
    LINES.append(f"a task that does nothing: {1e3 * (time.perf_counter() - began) / count:.1f} ms")
    assert count == 500


def _nothing(item: int) -> int:
    return item
