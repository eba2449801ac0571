"""What is a representation worth, against principal components of the same patterns? One table:
`make bench`.

Scans of our own simulator, whose truth is known, with small and with large grains, two of them with
a fifth of the electrons. VAEARR_BENCH_EPOCHS=2 makes a smoke run. Nothing here can fail on a
number. All on the CPU, so that seconds compare.

Columns: `ARI all`, `inside`: k-means against the true grains, everywhere and where more than 95 %
of the signal is the point's own grain's. `turn`: how much of the rotation inside grains is told,
see `scoring.rotation_score`. `phase`: 5 nearest neighbours, five folds of whole blocks of 8 x 8
points (a grain on a block's edge is on both sides) / five folds of whole grains, where orientation
no longer helps. `BC r`: the best single dimension. `PSNR`: of the reconstruction from the features,
against the pattern without noise, see `scoring.psnr`. `active`: dimensions whose posterior mean has
a variance above 0.01 (PCA: all). `KL` in nats per pattern. `patterns/s` counts every pass. Features
are used as they are, unscaled.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.spatial.transform import Rotation

import vaearr as va
from tests.benchmarks import scoring
from tests.benchmarks.rivals import Representation, principal_components
from vaearr.testing import synthetic_scan, write_scan_files
from vaearr.testing.scan import microstructure

pytestmark = pytest.mark.benchmarks

EPOCHS = int(os.environ["VAEARR_BENCH_EPOCHS"]) if "VAEARR_BENCH_EPOCHS" in os.environ else None
SMALL_GRAINS = {"nx": 64, "ny": 48, "n_grains": 72, "n_twins": 10}
LARGE_GRAINS = {"nx": 72, "ny": 60, "n_grains": 40, "n_twins": 6}
INTERIOR = 0.95  # share of the signal that is the point's own grain's
HEAD = (
    f"{'method':34} {'ARI all':>7} {'inside':>7} {'turn':>6} {'phase: blocks/grains':>20} {'BC r':>6} {'PSNR':>6} "
    f"{'active':>6} {'KL':>7} {'seconds':>8} {'patterns/s':>10}"
)
LINES: list[str] = [HEAD]


@pytest.mark.parametrize(
    ("seed", "dose"), [*((seed, 420.0) for seed in (*scoring.SEEDS, 3)), (3, 84.0), (4, 84.0)]
)
def test_representation(seed: int, dose: float, tmp_path: Path) -> None:
    size: dict[str, Any] = {
        **(SMALL_GRAINS if seed in scoring.SEEDS else LARGE_GRAINS),
        "seed": seed,
        "dose": dose,
    }
    truth, store = synthetic_scan(**size), tmp_path / "scan.zarr"
    files = write_scan_files(truth, tmp_path)
    ds = va.ingest(files["patterns"], store, maps={"BC": files["BC"]}, phases=files["phase"])
    still = ds.patterns.mean(("y", "x"), dtype="float64").values
    seen = scoring.preprocessed(ds).reshape(-1, *ds.patterns.shape[2:])
    clean = scoring.preprocessed(synthetic_scan(**size, noise=False), background=still).reshape(
        seen.shape
    )
    for method, found in (
        ("vaearr, defaults, 32", vaearr_defaults(store, seed, seen.shape)),
        ("PCA, 32", principal_components(seen, 32)),
    ):
        LINES.append(
            f"{row(method, truth, found, clean, rotations(size))}  scan {seed}, dose {dose:.0f}"
        )
        print(f"\n{LINES[-1]}", end="", flush=True)


def vaearr_defaults(store: Path, seed: int, shape: tuple[int, ...]) -> Representation:
    """Ours as a user gets it: train, encode, load, decode. Learns from all points but the
    validation blocks.
    """
    began = time.perf_counter()
    run = va.train(store, epochs=EPOCHS, device="cpu", seed=seed)
    seconds = time.perf_counter() - began
    va.encode(store)
    ds = xr.open_zarr(store)
    latents = ds.latents.values.reshape(shape[0], -1)
    std = ds.latents_std.values.reshape(latents.shape)
    decoded = np.asarray(va.load_model(store).decode(latents)).reshape(shape)
    epochs = run.history.sizes["epoch"]
    return Representation(
        latents, decoded, seconds, run.manifest["n_train"] * epochs, std, note=f"{epochs} epochs"
    )


def rotations(size: dict[str, Any]) -> Rotation:
    """True orientation of each point of a synthetic scan."""
    structure = np.random.default_rng(np.random.SeedSequence(size["seed"]).spawn(3)[0])
    grains = {"n_grains": size["n_grains"], "n_twins": size["n_twins"]}
    found = microstructure(size["ny"], size["nx"], **grains, scratch=True, rng=structure)[
        "orientation"
    ]
    assert isinstance(found, Rotation)
    return found


def row(
    method: str, truth: xr.Dataset, found: Representation, clean: np.ndarray, turned: Rotation
) -> str:
    """All measures of one method on one scan, as a line of the table."""
    grain, phase = truth.true_grain.values, truth.true_phase.values.ravel()
    interior = truth.own_grain_fraction.values.ravel() > INTERIOR
    everywhere, inside = scoring.grain_score(found.features, grain.ravel(), interior)
    by_block = scoring.phase_score(
        found.features, phase, scoring.blocks((grain.shape[0], grain.shape[1]))
    )
    by_grain = scoring.phase_score(found.features, phase, grain.ravel())
    turn = scoring.rotation_score(found.features, turned, grain.ravel(), interior)
    active = scoring.n_active(found.features) if found.is_probabilistic else found.features.shape[1]
    kl = "–" if found.std is None else f"{scoring.kl_nats(found.features, found.std):.2f}"
    return (
        f"{method:34} {everywhere:7.3f} {inside:7.3f} {turn:6.3f} {by_block:12.3f} /{by_grain:6.3f} "
        f"{scoring.best_correlation(found.features, truth.BC.values.ravel()):6.3f} "
        f"{scoring.psnr(found.reconstruction, clean):6.2f} {active:6d} {kl:>7} "
        f"{found.seconds:8.1f} {found.n_passed / found.seconds:10.0f}  {found.note}"
    )
