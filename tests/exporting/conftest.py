"""A small scan with a run, clusters and scores to export."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from vaearr.attaching import attach
from vaearr.clustering import cluster_store
from vaearr.config import ClusterConfig
from vaearr.store import create_store, open_store

from ..data import random_patterns_dataset

NY, NX, L = 14, 12, 4


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 x 12 points, step numbers from 10 and 20, half a micrometre apart; run `b` whose latent 2 is band contrast."""
    ds = random_patterns_dataset({"y": NY, "x": NX}, missing=2, seed=4)
    x, y = np.arange(10, 10 + NX), np.arange(20, 20 + NY)
    ds = ds.assign_coords(
        x=("x", x * 0.5, {"units": "um", "long_name": "x"}),
        y=("y", y * 0.5, {"units": "um", "long_name": "y"}),
        x_index=("x", x),
        y_index=("y", y),
    )
    path = create_store(ds, tmp_path_factory.mktemp("export") / "scan.zarr")
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(NY, NX, L)).astype("f4")
    latents[..., 2] = -ds["BC"].values / 100 + rng.normal(0, 0.05, (NY, NX))
    latents[..., 3] = 1.5  # a latent that says nothing
    latents[:2] = np.nan
    attach(path, latents, run="b")
    cluster_store(path, ClusterConfig(run="b", features=("latents", "BC"), latents=(2,), k=3, max_points=1000))
    return path


@pytest.fixture(scope="session")
def scored(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with scores of a decomposition."""
    path = Path(shutil.copytree(template, tmp_path_factory.mktemp("scored") / "scan.zarr"))
    attach(path, np.random.default_rng(1).normal(size=(NY, NX, 2)), kind="scores", name="pca")
    return path


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(template, tmp_path / "scan.zarr"))


@pytest.fixture(scope="session")
def ds(template: Path) -> xr.Dataset:
    """What is in it."""
    return open_store(template, chunks=None).load()
