"""Draws and paths that cannot be made, and what is said of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vaearr as va
from vaearr.errors import NoInputError, UsageError
from vaearr.run.draw import lerp, slerp
from vaearr.store import open_store
from vaearr.store.listing import refresh_listing

T = np.linspace(0, 1, 7)


def test_refusals(trained_store: Path, collection: Path) -> None:
    a, nowhere = {"x": 2.0, "y": 4.0}, {"x": 99.0, "y": 1.0}
    missing = np.argwhere(~open_store(trained_store, chunks=None)["present"].values)[0] * 0.5
    cases: list[tuple[Path, str, Any, Any, dict[str, Any], str]] = [
        (
            trained_store,
            "vae",
            a,
            a,
            {"method": "slrp"},
            r"no interpolation 'slrp'. Did you mean 'slerp'",
        ),
        (trained_store, "vae", a, a, {"steps": 1}, "at least 2"),
        (trained_store, "vae", {"x": 1.0}, a, {}, "a value for each of y, x"),
        (trained_store, "vae", a, nowhere, {}, "nothing at x = 99.0; it spans 0.0 to 17.0 um"),
        (trained_store, "vae", a, {"y": missing[0], "x": missing[1]}, {}, "was not measured"),
        (collection, "vae", 0, 60, {}, "nothing at sample = 60"),
        (collection, "b", 0, 1, {}, "no run 'b'"),
    ]
    for store, run, first, second, how, message in cases:
        with pytest.raises((UsageError, NoInputError), match=message):
            va.load_run(store, run).interpolate(first, second, **how)
    for how, message in (
        ({"n_samples": 0}, "n_samples is 0"),
        ({"source": "priro"}, "no source 'priro'"),
        ({"source": "prior"}, "autoencoder, which has no prior; sample the fitted"),
    ):
        with pytest.raises((UsageError, NoInputError), match=message):
            va.load_run(collection, "ae").sample(**how)


def test_a_run_that_is_not_encoded_has_a_prior_but_no_fitted_distribution(
    trained_store: Path,
) -> None:
    for name in ("latents", "latents_std", "reconstruction_error", "latent"):
        shutil.rmtree(trained_store / name)
    refresh_listing(trained_store)
    assert va.load_run(trained_store).sample(n_samples=2).attrs["warnings"] == []
    for call in (
        lambda: va.load_run(trained_store).sample(source="fitted"),
        lambda: va.load_run(trained_store).statistics(),
    ):
        with pytest.raises(NoInputError, match="has no latents; write it with 'vaearr encode"):
            call()


def test_slerp_where_there_is_no_one_arc() -> None:
    one = np.ones(2)
    np.testing.assert_allclose(slerp(one, 3 * one, T), lerp(one, 3 * one, T))
    with pytest.raises(UsageError, match="no unique arc between opposite"):
        slerp(one, -2 * one, T)
    with pytest.raises(UsageError, match="all zeros; use lerp"):
        slerp(0 * one, one, T)
