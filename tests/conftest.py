"""Small stores and scans that many tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# tiny networks: more threads only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
import xarray as xr

from vaearr.config import ModelConfig, ObjectiveConfig, PreprocessConfig, TrainConfig
from vaearr.run.encode import encode
from vaearr.run.train import train
from vaearr.schema import grid
from vaearr.store import create_store

from .contract.conftest import _ctrl_c, said  # noqa: F401  (fixtures of all tests)
from .data import random_patterns_dataset


@pytest.fixture(autouse=True)
def _random_numbers() -> None:
    """Tests that use the generator of torch get the same numbers each time."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _threads_are_unchanged() -> Iterator[None]:
    """Restore the number of threads, which numba changes: with another, trained weights differ."""
    n_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def without_compiling() -> Iterator[None]:
    """Import orix and kikuchipy as Python code: numba would compile for half a minute."""
    numba = pytest.importorskip("numba")
    before = numba.config.DISABLE_JIT
    numba.config.DISABLE_JIT = True
    yield
    numba.config.DISABLE_JIT = before


@pytest.fixture
def scan() -> xr.Dataset:
    """A rectangular scan of random patterns with three points missing."""
    return random_patterns_dataset({"y": 11, "x": 7}, missing=3)


@pytest.fixture
def scan_store(scan: xr.Dataset, tmp_path: Path) -> Path:
    """The scan as a store."""
    return create_store(scan, tmp_path / "scan.zarr")


SMALL_NETWORK = {"width": 8, "max_width": 16, "hidden": 32, "squeeze": 4}
TINY_TRAINING = TrainConfig(
    model=ModelConfig(latent_dim=3, options=SMALL_NETWORK),
    preprocess=PreprocessConfig(bin=1, static_background="divide", normalise="zscore"),
    objective=ObjectiveConfig(target="neighbour", input_noise=1.0),
    epochs=2,
    batch_size=16,
    precision="float32",
    device="cpu",
    seed=1,
)


@pytest.fixture(scope="session")
def trained_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a run `vae`, trained on half of a scan and encoded; copy it, never change it."""
    ds = random_patterns_dataset({"y": 40, "x": 35}, {"dy": 9, "dx": 11}, missing=5)
    path = create_store(ds, tmp_path_factory.mktemp("trained") / "scan.zarr")
    train(path, roi=grid.roi(ds, x=(1.0, 12.0)), config=TINY_TRAINING)
    encode(path)
    return path


@pytest.fixture
def trained_store(trained_template: Path, tmp_path: Path) -> Path:
    """A fresh copy of `trained_template`."""
    return Path(shutil.copytree(trained_template, tmp_path / "scan.zarr"))
