"""What lies over the detector follows its crop and binning: static background, projection centre, coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from vaearr import schema
from vaearr.config import IngestConfig
from vaearr.detector import reduced

from .data import count_computes, random_patterns_dataset

ABOUT = {
    "binning": 2.0,
    "tilt": 5.0,
    "projection_centre": [0.5, 0.25, 0.6],
    "projection_centre_spread": [0.1, 0.2, 0.3],
    "projection_centre_convention": "Bruker",
}


@pytest.fixture
def ds() -> xr.Dataset:
    ds = random_patterns_dataset({"y": 5, "x": 4}, {"dy": 8, "dx": 10})
    background = np.arange(80.0).reshape(8, 10)
    ds["static_background"] = (("dy", "dx"), background, {"long_name": "static background", "units": "counts"})
    return ds.assign_attrs(detector=ABOUT, notes=["a"])


def test_all_over_the_detector_follows(ds: xr.Dataset) -> None:
    less = reduced(ds, IngestConfig(crop={"dy": (2, 8), "dx": (None, 8)}, bin=2))
    schema.validate(less)
    assert (less.sizes["dy"], less.sizes["dx"]) == (3, 4)
    np.testing.assert_array_equal(less["dy"], [2.5, 4.5, 6.5])
    assert less["dy"].attrs == ds["dy"].attrs
    background = ds["static_background"].values[2:8, :8].reshape(3, 2, 4, 2).mean((1, 3))
    np.testing.assert_array_equal(less["static_background"], background)
    assert less["static_background"].attrs == ds["static_background"].attrs
    about = less.attrs["detector"]
    np.testing.assert_allclose(about["projection_centre"], [5 / 8, 0, 0.8])  # 5, 2 and 4.8 px, from row 2 of 8 x 6 px
    np.testing.assert_allclose(about["projection_centre_spread"], [1 / 8, 1.6 / 6, 2.4 / 6])
    assert (about["binning"], about["tilt"], less.attrs["notes"]) == (4.0, 5.0, ["a"])
    assert not {"projection_centre", "projection_centre_convention"} & set(less["patterns"].attrs)
    assert set(less.data_vars) == set(ds.data_vars)
    xr.testing.assert_identical(less["BC"], ds["BC"])
    assert less["y_index"].chunks is None
    assert ds.attrs["detector"] == ABOUT


def test_binning_leaves_the_centre(ds: xr.Dataset) -> None:
    about = reduced(ds, IngestConfig(bin=2)).attrs["detector"]
    assert about == ABOUT | {"binning": 4.0}


def test_a_centre_in_another_convention_does_not_survive_a_crop(ds: xr.Dataset) -> None:
    other = ds.assign_attrs(detector=ABOUT | {"projection_centre_convention": "EDAX"})
    about = reduced(other, IngestConfig(crop={"dy": (2, 8)})).attrs["detector"]
    assert about == {"binning": 2.0, "tilt": 5.0}


def test_stays_lazy_and_as_it_is_without_settings(ds: xr.Dataset) -> None:
    chunked = ds.chunk({"y": 2})
    with count_computes(at_most=0):
        reduced(chunked, IngestConfig(crop={"dx": (0, 4)}, bin=4))
    assert reduced(ds, IngestConfig()) is ds
