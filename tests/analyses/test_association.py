"""What is no sum of elements, and what cannot be parted into clusters, is refused."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from vaearr.analysis.association import targets_of
from vaearr.analysis.association.partitions import latent_partitions
from vaearr.errors import NoInputError, SchemaError, UsageError

from ..data import random_patterns_dataset


@pytest.fixture(scope="module")
def scan() -> xr.Dataset:
    return random_patterns_dataset({"y": 7, "x": 9}, {"dy": 2, "dx": 2}, seed=2).compute()


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("Fe + Nii", NoInputError, "Did you mean 'Ni'"),
        ("rgb(Fe, Ni, Cr, Fe)", UsageError, "one to three elements"),
        ("rgb(Fe + Ni)", NoInputError, "no element is named 'Fe \\+ Ni'"),
        ("open('x')", NoInputError, "no target is named"),
        ("Fe * Ni", NoInputError, "no target is named"),
        ("Fe - Fe", UsageError, "one of them must not be"),
        ("Fe +", NoInputError, "no target is named"),
    ],
)
def test_what_is_no_sum_of_elements_is_refused(
    scan: xr.Dataset, text: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        targets_of(scan, [text])


def test_too_few_points_and_ranges_are_refused() -> None:
    latents = xr.DataArray(
        np.random.default_rng(0).normal(size=(6, 18, 2)), dims=("y", "x", "latent"), name="latents"
    )
    scores = latents.rename("pca").rename(latent="pca_component")
    with pytest.raises(UsageError, match="k_max is 1"):
        latent_partitions(latents, scores, k_max=1)
    with pytest.raises(SchemaError, match="at least 120"):
        latent_partitions(latents, scores)
