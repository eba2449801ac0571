"""Targets made of several elements, scores and class maps; what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr import names as n
from vaearr.association.targets import columns, element_rgb, element_sum, stack, targets_of
from vaearr.errors import NoInputError, SchemaError, UsageError
from vaearr.testing import count_computes, random_patterns_dataset


@pytest.fixture
def ds() -> xr.Dataset:
    ds = random_patterns_dataset({"y": 6, "x": 5}, missing=2)
    rng = np.random.default_rng(1)
    clusters = rng.integers(0, 3, (6, 5)).astype("i2")
    clusters[0, 0], clusters[0, 1] = n.NOISE, n.NOT_CLUSTERED
    flags = {"flag_values": [-2, -1, 0, 1, 2], "flag_meanings": "not_clustered noise cluster_0 cluster_1 cluster_2"}
    return ds.assign(
        clusters=(("y", "x"), clusters, flags),
        pca=(("y", "x", "pca_component"), rng.normal(size=(6, 5, 2))),
        pca_components=(("pca_component", "dy", "dx"), rng.normal(size=(2, *ds["patterns"].shape[2:]))),
        pca_variance=(("pca_component",), np.ones(2)),
    )


def _scaled(ds: xr.Dataset, name: str) -> xr.DataArray:
    part = ds["elements"].sel(element=name, drop=True).astype("f8")
    return (part - part.min()) / (part.max() - part.min())


def test_scores_and_cluster_maps_are_targets(ds: xr.Dataset) -> None:
    labels = targets_of(ds, ["pca", "clusters"])["target"].values.tolist()
    assert labels == ["pca: 0", "pca: 1", *(f"clusters: cluster_{k}" for k in range(3))]
    noise = targets_of(ds, ["clusters: cluster_1"]).squeeze()
    assert np.isnan(noise[0, 0])
    assert np.isnan(noise[0, 1])
    assert targets_of(ds, ["pca: 1"]).sizes["target"] == 1
    for name in ("pca_components", "pca_variance"):
        with pytest.raises(NoInputError, match=f"no target is named '{name}'"):
            targets_of(ds, [name])


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("Fe + 0.5*Ni", {"Fe": 2 / 3, "Ni": 1 / 3}),
        ("2*(Fe - Cr) + Cr", {"Fe": 2 / 3, "Cr": -1 / 3}),
        ("'Fe'*3 + -Ni/2 + .5*Cr", {"Fe": 0.75, "Ni": -0.125, "Cr": 0.125}),
        ("-Fe", {"Fe": -1.0}),
    ],
)
def test_weighted_sum(ds: xr.Dataset, text: str, weights: dict[str, float]) -> None:
    found = targets_of(ds, ["BC", text]).sel(target=text)
    wanted = sum(weight * _scaled(ds, name) for name, weight in weights.items())
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert int(found.isnull().sum()) == 2


def test_luminance(ds: xr.Dataset) -> None:
    fe, ni, cr = (_scaled(ds, name) for name in ("Fe", "Ni", "Cr"))
    found = targets_of(ds, ["rgb(Fe, Ni, Cr)", "rgb(Fe, Ni)", "rgb('Cr')"])
    np.testing.assert_allclose(found[0], 0.2126 * fe + 0.7152 * ni + 0.0722 * cr, atol=1e-12)
    np.testing.assert_allclose(found[1], 0.2126 * fe + 0.7152 * ni + 0.0722 * (fe + ni) / 2, atol=1e-12)
    np.testing.assert_allclose(found[2], cr, atol=1e-12)


def test_scaling_follows_region_and_quantiles(ds: xr.Dataset) -> None:
    roi = ds["x"] < 1.5
    inside = targets_of(ds, ["Fe + Ni"], roi=roi)
    alone = targets_of(ds.isel(x=slice(3)), ["Fe + Ni"])
    np.testing.assert_allclose(inside.isel(x=slice(3)), alone)
    part = ds["elements"].sel(element="Fe").astype("f8")
    low, high = part.quantile([0.1, 0.8])
    found = element_sum(ds, {"Fe": 7.0}, quantiles=(0.1, 0.8))
    np.testing.assert_allclose(found, ((part - low) / (high - low)).clip(0, 1), atol=1e-12)
    assert found.attrs["weights"] == {"Fe": 1.0}


def test_an_element_without_spread_counts_nothing(ds: xr.Dataset) -> None:
    flat = ds.assign(elements=ds["elements"].where(ds["element"] != "Ni", 3.0))
    assert float(abs(element_sum(flat, {"Ni": 1})).max()) == 0


def test_rgb_map(ds: xr.Dataset) -> None:
    colours = element_rgb(ds, ["Fe", "Cr"])
    assert colours.dims == ("y", "x", "channel")
    assert colours["channel"].values.tolist() == ["red", "green", "blue"]
    assert colours.attrs["elements"] == ["Fe", "Cr", "mean of Fe and Cr"]
    assert int(colours.isnull().sum()) == 6
    grey = element_rgb(ds, ["Ni"], (0.02, 0.98))
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    assert (float(grey.min()), float(grey.max())) == (0, 1)


def test_combinations_stay_lazy_and_do_not_depend_on_chunks(ds: xr.Dataset) -> None:
    chunked = ds.chunk({"y": 4, "x": 2})
    with count_computes(at_most=0):
        lazy = targets_of(chunked, ["Fe + Ni", "rgb(Fe, Cr)"], quantiles=(0.05, 0.9))
    xr.testing.assert_allclose(lazy.compute(), targets_of(ds, ["Fe + Ni", "rgb(Fe, Cr)"], quantiles=(0.05, 0.9)))


@settings(max_examples=12, deadline=None)
@given(
    weights=st.lists(st.floats(0.01, 10), min_size=3, max_size=3),
    shape=st.tuples(st.integers(1, 6), st.integers(2, 6)),
    factor=st.floats(1e-3, 1e3),
)
def test_sum_lies_in_0_to_1_whatever_the_unit(weights: list[float], shape: tuple[int, int], factor: float) -> None:
    ds = random_patterns_dataset(dict(zip("yx", shape, strict=True)), {"dy": 2, "dx": 2}).compute()
    chosen = dict(zip(("Fe", "Ni", "Cr"), weights, strict=True))
    found = element_sum(ds, chosen)
    assert found.dims == ("y", "x")
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1 + 1e-12
    other = element_sum(ds.assign(elements=ds["elements"] * factor), {k: 3 * w for k, w in chosen.items()})
    np.testing.assert_allclose(found, other, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("Fe + Nii", NoInputError, "Did you mean 'Ni'"),
        ("rgb(Fe, Co)", NoInputError, "no element is named 'Co'"),
        ("rgb(Fe, Ni, Cr, Fe)", UsageError, "one to three elements"),
        ("rgb()", UsageError, "one to three elements"),
        ("rgb(Fe + Ni)", UsageError, "one to three elements"),
        ("open('x')", UsageError, "other than rgb"),
        ("Fe * Ni", UsageError, "no element times a number"),
        ("Fe ** 2", UsageError, "'Fe \\*\\* 2'"),
        ("Fe / 0", UsageError, "no element times a number"),
        ("Fe + 1", UsageError, "'1'"),
        ("Fe - Fe", UsageError, "one of them not 0"),
        ("1e400*Fe", UsageError, "finite"),
        ("Fe +", NoInputError, "no target is named"),
    ],
)
def test_what_cannot_be_meant_is_refused(ds: xr.Dataset, text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        targets_of(ds, [text])


def test_refusals_of_the_functions(ds: xr.Dataset) -> None:
    with pytest.raises(UsageError, match="0 <= first < second"):
        element_rgb(ds, ["Fe"], (0.9, 0.1))
    with pytest.raises(UsageError, match="in a list"):
        element_rgb(ds, "Fe")
    with pytest.raises(UsageError, match="finite numbers"):
        element_sum(ds, {})
    with pytest.raises(NoInputError, match="Known: none"):
        element_sum(ds.drop_vars("elements").drop_dims("element", errors="ignore"), {"Fe": 1})


def test_coordinates_keep_their_units(ds: xr.Dataset) -> None:
    assert ds["x"].attrs["units"] == "um"
    for found in (
        element_sum(ds, {"Fe": 1, "Ni": 2}),
        element_rgb(ds, ["Fe", "Ni"]),
        targets_of(ds, ["BC", "Fe + Ni"]),
    ):
        assert found["x"].attrs == ds["x"].attrs
        assert found["y"].attrs == ds["y"].attrs
    assert "units" not in targets_of(ds, ["BC", "Fe"]).attrs


def test_what_holds_no_numbers_is_refused(ds: xr.Dataset) -> None:
    words = xr.full_like(ds["BC"], "a", dtype=object).rename("words")
    with pytest.raises(SchemaError, match="'words' is object; expected numbers"):
        list(columns(words, ("y", "x")))
    with pytest.raises(NoInputError, match="nothing to compare with"):
        stack([], ("y", "x"))
    with pytest.raises(NoInputError, match="no target is named"):
        targets_of(ds, ["-" * 5000 + "Fe"])
