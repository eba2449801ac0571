"""Class maps as targets: the correlation ratio and mutual information against plain formulae and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score

from vaearr.association.classes import associate_classes, equal_bins, eta_squared
from vaearr.errors import RoiError, SchemaError, UsageError

SHAPE = (20, 15)


def _maps(seed: int = 0) -> tuple[xr.DataArray, xr.DataArray]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-1, 3, SHAPE).astype("i2")
    values = rng.normal(size=(*SHAPE, 5))
    values[..., 1] += codes
    values[..., 2] = codes
    values[..., 3] = 4.0
    values[:3, :, 4] = np.nan
    flags = {"flag_values": [-1, 0, 1, 2], "flag_meanings": "not_indexed fcc bcc hcp"}
    latents = xr.DataArray(values, dims=("y", "x", "latent"), name="latents")
    return latents, xr.DataArray(codes, dims=("y", "x"), name="phase", attrs=flags)


def test_against_plain_formulae() -> None:
    latents, phase = _maps()
    table = associate_classes(latents, phase)
    codes = phase.values.ravel()
    for i in (0, 1, 4):
        values = latents.values[..., i].ravel()
        keep = (codes >= 0) & np.isfinite(values)
        v, c = values[keep], codes[keep]
        between = sum((c == k).sum() * (v[c == k].mean() - v.mean()) ** 2 for k in range(3))
        assert table.sel(metric="eta_squared")[i] == pytest.approx(between / ((v - v.mean()) ** 2).sum(), rel=1e-12)
        wanted = adjusted_mutual_info_score(c, equal_bins(v, 16), average_method="min")
        assert table.sel(metric="adjusted_mutual_information")[i] == pytest.approx(wanted, abs=1e-12)
        assert table["n"][i] == keep.sum()
    assert table.attrs["classes"] == ["fcc", "bcc", "hcp"]


def test_what_separates_and_what_says_nothing() -> None:
    table = associate_classes(*_maps())
    np.testing.assert_allclose(table[:, 2], 1)
    assert np.isnan(table[:, 3]).all()
    assert (abs(table[:, 0]) < 0.1).all()
    assert table["n_classes"].values.tolist() == [3] * 5


def test_two_well_separated_classes_reach_1_though_bins_are_many() -> None:
    codes = np.repeat([0, 1], 160).reshape(16, 20)
    latent = codes + np.random.default_rng(0).uniform(0, 0.5, codes.shape)
    table = associate_classes(
        xr.DataArray(latent[..., None], dims=("y", "x", "pca_component")), xr.DataArray(codes, dims=("y", "x"))
    )
    assert table.sel(metric="adjusted_mutual_information").item() == pytest.approx(1)
    assert table["target"] == "classes"


def test_region_chunks_and_transposed_maps() -> None:
    latents, phase = _maps()
    roi = xr.DataArray(np.arange(SHAPE[1]) < 9, dims="x") & xr.ones_like(phase, dtype=bool)
    small = associate_classes(latents.isel(x=slice(9)), phase.isel(x=slice(9)))
    lazy = associate_classes(latents.chunk({"y": 7}).transpose("latent", "x", "y"), phase.chunk({"x": 4}), roi.T)
    xr.testing.assert_allclose(small, lazy)


def test_one_class_gives_nan() -> None:
    latents, phase = _maps()
    assert np.isnan(associate_classes(latents, xr.zeros_like(phase))).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), n_classes=st.integers(2, 5), scale=st.floats(1e-6, 1e6), shift=st.floats(-100, 100))
def test_unit_of_the_latent_and_numbers_of_the_classes_do_not_matter(
    seed: int, n_classes: int, scale: float, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    place = rng.permutation(np.arange(60) % n_classes)
    values = rng.normal(size=60) + place
    found = eta_squared(values, place)
    assert 0 <= found <= 1
    assert eta_squared(-scale * values + scale * shift, (place + 1) % n_classes) == pytest.approx(found, abs=1e-8)
    np.testing.assert_array_equal(equal_bins(values, 6), equal_bins(values * scale, 6))


@given(n_points=st.integers(1, 200), bins=st.integers(1, 20))
def test_bins_are_equally_full(n_points: int, bins: int) -> None:
    sizes = np.bincount(equal_bins(np.random.default_rng(0).permutation(n_points).astype(float), bins))
    assert len(sizes) == min(bins, n_points)
    assert np.ptp(sizes) <= 1


def test_refusals() -> None:
    latents, phase = _maps()
    with pytest.raises(SchemaError, match="fractions"):
        associate_classes(latents, phase + 0.5)
    with pytest.raises(SchemaError, match="a map of classes lies over"):
        associate_classes(latents, latents)
    with pytest.raises(SchemaError, match="same grid"):
        associate_classes(latents, phase.isel(x=slice(3)))
    with pytest.raises(RoiError, match="no scan point"):
        associate_classes(latents, phase, xr.zeros_like(phase, dtype=bool))
    with pytest.raises(UsageError, match="bins is 1"):
        associate_classes(latents, phase, bins=1)
