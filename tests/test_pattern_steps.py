"""Steps on patterns: equal chunked or not, lazy, coordinates and attributes right, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr.config import PreprocessConfig
from vaearr.errors import SchemaError, UsageError
from vaearr.models.preprocess import preprocess
from vaearr.pattern_steps import bin_patterns, crop, neighbour_average
from vaearr.testing import synthetic_scan

from .data import count_computes, random_patterns_dataset

CHUNKS = {"y": 2, "x": 3}


def patterns(chunks: dict[str, int] | None = None, **further) -> xr.DataArray:
    return random_patterns_dataset({"y": 5, "x": 7}, {"dy": 8, "dx": 12}, chunks=chunks, **further).patterns


STEPS = {
    "crop": lambda p: crop(p, dy=(2, 6), dx=(None, 9)),
    "bin": lambda p: bin_patterns(p, {"dy": 2, "dx": 3}),
    "sum": lambda p: bin_patterns(p, 4, how="sum"),
    "uniform": lambda p: neighbour_average(p, 3),
    "gaussian": lambda p: neighbour_average(p, {"y": 3, "x": 5}, weights="gaussian"),
    "background": lambda p: preprocess(
        p, PreprocessConfig(dynamic_background=0.1, normalise="none"), background=np.full((8, 12), 9.0)
    ),
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


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_names_decide_not_positions(step) -> None:
    turned = step(patterns().transpose("dx", "x", "dy", "y"))
    assert turned.dims == ("dx", "x", "dy", "y")
    xr.testing.assert_allclose(turned.transpose("y", "x", "dy", "dx"), step(patterns()), rtol=1e-6)


def test_steps_follow_each_other_and_are_recorded() -> None:
    source = patterns().assign_attrs(sha256="abc", value_max=255)
    done = neighbour_average(bin_patterns(crop(source, dy=(2, 6)), 2), 3)
    assert [item["step"] for item in done.attrs["steps"]] == ["crop", "bin", "neighbour_average"]
    assert done.attrs["steps"][0] == {"step": "crop", "dy": [2, 6]}
    assert "sha256" not in done.attrs
    assert "value_max" not in done.attrs
    assert source.attrs["sha256"] == "abc"
    assert "steps" not in source.attrs


def test_crop_keeps_dtype_and_coordinates() -> None:
    source = patterns()
    out = crop(source, dy=(2, 6), dx=(3, None))
    assert out.dtype == np.uint8
    assert out.dy.values.tolist() == [2, 3, 4, 5]
    np.testing.assert_array_equal(out.values, source.values[:, :, 2:6, 3:])
    again = crop(out, dy=(3, 5))  # in the coordinates of the whole detector
    np.testing.assert_array_equal(again.values, source.values[:, :, 3:5, 3:])


def test_projection_centre_stays_at_the_same_place() -> None:
    source = patterns().assign_attrs(projection_centre=[0.5, 0.25, 0.6], projection_centre_convention="Bruker")
    out = crop(source, dy=(2, 6), dx=(3, 12))
    x, y, z = out.attrs["projection_centre"]
    assert (x * 9 + 3, y * 4 + 2, z * 4) == pytest.approx((0.5 * 12, 0.25 * 8, 0.6 * 8))
    assert bin_patterns(source, 2).attrs["projection_centre"] == [0.5, 0.25, 0.6]
    other = crop(source.assign_attrs(projection_centre_convention="EMsoft"), dy=(2, 6))
    assert "projection_centre" not in other.attrs
    assert "projection_centre_convention" not in other.attrs


@settings(max_examples=30, deadline=None)
@given(
    counts=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    sides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "float32"]),
    seed=st.integers(0, 99),
)
def test_bins_are_sums_and_means_of_their_pixels(counts, sides, dtype: str, seed: int) -> None:
    signal = {"dy": counts[0] * sides[0], "dx": counts[1] * sides[1]}
    source = random_patterns_dataset({"y": 2, "x": 3}, signal, dtype=dtype, seed=seed).patterns
    size = {"dy": sides[0], "dx": sides[1]}
    blocks = source.values.astype(float).reshape(2, 3, counts[0], sides[0], counts[1], sides[1])
    mean, total = bin_patterns(source, size), bin_patterns(source, size, how="sum")
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean.values, blocks.mean((3, 5)), rtol=1e-6)
    np.testing.assert_allclose(total.values, blocks.sum((3, 5)), rtol=1e-12)
    np.testing.assert_allclose(mean.dy.values, np.arange(signal["dy"]).reshape(counts[0], -1).mean(1))
    assert mean.dy.attrs == source.dy.attrs


@pytest.mark.parametrize(
    ("stored", "how", "dtype", "want"),
    [
        ("uint8", "sum", None, "uint16"),
        ("uint16", "sum", None, "uint32"),
        ("int16", "sum", None, "int32"),
        ("float32", "sum", None, "float64"),
        ("uint8", "mean", None, "float32"),
        ("uint8", "mean", "uint8", "uint8"),
        ("float32", "mean", "float64", "float64"),
    ],
)
def test_dtype_of_bins(stored: str, how: str, dtype: str | None, want: str) -> None:
    out = bin_patterns(patterns(dtype=stored), 4, how=how, dtype=dtype)
    assert out.dtype == np.dtype(want)
    assert out.attrs["steps"][0]["dtype"] == want


def test_largest_sums_do_not_overflow() -> None:
    source = patterns()
    source[:] = 255
    assert (bin_patterns(source, 4, how="sum") == 255 * 16).all()


def test_channels_stay_apart() -> None:
    source = random_patterns_dataset({"y": 3, "x": 3}, {"channel": 3, "dy": 4, "dx": 4}).patterns
    out = bin_patterns(source, 2)
    assert out.shape == (3, 3, 3, 2, 2)
    np.testing.assert_allclose(out.values, source.values.reshape(3, 3, 3, 2, 2, 2, 2).mean((4, 6)))


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
    gaussian=st.booleans(),
    missing=st.integers(0, 20),
    chunks=st.one_of(st.none(), st.tuples(st.integers(1, 5), st.integers(1, 7))),
)
def test_average_equals_the_sum_by_hand(sides, gaussian: bool, missing: int, chunks) -> None:
    ds = random_patterns_dataset({"y": 5, "x": 7}, {"dy": 3, "dx": 4}, missing=missing)
    present = ds.present if missing else xr.ones_like(ds.BC, dtype=bool)
    source = ds.patterns if chunks is None else ds.patterns.chunk({"y": chunks[0], "x": chunks[1]})
    out = neighbour_average(
        source,
        {"y": sides[0], "x": sides[1]},
        weights="gaussian" if gaussian else "uniform",
        sigma=0.8 if gaussian else None,
        roi=present,
    )
    profiles = [np.exp(-0.5 * ((np.arange(s) - s // 2) / 0.8) ** 2) if gaussian else np.ones(s) for s in sides]
    wanted = average_by_hand(ds.patterns.values.astype(float), present.values, np.outer(*profiles))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.values, wanted, rtol=1e-5)


def test_patterns_with_nan_are_missing() -> None:
    source = patterns(dtype="float32", missing=2)
    out = neighbour_average(source, 3)
    np.testing.assert_array_equal(np.isnan(out.values), np.isnan(source.values))


def test_average_of_the_same_is_the_same_and_noise_goes_down() -> None:
    source = patterns()
    source[:] = 7
    np.testing.assert_allclose(neighbour_average(source, 5, weights="gaussian").values, 7, rtol=1e-6)
    ds = synthetic_scan(nx=12, ny=12, pattern_shape=(16, 16), n_grains=1)
    assert neighbour_average(ds.patterns, 3).std("x").mean() < 0.6 * ds.patterns.astype(float).std("x").mean()


def test_scans_of_volumes_are_averaged_in_their_slices() -> None:
    source = random_patterns_dataset({"z": 2, "y": 3, "x": 3}, {"dy": 4, "dx": 4}).patterns
    out = neighbour_average(source, 3)
    np.testing.assert_allclose(out.values[0, 1, 1], source.values[0].mean((0, 1)), rtol=1e-6)
    through = neighbour_average(source, {"z": 3})
    np.testing.assert_allclose(through.values[0], source.values.mean(0), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: crop(p, dY=(0, 3)), UsageError, "'dY' is not a dimension for this step. Did you mean 'dy'"),
        (lambda p: crop(p, dy=(20, 30)), UsageError, r"the window dy=\(20, 30\) holds no detector pixel; dy runs"),
        (lambda p: crop(p.isel(dy=[0, 3, 1, 2]), dy=(0, 2)), SchemaError, "not in order"),
        (lambda p: crop(p.drop_attrs(), dy=(0, 2)), SchemaError, "lacks the attribute 'navigation_dims'"),
        (lambda p: crop(p.isel(dy=0), dx=(0, 2)), SchemaError, "lacks dy of its signal dims"),
        (lambda p: bin_patterns(p, 5), UsageError, "'dy' has 8 pixels, which is not a multiple of 5; crop to 5 first"),
        (lambda p: bin_patterns(p, 0), UsageError, "not a multiple of 0"),
        (lambda p: bin_patterns(p, {"y": 2}), UsageError, "'y' is not a dimension for this step"),
        (lambda p: bin_patterns(p, 2, how="median"), UsageError, "use 'mean' or 'sum'"),
        (lambda p: bin_patterns(p, 4, how="sum", dtype="uint8"), UsageError, "uint8 cannot hold sums of uint8 from 0"),
        (lambda p: bin_patterns(p.astype("f4"), 2, dtype="int32"), UsageError, "use a float type"),
        (lambda p: neighbour_average(p, 4), UsageError, "use an odd number of scan points"),
        (lambda p: neighbour_average(p, {"dy": 3}), UsageError, "'dy' is not a dimension for this step"),
        (lambda p: neighbour_average(p, 3, weights="box"), UsageError, "use 'uniform' or 'gaussian'"),
        (lambda p: neighbour_average(p, 3, weights="gaussian", sigma=0.0), UsageError, "must be positive"),
        (lambda p: neighbour_average(p, 3, roi=p[..., 0, 0]), SchemaError, "expected boolean over"),
        (
            lambda p: neighbour_average(p, 3, roi=(p[..., 0, 0] > 3).assign_coords(x=np.arange(7) + 90.0)),
            SchemaError,
            "the roi's coordinate 'x' is not that of the patterns",
        ),
    ],
    ids=lambda v: str(v)[:30] if isinstance(v, str) else None,
)
def test_refusals(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call(patterns())


def test_a_collection_has_no_neighbours() -> None:
    with pytest.raises(UsageError, match="has no neighbours"):
        neighbour_average(random_patterns_dataset({"sample": 4}).patterns, 3)


def test_sums_that_no_integer_type_holds_are_floats() -> None:
    found = bin_patterns(patterns().astype("u8") + np.uint64(2**63), 2, how="sum")
    assert found.dtype == np.float64
    assert float(found.min()) >= 4 * 2.0**63


def test_whole_numbers_of_numpy_and_others() -> None:
    xr.testing.assert_identical(bin_patterns(patterns(), np.int64(2)), bin_patterns(patterns(), 2))
    xr.testing.assert_identical(neighbour_average(patterns(), np.int64(3)), neighbour_average(patterns(), 3))
    for size in (True, 2.0, "2"):
        with pytest.raises(UsageError, match="is no whole number"):
            bin_patterns(patterns(), size)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cannot be binned into bool"):
        bin_patterns(patterns(), 2, dtype=bool)


def test_a_window_larger_than_the_scan() -> None:
    xr.testing.assert_allclose(neighbour_average(patterns({"y": 2, "x": 2}), 101), neighbour_average(patterns(), 101))
