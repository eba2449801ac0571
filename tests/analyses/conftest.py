"""A trained scan, a collection with spatial latents, latents from elsewhere, and labelled images;
read only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaearr as va
from vaearr.config import ModelConfig, PreprocessConfig
from vaearr.models.artifacts import TrainedModel
from vaearr.store import create_store

from ..conftest import SMALL_NETWORK, TINY_TRAINING
from ..data import random_patterns_dataset

PREPROCESS = PreprocessConfig(static_background="none", normalise="zscore")


@pytest.fixture(scope="session")
def scan_path(trained_template: Path) -> Path:
    """The trained scan."""
    return trained_template


@pytest.fixture(scope="session")
def spatial_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 grey images of 12 x 16 with latents of 2 x 3 x 4, trained for one epoch."""
    pytest.importorskip("monai")
    path = tmp_path_factory.mktemp("spatial") / "images.zarr"
    create_store(random_patterns_dataset({"sample": 24}, {"y": 12, "x": 16}), path)
    options = {"channels": (8, 8, 8), "res_blocks": 1, "groups": 4}
    network = ModelConfig(name="autoencoder-kl", latent_dim=2, options=options)
    changes: dict[str, Any] = {"model": network, "preprocess": PREPROCESS, "epochs": 1}
    config = TINY_TRAINING.model_copy(update=changes)
    va.train(
        path, config=config.replace(objective=config.objective.replace(target="self").to_attrs())
    )
    va.encode(path)
    return path


def attached_values() -> np.ndarray:
    """Latents `(168, 4)`: 0 and 1 correlate, 2 is shifted by 1, point 20 lies far off, points 3 and
    40 are unknown.
    """
    values = np.random.default_rng(5).normal(size=(168, 4))
    values[:, 1] = 0.8 * values[:, 0] + 0.6 * values[:, 1]
    values[:, 2] += 1
    values[20] = 9
    values[[3, 40]] = np.nan
    return values.astype("f4")


@pytest.fixture(scope="session")
def attached_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 x 14 scan points with latents `own` from elsewhere, `attached_values()`; no network."""
    path = create_store(
        random_patterns_dataset({"y": 12, "x": 14}),
        tmp_path_factory.mktemp("attached") / "scan.zarr",
    )
    va.attach(path, attached_values(), run="own")
    return path


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of 3 x 12 x 13: `label` benign (10), malignant (9), unknown (5); `mask` of the
    first six; run `vae`.
    """
    ds = random_patterns_dataset({"sample": 24}, {"channel": 3, "y": 12, "x": 13}).drop_vars(
        "label"
    )
    codes = np.repeat(np.array([0, 1, -1], np.int32), (10, 9, 5))
    flags = {
        "long_name": "label",
        "flag_values": [-1, 0, 1, 2],
        "flag_meanings": "unknown benign malignant normal",
    }
    ds["label"] = ("sample", codes, flags)
    mask = np.zeros((24, 12, 13), bool)
    mask[:6, 3:7, 4:9] = True
    ds["mask"] = (("sample", "y", "x"), mask)
    path = create_store(ds, tmp_path_factory.mktemp("labelled") / "images.zarr")
    objective = TINY_TRAINING.objective.replace(target="self").to_attrs()
    va.train(
        path, config=TINY_TRAINING.replace(objective=objective, preprocess=PREPROCESS.to_attrs())
    )
    return path


def make_model(
    shape: tuple[int, ...] = (3, 12, 13), name: str = "conv", **options: Any
) -> TrainedModel:
    """A model with seeded random weights for samples of a shape."""
    torch.manual_seed(1)
    dims = ("dz", "dy", "dx")[-(len(shape) - 1) :]
    return TrainedModel(
        model=ModelConfig(
            name=name,
            latent_dim=4,
            options={**(SMALL_NETWORK if name == "conv" else {}), **options},
        ),
        preprocess=PREPROCESS,
        input_shape=shape,
        signal_dims=dims if shape[0] == 1 else ("channel", *dims),
        input_dtype="uint8",
    ).eval()


@pytest.fixture
def images() -> np.ndarray:
    """Eight random images `(8, 3, 12, 13)`."""
    return np.random.default_rng(0).integers(0, 256, (8, 3, 12, 13), dtype=np.uint8)
