"""Derived variables and runs go when asked; what the source brought stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

from vaearr.analysis.embedding import embed_store
from vaearr.config import EmbedConfig
from vaearr.errors import UsageError
from vaearr.store import open_store, run_names
from vaearr.store.remove import remove
from vaearr.testing import assert_valid


def test_a_run_goes_with_its_maps_and_latents(trained_store: Path) -> None:
    before = xr.open_zarr(trained_store)
    gone = remove(trained_store, runs=["vae"])
    after = xr.open_zarr(trained_store)
    assert set(gone) == {"roi", "split", "latent", "latents", "latents_std", "reconstruction_error", "runs/vae"}
    assert set(after.variables) == set(before.variables) - set(gone)
    assert run_names(trained_store) == []
    assert after["patterns"].equals(before["patterns"])
    assert_valid(after)
    assert {path.name for path in trained_store.parent.iterdir()} == {"scan.zarr", ".scan.zarr.lock"}
    assert remove(trained_store, runs=["vae"], variables=["never_there"]) == []


def test_variables_go_with_what_stands_beside_them(trained_store: Path) -> None:
    embed_store(trained_store, EmbedConfig(n_components=2))
    names = [str(name) for name in open_store(trained_store).variables if str(name).startswith("pca")]
    assert len(names) > 3
    assert remove(trained_store, variables=names) == names
    embed_store(trained_store, EmbedConfig(n_components=3))
    assert open_store(trained_store).sizes["pca_component"] == 3


@pytest.mark.parametrize("name", ["patterns", "x", "present"])
def test_what_the_source_brought_stays(name: str, trained_store: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in trained_store.rglob("*")}
    with pytest.raises(UsageError, match=f"{name} came with the source"):
        remove(trained_store, variables=["latents", name])
    assert {file: file.stat().st_mtime_ns for file in trained_store.rglob("*")} == before
