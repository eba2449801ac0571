"""A collection with spatial latents, and copies of a small collection and a scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from vaearr.attaching import attach
from vaearr.run.encode import encode
from vaearr.run.train import train
from vaearr.store import create_store, open_store
from vaearr.testing import random_patterns_dataset

from ..conftest import TINY_TRAINING
from ..run.conftest import PLAIN, collection_template

__all__ = ["collection_template"]


@pytest.fixture(scope="session")
def scan_path(trained_template: Path) -> Path:
    """The trained scan; nothing here writes to it."""
    return trained_template


@pytest.fixture(scope="session")
def scan_ds(trained_template: Path) -> xr.Dataset:
    """The trained scan in memory."""
    return open_store(trained_template, chunks=None).load()


def train_spatial(path: Path, options: dict[str, Any]) -> Path:
    """A store with a run of two channels of spatial latents, trained for one epoch and encoded."""
    config = TINY_TRAINING.replace(
        model=TINY_TRAINING.model.replace(name="autoencoder-kl", latent_dim=2, options=options).to_attrs(),
        objective=TINY_TRAINING.objective.replace(target="self").to_attrs(),
        preprocess=PLAIN.to_attrs(),
        epochs=1,
    )
    train(path, config=config)
    encode(path)
    return path


@pytest.fixture(scope="session")
def spatial_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 grey images of 12 x 16 with latents of 2 x 3 x 4."""
    pytest.importorskip("monai")
    ds = random_patterns_dataset({"sample": 24}, {"y": 12, "x": 16})
    path = create_store(ds, tmp_path_factory.mktemp("spatial") / "images.zarr")
    return train_spatial(path, {"channels": (8, 8, 8), "res_blocks": 1, "groups": 4})


@pytest.fixture(scope="session")
def attached_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 x 14 scan points with latents `own` from elsewhere, `attached_values()`; no network."""
    path = create_store(random_patterns_dataset({"y": 12, "x": 14}), tmp_path_factory.mktemp("attached") / "scan.zarr")
    attach(path, attached_values(), run="own")
    return path


def attached_values() -> np.ndarray:
    """Latents `(168, 4)`: 0 and 1 correlate, 2 is shifted by 1, point 20 lies far off, points 3 and 40 are unknown."""
    values = np.random.default_rng(5).normal(size=(168, 4))
    values[:, 1] = 0.8 * values[:, 0] + 0.6 * values[:, 1]
    values[:, 2] += 1
    values[20] = 9
    values[[3, 40]] = np.nan
    return values.astype("f4")
