"""Small stores and scans that many tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

from vaearr.store import create_store
from vaearr.testing import random_patterns_dataset


@pytest.fixture
def scan() -> xr.Dataset:
    """A rectangular scan of random patterns with three points missing."""
    return random_patterns_dataset({"y": 11, "x": 7}, missing=3)


@pytest.fixture
def scan_store(scan: xr.Dataset, tmp_path: Path) -> Path:
    """The scan as a store."""
    return create_store(scan, tmp_path / "scan.zarr")
