"""Associations of a run in a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from vaearr.association import associate_store, current_table
from vaearr.association import stored as module
from vaearr.config import AssociateConfig
from vaearr.errors import NoInputError
from vaearr.store import add_variables, open_store, open_table, publish_run, staged_run


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


def test_writes_once_and_replaces_for_other_parameters(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    np.testing.assert_array_equal(again.values, first.values)
    fewer = associate_store(store, AssociateConfig(targets=("BC",), metrics=("pearson",)))
    assert fewer.sizes["metric"] == 1
    assert open_table(store, "vae", "association").sizes["metric"] == 1


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
