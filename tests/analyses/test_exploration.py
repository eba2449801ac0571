"""What a look around in a latent space finds is what plain calculations give, for every kind of latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import vaearr as va
from vaearr.errors import NoInputError, UsageError
from vaearr.store import create_store

from ..contract.harness import vaearr
from ..data import random_patterns_dataset
from .conftest import attached_values

explore = va.explore


def known(values: np.ndarray) -> np.ndarray:
    """Rows of latents that are known, float64."""
    flat = values.reshape(-1, values.shape[-1]).astype("f8")
    return flat[np.isfinite(flat).all(1)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A scan of 40 x 70 points in several shards beside each other, and its attached latents with gaps."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=(2800, 5)) @ rng.normal(size=(5, 5))
    values[rng.random(2800) < 0.1] = np.nan
    path = tmp_path_factory.mktemp("shards") / "scan.zarr"
    create_store(random_patterns_dataset({"y": 40, "x": 70}, {"dy": 4, "dx": 4}), path)
    va.attach(path, values.astype("f4"), run="own")
    return path, values.astype("f4")


# ---- traversals, planes, prototypes, ways ----------------------------------------------------------------------------


def test_spatial_latents_are_shifted_as_a_whole_and_keep_their_positions(spatial_path: Path) -> None:
    ds = va.open_store(spatial_path)
    found = explore.traverse(spatial_path, dims=1, span=(-1, 1), steps=3, unit="absolute")
    values, base = found["latents"].values[0], found["base"].values
    assert (values[:, 0] == base[0]).all()
    np.testing.assert_allclose(values[:, 1].mean((1, 2)), [-1, 0, 1], atol=1e-6)
    pattern = values[:, 1] - values[:, 1].mean((1, 2), keepdims=True)
    np.testing.assert_allclose(pattern, np.tile(base[1] - base[1].mean(), (3, 1, 1)), atol=1e-5)
    np.testing.assert_allclose(explore.traverse(spatial_path, base=5, steps=2)["base"], ds["latents"][5], atol=1e-4)
    classes = explore.prototypes(spatial_path)
    first = ds["latents"].values[ds["label"].values == classes["class"].values[0]]
    np.testing.assert_allclose(classes["latents"][0], first.mean(0), atol=1e-5)
    assert explore.latent_pca(spatial_path)["components"].shape == (23, 2, 3, 4)
    health = explore.health(spatial_path)
    assert (health["correlation"].shape, health.attrs["n"]) == ((2, 2), 24)


@pytest.mark.long
def test_umap(scan_path: Path) -> None:
    pytest.importorskip("umap", exc_type=ImportError)
    found, again = (explore.embedding(scan_path, method="umap", max_points=40, seed=1)["position"] for _ in range(2))
    np.testing.assert_array_equal(found, again)
    assert len(np.unique(found.values.round(3), axis=0)) == 40


# ---- tables and counts -----------------------------------------------------------------------------------------------


def test_tables_over_several_shards(shards: tuple[Path, np.ndarray]) -> None:
    store, values = shards
    there = np.flatnonzero(np.isfinite(values).all(1))
    ds = va.open_store(store, chunks=None)
    table = explore.activation_table(store, "own", ["BC", "phase"])
    np.testing.assert_array_equal(table["number"], there)
    np.testing.assert_array_equal(table[[f"latent_{i}" for i in range(5)]], values[there])
    np.testing.assert_array_equal(table["BC"], ds["BC"].values.ravel()[there])
    np.testing.assert_allclose(table["x"], ds["x"].values[there % 70])
    want = pd.DataFrame(values.astype("f8")).dropna().describe().T
    np.testing.assert_allclose(explore.latent_table(store, "own")["summary"], want, rtol=1e-6)
    whole = known(values)
    found = explore.latent_pca(store, "own")
    np.testing.assert_allclose(found["loadings"].values.T @ found["loadings"].values, np.cov(whole.T), rtol=1e-6)
    np.testing.assert_allclose(found["explained_variance"], np.linalg.eigvalsh(np.cov(whole.T))[::-1], rtol=1e-6)
    some = explore.embedding(store, "own", "pca", max_points=500, color=["latent:1", "BC", "Fe", "phase"])
    assert some["color"].values.tolist() == ["latent 1", "BC", "Fe", "phase: fcc", "phase: bcc"]
    np.testing.assert_array_equal(some["amount"][0], values[some["number"], 1])
    np.testing.assert_allclose(some["amount"][1], ds["BC"].values.ravel()[some["number"]])


def test_counts_and_densities(shards: tuple[Path, np.ndarray]) -> None:
    store, values = shards
    phase = va.open_store(store, chunks=None)["phase"].values.ravel()
    there = np.isfinite(values).all(1)
    found = explore.histograms(store, "own", "phase", bins=11)
    for i in range(5):
        for code in (0, 1):
            want = np.histogram(values[there & (phase == code), i].astype("f8"), found["edges"].values[i])[0]
            np.testing.assert_array_equal(found["counts"][code, i], want)
    means = explore.activations(store, "own", "phase")["class_mean"]
    np.testing.assert_allclose(means[1], values[there & (phase == 1)].astype("f8").mean(0), rtol=1e-6)
    pairs = explore.pairs(store, "own", dims=[2, 0], bins=9, by="phase", max_points=20, seed=1)
    edges, whole = pairs["edges"].values, known(values)
    want = np.histogram2d(whole[:, 0], whole[:, 2], [edges[1], edges[0]], density=True)[0]
    np.testing.assert_allclose(pairs["density"][0], want, rtol=1e-6)
    np.testing.assert_allclose(pairs["correlation"], np.corrcoef(whole[:, [2, 0]].T), atol=1e-9)
    assert pairs["vectors"].shape == (20, 2)


def test_activations_by_class(attached_path: Path, tmp_path: Path) -> None:
    phase = va.open_store(attached_path, chunks=None)["phase"].values.ravel()
    frame = pd.DataFrame(attached_values()).assign(phase=phase).dropna()
    found = explore.activations(attached_path, "own", dims=[2, 0])
    want = frame[frame.phase >= 0].groupby("phase")[[2, 0]]
    np.testing.assert_allclose(found["class_mean"], want.mean(), rtol=1e-6)
    np.testing.assert_allclose(found["class_std"], want.std(ddof=0), rtol=1e-6)
    assert (np.diff(found["class_of_point"]) >= 0).all()
    np.testing.assert_allclose(found["activation"], attached_values()[found["number"]][:, [2, 0]])
    some = explore.activations(attached_path, "own", "phase", classes=["bcc"], max_points=10, seed=1)
    assert (phase[some["number"]] == 1).all()
    table = explore.activation_table(attached_path, "own", classes=["bcc"], dims=[3])
    assert len(table) == some.attrs["n"]
    assert (table["phase_name"] == "bcc").all()
    images = create_store(random_patterns_dataset({"sample": 9}).drop_vars("label"), tmp_path / "images.zarr")
    va.attach(images, np.arange(18.0).reshape(9, 2), run="own")
    plain = explore.activations(images, "own")
    assert "class_mean" not in plain
    np.testing.assert_array_equal(plain["activation"], np.arange(18).reshape(9, 2))


# ---- health ---------------------------------------------------------------------------------------------------------


def test_health_of_known_latents(attached_path: Path) -> None:
    whole = known(attached_values())
    found = explore.health(attached_path, "own")
    assert np.isnan(found["kl"]).all()
    assert (found.attrs["kl_total"], found.attrs["n_active"], found.attrs["largest_pair"]) == (None, 4, [0, 1])
    r = np.corrcoef(whole.T)
    assert found.attrs["largest_correlation"] == pytest.approx(r[0, 1])
    grid = stats.norm.ppf((np.arange(400_000) + 0.5) / 400_000)
    for i in range(4):
        distance = stats.wasserstein_distance(whole[:, i], grid)
        assert float(found["wasserstein"][i]) == pytest.approx(distance, abs=0.02)


# ---- refusals, and the commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("traverse", {"base": "middle"}, UsageError, "no base 'middle'"),
        ("traverse", {"base": [1.0, 2.0]}, UsageError, r"latents of shape \(2,\) were given"),
        ("path", {"points": [[1, 2, 3]]}, UsageError, "give one or more"),
        ("embedding", {"max_points": 3}, NoInputError, "4 samples or more"),
        ("embedding", {"method": "pca", "color": ["latent:4"]}, UsageError, "latent:0 to latent:2"),
        ("activation_table", {"by": ["elements"]}, UsageError, "one value for each"),
        ("pairs", {"dims": [1]}, UsageError, "two dimensions or more"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_refusals(scan_path: Path, name: str, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        getattr(explore, name)(scan_path, **options)


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        ("health", ["--out", "{}/there.png"], "already"),
        ("path", ["--point", "1:2", "--space", "pca", "--dim", "1"], "are of --space plane"),
        ("path", ["--point", "1:2", "--out", "{}/new.gif"], "two points or more"),
        ("scatter", ["--color", "BCC"], "Did you mean 'BC'"),
    ],
)
def test_refusals_leave_nothing(scan_path: Path, tmp_path: Path, command: str, options: list[str], words: str) -> None:
    (tmp_path / "there.png").touch()
    given_ = [option.format(tmp_path) for option in options]
    done = vaearr("look", command, scan_path, *given_, code=None)
    assert done.code != 0
    assert words in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]
