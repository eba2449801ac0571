"""p-values for maps: uniform where nothing is to be found, small where something is; corrections; every metric."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr.association.metrics import METRICS
from vaearr.association.p_values import adjust, significance
from vaearr.association.table import associate
from vaearr.config import SignificanceConfig
from vaearr.errors import RoiError, SchemaError, UsageError

from .null_maps import gaussian_maps, irregular_region, null_p_values, two_classes

FEW = SignificanceConfig(n_surrogates=19)


@pytest.fixture(scope="module")
def maps() -> xr.Dataset:
    fields = gaussian_maps(np.random.default_rng(0), 6, 2, shape=(24, 30))
    fields[1] += fields[5]  # latent 1 goes with the target
    latents = np.moveaxis(fields[:5], 0, -1)
    latents[..., 3] = 1.0
    latents[:2, :, 4] = np.nan
    target = fields[5].copy()
    target[5:8, 4] = np.nan
    coords = {"y": np.arange(24) * 0.5, "x": np.arange(30) * 0.5}
    phase = two_classes(fields[5:])[0].astype("i2")
    return xr.Dataset(
        {"latents": (("y", "x", "latent"), latents), "map": (("y", "x"), target), "phase": (("y", "x"), phase)}, coords
    )


@pytest.mark.parametrize("irregular", [False, True], ids=["full", "irregular"])
def test_p_values_are_uniform_under_the_null_where_naive_ones_are_not(irregular: bool) -> None:
    found = null_p_values(lambda rng, k: gaussian_maps(rng, k, 3), 20, n_latents=4, irregular=irregular, seed=1)
    p, naive = found["p_value"], found["p_naive"]
    assert scipy.stats.kstest(p, "uniform").statistic < 0.18
    assert np.mean(p <= 0.05) < 0.12
    assert np.mean(naive <= 0.05) > 0.5


def test_blocks_reject_far_less_than_the_naive_test() -> None:
    found = null_p_values(lambda rng, k: gaussian_maps(rng, k, 3), 12, n_latents=4, seed=1, method="blocks")
    assert np.mean(found["p_value"] <= 0.05) < 0.2
    assert np.mean(found["p_naive"] <= 0.05) > 0.5


@pytest.mark.parametrize("method", ["spectrum", "blocks"])
def test_what_goes_together_is_found(maps: xr.Dataset, method: str) -> None:
    table = significance(maps["latents"], maps["map"], ["pearson"], config=SignificanceConfig(method=method))
    assert table["p_value"].sel(latent=1) == 1 / 200
    assert (table["p_value"].sel(latent=[0, 2]) > 0.02).all()
    assert np.isnan(table["p_value"].sel(latent=3))
    assert 10 < table["n_effective"].sel(latent=1).item() < 200
    assert (table["p_adjusted"] >= table["p_value"]).where(table["p_value"].notnull(), True).all()


def test_naive_p_values_are_those_of_scipy(maps: xr.Dataset) -> None:
    table = significance(maps["latents"], maps["map"], ["pearson", "spearman"], config=FEW)
    for latent in (0, 4):
        a, b = maps["latents"].values[..., latent].ravel(), maps["map"].values.ravel()
        keep = np.isfinite(a) & np.isfinite(b)
        for metric, test in (("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)):
            naive = table["p_naive"].sel(metric=metric, latent=latent)
            assert float(naive) == pytest.approx(test(a[keep], b[keep]).pvalue, rel=1e-6)


def test_every_metric_has_p_values_and_the_association_is_unchanged(maps: xr.Dataset) -> None:
    part = maps.isel(y=slice(12), x=slice(14))
    target = part[["map", "phase"]]
    every = significance(part["latents"], target, list(METRICS), config=FEW)
    xr.testing.assert_allclose(every["association"], associate(part["latents"], target, list(METRICS)))
    assert (every["p_value"].notnull() == every["association"].notnull()).all()
    assert every["p_value"].min() >= 1 / 20
    assert every["n_effective"].sel(metric="hsic").isnull().all()
    assert every["p_value"].dims == ("metric", "latent", "target")


def test_numbers_depend_on_the_seed_but_on_no_chunk_and_no_other_target(maps: xr.Dataset) -> None:
    both = significance(
        maps["latents"].chunk({"y": 7}), maps[["phase", "map"]].chunk({"x": 9}), ["pearson"], config=FEW
    )
    alone = significance(maps["latents"], maps["map"], ["pearson"], config=FEW)
    np.testing.assert_array_equal(both["p_value"].sel(target="map"), alone["p_value"])
    other = significance(maps["latents"], maps["map"], ["pearson"], config=FEW.replace(seed=1))
    assert not np.array_equal(other["p_value"], alone["p_value"], equal_nan=True)


def test_region_is_all_that_counts(maps: xr.Dataset) -> None:
    roi = xr.DataArray(irregular_region((24, 30)), dims=("y", "x"), coords={k: maps[k] for k in "yx"})
    found = significance(maps["latents"], maps["map"], ["spearman"], roi.T, FEW)
    masked = significance(maps["latents"].where(roi), maps["map"].where(roi), ["spearman"], None, FEW)
    for name in ("association", "p_value", "n_effective"):
        xr.testing.assert_allclose(found[name].drop_vars("n"), masked[name].drop_vars("n"))


def test_a_collection_has_no_neighbours() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 2))
    latents = xr.DataArray(values, dims=("sample", "latent"))
    target = xr.DataArray(values[:, 0] + rng.normal(size=60), dims="sample", name="age")
    table = significance(latents, target, ["pearson"])
    assert table["p_value"][0, 0] == 1 / 200
    assert (table["n_effective"] == 60).all()
    assert abs(float(table["p_value"][0, 1] - table["p_naive"][0, 1])) < 0.12


def test_the_largest_of_all_bounds_the_chance_of_any_false_discovery() -> None:
    found = []
    config = SignificanceConfig(n_surrogates=39)
    for seed in range(30):
        fields = gaussian_maps(np.random.default_rng(seed), 9, 2, shape=(16, 16))
        latents = xr.DataArray(np.moveaxis(fields[:8], 0, -1), dims=("y", "x", "latent"))
        target = xr.DataArray(fields[8], dims=("y", "x"))
        table = significance(latents, target, ["pearson", "spearman"], config=config)
        assert (table["p_adjusted"] >= table["p_value"]).all()
        found.append((float(table["p_adjusted"].min()), float(table["p_value"].min())))
    adjusted, plain = np.array(found).T
    assert np.mean(adjusted <= 0.05) < 0.2  # one target in 20, with 30 drawn
    assert np.mean(plain <= 0.05) > 0.2  # of 16 tests some are small by chance


def test_a_strong_association_survives_the_largest_of_many() -> None:
    fields = gaussian_maps(np.random.default_rng(4), 40, 2, shape=(24, 24))
    target = xr.DataArray(fields[0] + 0.3 * fields[1], dims=("y", "x"))
    latents = xr.DataArray(np.moveaxis(fields[:39], 0, -1), dims=("y", "x", "latent"))
    table = significance(latents, target, ["pearson"])
    assert table["p_adjusted"][0, 0] == 1 / 200
    assert (table["p_adjusted"][0, 2:] > 0.05).all()


def test_too_few_surrogates_and_too_smooth_maps_are_told(maps: xr.Dataset) -> None:
    table = significance(maps["latents"], maps["map"], ["pearson"], config=FEW.replace(correction="fdr"))
    assert "19 surrogates" in table.attrs["warnings"][0]
    plain = significance(maps["latents"], maps["map"], ["pearson"], config=FEW.replace(correction="none"))
    assert plain.attrs["warnings"] == []
    xr.testing.assert_allclose(plain["p_adjusted"], plain["p_value"])
    slow = gaussian_maps(np.random.default_rng(1), 2, 20, shape=(24, 30))
    latents = xr.DataArray(slow[:1].transpose(1, 2, 0), dims=("y", "x", "latent"))
    table = significance(latents, xr.DataArray(slow[1], dims=("y", "x")), ["pearson"])
    assert any("vary so slowly" in text for text in table.attrs["warnings"])


@settings(max_examples=50, deadline=None)
@given(p=st.lists(st.floats(0.001, 1) | st.just(np.nan), min_size=1, max_size=20), seed=st.integers(0, 9))
def test_corrections(p: list[float], seed: int) -> None:
    given_ = np.array(p)
    known = np.isfinite(given_)
    order = np.random.default_rng(seed).permutation(len(p))
    for correction in ("fdr", "holm", "none"):
        found = adjust(given_, correction)
        np.testing.assert_array_equal(np.isfinite(found), known)
        assert (found[known] >= given_[known] - 1e-15).all()
        assert (found[known] <= 1).all()
        np.testing.assert_allclose(adjust(given_[order], correction), found[order])
    assert adjust(given_, "none").tolist() == pytest.approx(p, nan_ok=True)


def test_corrections_by_hand() -> None:
    p = np.array([[0.01, 0.04], [np.nan, 0.03]])
    np.testing.assert_allclose(adjust(p, "holm"), [[0.03, 0.06], [np.nan, 0.06]])
    factor = 3 * (1 + 1 / 2 + 1 / 3)
    np.testing.assert_allclose(adjust(p, "fdr"), [[0.01 * factor, 0.04 * factor / 3], [np.nan, 0.04 * factor / 3]])


def test_refusals(maps: xr.Dataset) -> None:
    with pytest.raises(UsageError, match="no correction is named 'holmes'"):
        adjust(np.array([0.5]), "holmes")
    with pytest.raises(UsageError, match="no metric is named"):
        significance(maps["latents"], maps["map"], ["pearsn"])
    with pytest.raises(SchemaError, match="same grid"):
        significance(maps["latents"], maps["map"].isel(y=slice(4)))
    with pytest.raises(RoiError, match="no scan point"):
        significance(maps["latents"], maps["map"], roi=xr.zeros_like(maps["map"], dtype=bool))


def test_a_value_that_no_permutation_changes_does_not_hide_the_others() -> None:
    rng = np.random.default_rng(0)
    target = np.zeros(42)
    target[5] = 1
    balanced = np.repeat([0.1, 0.7], 21)  # |r| with one point among 42 is the same wherever that point lies
    near = np.exp(-0.5 * (np.arange(42) - 5.0) ** 2)
    values = np.column_stack([balanced, near, rng.normal(size=42)])
    latents = xr.DataArray(values, dims=("sample", "latent"))
    for pick in ([0, 1, 2], [1, 2]):
        table = significance(latents.isel(latent=pick), xr.DataArray(target, dims="sample"), ["pearson"])
        p = table["p_adjusted"].values[0]
        assert p[pick.index(1)] < 0.1
    table = significance(latents, xr.DataArray(target, dims="sample"), ["pearson"])
    assert table["p_adjusted"][0, 0] == 1


def test_metrics_without_a_sign_are_tested_by_their_value_alone() -> None:
    rng = np.random.default_rng(0)
    latents = xr.DataArray(rng.normal(size=(30, 20)), dims=("sample", "latent"))
    target = xr.DataArray(rng.normal(size=30), dims="sample")
    config = SignificanceConfig(n_surrogates=99, correction="none")
    table = significance(latents, target, ["hsic_unbiased"], config=config)
    value, p = table["association"].values[0], table["p_value"].values[0]
    assert (value < 0).any()
    assert (p[value < 0] > 0.2).all()
    assert np.corrcoef(scipy.stats.rankdata(value), p)[0, 1] < -0.9


def test_intervals_hold_the_true_correlation_about_as_often_as_they_say() -> None:
    inside, width = [], []
    for seed in range(40):
        fields = gaussian_maps(np.random.default_rng(seed), 3, 2, shape=(32, 32))
        both = 0.6 * fields[2] + 0.8 * fields[:2]  # the two share 0.36 of their variance
        latents = xr.DataArray(both[:1].transpose(1, 2, 0), dims=("y", "x", "latent"))
        target = xr.DataArray(both[1], dims=("y", "x"))
        table = significance(latents, target, ["pearson", "kendall"], config=FEW)
        low, high = (float(table[name].sel(metric="pearson", latent=0)) for name in ("low", "high"))
        assert low < float(table["association"].sel(metric="pearson", latent=0)) < high
        assert np.isnan(table["low"].sel(metric="kendall")).all()
        inside.append(low <= 0.36 <= high)
        width.append(high - low)
    assert np.mean(inside) > 0.8
    assert np.mean(width) > 2.5 * 2 * 1.96 / np.sqrt(32 * 32)  # far wider than for independent points
