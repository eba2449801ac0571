"""Sheets of samples, of volumes and of a network's stages: the right pixels, planes and words; what limits show."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from vaearr.analysis.layers import compare_layers, top_layers
from vaearr.config import ModelConfig
from vaearr.errors import NoInputError, SchemaError, UsageError
from vaearr.models import build_model
from vaearr.models.card import model_card
from vaearr.views import common
from vaearr.views.layers import difference_sheet, model_figure, stages, top_bars
from vaearr.views.page import LEVELS, packed
from vaearr.views.sheets import data_sheet
from vaearr.views.volumes import volume_page, volume_sheet, volume_slices

from ..analyses.conftest import make_model
from ..conftest import SMALL_NETWORK
from ..data import random_patterns_dataset

# ---- samples ---------------------------------------------------------------------------------------------------------


def images(**signal: int) -> xr.Dataset:
    ds = random_patterns_dataset({"sample": 30}, signal or {"y": 8, "x": 9}).drop_vars("label")
    flags = {"flag_values": [-1, 0, 1], "flag_meanings": "unknown benign malignant"}
    ds["label"] = ("sample", np.repeat([0, 1, -1], (22, 3, 5)).astype("i4"), flags)
    return ds


@pytest.mark.parametrize("signal", [{"y": 8, "x": 9}, {"channel": 3, "y": 8, "x": 9}, {"z": 4, "y": 8, "x": 9}])
def test_a_row_of_samples_for_each_class(signal: dict[str, int]) -> None:
    ds = images(**signal)
    figure = data_sheet(ds, seed=1)
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["unknown\n5", "benign\n22", "malignant\n3"]
    numbers = [int(ax.get_title()) for ax in figure.axes]
    assert ds["label"].values[numbers].tolist() == [-1] * 5 + [0] * 8 + [1] * 3
    assert [int(ax.get_title()) for ax in data_sheet(ds, seed=1).axes] == numbers
    if signal == {"y": 8, "x": 9}:
        raw = ds["patterns"].values[numbers[0]].astype("f4")
        drawn = figure.axes[0].images[0]
        np.testing.assert_array_equal(np.asarray(drawn.get_array(), "f4"), raw)
        np.testing.assert_allclose(drawn.get_clim(), np.percentile(raw, (0.5, 99.5)), rtol=1e-6)


def test_samples_of_a_scan_and_without_classes() -> None:
    ds = random_patterns_dataset({"sample": 7}, missing=2).drop_vars("label")
    shown = [int(ax.get_title()) for ax in data_sheet(ds).axes]
    assert shown == np.flatnonzero(ds["present"].values).tolist()
    scan = data_sheet(random_patterns_dataset({"y": 9, "x": 8}, missing=3))
    rows = [ax.get_ylabel().split("\n")[0] for ax in scan.axes if ax.get_ylabel()]
    assert rows == ["not indexed", "fcc", "bcc"]
    for options, error, words in (({"by": "lable"}, NoInputError, "no variable of classes 'lable'"),):
        with pytest.raises(error, match=words):
            data_sheet(images(), **options)


# ---- volumes ---------------------------------------------------------------------------------------------------------


def volume(seed: int = 0, orientation: str | None = "RAS+") -> xr.DataArray:
    """Random voxels of 3 x 2 x 1.5 mm."""
    values = np.random.default_rng(seed).normal(100, 20, (5, 6, 8)).astype("f4")
    steps = {"z": (5, -6.0, 3.0), "y": (6, 10.0, 2.0), "x": (8, -6.0, 1.5)}
    coords = {dim: (dim, start + step * np.arange(n), {"units": "mm"}) for dim, (n, start, step) in steps.items()}
    attrs = {"long_name": "volume"} | ({} if orientation is None else {"orientation": orientation})
    return xr.DataArray(values, coords, ("z", "y", "x"), attrs=attrs, name="input")


def shown(figure: Any) -> list[np.ndarray]:
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]


def test_three_planes_through_a_position_with_the_patients_sides() -> None:
    da = volume()
    figure = volume_slices(da.transpose("x", "z", "y")[::-1], {"z": 3.2, "x": 0.0})
    for plane, wanted in zip(shown(figure), (da[3], da[:, 3], da[:, :, 4]), strict=False):
        np.testing.assert_array_equal(plane, wanted)
    ax = figure.axes[0]
    assert (ax.get_title(), ax.get_xlabel(), ax.get_aspect()) == ("axial, z = 3 mm", "x (mm)", 1)
    np.testing.assert_allclose(ax.images[0].get_extent(), (-6.75, 5.25, 9, 21))
    assert [text.get_text() for text in ax.texts] == ["L", "R", "P", "A"]
    assert [text.get_text() for text in figure.axes[2].texts] == ["P", "A", "I", "S"]
    assert not volume_slices(volume(orientation=None)).axes[0].texts
    for call, error, words in (
        (lambda: volume_slices(da[0]), SchemaError, "expected one volume over z, y and x"),
        (lambda: volume_slices(da, {"z": 99}), UsageError, "z = 99 lies outside the volume, which spans -6 to 6 mm"),
        (lambda: volume_slices(da.assign_coords(z=[0.0, 1, 2, 3, 9])), UsageError, "'z' has uneven steps"),
    ):
        with pytest.raises(error, match=words):
            call()


def test_sheet_and_page_of_reconstructed_volumes() -> None:
    pair = [xr.concat([volume(i), volume(i + 1)], "example").assign_attrs(volume().attrs) for i in (0, 2)]
    found = xr.Dataset({"input": pair[0], "reconstruction": pair[1], "example_psnr": ("example", [20.0, 21.5])})
    found = found.assign_coords(example_file=("example", ["a.nii.gz", "b.nii.gz"]))
    figure = volume_sheet(found, 1)
    np.testing.assert_array_equal(shown(figure)[3], found["reconstruction"][1, 2])
    np.testing.assert_allclose(shown(figure)[6], found["reconstruction"][1, 2] - found["input"][1, 2])
    assert figure.get_suptitle() == "file b.nii.gz, PSNR 21.5 dB"
    assert "file a.nii.gz" in volume_page(found)
    with pytest.raises(NoInputError, match="no example 2; 2 were kept"):
        volume_sheet(found, 2)


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.floats(-50, 50, width=32) | st.just(float("nan")), min_size=24, max_size=24),
    limits=st.sampled_from([(-50.0, 50.0), (0.0, 1.0), (-3.0, 40.0)]),
)
def test_arrays_travel_in_127_steps(values: list[float], limits: tuple[float, float]) -> None:
    whole, (low, high) = np.array(values, "f4"), limits
    codes = np.cumsum(np.frombuffer(zlib.decompress(base64.b64decode(packed(whole, limits))), "u1"), dtype="u1")
    back = np.where(codes == 255, np.nan, low + codes * ((high - low) / LEVELS))  # as the browser does
    known = ~np.isnan(whole)
    np.testing.assert_array_equal(np.isnan(back), ~known)
    assert (abs(back - np.clip(whole, *limits))[known] <= (high - low) / LEVELS * 0.51).all()


# ---- networks and layers ---------------------------------------------------------------------------------------------

CARDS: dict[str, tuple[tuple[int, ...], str, dict[str, Any]]] = {
    "vector": ((1, 28, 28), "conv", SMALL_NETWORK),
    "attention": ((3, 33, 20), "conv", {**SMALL_NETWORK, "attention": "cbam", "norm": "batch"}),
    "spatial": ((3, 24, 32), "autoencoder-kl", {"channels": [8, 8, 16], "groups": 4}),
    "deep": ((3, 256, 256), "conv", {**SMALL_NETWORK, "patch": 1, "coarsest": 2}),
}


@pytest.mark.parametrize("case", CARDS)
def test_a_network_has_a_bar_for_each_stage(case: str) -> None:
    shape, name, options = CARDS[case]
    if name != "conv":
        pytest.importorskip("monai")
    card = model_card(build_model(ModelConfig(name=name, latent_dim=4, options=options), shape))
    found = stages(card)
    assert sum(stage.n_parameters for stage in found) == card.attrs["n_parameters"]
    assert [found[0].part, found[-1].part] == ["input", "output"]
    figure = model_figure(card)
    assert len(figure.axes[0].patches) == len(found)
    figure.canvas.draw()
    assert all(0 <= box.x0 < box.x1 <= figure.bbox.width for box in map(_extent, figure.axes[0].get_yticklabels()))


def _extent(word: Any) -> Any:
    return word.get_window_extent()


def test_bars_and_maps_of_layers_are_the_top_ones_on_one_scale() -> None:
    found = compare_layers(make_model((1, 12, 16)), *np.random.default_rng(0).random((2, 12, 16), dtype="f4"), top=3)
    widths = [bar.get_width() for bar in top_bars(found, 3).axes[0].patches]
    np.testing.assert_allclose(widths, found["relative_l2"].values[top_layers(found, 3)])
    drawn = [ax.images[0] for ax in difference_sheet(found).axes if ax.images][-3:]
    assert len({image.get_clim() for image in drawn}) == 1
    assert len({tuple(image.get_extent()) for image in drawn}) == 1
    with pytest.raises(SchemaError, match="no layer-wise comparison"):
        top_bars(xr.Dataset())


# ---- limits, labels, outlines ----------------------------------------------------------------------------------------


def test_limits_are_robust_and_never_empty() -> None:
    values = np.arange(101.0)
    values[-1] = 1e9
    assert common.robust_limits(values) == (1.0, 99.0)
    assert common.robust_limits(np.full(5, np.nan), symmetric=True) == (-1.0, 1.0)
    low, high = common.robust_limits(np.full(5, 7.0))
    assert low < 7 < high
    assert common.robust_limits(np.r_[np.zeros(999), 5.0]) == (0.0, 5.0)


def test_outlines_are_the_perimeter_whatever_the_order_of_coordinates() -> None:
    mask = np.random.default_rng(0).random((20, 30)) < 0.5
    da = xr.DataArray(mask, {"y": np.arange(20.0), "x": np.arange(30.0)}, ("y", "x"))
    segments = common.roi_outline(da)
    padded = np.pad(mask, 1).astype(int)
    wanted = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    assert np.abs(segments[:, 2:] - segments[:, :2]).sum() == wanted
    np.testing.assert_array_equal(common.roi_outline(da[::-1]), segments)


def test_codes_units_and_markup() -> None:
    da = xr.DataArray([-2, 7, 3], dims="x", attrs={"flag_values": [-2, 3, 7], "flag_meanings": "no a b"})
    positions, names = common.as_codes(da)
    np.testing.assert_array_equal(positions, [np.nan, 1, 0])
    assert names == ["a", "b"]
    assert common.label(xr.DataArray(0, name="x", attrs={"units": "um"})) == "x (µm)"
    assert "$$" not in common.text("$$x$$ \\(y\\)\n")
