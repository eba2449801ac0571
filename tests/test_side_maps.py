"""Band-contrast tools: histogram, profiles, strongest points, lists of kept points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.data import random_patterns_dataset
from vaearr.analysis.side_maps import histogram, profile, top_percent
from vaearr.errors import DataError, RoiError, SchemaError, UsageError
from vaearr.ingestion.kept_points import read_kept_coordinates, write_kept_coordinates


def _map(values: np.ndarray) -> xr.DataArray:
    coords = {"y": np.arange(values.shape[0]) * 0.5 + 3, "x": np.arange(values.shape[1]) * 0.5 - 1}
    return xr.DataArray(
        values, coords, ("y", "x"), name="BC", attrs={"units": "1", "long_name": "band contrast"}
    )


numbers = hnp.arrays(
    "f8",
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.one_of(st.floats(-500, 500), st.integers(-50, 50).map(float), st.just(np.nan)),
)


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
    edge = left[:, None]
    surely = (finite >= edge + slack) & (finite < edge + width - slack)
    perhaps = (finite >= edge - slack) & (finite < edge + width + slack)
    assert (surely.sum(1) <= count).all()
    assert (count <= perhaps.sum(1)).all()


def test_top_percent_keeps_ties_with_the_threshold() -> None:
    da = _map(np.array([[1.0, 5, 5, 5, 9], [0, np.nan, 2, 3, 4]]))
    kept = top_percent(da, 25)  # 9 finite points: ceil(2.25) = 3 wanted
    assert (kept.attrs["threshold"], kept.attrs["n_kept"]) == (5.0, 4)
    np.testing.assert_array_equal(kept.values, da.values >= 5)
    assert top_percent(da, 100).attrs["n_kept"] == 9


@pytest.fixture
def shifted() -> xr.Dataset:
    """A scan whose step numbers begin at 10 and whose coordinates run in half micrometres."""
    ds = random_patterns_dataset({"y": 5, "x": 6}, missing=2)
    steps = {d: (d, np.arange(10, 10 + ds.sizes[d])) for d in ("y", "x")}
    return ds.assign_coords(
        x_index=steps["x"], y_index=steps["y"], x=steps["x"][1] * 0.5, y=steps["y"][1] * 0.5
    )


def test_kept_coordinates_of_another_scan_are_refused(shifted: xr.Dataset, tmp_path: Path) -> None:
    file = write_kept_coordinates(shifted, top_percent(shifted["BC"], 30), tmp_path / "points.csv")
    other = shifted.assign_coords(x=shifted["x"] + 100)
    with pytest.raises(DataError, match="none lies on the scan"):
        read_kept_coordinates(other, file)
    near = shifted.assign_coords(x=shifted["x"] + 0.5)
    with pytest.raises(DataError, match="another scan"):
        read_kept_coordinates(near, file)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda da: histogram(da, 0), UsageError, "above 0"),
        (lambda da: histogram(da, 1e-320), UsageError, "choose a larger width"),
        (lambda da: histogram(da.astype(str)), SchemaError, "expected a map of numbers"),
        (lambda da: top_percent(da, np.nan), UsageError, "above 0 and up to 100"),
        (lambda da: profile(da, "y", 4.3), DataError, "within 0.25 of y = 4.3; y spans 3 to 4"),
    ],
)
def test_refusals(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(_map(np.arange(12.0).reshape(3, 4)))  # type: ignore[operator]
