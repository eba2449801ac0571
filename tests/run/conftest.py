"""A collection of small colour images with a VAE and an autoencoder; copies of it are cheap."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vaearr.config import PreprocessConfig
from vaearr.run.encode import encode
from vaearr.run.train import train
from vaearr.store import create_store

from ..conftest import TINY_TRAINING
from ..data import random_patterns_dataset

PLAIN = PreprocessConfig(static_background="subtract", normalise="none")


@pytest.fixture(scope="session")
def collection_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images of 3 x 12 x 13: run `vae` whose preprocessing treats all alike, run `ae` without a
    posterior.
    """
    ds = random_patterns_dataset({"sample": 60}, {"channel": 3, "y": 12, "x": 13})
    path = create_store(ds, tmp_path_factory.mktemp("collection") / "images.zarr")
    plain = TINY_TRAINING.replace(
        objective=TINY_TRAINING.objective.replace(target="self").to_attrs(),
        preprocess=PLAIN.to_attrs(),
    )
    train(path, config=plain)
    train(path, run="ae", config=plain, model="conv_ae")
    encode(path)
    encode(path, run="ae")
    return path


@pytest.fixture
def collection(collection_template: Path, tmp_path: Path) -> Path:
    """A fresh copy of `collection_template`."""
    return Path(shutil.copytree(collection_template, tmp_path / "images.zarr"))
