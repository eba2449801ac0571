"""A store of small colour images with labels and masks and a trained run, and networks without training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vaearr.artifacts import TrainedModel
from vaearr.config import ModelConfig, PreprocessConfig
from vaearr.run.train import train
from vaearr.store import create_store
from vaearr.testing import random_patterns_dataset

from ..conftest import SMALL_NETWORK, TINY_TRAINING

PREPROCESS = PreprocessConfig(static_background="none", normalise="zscore")
MakeModel = Callable[..., TrainedModel]


@pytest.fixture
def make_model() -> MakeModel:
    """A model with seeded random weights for samples of a shape."""

    def make(shape: tuple[int, ...] = (3, 12, 13), name: str = "conv", **options: Any) -> TrainedModel:
        torch.manual_seed(1)
        dims = ("dz", "dy", "dx")[-(len(shape) - 1) :]
        return TrainedModel(
            model=ModelConfig(
                name=name, latent_dim=4, options={**(SMALL_NETWORK if name == "conv" else {}), **options}
            ),
            preprocess=PREPROCESS,
            input_shape=shape,
            signal_dims=dims if shape[0] == 1 else ("channel", *dims),
            dtype="uint8",
        ).eval()

    return make


@pytest.fixture
def images() -> np.ndarray:
    """Eight random images `(8, 3, 12, 13)`."""
    return np.random.default_rng(0).integers(0, 256, (8, 3, 12, 13), dtype=np.uint8)


@pytest.fixture(scope="session")
def labelled_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of 3 x 12 x 13: `label` benign (10), malignant (9), unknown (5); `mask` of the first six; run `vae`."""
    ds = random_patterns_dataset({"sample": 24}, {"channel": 3, "y": 12, "x": 13}).drop_vars("label")
    codes = np.repeat(np.array([0, 1, -1], np.int32), (10, 9, 5))
    flags = {"long_name": "label", "flag_values": [-1, 0, 1, 2], "flag_meanings": "unknown benign malignant normal"}
    ds["label"] = ("sample", codes, flags)
    mask = np.zeros((24, 12, 13), bool)
    mask[:6, 3:7, 4:9] = True
    ds["mask"] = (("sample", "y", "x"), mask)
    path = create_store(ds, tmp_path_factory.mktemp("labelled") / "images.zarr")
    objective = TINY_TRAINING.objective.replace(target="self").to_attrs()
    train(path, config=TINY_TRAINING.replace(objective=objective, preprocess=PREPROCESS.to_attrs()))
    return path


@pytest.fixture
def labelled(labelled_template: Path, tmp_path: Path) -> Path:
    """A fresh copy of `labelled_template`."""
    return Path(shutil.copytree(labelled_template, tmp_path / "images.zarr"))
