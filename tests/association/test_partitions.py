"""Latents against a reference partition: agreement, bounds, ties, missing values, tiny spreads."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from vaearr.association.partitions import latent_partitions
from vaearr.errors import SchemaError, UsageError

SHAPE = (20, 18)


@pytest.fixture(scope="module")
def maps() -> xr.Dataset:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 120).reshape(SHAPE)
    latents = rng.normal(size=(*SHAPE, 6))
    latents[..., 0] = 1e-9 * (8 * truth + latents[..., 0])  # collapsed, yet it separates
    latents[..., 1] = 8 * (truth > 0) + latents[..., 1]
    latents[..., 3] = latents[..., 2]  # the same noise twice: tied
    latents[..., 4] = 2.0
    latents[:4, :, 5] = np.nan
    scores = np.stack([1e4 * (8 * truth + rng.normal(size=SHAPE)), 8 * (truth == 1) + rng.normal(size=SHAPE)], axis=-1)
    phase = np.where(rng.random(SHAPE) < 0.1, -1, truth).astype("i2")
    flags = {"flag_values": [-1, 0, 1, 2], "flag_meanings": "not_indexed a b c"}
    return xr.Dataset(
        {
            "latents": (("y", "x", "latent"), latents),
            "pca": (("y", "x", "pca_component"), scores),
            "phase": (("y", "x"), phase, flags),
        }
    )


@pytest.fixture(scope="module")
def found(maps: xr.Dataset) -> xr.Dataset:
    return latent_partitions(maps["latents"], maps["pca"], k_range=(2, 5))


def test_latents_that_separate_agree(found: xr.Dataset) -> None:
    assert found.attrs["k_reference"] == 3
    assert found["ari"][0] > 0.95
    assert found["k"][0] == 3
    assert 0.4 < found["ari"][1] < 0.8
    assert abs(found["ari"][2]) < 0.1
    assert found["nmi"][0] > 0.9


def test_ties_and_missing_values_are_visible(found: xr.Dataset) -> None:
    assert found["is_tied"].values.tolist() == [False, False, True, True, False, False]
    assert np.isnan(found["ari"][4])
    assert found["n"].values.tolist() == [360, 360, 360, 360, 360, 288]
    assert any("share their adjusted Rand index" in text for text in found.attrs["warnings"])


def test_bounds_are_told(maps: xr.Dataset) -> None:
    tight = latent_partitions(maps["latents"].isel(latent=[0]), maps["pca"], k_range=(2, 2))
    assert tight.attrs["k_reference_at_bound"]
    assert bool(tight["k_at_bound"][0])
    assert "reference's k = 2" in tight.attrs["warnings"][0]
    assert "for latent 0" in tight.attrs["warnings"][1]


def test_classes_are_taken_as_they_are(maps: xr.Dataset) -> None:
    found = latent_partitions(maps["latents"], maps["phase"], k_range=(2, 5))
    assert found.attrs["k_reference"] == 3
    assert found.attrs["reference"] == "classes as given"
    assert found["n"][0] == int((maps["phase"] >= 0).sum())
    assert found["ari"][0] > 0.95


def test_units_region_and_chunks_do_not_matter(maps: xr.Dataset, found: xr.Dataset) -> None:
    scaled = latent_partitions(
        maps["latents"].chunk({"y": 7}) * 1e6, maps["pca"] * 1e-3, xr.ones_like(maps["phase"], bool), k_range=(2, 5)
    )
    np.testing.assert_allclose(scaled["ari"], found["ari"], atol=1e-9)
    part = latent_partitions(maps["latents"], maps[["pca"]], maps["y"] * maps["x"] < 1e9, k_range=(2, 5))
    xr.testing.assert_identical(part["ari"], found["ari"])


def test_refusals(maps: xr.Dataset) -> None:
    with pytest.raises(UsageError, match="1 <= first <= last"):
        latent_partitions(maps["latents"], maps["pca"], k_range=(5, 2))
    with pytest.raises(UsageError, match="criterion"):
        latent_partitions(maps["latents"], maps["pca"], criterion="bicc")  # type: ignore[arg-type]
    with pytest.raises(SchemaError, match="at least 120"):
        latent_partitions(maps["latents"].isel(y=slice(2)), maps["pca"].isel(y=slice(2)))
    with pytest.raises(SchemaError, match="map of classes lies over"):
        latent_partitions(maps["latents"], maps["phase"].expand_dims(run=2))


def test_few_different_values_are_no_trouble(maps: xr.Dataset) -> None:
    latents = maps["latents"].copy(data=np.round(maps["latents"].values))
    latents[..., 0] = maps["latents"][..., 0] > 0
    found = latent_partitions(latents, maps["latents"])
    assert found["k"][0] == 2
    assert np.isfinite(found["ari"][0])
    with pytest.raises(SchemaError, match="the same at every point"):
        latent_partitions(latents, xr.ones_like(latents[..., 0], dtype=float))
