"""The real job: a scan of 131 670 patterns of 400 x 500 pixels (26 GB), from files to the report,
by default settings.

`pytest tests/benchmarks/test_real_size.py -m benchmarks -s`: about an hour, 50 GB of disk. Each
step is a command in a process of its own; printed are its time, patterns per second and most
memory. Then the grains of a part of 96 x 80
points: k-means of the whole scan's latents, and of those of a run that has learned from this part
alone. VAEARR_BENCH_FIELD=60x40 sets another size (columns x rows), VAEARR_BENCH_FOLDER where to
work; what lies there already is not made again.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from tests.benchmarks.large_scan import write_large_scan
from tests.benchmarks.scoring import grain_score

pytestmark = pytest.mark.benchmarks

NX, NY = map(int, os.environ.get("VAEARR_BENCH_FIELD", "399x330").split("x"))
PART = {"x": slice(0, 96), "y": slice(0, 80)}
INTERIOR = 0.95


def command(*arguments: object) -> tuple[float, float]:
    """Seconds and most memory (GB) of a command of its own process."""
    began = time.perf_counter()
    own = {
        name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"
    }  # tests have one thread
    child = os.posix_spawn(
        sys.executable, [sys.executable, "-m", "vaearr", *map(str, arguments)], own
    )
    _, status, usage = os.wait4(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, arguments
    return time.perf_counter() - began, usage.ru_maxrss * 1024 / 1e9


def test_from_files_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(os.environ.get("VAEARR_BENCH_FOLDER", tmp_path))
    if not (folder / "truth.nc").exists():
        write_large_scan(folder, NX, NY, n_grains=max(4, NX * NY // 330))[1].to_netcdf(
            folder / "truth.nc"
        )
    truth, store, points = xr.load_dataset(folder / "truth.nc"), folder / "scan.zarr", NX * NY
    maps = [
        "--bc",
        folder / "bandcontrast.csv",
        "--elements",
        folder / "elements.csv",
        "--phases",
        folder / "phases.csv",
    ]
    steps: list[list[object]] = [
        ["ingest", folder / "scan.h5", store, *maps],
        ["train", store],
        ["encode", store],
        ["associate", store, "--metric", "all", "--significance"],
        ["cluster", store],
        ["report", store],
    ]
    lines, total = [f"{'step':10} {'seconds':>8} {'patterns/s':>11} {'memory':>8}"], 0.0
    with capsys.disabled():
        for step in steps:
            seconds, memory = command(*step)
            total += seconds
            lines.append(f"{step[0]!s:10} {seconds:8.0f} {points / seconds:11.0f} {memory:5.2f} GB")
            print(f"\n{lines[-1]}", flush=True)
        lines.append(f"{'all':10} {total:8.0f}")
        part = va.open_store(store).isel(PART)
        own = folder / "part.zarr"
        if not own.exists():
            va.ingest(part[["patterns"]], own)
        va.train(own)
        va.encode(own)
        for name, latents in (
            ("whole scan", part.latents),
            ("part alone", xr.open_zarr(own).latents),
        ):
            everywhere, inside = _grains(truth.isel(PART), latents)
            lines.append(
                f"grains of the part, latents of the {name}: ARI {everywhere:.3f} / {inside:.3f} (inside)"
            )
        print("\n" + "\n".join(lines))


def _grains(truth: xr.Dataset, latents: xr.DataArray) -> tuple[float, float]:
    features = latents.transpose("y", "x", ...).values.reshape(truth.true_grain.size, -1)
    interior = truth.own_grain_fraction.values.ravel() > INTERIOR
    return grain_score(np.asarray(features), truth.true_grain.values.ravel(), interior)
