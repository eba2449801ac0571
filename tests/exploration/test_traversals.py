"""Traversals and planes move what they say, keep the rest, and decode as the model does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vaearr as va
from vaearr.errors import NoInputError, UsageError

traverse, manifold = va.explore.traverse, va.explore.manifold


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dims=st.lists(st.integers(0, 2), min_size=1, unique=True),
    steps=st.integers(2, 6),
    low=st.floats(-5, 0.5),
    width=st.floats(0.5, 5),
)
def test_only_the_dimension_moves(scan_path: Path, dims: list[int], steps: int, low: float, width: float) -> None:
    found = traverse(scan_path, dims=dims, span=(low, low + width), steps=steps, unit="absolute")
    assert found["decoded"].shape == (len(dims), steps, 9, 11)
    for i, dim in enumerate(dims):
        z = found["latents"].values[i]
        np.testing.assert_allclose(z[:, dim], np.linspace(low, low + width, steps), atol=1e-6)
        rest = [d for d in range(3) if d != dim]
        assert (z[:, rest] == found["base"].values[rest]).all()
        np.testing.assert_allclose(found["decoded"][i], va.load_model(scan_path).decode(z), atol=1e-5)


def test_standard_deviations_are_those_of_the_aggregate_posterior(scan_path: Path) -> None:
    found = traverse(scan_path, steps=5)
    statistics = va.latent_statistics(scan_path)
    np.testing.assert_allclose(found["base"], statistics["aggregate_mean"], atol=1e-6)
    reach = statistics["aggregate_std"].values[:, None] * np.linspace(-3, 3, 5)
    np.testing.assert_allclose(found["value"], statistics["aggregate_mean"].values[:, None] + reach, atol=1e-6)
    np.testing.assert_allclose(found["offset"], np.tile(np.linspace(-3, 3, 5), (3, 1)), atol=1e-9)
    np.testing.assert_allclose(found["decoded"][:, 2], found["base_decoded"].values[None].repeat(3, 0), atol=1e-5)


def test_bases(scan_path: Path, scan_ds: xr.Dataset) -> None:
    prototype = va.explore.prototypes(scan_path).sel({"class": "bcc"})["latents"].values
    np.testing.assert_allclose(traverse(scan_path, base="prototype:bcc")["base"], prototype, atol=1e-6)
    inside = np.argwhere(scan_ds["roi"].values)[7]
    place = {"y": float(scan_ds["y"][inside[0]]), "x": float(scan_ds["x"][inside[1]])}
    np.testing.assert_allclose(
        traverse(scan_path, base=place)["base"], scan_ds["latents"].values[tuple(inside)], atol=1e-4
    )
    outside = np.argwhere(~scan_ds["roi"].values & scan_ds["present"].values)[0]
    place = {"y": float(scan_ds["y"][outside[0]]), "x": float(scan_ds["x"][outside[1]])}
    assert np.isfinite(traverse(scan_path, base=place)["base"]).all()
    np.testing.assert_array_equal(traverse(scan_path, base=[1, 2, 3])["base"], [1, 2, 3])


def test_a_plane_has_the_axes_it_says(scan_path: Path) -> None:
    found = manifold(scan_path, dims=(2, 0), span=(-2, 1), steps=4, unit="absolute", base=[9, 8, 7])
    assert found["decoded"].dims == ("row", "column", "dy", "dx")
    z = found["latents"]
    for row in range(4):
        for column in range(4):
            want = [found["row"].values[row], 8, found["column"].values[column]]
            np.testing.assert_allclose(z[row, column], want, atol=1e-6)
    assert found["column"].attrs["latent_dim"] == 2
    decoded = va.load_model(scan_path).decode(z.values.reshape(-1, 3)).reshape(4, 4, 9, 11)
    np.testing.assert_allclose(found["decoded"], decoded, atol=1e-5)


def test_a_channel_is_shifted_as_a_whole(spatial_path: Path) -> None:
    found = traverse(spatial_path, dims=1, span=(-1, 1), steps=3, unit="absolute")
    assert found["decoded"].shape == (1, 3, 12, 16)
    z, base = found["latents"].values[0], found["base"].values
    assert (z[:, 0] == base[0]).all()
    np.testing.assert_allclose(z[:, 1].mean((1, 2)), [-1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(
        z[:, 1] - z[:, 1].mean((1, 2), keepdims=True), (base[1] - base[1].mean())[None].repeat(3, 0), atol=1e-5
    )
    assert (traverse(spatial_path, base=[1.0, 2.0])["base"].values[1] == 2).all()


def test_a_sample_with_a_number(spatial_path: Path) -> None:
    stored = va.open_store(spatial_path)["latents"].values[5]
    np.testing.assert_allclose(traverse(spatial_path, base=5, steps=2)["base"], stored, atol=1e-4)


def test_refusals(scan_path: Path) -> None:
    with pytest.raises(UsageError, match="no base 'middle'"):
        traverse(scan_path, base="middle")
    with pytest.raises(UsageError, match=r"'phase' has no class 'bbc'\. Did you mean 'bcc'"):
        traverse(scan_path, base="prototype:bbc")
    with pytest.raises(UsageError, match=r"latents of shape \(2,\) were given"):
        traverse(scan_path, base=[1.0, 2.0])
    with pytest.raises(UsageError, match="span 3 to -3"):
        traverse(scan_path, span=(3, -3))
    with pytest.raises(UsageError, match="no unit 'sigma'"):
        traverse(scan_path, unit="sigma")
    with pytest.raises(UsageError, match="different whole numbers"):
        manifold(scan_path, dims=(1, 1))
    with pytest.raises(UsageError, match="two dimensions, 3 were given"):
        manifold(scan_path, dims=(0, 1, 2))  # type: ignore[arg-type]
    with pytest.raises(NoInputError, match="no run"):
        traverse(scan_path, "other")
