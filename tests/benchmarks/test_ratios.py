"""Speed as ratios inside one run, both sides printed: `make bench`; VAEARR_BENCH_POINTS=131670 for a full scan.

Nothing here can fail on speed: machines differ and are shared. Read the table.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
import zarr

import vaearr as va
from vaearr.artifacts import TrainedModel
from vaearr.batching import batches
from vaearr.config import EncodeConfig, TrainConfig
from vaearr.device import autocast, pick_device, pick_precision
from vaearr.latents import encode_region
from vaearr.runs import train
from vaearr.store import layout, open_store, store_blocks
from vaearr.testing import random_patterns_dataset, write_scan_files
from vaearr.training import loss_terms

pytestmark = pytest.mark.benchmarks

SIDE = int(int(os.environ.get("VAEARR_BENCH_POINTS", "4096")) ** 0.5)
ROUNDS = 3
RESULTS: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    print("\n" + "\n".join(RESULTS))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    ds = random_patterns_dataset({"y": SIDE, "x": SIDE}, {"dy": 60, "dx": 60})
    return write_scan_files(ds, tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def store(files: dict[str, Path]) -> Path:
    path = files["patterns"].parent / "scan.zarr"
    va.ingest(files["patterns"], path)
    return path


def compare(what: str, ours: Callable[[], int], other: Callable[[], int], against: str, target: float) -> None:
    """Run both sides in turn; print patterns per second of the best round of each and their ratio."""
    rates: dict[str, float] = {"ours": 0.0, "other": 0.0}
    for _ in range(ROUNDS):
        for name, work in (("ours", ours), ("other", other)):
            began = time.perf_counter()
            count = work()
            rates[name] = max(rates[name], count / (time.perf_counter() - began))
    RESULTS.append(
        f"{what:28} {rates['ours']:10.0f} patterns/s   {against:34} {rates['other']:10.0f} patterns/s   "
        f"ratio {rates['ours'] / rates['other']:6.2f}   (target {target:g})"
    )
    assert min(rates.values()) > 0


def test_ingest_against_plain_copy(files: dict[str, Path], tmp_path: Path) -> None:
    n_points = SIDE * SIDE

    def ours() -> int:
        va.ingest(files["patterns"], tmp_path / f"{time.perf_counter_ns()}.zarr")
        return n_points

    def copy() -> int:
        chunks, shards = layout.pattern_layout((SIDE, SIDE), (60, 60), 1)
        group = zarr.create_group(tmp_path / f"{time.perf_counter_ns()}.zarr", zarr_format=3)
        array = group.create_array(
            "p",
            shape=(SIDE, SIDE, 60, 60),
            dtype="u1",
            chunks=chunks,
            shards=shards,
            compressors=layout.pattern_codecs(),
        )
        with h5py.File(files["patterns"]) as source:
            for y in range(0, SIDE, shards[0]):
                rows = source["images"][y * SIDE : (y + shards[0]) * SIDE, 0]
                array[y : y + shards[0]] = rows.reshape(-1, SIDE, 60, 60)
        return n_points

    compare("ingest", ours, copy, "h5py read + zarr write, same codecs", 0.7)


@pytest.mark.parametrize("memory", [2.0, SIDE * SIDE * 3600 / 4 / 2**30], ids=["resident", "streamed"])
def test_batches_against_block_reads(store: Path, memory: float) -> None:
    ds = open_store(store, chunks=None)
    regions = store_blocks(store)

    def ours() -> int:
        return sum(len(batch) for batch in batches(ds, batch_size=256, memory=memory))

    def plain() -> int:
        for region in regions:
            _ = ds.patterns.isel(region).values
        return SIDE * SIDE

    compare(
        f"batches, {'streamed' if memory < 1 else 'first epoch in RAM'}",
        ours,
        plain,
        "plain reads of whole shards",
        0.7,
    )


def test_batches_against_one_read_per_sample(store: Path, files: dict[str, Path]) -> None:
    ds = open_store(store, chunks=None)
    n_single = min(SIDE * SIDE, 2000)

    def ours() -> int:
        return sum(len(batch) for batch in batches(ds, batch_size=256))

    def single() -> int:
        order = np.random.default_rng(0).permutation(SIDE * SIDE)[:n_single]
        with h5py.File(files["patterns"]) as source:
            images = source["images"]
            for i in order:
                pattern = images[i].astype("f4")
                torch.from_numpy((pattern - pattern.min()) / (pattern.max() - pattern.min()))
        return n_single

    compare("batches", ours, single, "one HDF5 read and min-max per sample", 20)


def test_training_against_the_bare_step(store: Path) -> None:
    ds = open_store(store, chunks=None)
    config = TrainConfig(epochs=1)
    device = pick_device("auto")
    held = torch.from_numpy(ds.patterns.values.reshape(-1, 1, 60, 60)).to(device)
    runs = iter(range(1000))

    def ours() -> float:
        result = train(store, run=f"r{next(runs)}", config=config.replace(split={"fraction": 0.0}))
        return float(result.manifest["n_train"] / result.history.seconds[0])

    rates = [ours() for _ in range(ROUNDS)]
    model = TrainedModel(
        model=config.model,
        preprocess=config.preprocess,
        input_shape=(1, 60, 60),
        signal_dims=("dy", "dx"),
        dtype="uint8",
    ).to(device)
    model.train()
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=1e-4)
    bare = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for x in held.split(config.batch_size):
            with autocast(device, pick_precision("auto", device)):
                nll, _, penalty = loss_terms(model, x, x.clone(), config.objective)
            optimizer.zero_grad(set_to_none=True)
            (nll + penalty).backward()
            optimizer.step()
        bare.append(len(held) / (time.perf_counter() - began))
    RESULTS.append(
        f"{'training':28} {max(rates):10.0f} patterns/s   {'bare step on a tensor in memory':34} {max(bare):10.0f} "
        f"patterns/s   ratio {max(rates) / max(bare):6.2f}   (target 0.95)"
    )


def test_encoding_against_the_bare_forward_pass(store: Path) -> None:
    run = "encoded"
    train(store, run=run, config=TrainConfig(epochs=1))
    ds = open_store(store, chunks=None)
    model = va.load_model(store, run)
    held = torch.from_numpy(ds.patterns.values.reshape(-1, 1, 60, 60))
    roi = xr.DataArray(np.ones((SIDE, SIDE), bool), dims=("y", "x"))

    def ours() -> int:
        for region in store_blocks(store):
            encode_region(model, ds, roi, region, EncodeConfig(run=run))
        return SIDE * SIDE

    def bare() -> int:
        for x in held.split(1024):
            model.decode_batch(model.encode_batch(x)[0])
        return SIDE * SIDE

    compare("encoding, reading included", ours, bare, "bare encode + decode in memory", 0.9)
