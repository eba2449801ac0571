"""ROI, split, samples and back."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vaearr import grid
from vaearr import names as n
from vaearr.config import SplitConfig
from vaearr.errors import RoiError, SchemaError, UsageError
from vaearr.testing import count_computes, random_patterns_dataset

MASKS = arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 6))).filter(lambda m: m.any())


def _map(values: np.ndarray, dims: tuple[str, ...] = ("y", "x")) -> xr.DataArray:
    coords = {d: np.arange(size) * 0.5 for d, size in zip(dims, values.shape, strict=False)}
    return xr.DataArray(values, dims=(*dims, *(f"s{i}" for i in range(values.ndim - len(dims)))), coords=coords)


def test_box_is_half_open_in_coordinate_units(scan: xr.Dataset) -> None:
    mask = grid.roi(scan.drop_vars("present"), x=(0.5, 1.5), y=(1.0, 3.0))
    rows, columns = np.nonzero(mask.values)
    assert set(scan.x.values[columns]) == {0.5, 1.0}
    assert set(scan.y.values[rows]) == {1.0, 1.5, 2.0, 2.5}
    assert mask.dims == ("y", "x")
    assert mask.attrs["n"] == 8


def test_missing_points_never_belong_to_the_roi(scan: xr.Dataset) -> None:
    assert not grid.roi(scan).values[~scan.present.values].any()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BC > 100", lambda d: d.BC > 100),
        ("BC > 20 and BC <= 200", lambda d: (d.BC > 20) & (d.BC <= 200)),
        ("20 < BC < 200", lambda d: (d.BC > 20) & (d.BC < 200)),
        ("(BC > 100) & (x < 2) | (y == 0)", lambda d: (d.BC > 100) & (d.x < 2) | (d.y == 0)),
        ("not BC > 100", lambda d: ~(d.BC > 100)),
        ("elements['Fe'] > 10 or BC != -5", lambda d: (d.elements.sel(element="Fe") > 10) | d.BC.notnull()),
    ],
)
def test_condition(scan: xr.Dataset, text: str, expected: object) -> None:
    want = expected(scan).transpose("y", "x").values & scan.present.values  # type: ignore[operator]
    np.testing.assert_array_equal(grid.roi(scan, where=text).values, want)


def test_nan_never_fulfils_a_comparison(scan: xr.Dataset) -> None:
    holes = np.isnan(scan.BC.values)
    assert holes.any()
    kept = grid.condition(scan, "BC != 7")
    np.testing.assert_array_equal(kept.values, ~holes & (scan.BC.values != 7))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BC >", "cannot read the condition"),
        ("BD > 4", "no map 'BD'.*Did you mean 'BC'"),
        ("__import__('os').getcwd() == 1", "not a map, a number or a comparison"),
        ("BC", "does not compare anything"),
        ("BC and BC > 3", "not a comparison"),
        ("elements > 3", "pick one entry"),
        ("elements['Zr'] > 3", "no entry 'Zr'.*Fe"),
        ("BC in 3", "other than <"),
    ],
)
def test_condition_refuses(scan: xr.Dataset, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        grid.roi(scan, where=text)


def test_empty_roi_says_what_each_condition_kept(scan: xr.Dataset) -> None:
    with pytest.raises(
        RoiError, match=r"is empty; of 77 scan points each condition kept: measured: 74; .*x.*: 22; BC > 900: 0"
    ):
        grid.roi(scan, x=(0, 1), where="BC > 900")


def test_roi_of_one_point_is_refused(scan: xr.Dataset) -> None:
    with pytest.raises(RoiError, match="only one scan point"):
        grid.roi(scan.drop_vars("present"), x=(0, 0.4), y=(0, 0.4))


def test_box_along_a_dimension_the_data_lacks(scan: xr.Dataset) -> None:
    with pytest.raises(UsageError, match="box along 'z'"):
        grid.roi(scan, z=(0, 1))


@given(MASKS, st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_samples_and_grid_are_inverse(mask: np.ndarray, seed: int) -> None:
    data = _map(np.random.default_rng(seed).normal(size=(*mask.shape, 2, 3)))
    roi = _map(mask)
    samples = grid.to_samples(data, roi)
    assert samples.dims == ("sample", "s0", "s1")
    np.testing.assert_array_equal(samples.values, data.values[mask])
    back = grid.to_grid(samples, roi)
    xr.testing.assert_equal(back, data.where(roi))
    assert grid.to_samples(back, roi).equals(samples)


def test_to_samples_is_lazy(scan: xr.Dataset) -> None:
    lazy = scan.chunk({"y": 4, "x": 3})
    roi = grid.roi(scan)
    with count_computes(at_most=0):
        samples = grid.to_samples(lazy.patterns, roi)
    np.testing.assert_array_equal(samples.values, scan.patterns.values[roi.values])


def test_to_grid_refuses_what_does_not_fit(scan: xr.Dataset) -> None:
    roi = grid.roi(scan)
    with pytest.raises(SchemaError, match="5 samples for a ROI of 74"):
        grid.to_grid(np.zeros((5, 2)), roi)
    with pytest.raises(SchemaError, match="no NaN"):
        grid.to_grid(np.zeros(74, int), roi)
    assert grid.to_grid(np.zeros(74, int), roi, fill=-1).min() == -1


def test_to_samples_refuses_another_grid(scan: xr.Dataset) -> None:
    roi = grid.roi(scan)
    with pytest.raises(SchemaError, match="coordinate 'y'"):
        grid.to_samples(scan.BC.assign_coords(y=scan.y + 1), roi)


@given(MASKS.filter(lambda m: m.sum() > 2), st.sampled_from(["blocks", "random"]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_split_divides_the_roi(mask: np.ndarray, method: str, seed: int) -> None:
    config = SplitConfig(method=method, fraction=0.2)
    parts = grid.split(_map(mask), config, seed=seed)
    np.testing.assert_array_equal(parts.values != n.OUTSIDE, mask)
    assert (parts == n.TRAIN).any()
    assert (parts == n.VALIDATION).any()
    xr.testing.assert_identical(parts, grid.split(_map(mask), config, seed=seed))


def test_split_keeps_whole_blocks() -> None:
    parts = grid.split(_map(np.ones((40, 48), bool)), SplitConfig(fraction=0.1, block=8), seed=3)
    held = (parts.values == n.VALIDATION).reshape(5, 8, 6, 8).mean((1, 3))
    assert set(held.ravel()) == {0.0, 1.0}
    assert 0.08 < (parts == n.VALIDATION).mean() < 0.14


def test_split_without_validation() -> None:
    parts = grid.split(_map(np.ones((4, 5), bool)), SplitConfig(fraction=0), seed=0)
    assert (parts == n.TRAIN).all()


def test_collections_have_a_roi_too() -> None:
    ds = random_patterns_dataset({"sample": 9})
    roi = grid.roi(ds)
    assert roi.dims == ("sample",)
    assert grid.to_samples(ds.patterns, roi).sizes["sample"] == 9
