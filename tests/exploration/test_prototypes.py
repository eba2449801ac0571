"""Prototypes are the classes' means, decoded as the model decodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vaearr as va
from vaearr.errors import UsageError


def test_means_of_the_phases(scan_path: Path, scan_ds: xr.Dataset) -> None:
    found = va.explore.prototypes(scan_path)
    assert found["decoded"].dims == ("class", "dy", "dx")
    assert found.attrs["by"] == "phase"
    for code, name in enumerate(["fcc", "bcc"]):
        part = scan_ds["latents"].values[(scan_ds["phase"].values == code) & scan_ds["roi"].values]
        one = found.sel({"class": name})
        np.testing.assert_allclose(one["latents"], part.mean(0), atol=1e-6)
        np.testing.assert_allclose(one["std"], part.std(0), atol=1e-6)
        assert int(one["n"]) == len(part)
        np.testing.assert_allclose(
            one["decoded"], va.load_model(scan_path).decode(one["latents"].values[None])[0], atol=1e-5
        )
    gap = np.linalg.norm(found["latents"][0] - found["latents"][1])
    np.testing.assert_allclose(found["distance"], [[0, gap], [gap, 0]], atol=1e-6)


def test_spatial_latents_keep_their_positions(spatial_path: Path) -> None:
    found = va.explore.prototypes(spatial_path)
    ds = va.open_store(spatial_path)
    assert found["latents"].dims == ("class", "latent", "ly", "lx")
    assert found["decoded"].shape == (3, 12, 16)
    first = ds["latents"].values[ds["label"].values == found["class"].values[0]]
    np.testing.assert_allclose(found["latents"][0], first.mean(0), atol=1e-5)


def test_a_map_of_amounts_is_refused(scan_path: Path) -> None:
    with pytest.raises(UsageError, match="does not hold one class"):
        va.explore.prototypes(scan_path, by="BC")
