"""What is a representation worth, against others of the same patterns? One table for each scan: `make bench`.

Scans with known truth: three of our own simulator's (all methods on the first, PCA and ours on the others), and the
folder that VAEARR_BENCH_SCAN names, with scan.h5, bandcontrast.csv, elements.csv, phases.csv and truth.npz as in
shared/data/ebsd_sim/polycrystal_64x48. VAEARR_BENCH_EPOCHS=2 makes a smoke run. Nothing here can fail on a number.
All on the CPU, so that seconds compare; on one core about 15 minutes for each scan with all methods (the first seed's
network takes most of it). pythae is optional: see `rivals.pythae_vae`.

Columns: `ARI all`, `inside`: k-means against the true grains, everywhere and where more than 95 % of the signal is the
point's own grain's. `phase`: 5 nearest neighbours, five folds of whole blocks of 8 x 8 points (a grain on a block's
edge is on both sides) / five folds of whole grains, where orientation no longer helps. `BC r`: the best single
dimension. `PSNR`: of the reconstruction from the features, against the pattern without noise, see `scoring.psnr`.
`active`: dimensions whose posterior mean has a variance above 0.01 (PCA, NMF: all). `KL` in nats per pattern.
`patterns/s` counts every pass. Features are used as they are, unscaled.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from numpy.typing import NDArray

import vaearr as va
from tests.benchmarks import rivals, scoring
from tests.benchmarks.rivals import Representation
from vaearr.models.preprocess import preprocess
from vaearr.testing import synthetic_scan, write_scan_files

pytestmark = pytest.mark.benchmarks

FOLDER = os.environ.get("VAEARR_BENCH_SCAN")
EPOCHS = int(os.environ["VAEARR_BENCH_EPOCHS"]) if "VAEARR_BENCH_EPOCHS" in os.environ else None
GIVEN = "given"
SYNTHETIC = {f"synthetic {seed}": seed for seed in scoring.SEEDS}
OURS, PCA32 = "vaearr, defaults, 32", "PCA, 32"
OPTIONAL = ("pythae", "imageio")
INTERIOR = 0.95  # share of the signal that is the point's own grain's

HEAD = (
    f"{'method':34} {'ARI all':>7} {'inside':>7} {'phase: blocks/grains':>20} {'BC r':>6} {'PSNR':>6} {'active':>6} "
    f"{'KL':>7} {'seconds':>8} {'patterns/s':>10}"
)


@dataclass(frozen=True)
class KnownScan:
    """A scan in a store and the truth behind it, points in row order; `reference` holds patterns for the PSNR."""

    name: str
    seed: int  # of the training too
    store: Path
    seen: NDArray[np.float32]  # (point, dy, dx), preprocessed
    band_contrast: NDArray[Any]
    grain: NDArray[Any]
    phase: NDArray[Any]
    interior: NDArray[np.bool_]
    blocks: NDArray[Any]
    points: NDArray[Any]  # those that have a reference
    reference: NDArray[np.float32]
    about: str


SCANS: dict[str, KnownScan] = {}
TABLES: dict[str, list[str]] = {}
EPOCHS_RUN: dict[str, int] = {}  # of our training, which the others then get


@pytest.fixture(scope="module", autouse=True)
def tables() -> Iterator[None]:
    yield
    for name, rows in TABLES.items():
        print("\n\n" + "\n".join([name, HEAD, *rows]), flush=True)


@pytest.fixture
def known(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> KnownScan:
    """The scan of that name, made once."""
    name: str = request.param
    if name in SCANS:
        return SCANS[name]
    if name == GIVEN:
        if FOLDER is None:
            TABLES.setdefault("given scan: SKIPPED, VAEARR_BENCH_SCAN is not set", [])
            pytest.skip("VAEARR_BENCH_SCAN is not set: give it the folder of a simulated scan with truth.npz")
        scan = given_scan(Path(FOLDER), tmp_path_factory.mktemp(GIVEN))
    else:
        scan = own_scan(name, tmp_path_factory.mktemp("synthetic"))
    threads = torch.get_num_threads()
    TABLES[f"{scan.name}: {scan.about}; {len(scan.seen)} points, {threads} threads"] = []
    SCANS[name] = scan
    return scan


def own_scan(name: str, folder: Path) -> KnownScan:
    """A scan of our simulator. The patterns without noise are the same scan simulated with `noise=False`."""
    size: dict[str, Any] = {"nx": 64, "ny": 48, "n_grains": 72, "n_twins": 10, "seed": SYNTHETIC[name]}
    truth = synthetic_scan(**size)
    files = write_scan_files(truth, folder)
    ds = va.ingest(files["patterns"], folder / "scan.zarr", maps={"BC": files["BC"]}, phases=files["phase"])
    still = ds.patterns.mean(("y", "x"), dtype="float64").values
    clean = preprocess(synthetic_scan(**size, noise=False).patterns, background=still)
    return _known(
        name,
        folder / "scan.zarr",
        ds,
        grain=truth.true_grain.values,
        phase=truth.true_phase.values,
        own_fraction=truth.own_grain_fraction.values,
        points=np.arange(clean.shape[0] * clean.shape[1]),
        reference=clean.values.reshape(-1, *clean.shape[2:]),
        about="PSNR against the noise-free patterns",
    )


def given_scan(folder: Path, scratch: Path) -> KnownScan:
    """A scan from files. Its truth holds no patterns, so the PSNR is a proxy: see `scoring.grain_means`."""
    ds = va.ingest(
        folder / "scan.h5",
        scratch / "scan.zarr",
        maps={"BC": folder / "bandcontrast.csv"},
        elements=folder / "elements.csv",
        phases=folder / "phases.csv",
    )
    with np.load(folder / "truth.npz") as file:
        truth = {key: file[key] for key in file.files}
    own = truth["own_grain_fraction"]
    clean = (own > INTERIOR) & (truth["quality"] > 0.6) & (truth["scratch"] < 0.05) & (truth["pore"] < 0.05)
    seen = preprocess(ds.patterns).values.reshape(own.size, *ds.patterns.shape[2:])
    points, reference = scoring.grain_means(
        seen, truth["grain_id"].ravel(), clean.ravel(), truth["quaternion"].reshape(-1, 4)
    )
    return _known(
        f"{GIVEN} {folder.name}",
        scratch / "scan.zarr",
        ds,
        grain=truth["grain_id"],
        phase=truth["phase"],
        own_fraction=own,
        points=points,
        reference=reference,
        about=f"PSNR is a PROXY: against the mean of the same grain's other clean points, at {len(points)} points",
    )


def _known(
    name: str,
    store: Path,
    ds: xr.Dataset,
    *,
    grain: NDArray[Any],
    phase: NDArray[Any],
    own_fraction: NDArray[Any],
    points: NDArray[Any],
    reference: NDArray[np.float32],
    about: str,
) -> KnownScan:
    assert ds.patterns.shape[:2] == grain.shape
    chance = np.bincount(phase.ravel()).max() / phase.size
    return KnownScan(
        name=name,
        seed=SYNTHETIC.get(name, 0),
        store=store,
        seen=preprocess(ds.patterns).values.reshape(grain.size, *ds.patterns.shape[2:]),
        band_contrast=ds.BC.values.ravel(),
        grain=grain.ravel(),
        phase=phase.ravel(),
        interior=(own_fraction > INTERIOR).ravel(),
        blocks=scoring.blocks((grain.shape[0], grain.shape[1])),
        points=points,
        reference=reference,
        about=f"{len(np.unique(grain))} grains, share of the largest phase {chance:.3f}; {about}",
    )


def vaearr_defaults(known: KnownScan) -> Representation:
    """Ours as a user gets it: train, encode, load, decode. Learns from all points but the validation blocks."""
    began = time.perf_counter()
    run = va.train(known.store, epochs=EPOCHS, device="cpu", seed=known.seed)
    seconds = time.perf_counter() - began
    va.encode(known.store)
    ds = xr.open_zarr(known.store)
    latents = ds.latents.values.reshape(len(known.seen), -1)
    std = ds.latents_std.values.reshape(latents.shape)
    decoded = np.asarray(va.load_model(known.store).decode(latents)).reshape(known.seen.shape)
    EPOCHS_RUN[known.name] = epochs = run.history.sizes["epoch"]
    return Representation(latents, decoded, seconds, run.manifest["n_train"] * epochs, std, note=f"{epochs} epochs")


def epochs_of(known: KnownScan) -> int:
    """As many as ours ran, or would run."""
    from vaearr.config import TrainConfig

    return EPOCHS_RUN.get(known.name, EPOCHS or TrainConfig().epochs)


def _pythae(own_network: bool, known: KnownScan, folder: Path) -> Representation:
    return rivals.pythae_vae(known.seen, epochs_of(known), folder, own_network=own_network)


def _first_seed(repaired: bool, known: KnownScan, _: Path) -> Representation:
    return rivals.first_seed(known.seen, epochs_of(known), repaired=repaired)


METHODS: dict[str, Callable[[KnownScan, Path], Representation]] = {
    OURS: lambda known, _: vaearr_defaults(known),
    **{f"PCA, {k}": partial(lambda k, known, _: rivals.principal_components(known.seen, k), k) for k in (16, 32, 64)},
    **{f"NMF, {k}": partial(lambda k, known, _: rivals.nonnegative_factors(known.seen, k), k) for k in (16, 32, 64)},
    "pythae VAE, as it comes, 32": partial(_pythae, False),
    "pythae VAE, our network, 32": partial(_pythae, True),
    "first seed, bottleneck untrained": partial(_first_seed, False),
    "first seed, repaired": partial(_first_seed, True),
}
CASES = [
    (scan, method)
    for scan in (GIVEN, *SYNTHETIC)
    for method in METHODS
    if scan in (GIVEN, "synthetic 0") or method in (OURS, PCA32)
]


@pytest.mark.parametrize(("known", "method"), CASES, indirect=["known"])
def test_representation(known: KnownScan, method: str, tmp_path: Path) -> None:
    rows = next(rows for title, rows in TABLES.items() if title.startswith(known.name))
    try:
        found = METHODS[method](known, tmp_path)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in OPTIONAL:
            raise
        rows.append(f"{method:34} {error.name}: not installed")
        pytest.skip(f"{error.name} is not installed; see rivals.pythae_vae")
    rows.append(row(known, method, found))
    print(f"\n{known.name}: {rows[-1]}", end="", flush=True)


def row(known: KnownScan, method: str, found: Representation) -> str:
    """All measures of one method on one scan, as a line of the table."""
    everywhere, inside = scoring.grain_score(found.features, known.grain, known.interior)
    by_block = scoring.phase_score(found.features, known.phase, known.blocks)
    by_grain = scoring.phase_score(found.features, known.phase, known.grain)
    quality = scoring.psnr(found.reconstruction[known.points], known.reference)
    active = scoring.n_active(found.features) if found.is_probabilistic else found.features.shape[1]
    kl = "–" if found.std is None else f"{scoring.kl_nats(found.features, found.std):.2f}"
    return (
        f"{method:34} {everywhere:7.3f} {inside:7.3f} {by_block:12.3f} /{by_grain:6.3f} "
        f"{scoring.best_correlation(found.features, known.band_contrast):6.3f} {quality:6.2f} {active:6d} {kl:>7} "
        f"{found.seconds:8.1f} {found.n_passed / found.seconds:10.0f}  {found.note}"
    )
