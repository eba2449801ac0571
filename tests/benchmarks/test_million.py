"""A million patterns of 60 x 60 on a laptop, each step beside the same step at 65 536: what a
pattern costs.

`pytest tests/benchmarks/test_million.py -m benchmarks -s`: 10 GB of disk. Each step is a command in
a process of its own; printed are its time, patterns per second, most memory, and the time of a
pattern over that in the smaller scan. Both are streamed: a third of the patterns at most is in
memory. The million is the smaller scan laid out 15 times. VAEARR_BENCH_SIDE=400 sets another side
of the large scan.
"""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from tests.benchmarks.large_scan import write_large_scan
from tests.benchmarks.test_explore import CHROMIUM, opened
from tests.benchmarks.test_real_size import command
from vaearr.testing import write_scan_files

pytestmark = pytest.mark.benchmarks

FEW, MANY = 256, int(os.environ.get("VAEARR_BENCH_SIDE", "1000"))
SHAPE = (60, 60)
MOST = 4.0  # GB of memory of any step
FOLDER = os.environ.get("VAEARR_BENCH_FOLDER")


def _laid_out(small: dict[str, Path], maps: xr.Dataset, folder: Path) -> dict[str, Path]:
    """The files of a scan MANY points wide and high, of the small one beside and below itself."""
    folder.mkdir()
    at = np.arange(MANY) % FEW
    along = np.arange(MANY) * 0.25
    paths = write_scan_files(maps.isel(y=at, x=at).assign_coords(y=along, x=along), folder)
    with h5py.File(small["patterns"]) as source, h5py.File(folder / "scan.h5", "w") as file:
        images = file.create_dataset(
            "images", (MANY * MANY, 1, *SHAPE), np.uint8, chunks=(256, 1, *SHAPE)
        )
        for y, row in enumerate(at):
            images[y * MANY : (y + 1) * MANY] = source["images"][row * FEW : (row + 1) * FEW][at]
        steps = np.stack([np.tile(np.arange(MANY), MANY), np.repeat(np.arange(MANY), MANY)], axis=1)
        file.create_dataset("coords", data=steps.astype(np.int32))
    return paths | {"patterns": folder / "scan.h5"}


def _steps(files: dict[str, Path], store: Path, points: int) -> dict[str, tuple[object, ...]]:
    """Commands; training holds at most a third of the patterns, so that both scans are streamed."""
    memory = points * SHAPE[0] * SHAPE[1] / 3 / 2**30
    train = (
        "train",
        store,
        "--epochs",
        2,
        "--set",
        "epoch_samples=0",
        "--set",
        f"memory={memory:.4f}",
    )
    return {
        "ingest": (
            "ingest",
            files["patterns"],
            store,
            "--bc",
            files["BC"],
            "--phases",
            files["phase"],
        ),
        "train, 2 epochs": train,
        "encode": ("encode", store),
        "associate": ("associate", store, "--metric", "all", "--target", "BC", "--target", "phase"),
        "PCA": ("train", store, "--run", "pca", "--model", "pca"),
        "clusters": ("cluster", store, "--method", "kmeans", "--set", "k=12"),
        "report": ("report", store),
    }


def test_cost_of_a_pattern(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(FOLDER or tmp_path)
    small, maps = write_large_scan(
        folder / "few", FEW, FEW, pattern_shape=SHAPE, n_grains=200, chunk=256
    )
    files = {FEW: small, MANY: _laid_out(small, maps, folder / "many")}
    steps = {side: _steps(files[side], folder / f"{side}.zarr", side * side) for side in files}
    with capsys.disabled():
        print(
            f"\n{'step':16} {'points':>8} {'seconds':>8} {'patterns/s':>11} {'memory':>8}",
            flush=True,
        )
        for step in steps[FEW]:
            found = {}
            for side in files:
                seconds, memory = command(*steps[side][step])
                found[side] = seconds / side**2
                print(
                    f"{step:16} {side**2:8} {seconds:8.1f} {side**2 / seconds:11.0f} {memory:5.2f} GB",
                    flush=True,
                )
                assert memory < MOST
            print(f"{'':16} {found[MANY] / found[FEW]:.2f} x the time of a pattern", flush=True)
        if CHROMIUM is not None:
            for side in files:
                print(
                    f"explorer, {side**2} points: {opened(folder / f'{side}.zarr', tmp_path / str(side))}",
                    flush=True,
                )
