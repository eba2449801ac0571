"""What the page shows of a volume, without a browser: the chosen plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import vaearr as va
from vaearr.app.page import Explorer
from vaearr.app.samples import encoded_samples
from vaearr.store import create_store

from ..data import random_patterns_dataset


def test_the_map_of_a_volume_shows_the_chosen_plane(tmp_path: Path) -> None:
    store = create_store(
        random_patterns_dataset({"z": 3, "y": 10, "x": 12}), tmp_path / "scan.zarr"
    )
    values = np.random.default_rng(3).normal(size=(3, 10, 12, 4)).astype("f4")
    va.attach(store, values, run="own")
    run = va.load_run(store, "own")
    page = Explorer(run, encoded_samples(run))
    page.level.value = 2
    np.testing.assert_array_equal(page.plane_of(page.layers["latent 1"]), values[2, ..., 1])
