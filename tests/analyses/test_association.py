"""Sums of elements, and latents against a reference partition: formulae, tiny spreads, missing values, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from vaearr.analysis.association import targets_of
from vaearr.analysis.association.partitions import latent_partitions
from vaearr.errors import NoInputError, SchemaError, UsageError

from ..data import random_patterns_dataset

SHAPE = (20, 18)


@pytest.fixture(scope="module")
def scan() -> xr.Dataset:
    return random_patterns_dataset({"y": 7, "x": 9}, {"dy": 2, "dx": 2}, seed=2).compute()


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("Fe + Nii", NoInputError, "Did you mean 'Ni'"),
        ("rgb(Fe, Ni, Cr, Fe)", UsageError, "one to three elements"),
        ("rgb(Fe + Ni)", UsageError, "one to three elements"),
        ("open('x')", UsageError, "other than rgb"),
        ("Fe * Ni", UsageError, "no element times a number"),
        ("Fe / 0", UsageError, "no element times a number"),
        ("Fe - Fe", UsageError, "one of them not 0"),
        ("Fe +", NoInputError, "no target is named"),
    ],
)
def test_what_is_no_sum_of_elements_is_refused(scan: xr.Dataset, text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        targets_of(scan, [text])


@pytest.fixture(scope="module")
def maps() -> xr.Dataset:
    """Latents that separate three classes (but with a spread of 1e-8), two of them, none, none again, never vary, and
    are missing in part; scores of a decomposition that tell the three."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 120).reshape(SHAPE)
    latents = rng.normal(size=(*SHAPE, 6))
    latents[..., 0] = 1e-9 * (8 * truth + latents[..., 0])
    latents[..., 1] += 8 * (truth > 0)
    latents[..., 3] = latents[..., 2]
    latents[..., 4] = 2.0
    latents[:4, :, 5] = np.nan
    scores = np.stack([1e4 * (8 * truth + rng.normal(size=SHAPE)), 8 * (truth == 1) + rng.normal(size=SHAPE)], -1)
    return xr.Dataset({"latents": (("y", "x", "latent"), latents), "pca": (("y", "x", "pca_component"), scores)})


def test_clusters_of_each_latent_against_a_reference(maps: xr.Dataset) -> None:
    found = latent_partitions(maps["latents"], maps["pca"], k_range=(2, 5))
    assert (found.attrs["k_reference"], int(found["k"][0])) == (3, 3)
    assert found["ari"][0] > 0.95
    assert 0.4 < found["ari"][1] < 0.8
    assert abs(found["ari"][2]) < 0.1
    assert np.isnan(found["ari"][4])
    assert found["is_tied"].values.tolist() == [False, False, True, True, False, False]
    assert found["n"].values.tolist() == [360] * 5 + [288]
    scaled = latent_partitions(maps["latents"].chunk({"y": 7}) * 1e6, maps["pca"] * 1e-3, k_range=(2, 5))
    np.testing.assert_allclose(scaled["ari"], found["ari"], atol=1e-9)  # whatever the units


def test_too_few_points_and_ranges_are_refused(maps: xr.Dataset) -> None:
    with pytest.raises(UsageError, match="1 <= first <= last"):
        latent_partitions(maps["latents"], maps["pca"], k_range=(5, 2))
    with pytest.raises(SchemaError, match="at least 120"):
        latent_partitions(maps["latents"].isel(y=slice(2)), maps["pca"].isel(y=slice(2)))
