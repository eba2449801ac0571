"""What do features know? `va.probe` over ours, principal components, NMF, raw intensities and
pythae's VAE: one table.

`pytest tests/benchmarks/test_probe.py -m benchmarks -s`. Three scans of our own simulator that
nothing was tuned on; with VAEARR_DATA (a folder with `ebsd_sim`, `mnist`) also a scan of
dynamical patterns and digits. Every cell is the mean over three seeds of training (±
half the range); what needs no seed is run once. Nothing here can fail on a number. Classes:
balanced accuracy of logistic regression; numbers: R2 of ridge regression. pythae's VAE is its
default network with as many latents as ours, 40 epochs, of the same preprocessed samples; it runs
where it is installed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.config import TrainConfig
from vaearr.store import write_results
from vaearr.testing import synthetic_scan

from .scoring import preprocessed

pytestmark = [
    pytest.mark.benchmarks,
    pytest.mark.filterwarnings("ignore"),
]  # rivals that do not converge

SHARED = Path(
    os.environ.get("VAEARR_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)
SEEDS = (0, 1, 2)
SCANS = {
    "own scan 11": (72, 60, 60, 420.0),
    "own scan 12": (72, 60, 30, 420.0),
    "own scan 13": (72, 60, 40, 84.0),
}


@pytest.mark.parametrize(("name", "size"), SCANS.items(), ids=str)
def test_own_scan(name: str, size: tuple[int, int, int, float], tmp_path: Path) -> None:
    nx, ny, n_grains, dose = size
    scan = synthetic_scan(nx, ny, n_grains=n_grains, n_twins=5, dose=dose, seed=int(name[-2:]))
    va.ingest(scan, store := tmp_path / "scan.zarr")
    table(name, store, {"BC": "blocks", "elements": "blocks", "true_phase": "blocks"}, 32)
    table(f"{name}, grains left out", store, {"true_phase": va.open_store(store).true_grain}, 32)


@pytest.mark.skipif(
    not (SHARED / "ebsd_sim").exists(), reason="the simulated scan is not here (VAEARR_DATA)"
)
def test_dynamical_scan(tmp_path: Path) -> None:
    files = SHARED / "ebsd_sim" / "polycrystal_64x48"
    truth, store = np.load(files / "truth.npz"), tmp_path / "scan.zarr"
    side = {"maps": {"BC": files / "bandcontrast.csv"}, "elements": files / "elements.csv"}
    ds = va.ingest(files / "scan.h5", store, **side)
    more = {
        name: (("y", "x"), truth[key].astype("i2"))
        for name, key in (("true_phase", "phase"), ("grain", "grain_id"))
    }
    write_results(store, variables=xr.Dataset(more, ds[["y", "x"]].coords))
    table(
        "polycrystal_64x48",
        store,
        {"BC": "blocks", "elements": "blocks", "true_phase": "blocks"},
        32,
    )
    table("the same, grains left out", store, {"true_phase": va.open_store(store).grain}, 32)


@pytest.mark.skipif(not (SHARED / "mnist").exists(), reason="the digits are not here (VAEARR_DATA)")
def test_digits(tmp_path: Path) -> None:
    va.ingest(SHARED / "mnist" / "images-idx3-ubyte.gz", store := tmp_path / "digits.zarr")
    table("digits", store, {"label": "random"}, 10, preset="digits")


def table(name: str, store: Path, targets: dict[str, Any], size: int, *, preset: str = "") -> None:
    """A line per kind of features, a column per target."""
    print(f"\n{name}", flush=True)
    config = va.preset(preset) if preset else TrainConfig()
    config = config.replace(model=config.model.replace(latent_dim=size))
    for method, features, seconds in sets(store, config, size):
        cells = []
        for target, by in targets.items():
            made = [
                va.probe(one, va.open_store(store)[target], by=by, n_permutations=0)
                for one in features
            ]
            for label in made[0].target.values:
                scores = [
                    one.score.sel(target=label).squeeze().dropna("probe").values[0] for one in made
                ]
                spread = f"±{np.ptp(scores) / 2:.3f}" if len(scores) > 1 else " " * 6
                cells.append(f"{label} {np.mean(scores):6.3f}{spread}")
        print(f"  {method:8} {seconds:6.0f} s  " + "  ".join(cells), flush=True)


def sets(
    store: Path, config: TrainConfig, size: int
) -> Iterator[tuple[str, list[xr.DataArray], float]]:
    """Kind, features over the navigation dims (one set per seed), seconds of one set."""
    began = time.perf_counter()
    for seed in SEEDS:
        va.train(store, run=f"seed{seed}", config=config.replace(seed=seed), progress=False)
        va.encode(store, run=f"seed{seed}", progress=False)
    ds = va.open_store(store)
    yield (
        "ours",
        [ds[f"latents_seed{seed}"].load() for seed in SEEDS],
        (time.perf_counter() - began) / len(SEEDS),
    )
    steps = va.load_model(store, "seed0").preprocess_config
    nav = [dim for dim in ds.patterns.dims if dim in ds.latents_seed0.dims]
    rows = preprocessed(ds, steps)
    flat = xr.DataArray(rows.reshape(*(ds.sizes[dim] for dim in nav), -1), dims=[*nav, "pixel"])

    def laid(values: np.ndarray) -> xr.DataArray:
        shape = [flat.sizes[dim] for dim in nav]
        coords = {dim: ds[dim] for dim in nav if dim in ds.coords}
        return xr.DataArray(values.reshape(*shape, -1), coords, (*nav, "feature"), "features")

    from sklearn.decomposition import NMF, PCA

    began = time.perf_counter()
    yield "PCA", [laid(PCA(size, random_state=0).fit_transform(rows))], time.perf_counter() - began
    began = time.perf_counter()
    positive = rows - rows.min(0)
    made = [
        NMF(size, init="nndsvda", max_iter=100, tol=1e-3, random_state=0).fit_transform(positive)
    ]
    yield "NMF", [laid(one) for one in made], time.perf_counter() - began
    yield "raw", [laid(rows)], 0.0
    try:
        import pythae  # noqa: F401
    except ImportError:
        return
    began = time.perf_counter()
    made = [rival(rows.reshape(len(rows), 1, -1), size, seed) for seed in SEEDS]
    yield "pythae", [laid(one) for one in made], (time.perf_counter() - began) / len(SEEDS)


def rival(rows: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Posterior means of pythae's VAE."""
    import tempfile

    import torch
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    torch.manual_seed(seed)
    model = VAE(VAEConfig(input_dim=rows.shape[1:], latent_dim=size))
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            folder,
            num_epochs=40,
            per_device_train_batch_size=64,
            learning_rate=1e-3,
            no_cuda=True,
            seed=seed,
        )
        data = BaseDataset(torch.from_numpy(rows), torch.zeros(len(rows)))
        BaseTrainer(model, train_dataset=data, training_config=settings).train()
        with torch.inference_mode():
            return np.asarray(model.eval().encoder(torch.from_numpy(rows)).embedding.numpy())
