"""Many workers: the same numbers as one process, whoever dies; each refusal in one line; nothing left running."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import xarray as xr

import vaearr as va
from vaearr import workers
from vaearr.config import EncodeConfig
from vaearr.errors import MissingExtraError, NoInputError, UsageError, WorkersError
from vaearr.store import create_store
from vaearr.testing import random_patterns_dataset

from .conftest import TINY_TRAINING

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")

NAMES = ["latents", "latents_std", "reconstruction_error"]
STRICT = "import warnings; warnings.simplefilter('error')"
KEYS = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
SLOW = EncodeConfig(batch_size=8)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes in which warnings are errors, too."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, preload=[STRICT], silence_logs=50, **KEYS) as made:
        yield made


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    """A client of both workers, which dask computes with only where it is told to."""
    with distributed.Client(cluster, set_as_default=False) as made:
        made.wait_for_workers(2, timeout=30)
        yield made


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 20 shards with a run, encoded in one process."""
    ds = random_patterns_dataset({"y": 130, "x": 110}, {"dy": 9, "dx": 11}, missing=5)
    path = create_store(ds, tmp_path_factory.mktemp("workers") / "scan.zarr")
    va.train(path, roi=va.roi(ds, x=(1.0, 12.0), y=(0, 10)), config=TINY_TRAINING.replace(epochs=1))
    roi = xr.open_zarr(path).roi
    assert 0 < int(roi.sum()) < roi.size
    va.encode(path, config=SLOW)
    return path


@pytest.fixture
def trained(encoded: Path, tmp_path: Path) -> Path:
    """The same store before it was encoded."""
    from vaearr.store.remove import remove

    path = Path(shutil.copytree(encoded, tmp_path / "scan.zarr"))
    remove(path, variables=[*NAMES, "latent"])
    return path


def assert_same(store: Path, encoded: Path) -> None:
    """Bit for bit, coordinates and all, but for the time of the making."""
    got, want = (xr.open_zarr(path)[NAMES].load() for path in (store, encoded))
    xr.testing.assert_equal(got, want)
    for name in NAMES:
        assert got[name].values.tobytes() == want[name].values.tobytes()
        assert got[name].attrs["provenance"]["config"] == want[name].attrs["provenance"]["config"]


def left_running() -> list[str]:
    """Processes and threads of ours that should not be there any more."""
    children = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    lines = [" ".join(p.cmdline()) for p in children]
    return [line for line in lines if "resource_tracker" not in line]


def test_encode_is_that_of_one_process(client: Any, trained: Path, encoded: Path) -> None:
    said: list[str] = []
    done: list[tuple[int, int]] = []
    va.encode(trained, config=SLOW, dask=client, say=said.append, on_block=lambda *at: done.append(at))
    assert_same(trained, encoded)
    assert said[0] == "on 2 Dask workers (2 threads)"
    assert done == [(i + 1, 20) for i in range(20)]
    assert client.status == "running"  # it is the caller's
