"""Stores of every kind that the page shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vaearr.ingestion.attaching import attach
from vaearr.store import create_store

from ..analyses.conftest import spatial_path
from ..data import random_patterns_dataset

__all__ = ["spatial_path"]


@pytest.fixture(scope="session")
def layered_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan of 3 slices of 10 x 12 points with latents from elsewhere; the last dimension is constant."""
    ds = random_patterns_dataset({"z": 3, "y": 10, "x": 12})
    path = create_store(ds, tmp_path_factory.mktemp("layered") / "scan.zarr")
    values = np.random.default_rng(3).normal(size=(3, 10, 12, 4)).astype("f4")
    values[..., 3] = 2
    attach(path, values, run="own")
    return path
