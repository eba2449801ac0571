"""The data path as ratios inside one run, both sides printed: `make bench`;
VAEARR_BENCH_POINTS=131670 for a full scan.

Both sides of a ratio take turns and the best round of each counts, so that a busy machine does
little harm. Nothing here can fail on speed: machines differ and are shared. Read the table.
"""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
import zarr

import vaearr as va
from vaearr.batching import batches
from vaearr.computing.device import pick_device
from vaearr.config import EncodeConfig, TrainConfig
from vaearr.run.train import train
from vaearr.store import create_store, layout, open_store
from vaearr.store.folders import sync_tree
from vaearr.store.listing import refresh_listing
from vaearr.store.read import block_shape

from ..data import random_patterns_dataset

pytestmark = pytest.mark.benchmarks

SIDE = int(int(os.environ.get("VAEARR_BENCH_POINTS", "36864")) ** 0.5)
HEIGHT, WIDTH = map(int, os.environ.get("VAEARR_BENCH_SIGNAL", "60x60").split("x"))
ROUNDS = int(os.environ.get("VAEARR_BENCH_ROUNDS", "5"))
POINTS, NBYTES = SIDE * SIDE, SIDE * SIDE * HEIGHT * WIDTH
QUARTER = NBYTES / 4 / 2**30
LINES: list[str] = [f"{POINTS} patterns of {HEIGHT}x{WIDTH} uint8 ({NBYTES / 1e6:.0f} MB)"]


def compare(
    what: str, ours: Callable[[], int], others: dict[str, tuple[Callable[[], int], str]]
) -> None:
    """Run all sides in turn; print patterns per second of the best round of each, and ours against
    each other one.

    others: description -> (work, target of the ratio). Work returns the number of patterns.
    """
    sides = {what: ours} | {name: work for name, (work, _) in others.items()}
    rates = dict.fromkeys(sides, 0.0)
    for _ in range(ROUNDS):
        for name, work in sides.items():
            gc.collect()
            began = time.perf_counter()
            count = work()
            rates[name] = max(rates[name], count / (time.perf_counter() - began))
    for name, (_, target) in others.items():
        LINES.append(
            f"{what:32} {rates[what]:9.0f}/s   {name:46} {rates[name]:9.0f}/s   ratio {rates[what] / rates[name]:6.2f}"
            f"   {target}"
        )
    assert min(rates.values()) > 0


def test_ingest_against_plain_copy(files: dict[str, Path], tmp_path: Path) -> None:
    def ours() -> int:
        shutil.rmtree(tmp_path / "ours.zarr", ignore_errors=True)
        va.ingest(files["patterns"], tmp_path / "ours.zarr")
        return POINTS

    def copy(*, durable: bool) -> int:
        path = tmp_path / "copy.zarr"
        shutil.rmtree(path, ignore_errors=True)
        chunks = layout.pattern_chunks((SIDE, SIDE), (HEIGHT, WIDTH), 1)
        array = zarr.create_group(path, zarr_format=3).create_array(
            "p",
            shape=(SIDE, SIDE, HEIGHT, WIDTH),
            dtype="u1",
            chunks=chunks,
            compressors=layout.PATTERN_CODECS,
        )
        with h5py.File(files["patterns"]) as source:
            for y in range(0, SIDE, chunks[0]):
                rows = source["images"][y * SIDE : (y + chunks[0]) * SIDE, 0]
                array[y : y + chunks[0]] = rows.reshape(-1, SIDE, HEIGHT, WIDTH)
        if durable:
            sync_tree(path)
        return POINTS

    others = {
        "h5py read + zarr write, fsync": (lambda: copy(durable=True), "(target 0.7)"),
        "h5py read + zarr write, no fsync": (
            lambda: copy(durable=False),
            "(ours syncs, checks and hashes)",
        ),
    }
    compare("ingest", ours, others)


def test_batches_against_block_reads_and_single_reads(store: Path, files: dict[str, Path]) -> None:
    ds, default = open_store(store, chunks=None), xr.open_zarr(store, chunks=None)
    block = block_shape(ds)
    regions = list(layout.blocks({dim: ds.sizes[dim] for dim in block}, block))
    streamed, resident = batches(ds, memory=QUARTER), batches(ds, memory=2 * NBYTES / 2**30)
    LINES.append(f"streamed: {streamed.describe()}; resident: {resident.describe()}")

    def epoch(of: Callable[[], object]) -> Callable[[], int]:
        return lambda: sum(len(batch) for batch in of())  # type: ignore[attr-defined]

    def blocks(of: xr.Dataset) -> int:
        for region in regions:
            _ = of.patterns.isel(region).values
        return POINTS

    fast = lambda: blocks(ds)  # noqa: E731
    plain = lambda: blocks(default)  # noqa: E731
    single = lambda: _single_reads(files["patterns"])  # noqa: E731
    one = "one HDF5 read and min-max per sample"
    others = {
        "plain reads of whole chunks, same codecs": (fast, "(target 0.7)"),
        "plain reads of whole chunks, zarr's default": (plain, ""),
        one: (single, "(target 20)"),
    }
    compare("batches, streamed, any epoch", epoch(lambda: streamed), others)
    first = epoch(lambda: batches(ds, memory=2 * NBYTES / 2**30))
    others = {"plain reads of whole chunks, same codecs": (fast, "(pays for fresh memory, once)")}
    compare("batches, in RAM, first epoch", first, others)
    others = {"plain reads of whole chunks, same codecs": (fast, ""), one: (single, "(target 20)")}
    compare("batches, in RAM, later epochs", epoch(lambda: resident), others)
    dask = batches(open_store(store), memory=QUARTER)
    compare(
        "batches, streamed, from dask",
        epoch(lambda: dask),
        {"plain reads of whole chunks, same codecs": (fast, "")},
    )


def _single_reads(file: Path) -> int:
    n_single = min(POINTS, 2000)
    order = np.random.default_rng(0).permutation(POINTS)[:n_single]
    with h5py.File(file) as source:
        images = source["images"]
        for i in order:
            pattern = images[i].astype("f4")
            torch.from_numpy((pattern - pattern.min()) / (pattern.max() - pattern.min()))
    return n_single


def test_encoding_against_the_bare_forward_pass(tmp_path: Path) -> None:
    device = pick_device("auto")
    side = SIDE if device.type == "cuda" else min(SIDE, 128)
    ds = random_patterns_dataset({"y": side, "x": side}, {"dy": HEIGHT, "dx": WIDTH})
    store = create_store(ds, tmp_path / "scan.zarr")
    config = EncodeConfig()
    train(store, config=TrainConfig(epochs=1))
    model = va.load_model(store, device="auto")
    held = torch.from_numpy(ds.patterns.values.reshape(-1, 1, HEIGHT, WIDTH))

    def ours() -> int:
        for name in ("latents", "latents_std", "reconstruction_error", "latent"):
            shutil.rmtree(store / name, ignore_errors=True)
        refresh_listing(store)
        va.encode(store, config=config)
        return side * side

    def bare() -> int:
        for x in held.split(config.batch_size):
            model.decode_batch(model.encode_batch(x)[0])
        if device.type == "cuda":
            torch.cuda.synchronize()
        return side * side

    compare(
        "va.encode, reading and writing",
        ours,
        {"bare encode + decode in memory": (bare, "(target 0.9)")},
    )
