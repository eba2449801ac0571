"""What it costs that every step checks whether its inputs were changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.store import check_inputs, check_store

pytestmark = pytest.mark.benchmarks

MOST = 0.02  # of a step
SIDE, PIXELS = 540, 60  # 1.05 GB of uint8


def seconds(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def test_share_of_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = da.random.RandomState(0).randint(
        0, 256, (SIDE, SIDE, PIXELS, PIXELS), dtype="u1", chunks=(32, 32, -1, -1)
    )
    ds = xr.Dataset({"patterns": (("y", "x", "dy", "dx"), random)})
    ds["BC"] = (("y", "x"), np.random.default_rng(0).random((SIDE, SIDE), dtype="f4"))
    va.ingest(ds, tmp_path / "scan.zarr", progress=False)
    store = check_store(tmp_path / "scan.zarr")
    small = {"options": {"width": 4, "max_width": 8, "hidden": 8, "squeeze": 4}, "latent_dim": 32}
    va.train(store, model=small, epochs=1, epoch_samples=1024, device="cpu", progress=False)
    steps = {
        "encode": (("patterns", "roi"), lambda: va.encode(store, device="cpu", progress=False)),
        "associate": (
            ("latents", "roi", "BC"),
            lambda: va.load_run(store).associate(targets=("BC",), progress=False),
        ),
    }
    lines, shares = [], dict[str, float]()
    for name, (inputs, step) in steps.items():
        whole = seconds(step)
        check = min(seconds(lambda inputs=inputs: check_inputs(store, inputs)) for _ in range(5))  # type: ignore[misc]
        lines.append(
            f"{name}: {whole:.2f} s, check of {', '.join(inputs)} {check * 1000:.1f} ms = {check / whole:.2%}"
        )
        shares[name] = check / whole
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert max(shares.values()) <= MOST
