"""Analyses of arrays in memory, and `va.keep`, which writes what they give into the store the
arrays came from.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import ExistsError, NoInputError, SchemaError, UsageError

from .harness import tree, vaearr


@pytest.fixture
def store(known_template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(known_template, tmp_path / "scan.zarr"))


def test_results_are_kept_and_read_with_plain_xarray(store: Path) -> None:
    ds = va.open_store(store)
    groups = va.cluster(ds[["latents_theirs"]], method="kmeans", k=3)
    scores = ds.latents_nmf.rename(latent_nmf="texture_part")
    table = va.associate(ds.latents_theirs, ds[["BC"]], metrics=["pearson"])
    kept = va.keep(ds, run="theirs", groups=groups, texture=scores, contrast=table)
    plain = xr.open_zarr(store)
    np.testing.assert_array_equal(plain.groups, groups)
    np.testing.assert_array_equal(plain.texture, scores)
    assert plain.texture.dims == ("y", "x", "texture_part")
    assert "texture" in kept
    assert plain.patterns.chunks[:2] == plain.texture.chunks[:2] == plain.groups.chunks
    np.testing.assert_array_equal(va.load_run(store, "theirs").table("contrast").association, table)
    va.keep(va.load_run(store, "theirs"), again=table)
    assert "association" in va.load_run(store, "theirs").table("again")
    vaearr("verify", store)
    vaearr("verify", store, "--remove", "texture")
    assert "texture" not in xr.open_zarr(store)


def test_the_same_values_are_left_and_others_need_overwrite(store: Path, said: list[str]) -> None:
    ds = va.open_store(store)
    rank = ds.BC - ds.BC.mean("x")
    va.keep(store, rank=rank)
    before = tree(store)
    va.keep(ds, rank=rank)
    assert "already holds 'rank', with the same values" in said[-1]
    assert tree(store) == before
    with pytest.raises(ExistsError, match="overwrite=True"):
        va.keep(ds, other=rank, rank=rank + 1)
    assert tree(store) == before
    va.keep(ds, rank=rank + 1, overwrite=True)
    np.testing.assert_array_equal(xr.open_zarr(store)["rank"], rank + 1)


@pytest.mark.parametrize(
    ("name", "of", "error", "words"),
    [
        ("latents", lambda ds: ds.BC, UsageError, "meaning of its own"),
        ("two words", lambda ds: ds.BC, UsageError, "letters, digits"),
        ("part", lambda ds: ds.BC.isel(x=slice(3, None)), SchemaError, "align the data"),
        ("pair", lambda ds: ds[["BC", "phase"]], UsageError, "one after the other"),
        ("BC", lambda ds: ds.BC + 1, UsageError, "came with the source"),
        ("table", lambda ds: ds.BC.mean(("y", "x")), NoInputError, "no run 'vae'"),
    ],
)
def test_what_cannot_be_kept(
    store: Path, name: str, of: Any, error: type[Exception], words: str
) -> None:
    before = tree(store)
    with pytest.raises(error, match=words):
        va.keep(store, overwrite=True, **{name: of(va.open_store(store))})
    assert tree(store) == before


def test_a_dataset_from_nowhere_names_its_store(store: Path) -> None:
    made = xr.Dataset({"BC": (("y", "x"), np.ones((2, 2)))})
    with pytest.raises(UsageError, match="which store"):
        va.keep(made, some=made.BC)


def test_a_source_map_whose_name_begins_with_that_of_a_result_is_left(
    scan_files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "scan.zarr"
    ds = va.ingest(scan_files["patterns"], path, maps={"grain_id": scan_files["BC"]})
    va.train(path, model="pca", latent_dim=2)
    va.keep(path, grain=ds.grain_id > 0)
    va.keep(path, grain=ds.grain_id > 1, overwrite=True)
    with pytest.raises(UsageError, match="came with the source"):
        va.keep(path, grain_id=ds.grain_id + 1, overwrite=True)
    vaearr("verify", path, "--remove", "grain")
    xr.testing.assert_equal(xr.open_zarr(path).grain_id, ds.grain_id)
