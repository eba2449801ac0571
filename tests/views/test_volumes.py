"""Volumes as slices: the right planes, places and sides, and a viewer that works in a saved page."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr.errors import NoInputError, SchemaError, UsageError
from vaearr.views.pictures import pictures, reconstruction_sheet
from vaearr.views.volume_viewer import LEVELS, packed_volume, unpacked_volume, volume_viewer
from vaearr.views.volumes import as_volume, is_volume, place_of, volume_page, volume_sheet, volume_slices

SIZES = {"z": 5, "y": 6, "x": 8}


def volume(seed: int = 0, *, orientation: str | None = "RAS+") -> xr.DataArray:
    """Random voxels of 3 x 2 x 1.5 mm."""
    values = np.random.default_rng(seed).normal(100, 20, tuple(SIZES.values())).astype("f4")
    steps = {"z": (-6.0, 3.0), "y": (10.0, 2.0), "x": (-6.0, 1.5)}
    coords = {dim: (dim, start + step * np.arange(SIZES[dim]), {"units": "mm"}) for dim, (start, step) in steps.items()}
    attrs = {"units": "1", "long_name": "volume"} | ({} if orientation is None else {"orientation": orientation})
    return xr.DataArray(values, dims=("z", "y", "x"), coords=coords, attrs=attrs, name="input")


@pytest.fixture
def found() -> xr.Dataset:
    """Two volumes and their reconstructions, as `reconstruct_files` returns them."""
    pair = [xr.concat([volume(i), volume(i + 1)], "example").assign_attrs(volume().attrs) for i in (0, 2)]
    ds = xr.Dataset({"input": pair[0], "reconstruction": pair[1], "example_psnr": ("example", [20.0, 21.5])})
    return ds.assign_coords(example_file=("example", ["a.nii.gz", "b.nii.gz"]))


def images(figure: object) -> list[np.ndarray]:
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]  # type: ignore[attr-defined]


def test_three_planes_through_a_position() -> None:
    da = volume()
    figure = volume_slices(da.transpose("x", "z", "y")[::-1], {"z": 3.2, "x": 0.0})
    axial, coronal, sagittal = images(figure)[:3]
    np.testing.assert_array_equal(axial, da[3])
    np.testing.assert_array_equal(coronal, da[:, 3])
    np.testing.assert_array_equal(sagittal, da[:, :, 4])
    ax = figure.axes[0]
    assert ax.get_title() == "axial, z = 3 mm"
    np.testing.assert_allclose(ax.images[0].get_extent(), (-6.75, 5.25, 9, 21))
    assert ax.get_aspect() == 1
    assert float(ax.lines[0].get_xdata()[0]) == 0.0
    assert [text.get_text() for text in ax.texts] == ["L", "R", "P", "A"]
    assert [text.get_text() for text in figure.axes[2].texts] == ["P", "A", "I", "S"]
    assert ax.get_xlabel() == "x (mm)"


def test_sides_of_the_patient() -> None:
    radiological = volume_slices(volume(), convention="radiological").axes
    assert radiological[0].xaxis_inverted()
    assert [text.get_text() for text in radiological[1].texts][:2] == ["R", "L"]
    assert not radiological[2].xaxis_inverted()
    assert not volume_slices(volume(orientation=None)).axes[0].texts
    with pytest.raises(UsageError, match="neurological or radiological"):
        volume_slices(volume(), convention="both")  # type: ignore[arg-type]


def test_what_is_no_volume() -> None:
    da = volume()
    with pytest.raises(SchemaError, match="expected one volume over z, y and x"):
        volume_slices(da[0])
    with pytest.raises(UsageError, match="z = 99 lies outside the volume, which spans -6 to 6 mm"):
        volume_slices(da, {"z": 99})
    with pytest.raises(UsageError, match="names 'time'"):
        volume_slices(da, {"time": 1})
    with pytest.raises(UsageError, match="'z' has uneven steps"):
        volume_slices(da.assign_coords(z=[0.0, 1, 2, 3, 9]))
    plain = da.drop_vars(["z", "y", "x"]).expand_dims(channel=2)
    assert place_of(as_volume(plain), None) == {"z": 2, "y": 3, "x": 4}
    assert is_volume(plain)
    assert not is_volume(da[0])


def test_sheet(found: xr.Dataset) -> None:
    figure = volume_sheet(found, 1)
    shown = images(figure)
    np.testing.assert_array_equal(shown[0], found["input"][1, 2])
    np.testing.assert_array_equal(shown[3], found["reconstruction"][1, 2])
    np.testing.assert_allclose(shown[6], found["reconstruction"][1, 2] - found["input"][1, 2])
    assert figure.get_suptitle() == "file b.nii.gz, PSNR 21.5 dB"
    with pytest.raises(NoInputError, match="no example 2; 2 were kept"):
        volume_sheet(found, 2)
    with pytest.raises(SchemaError, match="expected one volume"):
        volume_sheet(found.isel(z=0, drop=True))


def test_strip_shows_axial_slices_with_the_front_on_top(found: xr.Dataset) -> None:
    np.testing.assert_array_equal(pictures(found["input"]), found["input"].values[:, 2, ::-1])
    figure = reconstruction_sheet(found)
    assert "middle axial slices" in figure.get_suptitle()
    assert figure.axes[0].get_title() == "a.nii.gz"


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(-50, 50, width=32) | st.just(float("nan")), min_size=24, max_size=24),
    limits=st.sampled_from([(-50.0, 50.0), (0.0, 1.0), (-3.0, 40.0)]),
)
def test_volumes_travel_in_8_bits(values: list[float], limits: tuple[float, float]) -> None:
    whole = np.array(values, "f4").reshape(2, 3, 4)
    back = unpacked_volume(packed_volume(whole, limits), whole.shape, limits)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(whole))
    step = (limits[1] - limits[0]) / LEVELS
    known = ~np.isnan(whole)
    assert (abs(back - np.clip(whole, *limits))[known] <= step * 0.51).all()


def test_viewer_and_page(found: xr.Dataset) -> None:
    from bokeh.models import CustomJS
    from bokeh.models.widgets import Select, Slider

    one, two = volume(), volume(1)
    layout = volume_viewer({"original": one, "residual": two - one}, diverging=("residual",), convention="radiological")
    sliders = list(layout.select({"type": Slider}))
    assert sorted((slider.title, slider.end) for slider in sliders) == [
        ("x = 0.0 mm", 7), ("y = 16 mm", 5), ("z = 0 mm", 4)
    ]  # fmt: skip
    script = next(iter(layout.select({"type": Select}))).js_property_callbacks["change:value"][0]
    assert isinstance(script, CustomJS)
    args = script.args
    assert args["lows"][1] == -args["highs"][1]
    limits = (args["lows"][0], args["highs"][0])
    back = unpacked_volume(args["data"][0], tuple(args["shape"]), limits)
    np.testing.assert_allclose(back, np.clip(one, *limits), atol=(limits[1] - limits[0]) / LEVELS)
    html = volume_page(found)
    assert "file a.nii.gz" in html
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=.?http", html.split("</style>")[0] + html[-20000:])
    with pytest.raises(NoInputError, match="no example was kept"):
        volume_page(found.isel(example=slice(0)))
