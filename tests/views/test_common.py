"""Colour limits, labels, the outline of a region."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from vaearr.errors import UsageError
from vaearr.views import common


def test_limits_are_robust_and_never_empty() -> None:
    values = np.arange(101.0)
    values[-1] = 1e9
    assert common.robust_limits(values) == (1.0, 99.0)
    assert common.robust_limits(np.full(5, np.nan)) == (0.0, 1.0)
    assert common.robust_limits(np.full(5, np.nan), symmetric=True) == (-1.0, 1.0)
    low, high = common.robust_limits(np.full(5, 7.0))
    assert low < 7 < high
    assert common.robust_limits(np.r_[np.zeros(999), 5.0]) == (0.0, 5.0)
    assert common.robust_limits(np.array([-3.0, 1.0]), (0, 100), symmetric=True) == (-3.0, 3.0)


def test_regularity() -> None:
    assert common.is_regular(np.arange(5) * 0.1)
    assert not common.is_regular(np.array([0.0, 1.0, 3.0]))


def test_outline_is_exact_for_an_asymmetric_mask() -> None:
    mask = xr.DataArray([[1, 1, 0], [1, 0, 0]], {"y": [0.0, 2.0], "x": [0.0, 1.0, 2.0]}, ("y", "x")).astype(bool)
    found = {tuple(segment) for segment in common.roi_outline(mask)}
    assert found == {
        (-0.5, -1.0, -0.5, 3.0),  # left side, two points merged
        (0.5, 1.0, 0.5, 3.0),
        (1.5, -1.0, 1.5, 1.0),
        (-0.5, -1.0, 1.5, -1.0),
        (0.5, 1.0, 1.5, 1.0),
        (-0.5, 3.0, 0.5, 3.0),
    }


def test_outline_length_is_the_perimeter() -> None:
    mask = np.random.default_rng(0).random((20, 30)) < 0.5
    segments = common.roi_outline(xr.DataArray(mask, dims=("y", "x")))
    length = np.abs(segments[:, 2:] - segments[:, :2]).sum()
    padded = np.pad(mask, 1).astype(int)
    assert length == np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    assert common.roi_outline(xr.DataArray(np.zeros((3, 3), bool), dims=("y", "x"))).shape == (0, 4)


def test_outline_does_not_depend_on_the_order_of_coordinates() -> None:
    mask = xr.DataArray([[1, 1, 0], [1, 0, 0]], {"y": [0.0, 2.0], "x": [0.0, 1.0, 2.0]}, ("y", "x")).astype(bool)
    np.testing.assert_array_equal(common.roi_outline(mask), common.roi_outline(mask[::-1]))


def test_codes_become_positions_and_missing_ones_nan() -> None:
    da = xr.DataArray([-2, 7, 3], dims="x", name="phase", attrs={"flag_values": [-2, 3, 7], "flag_meanings": "no a b"})
    positions, names = common.as_codes(da)
    np.testing.assert_array_equal(positions, [np.nan, 1, 0])
    assert names == ["a", "b"]


def test_labels_carry_units_and_no_markup() -> None:
    assert common.label(xr.DataArray(0, name="x", attrs={"units": "um"})) == "x (µm)"
    assert (
        common.label(xr.DataArray(0, name="BC", attrs={"units": "1", "long_name": "band contrast"})) == "band contrast"
    )
    assert "$$" not in common.text("$$x$$ \\(y\\)\n")
    assert common.title("{x}").format() == "{x}"


def test_three_dimensions_are_not_a_map() -> None:
    with pytest.raises(UsageError, match="isel"):
        common.map_dims(xr.DataArray(np.zeros((2, 2, 2)), dims=("z", "y", "x")))


def test_import_loads_no_plotting_library() -> None:
    code = (
        "import sys, vaearr.views, vaearr.reporting; "
        "sys.exit(bool({'holoviews', 'bokeh', 'hvplot', 'matplotlib', 'panel'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
