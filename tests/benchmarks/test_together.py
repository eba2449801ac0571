"""Two scans with common phases, together and apart: `pytest tests/benchmarks/test_together.py -m
benchmarks -s`.

Means over three seeds. Grains: k-means (true number) against the truth of each scan, over all
points / inside grains.
Turn: rotation inside grains, see `scoring.rotation_score`. Across: band contrast of one scan told
by ridge regression learned from the other's latents (R2), which a common space alone allows.
Nothing here can fail on a number.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from sklearn.linear_model import RidgeCV

import vaearr as va
from tests.benchmarks import scoring
from tests.benchmarks.test_quality import INTERIOR, rotations
from vaearr.testing import synthetic_scan
from vaearr.views import save

pytestmark = pytest.mark.benchmarks

SIZES = {
    "a": {"nx": 72, "ny": 60, "n_grains": 45, "n_twins": 5, "seed": 21, "dose": 420.0},
    "b": {"nx": 60, "ny": 48, "n_grains": 30, "n_twins": 4, "seed": 22, "dose": 420.0},
}


def test_together_and_apart(tmp_path: Path) -> None:
    truths = {name: synthetic_scan(**size) for name, size in SIZES.items()}
    stores = {name: tmp_path / f"{name}.zarr" for name in SIZES}
    for name, store in stores.items():
        va.ingest(truths[name], store)
    rows: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for seed in scoring.SEEDS:
        for how in ("together", "apart"):
            run = f"{how}{seed}"
            began = time.perf_counter()
            if how == "together":
                va.train(
                    va.concat(list(stores.values())), run=run, seed=seed, progress=False
                ).apply(stores["b"])
            else:
                for store in stores.values():
                    va.train(store, run=run, seed=seed, progress=False)
            print(f"{run}: {time.perf_counter() - began:.0f} s", flush=True)
            z, bc = {}, {}
            for name, store in stores.items():
                va.encode(store, run=run, progress=False)
                found = xr.open_zarr(store)[f"latents_{run}"].values
                z[name], bc[name] = (
                    found.reshape(-1, found.shape[-1]),
                    truths[name].BC.values.ravel().astype(float),
                )
            for name, other in ("ab", "ba"):
                truth = truths[name]
                interior = truth.own_grain_fraction.values.ravel() > INTERIOR
                grain = truth.true_grain.values.ravel()
                scores = scoring.grain_score(z[name], grain, interior)
                turn = scoring.rotation_score(z[name], rotations(SIZES[name]), grain, interior)
                told = (
                    RidgeCV(np.logspace(-3, 3, 13))
                    .fit(z[other], bc[other])
                    .score(z[name], bc[name])
                )
                rows.setdefault((name, how), []).append((*scores, turn, told))
    print(f"{'scan':6}{'':10}{'grains':>16}{'turn':>8}{'BC across':>11}")
    for (name, how), values in sorted(rows.items()):
        grains, inside, turn, told = np.mean(values, 0)
        print(f"{name:6}{how:10}{grains:8.3f} /{inside:6.3f}{turn:8.3f}{told:11.3f}")
    maps = {
        name: xr.open_zarr(store)["latents_together0"][..., 1] for name, store in stores.items()
    }
    save(va.view(maps), tmp_path / "together.png")
    print(tmp_path / "together.png")
