"""Stores of every kind that the page shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vaearr.attaching import attach
from vaearr.store import create_store
from vaearr.testing import random_patterns_dataset

from ..exploration.conftest import attached_path, spatial_path, train_spatial
from ..inference.conftest import collection_template

__all__ = ["attached_path", "collection_template", "spatial_path"]

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture(scope="session")
def volumes_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 volumes of 8 x 10 x 12 with spatial latents."""
    pytest.importorskip("monai")
    ds = random_patterns_dataset({"sample": 20}, {"z": 8, "y": 10, "x": 12})
    path = create_store(ds, tmp_path_factory.mktemp("volumes") / "volumes.zarr")
    return train_spatial(path, {"channels": (4, 4), "res_blocks": 1, "groups": 2})


@pytest.fixture(scope="session")
def layered_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan of 3 slices of 10 x 12 points with latents from elsewhere; the last dimension is constant."""
    ds = random_patterns_dataset({"z": 3, "y": 10, "x": 12})
    path = create_store(ds, tmp_path_factory.mktemp("layered") / "scan.zarr")
    values = np.random.default_rng(3).normal(size=(3, 10, 12, 4)).astype("f4")
    values[..., 3] = 2
    attach(path, values, run="own")
    return path


@pytest.fixture(scope="session")
def hostile_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose labels, paths and maps are named to be taken for HTML; latents from elsewhere."""
    ds = random_patterns_dataset({"sample": 30})
    names = np.array([f"{HOSTILE}{i % 2}\x07" for i in range(30)], dtype=object)
    ds = ds.assign_coords(path=("sample", names), kind=("sample", names))
    ds["BC"].attrs["long_name"] = HOSTILE
    ds["BC"].attrs["units"] = "<b>$$x$$</b>"
    path = create_store(ds, tmp_path_factory.mktemp("hostile") / "<script>alert(3)<:script>.zarr")
    attach(path, np.random.default_rng(4).normal(size=(30, 2)).astype("f4"), run="own")
    return path
