"""What the page shows and keeps, without a browser."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from panel.io.location import Location

import vaearr as va
from vaearr.app.page import Explorer
from vaearr.app.samples import Runs
from vaearr.app.selection import downloads, selection_view
from vaearr.store import create_store

from ..data import random_patterns_dataset

NY, NX = 10, 12


@pytest.fixture
def values() -> np.ndarray:
    """Latents `(y, x, 4)`: uniform but for a scratch, noise, two halves, two unequal parts."""
    rng = np.random.default_rng(3)
    latents = rng.normal(size=(NY, NX, 4)).astype("f4")
    latents[..., 0] = 0.01 * latents[..., 0]
    latents[4, :, 0] = -4
    latents[..., 2] = 0.1 * latents[..., 2] + np.where(np.arange(NX) < 6, -1, 1)
    latents[..., 3] = 0.1 * latents[..., 3] + np.where(np.arange(NX) < 3, -0.5, 0.5)
    return latents


@pytest.fixture
def runs(tmp_path: Path, values: np.ndarray) -> Runs:
    dataset = random_patterns_dataset({"y": NY, "x": NX})
    store = create_store(dataset, tmp_path / "scan.zarr")
    va.attach(store, values, run="own")
    va.attach(store, values[..., :2], run="two")
    return Runs(va.load_run(store, "own"))


def test_a_page_starts_on_the_latent_with_most_structure_and_inside_the_scan(runs: Runs) -> None:
    page = Explorer(runs, "own")
    assert (page.layer, page.across, page.up) == ("latent 2", "latent 2", "latent 3")
    row, column = divmod(page.sample, NX)
    assert 0 < row < NY - 1
    assert 0 < column < NX - 1


def test_sliders_are_ordered_by_importance_and_filtered(runs: Runs, values: np.ndarray) -> None:
    page = Explorer(runs, "own")
    variances = values.reshape(-1, 4).var(0)
    order = np.argsort(-variances)
    labels = [slider.label for slider in page.sliders.grid.objects]
    assert [label.split(" · ")[0] for label in labels] == [f"latent {i}" for i in order]
    assert f" · {100 * variances.max() / variances.sum():.2g} % · " in labels[0]
    page.sliders.filter = "3, 0-1, nothing, 77"
    assert [slider.label[:8] for slider in page.sliders.grid.objects] == [
        "latent 3",
        "latent 0",
        "latent 1",
    ]


def test_a_slider_moves_in_standard_deviations(runs: Runs, values: np.ndarray) -> None:
    page = Explorer(runs, "own")
    slider = page.sliders.widgets[1]
    column = values[..., 1].ravel()
    assert slider.start == pytest.approx((column.min() - column.mean()) / column.std(), rel=1e-4)
    slider.value = 1.5
    assert page.latents()[0, 1] == pytest.approx(column.mean() + 1.5 * column.std(), rel=1e-4)
    page.sliders.set(page.samples.vectors[page.row])
    np.testing.assert_allclose(page.latents()[0], values.reshape(-1, 4)[page.sample], rtol=1e-6)


def test_a_selection_has_a_mean_a_spread_and_files(runs: Runs, values: np.ndarray) -> None:
    page = Explorer(runs, "own")
    page.select(np.arange(5))
    assert page.sample < 5
    shown = str(selection_view(page).object)
    assert all(words in shown for words in ("most typical", "mean of 5 samples", "spread"))
    points, table = [button.callback().read() for button in downloads(page)]
    assert pd.read_csv(io.BytesIO(points))[["x", "y"]].values.tolist() == [[i, 0] for i in range(5)]
    columns = pd.read_csv(io.BytesIO(table))
    np.testing.assert_allclose(columns["latent_3"], values[0, :5, 3], rtol=1e-5)
    assert "BC" in columns


def test_the_address_sets_the_page_and_follows_it(runs: Runs) -> None:
    location = Location(search="?layer=BC&across=nothing&sample=17&compare=two")
    page = Explorer(runs, "own")
    page.remember(location)
    assert (page.layer, page.across, page.sample) == ("BC", "latent 2", 17)
    assert page.other_layer in page.other_layers
    assert "latent 3" not in page.other_layers
    page.select(np.array([3]))
    assert location.query_params["sample"] == 3
    assert not location.reload
    page.run_name = "two"
    assert location.reload
    assert location.query_params["run"] == "two"


def test_an_unknown_sample_in_the_address_is_reported(runs: Runs) -> None:
    page = Explorer(runs, "own")
    before = page.row
    page.sample = 999
    assert "no encoded sample 999" in page.message.object
    assert page.row == before


def test_the_map_of_a_volume_shows_the_chosen_plane(tmp_path: Path) -> None:
    store = create_store(
        random_patterns_dataset({"z": 3, "y": 10, "x": 12}), tmp_path / "scan.zarr"
    )
    values = np.random.default_rng(3).normal(size=(3, 10, 12, 4)).astype("f4")
    va.attach(store, values, run="own")
    run = va.load_run(store, "own")
    page = Explorer(Runs(run), "own")
    page.plane = 2
    np.testing.assert_array_equal(page.plane_of(page.layers["latent 1"]), values[2, ..., 1])
