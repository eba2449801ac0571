"""Draws and paths: repeatable, decoded as the model decodes, in the units they claim; refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import NoInputError, UsageError
from vaearr.store import open_store
from vaearr.store.listing import refresh_listing

from ..store.test_store import tree_hash


def test_draws_are_seeded_and_the_first_of_more(trained_store: Path) -> None:
    before = tree_hash(trained_store)
    found = va.sample_prior(trained_store, n_samples=6, seed=3)
    assert found["decoded"].dims == ("sample", "dy", "dx")
    assert found["latents"].shape == (6, 3)
    xr.testing.assert_identical(found, va.sample_prior(trained_store, n_samples=6, seed=3))
    np.testing.assert_array_equal(found["latents"][:2], va.sample_prior(trained_store, n_samples=2, seed=3)["latents"])
    assert not np.array_equal(found["latents"], va.sample_prior(trained_store, n_samples=6, seed=4)["latents"])
    decoded = va.load_model(trained_store).decode(found["latents"].values)
    np.testing.assert_allclose(found["decoded"], decoded, atol=1e-5)
    assert (
        found["decoded"].attrs["scale"] == "preprocessed"
    )  # z-scored patterns: there is no input to ask for its scale
    assert tree_hash(trained_store) == before


def test_draws_follow_what_they_are_drawn_from(trained_store: Path) -> None:
    z = va.sample_prior(trained_store, n_samples=4000)["latents"].values
    np.testing.assert_allclose(np.cov(z.T), np.eye(3), atol=0.1)
    fitted = va.sample_prior(trained_store, n_samples=4000, source="fitted")["latents"].values
    ds = open_store(trained_store, chunks=None)
    inside = ds["roi"].values
    means, std = ds["latents"].values[inside], ds["latents_std"].values[inside]
    want = np.cov(means.T, bias=True) + np.diag((std**2).mean(0))
    np.testing.assert_allclose(np.cov(fitted.T), want, atol=0.1 * want.max())
    np.testing.assert_allclose(fitted.mean(0), means.mean(0), atol=0.1)


def test_stored_units_where_the_preprocessing_treats_all_alike(collection: Path) -> None:
    found = va.sample_prior(collection, n_samples=3)
    assert found["decoded"].dims == ("sample", "channel", "y", "x")
    assert found["decoded"].attrs["scale"] == "stored"
    model = va.load_model(collection)
    want = model.decode(found["latents"].values) + model.preprocess.background.numpy()
    np.testing.assert_allclose(found["decoded"], want, rtol=1e-5)


def test_an_autoencoder_has_no_prior(collection: Path) -> None:
    with pytest.raises(UsageError, match="autoencoder, which has no prior; draw from the fitted"):
        va.sample_prior(collection, "ae")
    found = va.sample_prior(collection, "ae", 3, source="fitted")
    assert np.isfinite(found["decoded"].values).all()


@pytest.mark.parametrize("method", ["lerp", "slerp"])
def test_a_path_leads_from_one_reconstruction_to_the_other(trained_store: Path, method: str) -> None:
    a, b = {"x": 2.0, "y": 4.0}, {"x": 9.0, "y": 15.1}
    found = va.interpolate(trained_store, "vae", a, b, 5, method)
    assert found["decoded"].sizes == {"step": 5, "dy": 9, "dx": 11}
    ds = open_store(trained_store, chunks=None)
    ends = [ds["latents"].sel(x=2, y=4), ds["latents"].sel(x=9, y=15)]
    np.testing.assert_allclose(found["latents"].values[[0, -1]], np.stack(ends), atol=1e-4)
    assert found["y_of_end"].values.tolist() == [4.0, 15.0]
    assert found["t"].values.tolist() == [0, 0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(found["input"].mean(("dy", "dx")), 0, atol=1e-4)  # as the network sees it
    xr.testing.assert_identical(found, va.interpolate(trained_store, "vae", a, b, 5, method))


def test_a_path_in_a_collection(collection: Path) -> None:
    found = va.interpolate(collection, "ae", 3, 41, 2)
    images = open_store(collection, chunks=None)["patterns"].isel(sample=[3, 41]).values
    np.testing.assert_array_equal(found["input"], images)
    assert found["input"].attrs["scale"] == found["decoded"].attrs["scale"] == "stored"


def test_refusals(trained_store: Path, collection: Path) -> None:
    a = {"x": 2.0, "y": 4.0}
    with pytest.raises(UsageError, match=r"no interpolation 'slrp'. Did you mean 'slerp'"):
        va.interpolate(trained_store, "vae", a, a, method="slrp")
    with pytest.raises(UsageError, match="at least 2"):
        va.interpolate(trained_store, "vae", a, a, 1)
    with pytest.raises(UsageError, match="needs two points"):
        va.interpolate(trained_store, "vae", a)
    with pytest.raises(UsageError, match="a value for each of y, x"):
        va.interpolate(trained_store, "vae", {"x": 1.0}, a)
    with pytest.raises(UsageError, match=r"nothing at x = 99.0; it spans 0.0 to 17.0 um"):
        va.interpolate(trained_store, "vae", a, {"x": 99.0, "y": 1.0})
    missing = np.argwhere(~open_store(trained_store, chunks=None)["present"].values)[0] * 0.5
    with pytest.raises(UsageError, match="was not measured"):
        va.interpolate(trained_store, "vae", a, {"y": missing[0], "x": missing[1]})
    with pytest.raises(UsageError, match=r"nothing at sample = 60"):
        va.interpolate(collection, "vae", 0, 60)
    with pytest.raises(UsageError, match="n_samples is 0"):
        va.sample_prior(trained_store, n_samples=0)
    with pytest.raises(UsageError, match="no source 'priro'"):
        va.sample_prior(trained_store, source="priro")  # type: ignore[arg-type]
    with pytest.raises(NoInputError, match="no run 'b'"):
        va.sample_prior(trained_store, "b")
    with pytest.raises(NoInputError, match="no run 'b'"):
        va.interpolate(trained_store, "b", a, a)


def test_a_run_that_is_not_encoded_has_a_prior_but_no_fitted_distribution(trained_store: Path) -> None:
    import shutil

    for name in ("latents", "latents_std", "reconstruction_error", "latent"):
        shutil.rmtree(trained_store / name)
    refresh_listing(trained_store)
    assert va.sample_prior(trained_store, n_samples=2).attrs["warnings"] == []
    with pytest.raises(NoInputError, match="vaearr encode"):
        va.sample_prior(trained_store, source="fitted")
    with pytest.raises(NoInputError, match="has no latents; write it with"):
        va.latent_statistics(trained_store)
