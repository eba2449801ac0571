"""Stores of schema 1, recorded on one day, stay readable and usable, and give the numbers they gave
(promise P14).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from _pytest.mark import ParameterSet

import vaearr as va

from . import record
from .harness import HAS_MONAI, MONAI, TINY, attributes, tree, vaearr, zarr

STORES = ("scan", "images", "volumes")
READING: dict[
    str, tuple[tuple[object, ...], ...]
] = {  # beside the commands whose numbers are recorded
    "scan": (
        ("info",),
        ("info", "--json"),
        ("look contrast", "--percent", 20),
        ("look statistics",),
        ("look histograms", "--by", "phase"),
        ("look activations", "--by", "grains"),
        ("look pairs", "--dim", 0, "--dim", 2),
        ("look scatter", "--method", "pca"),
        ("associate", "--metric", "all"),
        ("train", "--run", "pca", "--model", "pca", "--latent-dim", 3),
        ("cluster", "--method", "kmeans", "--k", 4, "--name", "grains"),
        ("encode",),
    ),
    "images": (("info",), ("reconstruct",), ("cluster", "--k", 3, "--method", "kmeans")),
    "volumes": (("info",), ("look statistics",)),
}


def with_networks(names: Iterable[str]) -> list[ParameterSet]:
    """Those of the volumes are skipped where their network cannot be had."""
    volumes = pytest.mark.skipif(not HAS_MONAI, reason=MONAI)
    return [pytest.param(name, marks=volumes if "volumes" in name else ()) for name in names]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded stores; commands may add to them, nothing takes away."""
    return record.unpack(tmp_path_factory.mktemp("recorded"))


@pytest.mark.parametrize("name", with_networks(record.RESULTS))
def test_results(name: str, stores: Path, tmp_path: Path) -> None:
    now, then = record.RESULTS[name](stores, tmp_path), record.recorded()[name]
    assert set(now) == set(then)
    for key, values in then.items():
        spread = np.nanmax(np.abs(values)) if np.isfinite(values).any() else 1.0
        np.testing.assert_allclose(
            now[key], values, rtol=1e-4, atol=1e-4 * spread, err_msg=f"{name}: {key}"
        )


@pytest.mark.parametrize(
    ("store", "command"), [(s, c) for s in STORES for c in READING[s]], ids=lambda v: str(v)
)
def test_commands(store: str, command: tuple[object, ...], stores: Path) -> None:
    name, *options = command
    assert vaearr(*str(name).split(), stores / f"{store}.zarr", *options).code == 0


@pytest.mark.parametrize("store", STORES)
def test_whole(store: str, tmp_path: Path) -> None:
    path = record.unpack(tmp_path) / f"{store}.zarr"
    before = tree(path)
    assert "is intact" in vaearr("verify", path).out
    assert tree(path) == before
    assert attributes(path)["vaearr_schema"] == 1
    latents = zarr(path).latents
    assert np.isfinite(latents).any()
    assert latents.attrs["long_name"]


@pytest.mark.parametrize("store", with_networks(STORES))
def test_encoded_again(store: str, tmp_path: Path) -> None:
    path = record.unpack(tmp_path) / f"{store}.zarr"
    before = zarr(path)[["latents", "latents_std", "reconstruction_error"]].load()
    vaearr("verify", path, "--remove", "latents")  # and what was written with them
    assert "latents" not in zarr(path)
    vaearr("encode", path)
    for name, values in before.data_vars.items():
        np.testing.assert_allclose(
            zarr(path)[name], values, rtol=1e-4, atol=1e-4 * float(abs(values).max())
        )


def test_variables_of_earlier_versions(stores: Path) -> None:
    """Scores that earlier versions wrote are arrays like any other."""
    ds = va.open_store(stores / "scan.zarr")
    assert ds.pca_components.dims[0] == "pca_component"
    assert np.isfinite(va.associate(ds.pca, ds.BC)).all()
    assert va.cluster(ds[["pca"]], method="kmeans", k=2).max() == 1
    assert va.probe(ds[["latents", "pca"]], ds.BC, n_permutations=0).sizes["features"] == 2


def test_further_runs(stores: Path, tmp_path: Path) -> None:
    """New and fine-tuned runs in an old store; the old run stays as it is."""
    path = shutil.copytree(stores / "scan.zarr", tmp_path / "scan.zarr")
    before = {
        name: digest
        for name, digest in tree(path).items()
        if name.startswith(("latents/", "runs/vae/", "pat"))
    }
    vaearr("train", path, "--run", "new", "--epochs", 1, *TINY)
    vaearr("train", path, "--run", "tuned", "--epochs", 1, "--init", "vae", *TINY)
    vaearr("encode", path, "--run", "tuned")
    ds = zarr(path)
    np.testing.assert_array_equal(np.isfinite(ds.latents_tuned).all("latent_tuned"), ds.roi)
    history = (
        zarr(path, "runs/tuned/history").val_loss[0],
        zarr(path, "runs/new/history").val_loss[0],
    )
    assert history[0] < history[1]  # what the recorded weights know is of use
    assert before.items() <= tree(path).items()
    assert "is intact" in vaearr("verify", path).out
