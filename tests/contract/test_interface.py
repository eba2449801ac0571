"""The public interface on one screen, as it is written down for users, called in the ways that they
call it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import DataError, ExistsError


def test_a_run_its_name_and_its_store_are_the_same_to_encode(trained_store: Path) -> None:
    ds, run = va.open_store(trained_store), va.load_run(trained_store)
    known = va.encode(trained_store)
    for found in (va.encode(run), va.encode(ds, "vae"), va.encode(ds, run), run.encode()):
        xr.testing.assert_identical(found.latents, known.latents)
    again = va.encode(run, batch_size=7, precision="float32", overwrite=True)
    np.testing.assert_allclose(again.latents, known.latents, atol=1e-5)


def test_patterns_through_the_network_and_back(trained_store: Path) -> None:
    run = va.load_run(trained_store)
    patterns = va.open_store(trained_store).patterns[:3, :4]
    found = run.model.reconstruct(patterns)
    assert found.chunks is not None
    assert found.dims == patterns.dims
    values = found.values
    np.testing.assert_allclose(run.model.reconstruct(patterns.values), values, atol=1e-4)
    whole = run.reconstruct(examples=4, name="other")
    one = whole.isel(example=0)
    place = {dim: float(one[f"example_{dim}"]) for dim in ("y", "x")}
    stored = run.ds.patterns.sel(place, method="nearest")
    np.testing.assert_allclose(
        run.model.reconstruct(stored.values), one["reconstruction"], atol=1e-3
    )
    with pytest.raises(DataError, match="the model was trained on samples of"):
        run.model.reconstruct(patterns.isel(dy=0))


def test_a_run_is_exported_and_explored(trained_store: Path, tmp_path: Path) -> None:
    run = va.load_run(va.open_store(trained_store))
    assert run.export(tmp_path / "tables") == tmp_path / "tables"
    assert (tmp_path / "tables" / "latents.csv").read_text().startswith("x,y,latent_0")
    saved = run.explore(save=tmp_path / "page.html")
    assert saved == tmp_path / "page.html"
    with pytest.raises(ExistsError, match=r"page\.html"):
        run.explore(save=saved)

    async def in_a_notebook() -> bytes:
        server = run.explore(show=False)
        page = await asyncio.to_thread(
            lambda: urlopen(f"http://127.0.0.1:{server.port}/", timeout=60).read()
        )
        server.stop()
        return bytes(page)

    assert b"vaearr" in asyncio.run(in_a_notebook())
