"""Associations of a run in a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from vaearr.association import (
    associate,
    associate_store,
    current_table,
    partitions_store,
    targets_of,
)
from vaearr.association import stored as module
from vaearr.config import AssociateConfig, SignificanceConfig
from vaearr.errors import NoInputError
from vaearr.store import add_variables, open_store, open_table, publish_run, staged_run
from vaearr.words import describe


@pytest.fixture
def store(scan_store: Path) -> Path:
    """A store with a run whose latents were written."""
    ds = open_store(scan_store, chunks=None)
    grid = {dim: ds[dim] for dim in ("y", "x")}
    shape = tuple(ds.sizes[dim] for dim in grid)
    roi = xr.DataArray(np.ones(shape, bool), grid, tuple(grid), name="roi")
    roi[:, 0] = False
    with staged_run(scan_store, "vae") as folder:
        publish_run(scan_store, "vae", folder, {"config": {}}, roi.to_dataset())
    rng = np.random.default_rng(1)
    latents = xr.DataArray(rng.normal(size=(*shape, 3)), {**grid, "latent": np.arange(3)}, (*grid, "latent"))
    maps = xr.Dataset({"latents": latents.astype("f4").assign_attrs(provenance={"time": "one"})})
    if "BC" not in ds:
        maps["BC"] = (("y", "x"), rng.integers(0, 255, shape).astype("f4"))
    add_variables(scan_store, maps)
    return scan_store


def test_less_of_a_table_is_taken_from_it(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = AssociateConfig(targets=("BC",))
    first = associate_store(store, config)
    finite = np.isfinite(open_store(store)["BC"].values[:, 1:])  # the first column lies outside the region
    assert first["n"].values.tolist() == [finite.sum()]
    assert open_table(store, "vae", "association")["association"].dims == ("metric", "latent", "target")

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "associate", never)
        again = associate_store(store, config)
        fewer = associate_store(store, AssociateConfig(targets=("BC",), metrics=("pearson",)))
    xr.testing.assert_equal(again, first)
    np.testing.assert_array_equal(fewer["association"], first["association"].sel(metric=["pearson"]))
    assert open_table(store, "vae", "association").sizes["metric"] == 2  # asking for less destroys nothing


def test_p_values_and_other_variables_have_their_place(store: Path) -> None:
    rng = np.random.default_rng(2)
    ds = open_store(store)
    scores = ds["latents"].isel(latent=slice(2)).rename(latent="pca_component").rename("pca") + 0.1 * rng.normal()
    add_variables(store, scores.drop_attrs().to_dataset())
    config = AssociateConfig(targets=("BC",), metrics=("pearson",), significance=SignificanceConfig(n_surrogates=19))
    tested = associate_store(store, config)
    assert {"association", "p_value", "p_adjusted", "n_effective"} <= set(tested.data_vars)
    assert "p = " in describe(tested, "association")[0]
    of_pca = associate_store(store, AssociateConfig(targets=("BC",), variable="pca"))
    assert of_pca["association"].sizes["latent"] == 2
    assert current_table(store, open_store(store), "vae", variable="pca") is not None
    xr.testing.assert_equal(associate_store(store, config), tested)  # still there
    plain = associate_store(store, AssociateConfig(targets=("BC",), metrics=("pearson",)))
    assert "p_value" not in plain
    assert "p_value" in open_table(store, "vae", "association")
    with pytest.raises(NoInputError, match=r"no variable 'pcaa'.*embed.*'pca'"):
        associate_store(store, AssociateConfig(variable="pcaa"))


def test_partitions_are_kept_and_found_again(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = open_store(store)
    halves = xr.where(ds["latents"].isel(latent=1, drop=True) > 0, 1, 0).astype("i4").rename("halves")
    attrs = {"flag_values": [0, 1], "flag_meanings": "low high"}
    add_variables(store, halves.assign_attrs(attrs).to_dataset())
    found = partitions_store(store, AssociateConfig(), "halves")
    assert found.attrs["k_reference"] == 2
    lines = describe(found, "partitions")
    assert "groups of halves (k = 2)" in lines[0]
    assert lines[1].startswith("halves  eta_squared: latent 1 (0.")
    assert lines[2].startswith("halves  adjusted_mutual_information: latent 1 (0.9")

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(module, "latent_partitions", never)
    xr.testing.assert_equal(partitions_store(store, AssociateConfig(), "halves"), found)
    with pytest.raises(NoInputError, match=r"no reference 'halfs'.*'halves'"):
        partitions_store(store, AssociateConfig(), "halfs")


def test_table_of_other_latents_is_not_current(store: Path) -> None:
    ds = open_store(store)
    assert current_table(store, ds, "vae") is None
    associate_store(store, AssociateConfig(targets=("BC",)))
    assert current_table(store, ds, "vae") is not None
    changed = ds.assign(latents=ds["latents"].assign_attrs(provenance={"time": "two"}))
    assert current_table(store, changed, "vae") is None


def test_unknown_run_is_told_with_the_known_ones(store: Path) -> None:
    with pytest.raises(NoInputError, match="'vae'"):
        associate_store(store, AssociateConfig(run="vaee"))


def test_sums_of_elements_are_scaled_over_the_region(store: Path) -> None:
    ds = open_store(store).load()
    iron = ds["elements"].sel(element="Fe", drop=True)
    roi = (iron < iron.median()).drop_attrs().rename("roi_b")
    with staged_run(store, "b") as folder:
        publish_run(store, "b", folder, {"config": {}}, roi.to_dataset())
    add_variables(store, ds["latents"].rename(latent="latent_b").rename("latents_b").to_dataset())
    ds = open_store(store)
    found = associate_store(store, AssociateConfig(run="b", targets=("Fe + Ni",), metrics=("pearson",)))
    inside, everywhere = (
        associate(ds["latents_b"], targets_of(ds, ["Fe + Ni"], roi=scaled), "pearson", roi=ds["roi_b"]).squeeze()
        for scaled in (ds["roi_b"], None)
    )
    np.testing.assert_allclose(found["association"].squeeze(), inside)
    assert not np.allclose(inside, everywhere)
    assert "elements" in found.attrs["parameters"]["parents"]
    changed = ds.assign(elements=ds["elements"].assign_attrs(provenance={"time": "two"}))
    assert current_table(store, ds, "b") is not None
    assert current_table(store, changed, "b") is None
