"""Band-contrast tools: histogram, profiles, strongest points, lists of kept points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import vaearr as va
from tests.conftest import TINY_TRAINING
from vaearr.errors import DataError, ExistsError, RoiError, SchemaError, UsageError
from vaearr.side_maps import (
    histogram,
    profile,
    read_kept_coordinates,
    top_percent,
    write_kept_coordinates,
)
from vaearr.store import create_store

from .data import random_patterns_dataset


def _map(values: np.ndarray) -> xr.DataArray:
    coords = {"y": np.arange(values.shape[0]) * 0.5 + 3, "x": np.arange(values.shape[1]) * 0.5 - 1}
    return xr.DataArray(values, coords, ("y", "x"), name="BC", attrs={"units": "1", "long_name": "band contrast"})


numbers = hnp.arrays(
    "f8",
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.one_of(st.floats(-500, 500), st.integers(-50, 50).map(float), st.just(np.nan)),
)


def test_histogram_puts_edges_on_multiples_of_the_width() -> None:
    found = histogram(_map(np.array([[45.0, 49.9, 50.0], [61.0, np.nan, np.inf]])))
    assert found["bin"].values.tolist() == [40, 50, 60]
    assert found["count"].values.tolist() == [2, 1, 1]
    assert (found.attrs["width"], found.attrs["n"], found.attrs["n_missing"]) == (10.0, 4, 2)


def test_histogram_of_decimal_widths_keeps_values_on_their_edge() -> None:
    found = histogram(_map(np.array([[0.1, 0.2, 0.3, 0.6, 0.7]])), width=0.1)
    assert found["count"].values.tolist() == [1, 1, 1, 0, 0, 1, 1]


@given(numbers, st.sampled_from([0.1, 1.0, 7.0, 10.0]))
@settings(max_examples=60, deadline=None)
def test_histogram_counts_every_finite_value_once(values: np.ndarray, width: float) -> None:
    finite = values[np.isfinite(values)]
    if not finite.size:
        with pytest.raises(RoiError, match="no finite value"):
            histogram(_map(values), width)
        return
    found = histogram(_map(values), width)
    left, count = found["bin"].values, found["count"].values
    assert count.sum() == finite.size == found.attrs["n"]
    assert count[0] > 0
    assert count[-1] > 0
    np.testing.assert_allclose(left / width, np.rint(left / width), atol=1e-6)
    slack = 1e-8 * width
    for edge, number in zip(left, count, strict=True):
        assert ((finite >= edge + slack) & (finite < edge + width - slack)).sum() <= number
        assert ((finite >= edge - slack) & (finite < edge + width + slack)).sum() >= number


def test_histogram_of_a_region() -> None:
    da = _map(np.array([[1.0, 2.0], [30.0, 40.0]]))
    assert histogram(da, roi=da < 10)["count"].values.tolist() == [2]
    with pytest.raises(RoiError, match="no finite value among 0 points"):
        histogram(da, roi=da > 100)
    with pytest.raises(SchemaError, match="another coordinate 'x'"):
        histogram(da, roi=(da < 10).assign_coords(x=[5.0, 6.0]))
    with pytest.raises(SchemaError, match="expected boolean"):
        histogram(da, roi=da)


@pytest.mark.parametrize("width", [0, -1, np.nan, np.inf])
def test_histogram_refuses_a_width(width: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        histogram(_map(np.ones((2, 2))), width)


def test_histogram_refuses_too_many_bins() -> None:
    with pytest.raises(UsageError, match="larger width"):
        histogram(_map(np.array([[0.0, 1e9]])), 0.1)


def test_profile_of_a_row_by_its_coordinate() -> None:
    da = _map(np.arange(12.0).reshape(3, 4))
    row = profile(da, y=3.6)
    assert row.dims == ("x",)
    assert row.values.tolist() == [4, 5, 6, 7]
    assert row.attrs["y"] == [3.5]
    assert row.attrs["long_name"] == "band contrast"
    np.testing.assert_array_equal(row["x"], da["x"])
    assert profile(da, x=-1).values.tolist() == [0, 4, 8]


def test_profile_of_several_rows_is_their_mean_without_nan() -> None:
    values = np.arange(12.0).reshape(3, 4)
    values[0, 1] = np.nan
    mean = profile(_map(values), y=[3.0, 4.0])
    assert mean.values.tolist() == [4, 9, 6, 7]
    assert mean["n"].values.tolist() == [2, 1, 2, 2]
    assert mean.attrs["y"] == [3.0, 4.0]
    band = profile(_map(values), y=slice(3.0, 4.0))  # half-open
    assert band.attrs["y"] == [3.0, 3.5]
    twice = profile(_map(values), y=[3.0, 3.1])  # the same row
    assert twice.attrs["y"] == [3.0]


def test_profile_keeps_further_dims_and_stays_lazy_elsewhere() -> None:
    da = xr.concat([_map(np.ones((3, 4))), _map(np.zeros((3, 4)))], "latent").chunk({"y": 1})
    assert profile(da, x=0.5).dims == ("latent", "y")


def test_profile_refusals() -> None:
    da = _map(np.zeros((3, 4)))
    with pytest.raises(UsageError, match="one of them"):
        profile(da)
    with pytest.raises(UsageError, match="one of them"):
        profile(da, x=1, y=1)
    with pytest.raises(DataError, match="the nearest at 4; y spans 3 to 4"):
        profile(da, y=4.3)
    with pytest.raises(DataError, match=r"within 0\.05 of y = 3\.1"):
        profile(da, y=3.1, tolerance=0.05)
    with pytest.raises(DataError, match="no point lies in"):
        profile(da, y=slice(10, 20))
    with pytest.raises(UsageError, match="names no row"):
        profile(da, y=[])
    with pytest.raises(SchemaError, match="lacks"):
        profile(da.isel(x=0), y=3)


def test_top_percent_keeps_ties_with_the_threshold() -> None:
    da = _map(np.array([[1.0, 5, 5, 5, 9], [0, np.nan, 2, 3, 4]]))
    kept = top_percent(da, 25)  # 9 finite points: ceil(2.25) = 3 wanted
    assert {k: kept.attrs[k] for k in ("threshold", "n", "n_wanted", "n_kept", "n_tied")} == {
        "threshold": 5.0, "n": 9, "n_wanted": 3, "n_kept": 4, "n_tied": 3,
    }  # fmt: skip
    np.testing.assert_array_equal(kept.values, da.values >= 5)
    assert top_percent(da, 100).attrs["n_kept"] == 9
    inside = top_percent(da, 50, roi=da < 4)
    assert inside.attrs["threshold"] == 2.0
    assert not inside.values[0, 4]


@given(numbers, st.floats(0.01, 100))
@settings(max_examples=60, deadline=None)
def test_top_percent_is_the_smallest_such_set(values: np.ndarray, percent: float) -> None:
    finite = np.isfinite(values)
    if not finite.any():
        with pytest.raises(RoiError):
            top_percent(_map(values), percent)
        return
    kept = top_percent(_map(values), percent)
    inside = values[kept.values]
    assert inside.size == kept.attrs["n_kept"] >= kept.attrs["n_wanted"]
    assert inside.min() == kept.attrs["threshold"]
    assert (values[finite & ~kept.values] < kept.attrs["threshold"]).all()
    assert (inside > kept.attrs["threshold"]).sum() < kept.attrs["n_wanted"]


@pytest.mark.parametrize("percent", [0, -1, 101, np.nan])
def test_top_percent_refuses(percent: float) -> None:
    with pytest.raises(UsageError, match="above 0 and up to 100"):
        top_percent(_map(np.ones((2, 2))), percent)


@pytest.fixture
def shifted() -> xr.Dataset:
    """A scan whose step numbers begin at 10 and whose coordinates run in half micrometres."""
    ds = random_patterns_dataset({"y": 5, "x": 6}, missing=2)
    steps = {d: (d, np.arange(10, 10 + ds.sizes[d])) for d in ("y", "x")}
    return ds.assign_coords(x_index=steps["x"], y_index=steps["y"], x=steps["x"][1] * 0.5, y=steps["y"][1] * 0.5)


def test_kept_coordinates_go_out_and_come_back(shifted: xr.Dataset, tmp_path: Path) -> None:
    mask = top_percent(shifted["BC"], 30)
    file = write_kept_coordinates(shifted, mask, tmp_path / "kept" / "points.csv")
    frame = pd.read_csv(file)
    assert list(frame) == ["x", "y", "x_position", "y_position"]
    assert frame[["x", "y"]].dtypes.map(str).tolist() == ["int64", "int64"]
    assert len(frame) == int(mask.sum())
    assert frame["x"].min() >= 10
    np.testing.assert_allclose(frame["x_position"], frame["x"] * 0.5)
    back = read_kept_coordinates(shifted, file)
    np.testing.assert_array_equal(back.values, mask.values)
    assert back.attrs["read_as"] == "steps"
    assert back.attrs["n"] == int(mask.sum())


def test_kept_coordinates_are_not_overwritten(shifted: xr.Dataset, tmp_path: Path) -> None:
    file = write_kept_coordinates(shifted, top_percent(shifted["BC"], 30), tmp_path / "points.csv")
    before = file.read_bytes()
    write_kept_coordinates(shifted, top_percent(shifted["BC"], 30), file)  # the same points
    with pytest.raises(ExistsError, match="something else"):
        write_kept_coordinates(shifted, top_percent(shifted["BC"], 60), file)
    assert file.read_bytes() == before


def test_kept_coordinates_of_another_scan_are_refused(shifted: xr.Dataset, tmp_path: Path) -> None:
    file = write_kept_coordinates(shifted, top_percent(shifted["BC"], 30), tmp_path / "points.csv")
    other = shifted.assign_coords(x=shifted["x"] + 100)
    with pytest.raises(DataError, match="none lies on the scan"):
        read_kept_coordinates(other, file)
    near = shifted.assign_coords(x=shifted["x"] + 0.5)
    with pytest.raises(DataError, match="another scan"):
        read_kept_coordinates(near, file)


def test_points_outside_or_twice_are_refused(shifted: xr.Dataset, tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text("x,y\n10,10\n99,10\n")
    with pytest.raises(DataError, match="1 of 2 points lie outside"):
        read_kept_coordinates(shifted, file)
    file.write_text("x,y\n10,10\n11,10\n10,10\n")
    with pytest.raises(DataError, match="rows 0 and 2"):
        read_kept_coordinates(shifted, file)


def test_training_takes_an_imported_mask(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 12, "x": 10}, {"dy": 9, "dx": 11})
    store = create_store(ds, tmp_path / "scan.zarr")
    mask = top_percent(ds["BC"], 60)
    file = write_kept_coordinates(ds, mask, tmp_path / "kept.csv")
    va.train(store, roi=read_kept_coordinates(ds, file), config=TINY_TRAINING.replace(epochs=1))
    np.testing.assert_array_equal(va.open_store(store)["roi"].values, mask.values)


@pytest.mark.parametrize(("scale", "width"), [(1.0, 1e-320), (1e300, 1e-300)])
def test_histogram_refuses_more_bins_than_a_number_holds(scale: float, width: float) -> None:
    with pytest.raises(UsageError, match="expected at most 1000000, so choose a larger width"):
        histogram(_map(np.array([[-1.0, 2.0]]) * scale), width)
