"""What a look around in a latent space finds is what plain calculations give, for every kind of
latents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import vaearr as va
from vaearr.errors import NoInputError, UsageError
from vaearr.store import create_store

from ..contract.harness import vaearr
from ..data import random_patterns_dataset
from .conftest import attached_values


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A scan of 40 x 70 points in several shards beside each other, and its attached latents with
    gaps.
    """
    rng = np.random.default_rng(2)
    values = rng.normal(size=(2800, 5)) @ rng.normal(size=(5, 5))
    values[rng.random(2800) < 0.1] = np.nan
    path = tmp_path_factory.mktemp("shards") / "scan.zarr"
    create_store(random_patterns_dataset({"y": 40, "x": 70}, {"dy": 4, "dx": 4}), path)
    va.attach(path, values.astype("f4"), run="own")
    return path, values.astype("f4")


def test_spatial_latents_are_shifted_as_a_whole_and_keep_their_positions(
    spatial_path: Path,
) -> None:
    run = va.load_run(spatial_path)
    found = run.traverse(1, span=(-1, 1), steps=3, unit="absolute", others="base")
    values, base = found["latents"].values[0], found["base"].values
    assert (values[:, 0] == base[0]).all()
    np.testing.assert_allclose(values[:, 1].mean((1, 2)), [-1, 0, 1], atol=1e-6)
    pattern = values[:, 1] - values[:, 1].mean((1, 2), keepdims=True)
    np.testing.assert_allclose(pattern, np.tile(base[1] - base[1].mean(), (3, 1, 1)), atol=1e-5)
    np.testing.assert_allclose(run.traverse(base=5, steps=2)["base"], run.latents[5], atol=1e-4)
    nearest = run.traverse(1, steps=3)["latents"].values[0]
    assert all((run.latents.values == latents).all((1, 2, 3)).any() for latents in nearest)
    classes = run.prototypes()
    first = run.latents.values[run.ds["label"].values == classes["class"].values[0]]
    np.testing.assert_allclose(classes["latents"][0], first.mean(0), atol=1e-5)
    plane = run.scatter("pca")
    assert plane["components"].shape == (2, *run.latent_shape)
    place = (run.latents.values[plane["number"]] - plane["mean"].values).reshape(
        len(plane["point"]), -1
    )
    np.testing.assert_allclose(
        place @ plane["components"].values.reshape(2, -1).T, plane["position"], atol=1e-5
    )


@pytest.mark.long
def test_umap(scan_path: Path) -> None:
    pytest.importorskip("umap", exc_type=ImportError)
    run = va.load_run(scan_path)
    found, again = (run.scatter("umap", max_points=40, seed=1)["position"] for _ in range(2))
    np.testing.assert_array_equal(found, again)
    assert len(np.unique(found.values.round(3), axis=0)) == 40


def test_points_of_several_shards(shards: tuple[Path, np.ndarray]) -> None:
    store, values = shards
    run = va.load_run(store, "own")
    known = np.isfinite(values).all(1)
    whole = values[known].astype("f8")
    found = run.describe().to_dataframe()
    np.testing.assert_allclose(found, pd.DataFrame(whole).describe().T, rtol=1e-6)
    phase = run.ds["phase"].values.ravel()
    by_phase = run.histograms("phase", bins=11)
    for i in range(5):
        for code in (0, 1):
            want = np.histogram(
                values[known & (phase == code), i].astype("f8"), by_phase["edges"].values[i]
            )[0]
            np.testing.assert_array_equal(by_phase["counts"][code, i], want)
    pairs = run.pairs("phase", dims=[2, 0], max_points=20, seed=1)
    np.testing.assert_allclose(pairs["correlation"], np.corrcoef(whole[:, [2, 0]].T), atol=1e-9)
    np.testing.assert_array_equal(pairs["vectors"], values[pairs["number"]][:, [2, 0]])
    np.testing.assert_allclose(pairs["x"], run.ds["x"].values[pairs["number"] % 70])
    np.testing.assert_array_equal(pairs["class"], phase[pairs["number"]])


def test_activations_by_class(attached_path: Path, tmp_path: Path) -> None:
    run = va.load_run(attached_path, "own")
    phase = run.ds["phase"].values.ravel()
    frame = pd.DataFrame(attached_values()).assign(phase=phase).dropna()
    found = run.activations(dims=[2, 0])
    want = frame[frame.phase >= 0].groupby("phase")[[2, 0]]
    np.testing.assert_allclose(found["class_mean"], want.mean(), rtol=1e-6)
    assert (np.diff(found["class_of_point"]) >= 0).all()
    np.testing.assert_allclose(found["activation"], attached_values()[found["number"]][:, [2, 0]])
    some = run.activations("phase", classes=["bcc"], max_points=10, seed=1)
    assert (phase[some["number"]] == 1).all()
    images = create_store(
        random_patterns_dataset({"sample": 9}).drop_vars("label"), tmp_path / "images.zarr"
    )
    va.attach(images, np.arange(18.0).reshape(9, 2), run="own")
    plain = va.load_run(images, "own").activations()
    assert "class_mean" not in plain
    np.testing.assert_array_equal(plain["activation"], np.arange(18).reshape(9, 2))


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("traverse", {"base": "middle"}, UsageError, "no base 'middle'"),
        ("traverse", {"base": [1.0, 2.0]}, UsageError, r"latents of shape \(2,\) were given"),
        ("traverse", {"others": "bases"}, UsageError, "Did you mean 'base'"),
        ("line", {"points": [[1, 2, 3]]}, UsageError, "give one or more"),
        ("scatter", {"max_points": 3}, NoInputError, "4 samples or more"),
        ("pairs", {"dims": [1]}, UsageError, "two dimensions or more"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_refusals(
    scan_path: Path, name: str, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        getattr(va.load_run(scan_path), name)(**options)


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        ("statistics", ["--out", "{}/there.png"], "already"),
        ("line", ["--point", "1:2", "--space", "pca", "--dim", "1"], "are of --space plane"),
        ("line", ["--point", "1:2", "--out", "{}/new.gif"], "two points or more"),
    ],
)
def test_refusals_leave_nothing(
    scan_path: Path, tmp_path: Path, command: str, options: list[str], words: str
) -> None:
    (tmp_path / "there.png").touch()
    given_ = [option.format(tmp_path) for option in options]
    done = vaearr("look", command, scan_path, *given_, code=None)
    assert done.code != 0
    assert words in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]
