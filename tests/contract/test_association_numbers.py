"""Association metrics on awkward columns, against their formulae; p-values where nothing is to be
found, and where.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import vaearr as va
from vaearr.config import SignificanceConfig
from vaearr.errors import RoiError, SchemaError, UsageError

from .null_maps import gaussian_maps, irregular_region, null_p_values, two_classes
from .test_association import dense

SHAPE = (12, 20)
ROWS, COLUMNS = (axis.ravel().astype(float) for axis in np.indices(SHAPE))
SEVEN = [
    "pearson",
    "spearman",
    "kendall",
    "mutual_information",
    "distance_correlation",
    "hsic",
    "partial_pearson",
]
EVERY = [*SEVEN, "partial_pearson_2", "partial_pearson_3", "hsic_normalised", "hsic_unbiased"]
SIGNED = {
    "pearson",
    "spearman",
    "kendall",
    "partial_pearson",
    "partial_pearson_2",
    "partial_pearson_3",
}
FEW = SignificanceConfig(n_surrogates=19)
KINDS = (
    "random",
    "dependent",
    "tied",
    "binary",
    "far from zero",
    "heavy tails",
    "other tails",
    "two scales",
    "clumps",
)


def column(kind: str, n: int) -> np.ndarray:
    """A column of n values; columns of different kinds go with one another to some degree."""
    rng = np.random.default_rng([7, KINDS.index(kind)])
    common = np.random.default_rng(1).normal(size=n)
    z = rng.normal(size=n)
    return {
        "random": z,
        "dependent": common + 0.5 * z,
        "tied": np.round(common + z),
        "binary": (common + z > 0.7).astype(float),
        "far from zero": (common**2 + 0.3 * z) * 1e-3 + 1e4,
        "heavy tails": rng.standard_cauchy(n) + common,
        "other tails": np.exp(3 * z) * common,
        "two scales": np.where(rng.random(n) < 0.75, z * 1e-4, z * 40),
        "clumps": np.where(rng.random(n) < 0.4, z + 300 + 40 * rng.random(n), 0.1 * z),
    }[kind]


def maps(values: np.ndarray, name: str = "latents") -> xr.DataArray:
    """Rows of values as maps of 12 x 20 points, or as a collection where they are of another
    number.
    """
    if len(values) != np.prod(SHAPE):
        return xr.DataArray(values, dims=("sample", "latent")[: values.ndim], name=name)
    return xr.DataArray(
        values.reshape(*SHAPE, *values.shape[1:]),
        dims=("y", "x", "latent")[: values.ndim + 1],
        name=name,
    )


def grid(fields: np.ndarray) -> tuple[xr.DataArray, xr.DataArray]:
    """Fields (count, y, x): the latents, and the last one as target."""
    latents = xr.DataArray(
        np.moveaxis(fields[:-1], 0, -1), dims=("y", "x", "latent"), name="latents"
    )
    return latents, xr.DataArray(fields[-1], dims=("y", "x"), name="map")


@pytest.mark.parametrize("other", KINDS)
def test_metrics_of_awkward_columns_equal_their_formulae(other: str) -> None:
    latents = np.stack([column(kind, 240) for kind in KINDS], axis=1)
    table = va.associate(maps(latents), maps(column(other, 240), "BC"), EVERY)
    for i in range(len(KINDS)):
        for metric, value in dense(latents[:, i], column(other, 240), ROWS, COLUMNS).items():
            at = float(table.sel(metric=metric)[i])
            if metric == "mutual_information":
                assert at == value, KINDS[i]  # bit for bit scikit-learn's
            else:
                assert at == pytest.approx(value, rel=1e-6, abs=2e-7), (metric, KINDS[i])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-3, 3) | st.floats(-1e3, 1e3), st.integers(-4, 4)),
        min_size=8,
        max_size=60,
    )
)
def test_any_few_points_equal_the_formulae(pairs: list[tuple[float, float]]) -> None:
    x, y = np.array(pairs, float).T
    assume(np.ptp(x) > 1e-6 and np.ptp(y) > 0)
    found = va.associate(
        maps(x[:, None]), maps(y, "BC"), ["kendall", "distance_correlation", "mutual_information"]
    )
    expected = dense(x, y, np.arange(len(x)), np.zeros(len(x)))
    wanted = [expected[metric] for metric in found.metric.values]
    np.testing.assert_allclose(found[:2, 0], wanted[:2], rtol=1e-9, atol=2e-7)
    assert float(found[2, 0]) == wanted[2]


@settings(max_examples=15, deadline=None)
@given(
    scale=st.floats(1e-2, 1e3),
    shift=st.floats(-1e3, 1e3),
    sign=st.sampled_from([-1, 1]),
    seed=st.integers(0, 999),
)
def test_units_and_order_of_the_points_do_not_matter(
    scale: float, shift: float, sign: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    latents, target = (
        rng.integers(-9, 9, (240, 3)).astype(float),
        rng.integers(0, 5, 240).astype(float),
    )
    metrics = [
        name for name in EVERY if name != "mutual_information"
    ]  # whose noise stays with the place
    before = va.associate(maps(latents), maps(target), metrics)
    after = va.associate(maps(sign * scale * latents + shift), maps(target), metrics)
    turned = [1 if name in SIGNED else 0 for name in metrics]
    signs = np.where(turned, sign, 1)[:, None]
    np.testing.assert_allclose(after, signs * before, atol=1e-7)
    place = rng.permutation(240)
    metrics = [name for name in metrics if "partial" not in name]
    moved = va.associate(maps(latents[place]), maps(target[place]), metrics)
    np.testing.assert_allclose(moved, before.sel(metric=metrics), rtol=1e-8, atol=1e-10)


def test_missing_values_constants_and_company() -> None:
    rng = np.random.default_rng(2)
    latents = np.stack(
        [column(kind, 240) for kind in ("dependent", "tied", "heavy tails")] + [np.full(240, 0.1)],
        axis=1,
    )
    targets = xr.Dataset(
        {
            "a": maps(column("binary", 240)),
            "b": maps(column("random", 240)),
            "flat": maps(np.ones(240)),
        }
    )
    holes = xr.DataArray(rng.random((*SHAPE, 4)) < 0.2, dims=("y", "x", "latent"))
    missing = maps(rng.random(240)) < 0.3
    some = maps(latents).where(~holes)
    table = va.associate(some, targets.where(~missing), EVERY)
    assert np.isnan(table.sel(target="flat")).all()
    assert np.isnan(table.sel(latent=3)).all()
    for i in range(3):
        for name in ("a", "b"):
            there = np.isfinite(some[..., i].values) & ~missing.values
            mask = xr.DataArray(there, dims=("y", "x"))
            alone = va.associate(some[..., [i]], targets[name], EVERY, roi=mask)
            np.testing.assert_allclose(
                table.sel(target=name)[:, i], alone[:, 0], rtol=1e-9, atol=1e-12
            )
    lazy = va.associate(
        some.chunk({"y": 5, "latent": 2}).transpose("latent", "x", "y"),
        targets.chunk({"x": 7}),
        "all",
    )
    assert lazy.metric.values.tolist() == SEVEN
    same = (
        lazy.metric != "mutual_information"
    )  # whose noise, which decides ties, follows the order of the points
    xr.testing.assert_allclose(lazy[same], va.associate(some, targets, "all")[same])


def test_a_large_offset_costs_no_digits_and_a_common_trend_is_no_association() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=240)
    x, y = a * 1e-3 + 1e9, (a + rng.normal(size=240)) * 1e-2 - 1e8
    exact = [v.astype(np.longdouble) - v.astype(np.longdouble).mean() for v in (x, y)]
    wanted = (exact[0] @ exact[1]) / np.sqrt((exact[0] @ exact[0]) * (exact[1] @ exact[1]))
    assert va.associate(maps(x[:, None]), maps(y), ["pearson"]).item() == pytest.approx(
        float(wanted), abs=1e-12
    )
    x, y = (20 * ROWS + 20 * COLUMNS + rng.normal(size=240) for _ in range(2))
    trend = va.associate(
        maps(x[:, None]), maps(y), ["pearson", "partial_pearson", "partial_pearson_3"]
    )[:, 0]
    assert trend[0] > 0.99
    assert (abs(trend[1:]) < 0.2).all()
    assert np.isnan(va.associate(maps(np.c_[20.0 * ROWS + 7]), maps(y), ["partial_pearson"])).all()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"target": lambda z, t: t.isel(y=slice(4))}, SchemaError, "same grid"),
        ({"latents": lambda z, t: t}, SchemaError, "one further dimension"),
        ({"latents": lambda z, t: z.isel(latent=[])}, SchemaError, "the latents are empty"),
        ({"roi": lambda z, t: t.astype(float)}, SchemaError, "expected boolean over"),
        ({"roi": lambda z, t: xr.zeros_like(t, dtype=bool)}, RoiError, "no scan point"),
        ({"metrics": lambda z, t: ["pearsn"]}, UsageError, "'pearson'"),
        ({"metrics": lambda z, t: ()}, UsageError, "no metric"),
        (
            {"target": lambda z, t: xr.full_like(t, "a", dtype=object)},
            SchemaError,
            "expected numbers",
        ),
    ],
)
def test_refusals(change: dict[str, object], error: type[Exception], words: str) -> None:
    latents, target = grid(gaussian_maps(np.random.default_rng(0), 3, 2, shape=SHAPE))
    ((name, make),) = change.items()
    given_ = {
        "latents": latents,
        "target": target,
        "metrics": ["pearson"],
        name: make(latents, target),
    }  # type: ignore[operator]
    with pytest.raises(error, match=words):
        va.associate(given_["latents"], given_["target"], given_["metrics"], roi=given_.get("roi"))


# ---- p-values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("irregular", "kind"), [(False, "smooth"), (True, "smooth"), (True, "classes")]
)
def test_p_values_are_uniform_under_the_null(irregular: bool, kind: str) -> None:
    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        fields = gaussian_maps(rng, count, 3)
        return two_classes(fields) if kind == "classes" else fields

    found = null_p_values(draw, 16, n_latents=4, irregular=irregular, seed=1)
    assert np.mean(found <= 0.05) < 0.12
    assert scipy.stats.kstest(found, "uniform").statistic < 0.2


def test_metrics_that_are_tested_on_some_points_hold_their_level_and_find_what_is_there() -> None:
    config = SignificanceConfig(n_surrogates=39, max_points=100)
    metrics, p_values = ["kendall", "distance_correlation"], []
    for seed in range(12):
        free, free_too, like, target = gaussian_maps(
            np.random.default_rng(seed), 4, 2, shape=(32, 32)
        )
        latents, side = grid(np.stack([free, free_too, 0.8 * target + 0.6 * like, target]))
        table = va.associate(latents, side, metrics, significance=config)
        xr.testing.assert_allclose(
            table.association, va.associate(latents, side, metrics)
        )  # of all points
        p_values.append(table.p_value.values)
    null, found = np.array(p_values)[..., :2].ravel(), np.array(p_values)[..., 2]
    assert np.mean(null <= 0.05) < 0.15
    assert scipy.stats.kstest(null, "uniform").statistic < 0.25
    assert np.median(found) <= 0.05


def test_effective_points_are_those_of_theory_and_intervals_hold_the_truth() -> None:
    inside, effective = [], []
    for seed in range(40):
        fields = gaussian_maps(np.random.default_rng(seed), 3, 2, shape=(32, 32))
        latents, target = grid(
            np.stack([0.6 * fields[2] + 0.8 * fields[0], 0.6 * fields[2] + 0.8 * fields[1]])
        )
        table = va.associate(latents, target, ["pearson", "kendall"], significance=FEW).isel(
            latent=0
        )
        low, high = (float(table[name].sel(metric="pearson")) for name in ("low", "high"))
        assert low < float(table["association"].sel(metric="pearson")) < high
        assert np.isnan(table["low"].sel(metric="kendall"))
        inside.append(low <= 0.36 <= high)  # the two share 0.36 of their variance
        effective.append(float(table["n_effective"].sel(metric="pearson")))
    assert np.mean(inside) > 0.8
    assert np.median(effective) == pytest.approx(1024 / (np.pi * 4), rel=0.4)  # of an endless map


def test_what_goes_together_is_found_and_no_other_number_matters() -> None:
    fields = gaussian_maps(np.random.default_rng(0), 6, 2, shape=(24, 30))
    fields[1] += fields[5]
    latents, target = grid(fields)
    latents[..., 3] = 1.0
    latents[:2, :, 4] = np.nan
    table = va.associate(latents, target, ["pearson"], significance=True)
    assert table["p_value"].sel(latent=1) == 1 / 200
    assert (table["p_value"].sel(latent=[0, 2]) > 0.02).all()
    assert np.isnan(table["p_value"].sel(latent=3))
    assert (table["p_adjusted"] >= table["p_value"]).where(table["p_value"].notnull(), True).all()
    table = va.associate(latents, target, ["pearson", "spearman"], significance=FEW)
    classes = xr.DataArray(two_classes(fields[5:])[0].astype("i2"), dims=("y", "x"))
    both = xr.Dataset({"classes": classes, "map": target}).chunk({"x": 9})
    among = va.associate(latents.chunk({"y": 7}), both, ["pearson", "spearman"], significance=FEW)
    np.testing.assert_array_equal(among["p_value"].sel(target="map"), table["p_value"])
    other = va.associate(latents, target, ["pearson", "spearman"], significance=FEW.replace(seed=1))
    assert not np.array_equal(other["p_value"], table["p_value"], equal_nan=True)
    roi = xr.DataArray(irregular_region((24, 30)), dims=("y", "x"))
    inside = va.associate(latents, target, ["spearman"], roi.T, significance=FEW)
    masked = va.associate(latents.where(roi), target.where(roi), ["spearman"], significance=FEW)
    np.testing.assert_allclose(inside["p_value"], masked["p_value"])


def test_every_metric_has_p_values_and_the_association_is_unchanged() -> None:
    latents, target = grid(gaussian_maps(np.random.default_rng(0), 3, 1, shape=(14, 15)))
    every = va.associate(latents, target, EVERY, significance=FEW)
    xr.testing.assert_allclose(every["association"], va.associate(latents, target, EVERY))
    assert (every["p_value"].notnull() == every["association"].notnull()).all()
    assert every["p_value"].min() >= 1 / 20
    assert (
        every["n_effective"].sel(metric="hsic") == every["n_effective"].sel(metric="spearman")
    ).all()


def test_samples_have_no_neighbours_and_unsigned_metrics_are_tested_by_their_value() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 20))
    target = values[:, 0] + rng.normal(size=60)
    table = va.associate(
        maps(values), maps(target), ["pearson", "hsic_unbiased"], significance=True
    )
    assert table["p_value"][0, 0] == 1 / 200
    assert (table["n_effective"].sel(metric="pearson") == 60).all()
    student = [scipy.stats.pearsonr(column, target).pvalue for column in values.T]
    np.testing.assert_allclose(table["p_value"].sel(metric="pearson"), student, atol=0.12)
    value, p = (
        table[name].sel(metric="hsic_unbiased").values for name in ("association", "p_value")
    )
    assert (value < 0).any()
    assert (p[value < 0] > 0.2).all()


def test_the_largest_of_all_bounds_the_chance_of_any_false_discovery() -> None:
    found = []
    for seed in range(30):
        latents, target = grid(gaussian_maps(np.random.default_rng(seed), 9, 1, shape=(16, 16)))
        table = va.associate(
            latents, target, ["pearson"], significance=SignificanceConfig(n_surrogates=39)
        )
        assert (table["p_adjusted"] >= table["p_value"]).all()
        found.append((float(table["p_adjusted"].min()), float(table["p_value"].min())))
    adjusted, plain = np.array(found).T
    assert np.mean(adjusted <= 0.05) < 0.2  # one target in 20, with 30 drawn
    assert np.mean(plain <= 0.05) > 0.15  # of 8 tests some are small by chance


def test_a_value_that_no_permutation_changes_does_not_hide_the_others() -> None:
    target = np.zeros(42)
    target[5] = 1
    balanced = np.repeat(
        [0.1, 0.7], 21
    )  # |r| with one point among 42 is the same wherever that point lies
    near = np.exp(-0.5 * (np.arange(42) - 5.0) ** 2)
    values = np.column_stack([balanced, near, np.random.default_rng(0).normal(size=42)])
    p = va.associate(maps(values), maps(target), ["pearson"], significance=True)[
        "p_adjusted"
    ].values[0]
    assert p[0] == 1
    assert p[1] < 0.1


def test_maps_that_are_too_smooth_get_no_p_value_and_are_told() -> None:
    latents, target = grid(gaussian_maps(np.random.default_rng(1), 2, 20, shape=(24, 30)))
    table = va.associate(latents, target, EVERY, significance=True)
    assert table["association"].notnull().all()
    assert table["p_value"].isnull().all()
    assert table["p_adjusted"].isnull().all()
    assert (table["n_effective"] < 20).all()
    (text,) = table.attrs["warnings"]
    assert (
        f"{len(EVERY)} of {len(EVERY)} associations get no p-value: the maps are too smooth for this test"
        in text
    )


def test_blocks_are_refused_and_earlier_settings_are_read() -> None:
    with pytest.raises(UsageError, match="no setting 'method'"):
        SignificanceConfig.from_attrs({"method": "blocks"})
    assert (
        SignificanceConfig.from_attrs({"method": "spectrum", "block": None}) == SignificanceConfig()
    )


@settings(max_examples=8, deadline=None)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    share=st.floats(0.3, 1.0),
    seed=st.integers(0, 100),
)
def test_any_grid_and_region_gives_p_values(shape: list[int], share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dims = ("z", "y", "x")[-len(shape) :]
    roi = xr.DataArray(rng.random(shape) < share, dims=dims)
    assume(int(roi.sum()) >= 3)
    latents = xr.DataArray(np.round(rng.normal(size=(*shape, 2)), 1), dims=(*dims, "latent"))
    found = va.associate(
        latents, latents[..., 0].drop_attrs() ** 3, ["pearson"], roi, significance=FEW
    )
    is_tested = found["association"].notnull() & (found["n_effective"] >= 20)
    np.testing.assert_array_equal(found["p_value"].notnull(), is_tested)
    assert found["p_value"].where(is_tested, 0.5).max() <= 1
