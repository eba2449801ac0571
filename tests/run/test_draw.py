"""Draws and paths: decoded as the model decodes, in the units they claim; ends exact, constant speed; refusals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import NoInputError, UsageError
from vaearr.run import open_run
from vaearr.run.draw import draw_latents, lerp, slerp
from vaearr.store import open_store
from vaearr.store.listing import refresh_listing

T = np.linspace(0, 1, 7)


def test_draws_are_in_the_units_they_claim(trained_store: Path, collection: Path) -> None:
    found = va.sample_prior(trained_store, n_samples=6, seed=3)
    assert found["decoded"].dims == ("sample", "dy", "dx")
    xr.testing.assert_identical(found, va.sample_prior(trained_store, n_samples=6, seed=3))
    decoded = va.load_model(trained_store).decode(found["latents"].values)
    np.testing.assert_allclose(found["decoded"], decoded, atol=1e-5)
    assert found["decoded"].attrs["scale"] == "preprocessed", "z-scored: there is no input to ask for its scale"
    found, model = va.sample_prior(collection, n_samples=3), va.load_model(collection)
    want = model.decode(found["latents"].values) + model.preprocess.background.numpy()
    np.testing.assert_allclose(found["decoded"], want, rtol=1e-5)
    assert found["decoded"].attrs["scale"] == "stored"


@pytest.mark.parametrize(("run", "source"), [("vae", "prior"), ("vae", "fitted"), ("ae", "fitted")])
def test_batches_of_draws_are_those_of_sample_prior(collection: Path, run: str, source: Any) -> None:
    want = va.sample_prior(collection, run, 7, 3, source=source)["latents"]
    batches = list(draw_latents(open_run(collection, run), 7, 3, source, 2))
    assert [len(z) for z in batches] == [2, 2, 2, 1]
    np.testing.assert_allclose(np.concatenate(batches), want, atol=1e-6)


def test_a_way_leads_from_one_sample_to_the_other(trained_store: Path, collection: Path) -> None:
    a, b = {"x": 2.0, "y": 4.0}, {"x": 9.0, "y": 15.1}
    found, ds = va.interpolate(trained_store, "vae", a, b, 5), open_store(trained_store, chunks=None)
    assert found["decoded"].sizes == {"step": 5, "dy": 9, "dx": 11}
    ends = [ds["latents"].sel(x=2, y=4), ds["latents"].sel(x=9, y=15)]
    np.testing.assert_allclose(found["latents"].values[[0, -1]], np.stack(ends), atol=1e-4)
    assert found["y_of_end"].values.tolist() == [4.0, 15.0]
    assert found["t"].values.tolist() == [0, 0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(found["input"].mean(("dy", "dx")), 0, atol=1e-4)  # as the network sees it
    found = va.interpolate(collection, "ae", 3, 41, 2)
    images = open_store(collection, chunks=None)["patterns"].isel(sample=[3, 41]).values
    np.testing.assert_array_equal(found["input"], images)
    assert found["input"].attrs["scale"] == found["decoded"].attrs["scale"] == "stored"


def test_refusals(trained_store: Path, collection: Path) -> None:
    a, nowhere = {"x": 2.0, "y": 4.0}, {"x": 99.0, "y": 1.0}
    missing = np.argwhere(~open_store(trained_store, chunks=None)["present"].values)[0] * 0.5
    cases: list[tuple[Path, str, Any, Any, dict[str, Any], str]] = [
        (trained_store, "vae", a, a, {"method": "slrp"}, r"no interpolation 'slrp'. Did you mean 'slerp'"),
        (trained_store, "vae", a, a, {"steps": 1}, "at least 2"),
        (trained_store, "vae", a, None, {}, "needs two points"),
        (trained_store, "vae", {"x": 1.0}, a, {}, "a value for each of y, x"),
        (trained_store, "vae", a, nowhere, {}, "nothing at x = 99.0; it spans 0.0 to 17.0 um"),
        (trained_store, "vae", a, {"y": missing[0], "x": missing[1]}, {}, "was not measured"),
        (collection, "vae", 0, 60, {}, "nothing at sample = 60"),
        (collection, "b", 0, 1, {}, "no run 'b'"),
    ]
    for store, run, first, second, how, message in cases:
        with pytest.raises((UsageError, NoInputError), match=message):
            va.interpolate(store, run, first, second, **how)
    for how, message in (
        ({"n_samples": 0}, "n_samples is 0"),
        ({"source": "priro"}, "no source 'priro'"),
        ({"run": "ae"}, "autoencoder, which has no prior; draw from the fitted"),
        ({"run": "b"}, "no run 'b'"),
    ):
        with pytest.raises((UsageError, NoInputError), match=message):
            va.sample_prior(collection, **how)


def test_a_run_that_is_not_encoded_has_a_prior_but_no_fitted_distribution(trained_store: Path) -> None:
    for name in ("latents", "latents_std", "reconstruction_error", "latent"):
        shutil.rmtree(trained_store / name)
    refresh_listing(trained_store)
    assert va.sample_prior(trained_store, n_samples=2).attrs["warnings"] == []
    for call in (lambda: va.sample_prior(trained_store, source="fitted"), lambda: va.latent_statistics(trained_store)):
        with pytest.raises(NoInputError, match="has no latents; write it with 'vaearr encode"):
            call()


def test_slerp_where_there_is_no_one_arc() -> None:
    one = np.ones(2)
    np.testing.assert_allclose(slerp(one, 3 * one, T), lerp(one, 3 * one, T))
    with pytest.raises(UsageError, match="no one arc between opposite"):
        slerp(one, -2 * one, T)
    with pytest.raises(UsageError, match="all zeros; use lerp"):
        slerp(0 * one, one, T)
