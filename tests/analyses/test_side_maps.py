"""Band-contrast tools: histogram, profiles, strongest points, lists of kept points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import vaearr as va
from vaearr.errors import DataError, ExistsError, RoiError, SchemaError, UsageError
from vaearr.side_maps import histogram, profile, read_kept_coordinates, top_percent, write_kept_coordinates
from vaearr.store import create_store

from ..conftest import TINY_TRAINING
from ..data import random_patterns_dataset


def as_map(values: np.ndarray) -> xr.DataArray:
    coords = {"y": np.arange(values.shape[0]) * 0.5 + 3, "x": np.arange(values.shape[1]) * 0.5 - 1}
    return xr.DataArray(values, coords, ("y", "x"), name="BC", attrs={"units": "1", "long_name": "band contrast"})


NUMBERS = hnp.arrays(
    "f8",
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.one_of(st.floats(-500, 500), st.integers(-50, 50).map(float), st.just(np.nan)),
)
MAP = as_map(np.arange(12.0).reshape(3, 4))


@given(NUMBERS, st.sampled_from([0.1, 1.0, 7.0, 10.0]))
@settings(max_examples=50, deadline=None)
def test_a_histogram_counts_every_finite_value_once(values: np.ndarray, width: float) -> None:
    finite = values[np.isfinite(values)]
    assume(finite.size)
    found = histogram(as_map(values), width)
    left, count = found["bin"].values, found["count"].values
    assert count.sum() == finite.size == found.attrs["n"]
    assert count[0] > 0
    assert count[-1] > 0
    np.testing.assert_allclose(left / width, np.rint(left / width), atol=1e-6)
    slack = 1e-8 * width
    for edge, number in zip(left, count, strict=True):
        assert ((finite >= edge + slack) & (finite < edge + width - slack)).sum() <= number
        assert ((finite >= edge - slack) & (finite < edge + width + slack)).sum() >= number


def test_values_stay_on_the_edge_of_decimal_widths_and_regions_count() -> None:
    found = histogram(as_map(np.array([[0.1, 0.2, 0.3, 0.6, 0.7]])), width=0.1)
    assert found["count"].values.tolist() == [1, 1, 1, 0, 0, 1, 1]
    found = histogram(as_map(np.array([[45.0, 49.9, 50.0], [61.0, np.nan, np.inf]])))
    assert (found["bin"].values.tolist(), found["count"].values.tolist()) == ([40, 50, 60], [2, 1, 1])
    assert found.attrs["n_missing"] == 2
    assert histogram(MAP, roi=MAP < 4)["count"].values.tolist() == [4]


def test_profiles_of_rows_by_their_coordinate() -> None:
    row = profile(MAP, y=3.6)
    assert (row.dims, row.values.tolist(), row.attrs["y"]) == (("x",), [4, 5, 6, 7], [3.5])
    assert profile(MAP, x=-1).values.tolist() == [0, 4, 8]
    holed = MAP.copy(deep=True)
    holed[0, 1] = np.nan
    mean = profile(holed, y=[3.0, 4.0])
    assert (mean.values.tolist(), mean["n"].values.tolist()) == ([4, 9, 6, 7], [2, 1, 2, 2])
    assert profile(holed, y=slice(3.0, 4.0)).attrs["y"] == [3.0, 3.5]  # half-open
    assert profile(holed, y=[3.0, 3.1]).attrs["y"] == [3.0]  # the same row
    assert profile(xr.concat([MAP, MAP], "latent").chunk({"y": 1}), x=0.5).dims == ("latent", "y")


@given(NUMBERS, st.floats(0.01, 100))
@settings(max_examples=50, deadline=None)
def test_the_strongest_are_the_smallest_such_set_with_ties(values: np.ndarray, percent: float) -> None:
    finite = np.isfinite(values)
    assume(finite.any())
    kept = top_percent(as_map(values), percent)
    inside = values[kept.values]
    assert inside.size == kept.attrs["n_kept"] >= kept.attrs["n_wanted"]
    assert inside.min() == kept.attrs["threshold"]
    assert (values[finite & ~kept.values] < kept.attrs["threshold"]).all()
    assert (inside > kept.attrs["threshold"]).sum() < kept.attrs["n_wanted"]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: histogram(MAP * np.nan), RoiError, "no finite value"),
        (lambda: histogram(MAP, roi=MAP > 100), RoiError, "no finite value among 0 points"),
        (lambda: histogram(MAP, roi=(MAP < 9).assign_coords(y=[1.0, 2, 3])), SchemaError, "another coordinate 'y'"),
        (lambda: histogram(MAP, roi=MAP), SchemaError, "expected boolean"),
        (lambda: histogram(MAP, np.nan), UsageError, "above 0"),
        (lambda: histogram(MAP * 1e9, 0.1), UsageError, "larger width"),
        (lambda: histogram(MAP * 1e300, 1e-300), UsageError, "expected at most 1000000"),
        (lambda: profile(MAP), UsageError, "one of them"),
        (lambda: profile(MAP, y=4.3), DataError, "the nearest at 4; y spans 3 to 4"),
        (lambda: profile(MAP, y=3.1, tolerance=0.05), DataError, r"within 0\.05 of y = 3\.1"),
        (lambda: profile(MAP, y=slice(10, 20)), DataError, "no point lies in"),
        (lambda: profile(MAP, y=[]), UsageError, "names no row"),
        (lambda: profile(MAP.isel(x=0), y=3), SchemaError, "lacks"),
        (lambda: top_percent(MAP, 101), UsageError, "above 0 and up to 100"),
        (lambda: top_percent(MAP, np.nan), UsageError, "above 0 and up to 100"),
    ],
)
def test_refusals(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_kept_points_go_out_and_come_back_to_their_scan_alone(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 5, "x": 6}, missing=2)
    steps = {d: (d, np.arange(10, 10 + ds.sizes[d])) for d in ("y", "x")}
    ds = ds.assign_coords(x_index=steps["x"], y_index=steps["y"], x=steps["x"][1] * 0.5, y=steps["y"][1] * 0.5)
    mask, file = top_percent(ds["BC"], 30), tmp_path / "kept" / "points.csv"
    for _ in range(2):  # the same points again
        write_kept_coordinates(ds, mask, file)
    frame = pd.read_csv(file)
    assert list(frame) == ["x", "y", "x_position", "y_position"]
    assert frame["x"].min() >= 10
    np.testing.assert_allclose(frame["x_position"], frame["x"] * 0.5)
    np.testing.assert_array_equal(read_kept_coordinates(ds, file).values, mask.values)
    with pytest.raises(ExistsError, match="something else"):
        write_kept_coordinates(ds, top_percent(ds["BC"], 60), file)
    for shift, words in ((100, "none lies on the scan"), (0.5, "another scan")):
        with pytest.raises(DataError, match=words):
            read_kept_coordinates(ds.assign_coords(x=ds["x"] + shift), file)
    for rows, words in (("10,10\n99,10", "1 of 2 points lie outside"), ("10,10\n11,10\n10,10", "rows 0 and 2")):
        file.write_text(f"x,y\n{rows}\n")
        with pytest.raises(DataError, match=words):
            read_kept_coordinates(ds, file)


def test_training_takes_kept_points(tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 12, "x": 10}, {"dy": 9, "dx": 11})
    store, mask = create_store(ds, tmp_path / "scan.zarr"), top_percent(ds["BC"], 60)
    file = write_kept_coordinates(ds, mask, tmp_path / "kept.csv")
    va.train(store, roi=read_kept_coordinates(ds, file), config=TINY_TRAINING.replace(epochs=1))
    np.testing.assert_array_equal(va.open_store(store)["roi"].values, mask.values)
