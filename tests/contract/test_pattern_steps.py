"""Steps on patterns (feature 10): lazy, equal chunked or not, coordinates and attributes right,
refusals.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import vaearr as va
from vaearr import bin_patterns, crop, neighbour_average
from vaearr.errors import SchemaError, UsageError

from ..data import count_computes, random_patterns_dataset

CHUNKS = {"y": 2, "x": 3}


def patterns(chunks: dict[str, int] | None = None, **further) -> xr.DataArray:
    return random_patterns_dataset(
        {"y": 5, "x": 7}, {"dy": 8, "dx": 12}, chunks=chunks, **further
    ).patterns


STEPS = {
    "crop": lambda p: crop(p, dy=(2, 6), dx=(None, 9)),
    "bin": lambda p: bin_patterns(p, {"dy": 2, "dx": 3}),
    "uniform": lambda p: neighbour_average(p, 3),
    "longer": lambda p: neighbour_average(p, {"y": 3, "x": 5}),
    "dynamic": lambda p: va.remove_dynamic_background(p, 0.2),
    "dynamic divided": lambda p: va.remove_dynamic_background(p, operation="divide"),
    "static": lambda p: va.remove_static_background(
        p, xr.DataArray(np.full((8, 12), 9.0), dims=("dy", "dx")), operation="divide"
    ),
    "rescale": lambda p: va.rescale_intensity(p, (-1, 1)),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_lazy_and_equal_chunked_or_not(step) -> None:
    plain = step(patterns())
    with count_computes(at_most=0):
        lazy = step(patterns(CHUNKS))
    assert lazy.chunks is not None
    assert lazy.dtype == plain.dtype
    assert lazy.attrs == plain.attrs
    assert lazy.dims == plain.dims == ("y", "x", "dy", "dx")
    assert lazy.attrs["navigation_dims"] == ["y", "x"]
    assert lazy.attrs["signal_dims"] == ["dy", "dx"]
    for dim in ("y", "x"):
        assert lazy[dim].attrs == plain[dim].attrs == patterns()[dim].attrs
    xr.testing.assert_allclose(lazy.compute(), plain, rtol=1e-6)


def test_steps_follow_each_other_and_are_recorded() -> None:
    source = patterns().assign_attrs(sha256="abc", value_max=255)
    done = neighbour_average(bin_patterns(crop(source, dy=(2, 6)), 2), 3)
    assert [item["step"] for item in done.attrs["steps"]] == ["crop", "bin", "neighbour_average"]
    assert done.attrs["steps"][0] == {"step": "crop", "dy": [2, 6]}
    assert "sha256" not in done.attrs
    assert "value_max" not in done.attrs
    assert source.attrs["sha256"] == "abc"
    assert "steps" not in source.attrs


def test_backgrounds_and_intensity_of_a_dataset() -> None:
    """Each step takes a Dataset, stays lazy, and does what it says to every pattern."""
    ds = random_patterns_dataset({"y": 5, "x": 7}, {"dy": 8, "dx": 12}, missing=4, chunks=CHUNKS)
    values, present = ds.patterns.values.astype(float), ds.present.values
    mean = values[present].mean(0)
    static = va.remove_static_background(ds, roi=ds.present)
    np.testing.assert_allclose(static.patterns, values - mean, atol=1e-3)
    ratio = va.remove_static_background(ds, static.patterns[0, 0] * 0 + 2, operation="divide")
    np.testing.assert_allclose(ratio.patterns, values / 2)
    position = np.arange(8)
    weights = np.exp(-0.5 * ((position[:, None] - position) / (0.25 * 8)) ** 2)
    columns = np.exp(-0.5 * ((np.arange(12)[:, None] - np.arange(12)) / (0.25 * 8)) ** 2)
    slow = (
        (weights / weights.sum(1, keepdims=True))
        @ values
        @ (columns / columns.sum(1, keepdims=True)).T
    )
    np.testing.assert_allclose(
        va.remove_dynamic_background(ds, 0.25).patterns, values - slow, atol=1e-3
    )
    scaled = va.rescale_intensity(va.remove_dynamic_background(static), (0, 10))
    assert scaled.patterns.chunks is not None
    assert scaled.patterns.attrs["steps"][-1] == {"step": "rescale_intensity", "out_range": [0, 10]}
    found = scaled.patterns.values[present]
    np.testing.assert_allclose(found.min((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.max((1, 2)), 10, rtol=1e-5)
    assert (va.rescale_intensity(ds.patterns * 0 + 3, (2, 4)) == 2).all()
    xr.testing.assert_identical(scaled.BC, ds.BC)
    smaller = bin_patterns(crop(ds.assign(static_background=ds.patterns[1, 1]), dy=(0, 4)), 2)
    np.testing.assert_array_equal(smaller.static_background, smaller.patterns[1, 1])


@settings(max_examples=30, deadline=None)
@given(
    counts=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    sides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "float32"]),
    seed=st.integers(0, 99),
)
def test_bins_are_means_of_their_pixels(counts, sides, dtype: str, seed: int) -> None:
    signal = {"dy": counts[0] * sides[0], "dx": counts[1] * sides[1]}
    source = random_patterns_dataset({"y": 2, "x": 3}, signal, dtype=dtype, seed=seed).patterns
    size = {"dy": sides[0], "dx": sides[1]}
    blocks = source.values.astype(float).reshape(2, 3, counts[0], sides[0], counts[1], sides[1])
    mean = bin_patterns(source, size)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean.values, blocks.mean((3, 5)), rtol=1e-6)
    np.testing.assert_allclose(
        mean.dy.values, np.arange(signal["dy"]).reshape(counts[0], -1).mean(1)
    )
    assert mean.dy.attrs == source.dy.attrs


def average_by_hand(values: np.ndarray, inside: np.ndarray, weights: np.ndarray) -> np.ndarray:
    out = np.full(values.shape, np.nan)
    reach = [side // 2 for side in weights.shape]
    for i, j in np.argwhere(inside):
        total, norm = 0.0, 0.0
        for (a, b), weight in np.ndenumerate(weights):
            k, m = i + a - reach[0], j + b - reach[1]
            if 0 <= k < inside.shape[0] and 0 <= m < inside.shape[1] and inside[k, m]:
                total, norm = total + weight * values[k, m], norm + weight
        out[i, j] = total / norm
    return out


@settings(max_examples=20, deadline=None)
@given(
    sides=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 7])),
    missing=st.integers(0, 20),
    chunks=st.one_of(st.none(), st.tuples(st.integers(1, 5), st.integers(1, 7))),
)
def test_average_equals_the_sum_by_hand(sides, missing: int, chunks) -> None:
    ds = random_patterns_dataset({"y": 5, "x": 7}, {"dy": 3, "dx": 4}, missing=missing)
    present = ds.present if missing else xr.ones_like(ds.BC, dtype=bool)
    source = ds.patterns if chunks is None else ds.patterns.chunk({"y": chunks[0], "x": chunks[1]})
    out = neighbour_average(
        source,
        {"y": sides[0], "x": sides[1]},
        roi=present,
    )
    wanted = average_by_hand(ds.patterns.values.astype(float), present.values, np.ones(sides))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.values, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda p: crop(p, dY=(0, 3)),
            UsageError,
            "'dY' is not a dimension for this step. Did you mean 'dy'",
        ),
        (
            lambda p: crop(p, dy=(20, 30)),
            UsageError,
            r"the window dy=\(20, 30\) holds no detector pixels",
        ),
        (lambda p: crop(p.isel(dy=[0, 3, 1, 2]), dy=(0, 2)), UsageError, "in a row"),
        (lambda p: crop(p.drop_attrs(), dy=(0, 2)), SchemaError, "pass the `patterns`"),
        (lambda p: crop(p.isel(dy=0), dx=(0, 2)), SchemaError, "pass the `patterns`"),
        (
            lambda p: bin_patterns(p, 5),
            UsageError,
            "'dy' has 8 pixels, which is not a multiple of 5; crop to 5 first",
        ),
        (lambda p: bin_patterns(p, 0), UsageError, "not a multiple of 0"),
        (lambda p: bin_patterns(p, {"y": 2}), UsageError, "'y' is not a dimension for this step"),
        (
            lambda p: va.remove_static_background(p, p[0, 0, :5]),
            SchemaError,
            "a pattern has {'dy': 8, 'dx': 12}",
        ),
        (
            lambda p: va.remove_static_background(p, operation="add"),
            UsageError,
            "expected subtract or divide",
        ),
        (lambda p: va.remove_dynamic_background(p, 0), UsageError, "sigma is 0"),
        (lambda p: va.rescale_intensity(p, (1, 1)), UsageError, "two increasing numbers"),
        (lambda p: neighbour_average(p, 4), UsageError, "use an odd number of scan points"),
        (
            lambda p: neighbour_average(p, {"dy": 3}),
            UsageError,
            "'dy' is not a dimension for this step",
        ),
        (lambda p: neighbour_average(p, 3, roi=p[..., 0, 0]), SchemaError, "expected boolean over"),
        (
            lambda p: neighbour_average(
                p, 3, roi=(p[..., 0, 0] > 3).assign_coords(x=np.arange(7) + 90.0)
            ),
            SchemaError,
            "the ROI's coordinate 'x' is not",
        ),
    ],
    ids=lambda v: str(v)[:30] if isinstance(v, str) else None,
)
def test_refusals(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call(patterns())


def test_the_detector_is_that_of_the_cropped_and_binned_patterns() -> None:
    """The same point of the specimen, seen by a part of the detector with larger pixels."""
    centre = {"projection_centre": [0.4, 0.3, 0.6], "projection_centre_convention": "Bruker"}
    values = np.zeros((2, 2, 8, 12), "u1")
    attrs = {"navigation_dims": ["y", "x"], "signal_dims": ["dy", "dx"]} | centre
    coords = {"dy": np.arange(8), "dx": np.arange(12)}
    patterns = xr.DataArray(values, coords, ("y", "x", "dy", "dx"), "patterns", attrs)
    detector = {"sample_tilt": 70.0, "binning": 2.0} | centre
    ds = patterns.to_dataset().assign_attrs(detector=json.dumps(detector))
    smaller = bin_patterns(crop(ds, dy=(2, 6), dx=(None, 6)), 2)
    expected = [0.4 * 12 / 6, (0.3 * 8 - 2) / 4, 0.6 * 8 / 4]
    for place in (smaller.attrs["detector"], smaller.patterns.attrs):
        np.testing.assert_allclose(place["projection_centre"], expected)
    assert (smaller.detector["sample_tilt"], smaller.detector["binning"]) == (70.0, 4.0)
    assert json.loads(ds.detector) == detector
