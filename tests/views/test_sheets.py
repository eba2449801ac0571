"""Sheets of samples, of decoded pictures, of volumes and of a network: the right pixels, planes and words."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import vaearr as va
from vaearr.analysis.layers import compare_layers, top_layers
from vaearr.config import ModelConfig
from vaearr.errors import NoInputError, SchemaError, UsageError
from vaearr.models import build_model
from vaearr.models.card import model_card
from vaearr.views.layers import difference_sheet, model_figure, stages, top_bars
from vaearr.views.page import LEVELS, packed
from vaearr.views.sheets import data_sheet
from vaearr.views.volumes import volume_page, volume_slices

from ..analyses.conftest import make_model
from ..conftest import SMALL_NETWORK
from ..data import random_patterns_dataset

SIGNALS = {"grey": {"dy": 4, "dx": 6}, "colour": {"channel": 3, "y": 4, "x": 6}, "volume": {"z": 3, "y": 4, "x": 6}}


@pytest.mark.parametrize("signal", [{"y": 8, "x": 9}, {"channel": 3, "y": 8, "x": 9}, {"z": 4, "y": 8, "x": 9}])
def test_a_row_of_samples_for_each_class(signal: dict[str, int]) -> None:
    ds = random_patterns_dataset({"sample": 30}, signal).drop_vars("label")
    flags = {"flag_values": [-1, 0, 1], "flag_meanings": "unknown benign malignant"}
    ds["label"] = ("sample", np.repeat([0, 1, -1], (22, 3, 5)).astype("i4"), flags)
    figure = data_sheet(ds, seed=1)
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["unknown\n5", "benign\n22", "malignant\n3"]
    numbers = [int(ax.get_title()) for ax in figure.axes]
    assert ds["label"].values[numbers].tolist() == [-1] * 5 + [0] * 8 + [1] * 3
    assert [int(ax.get_title()) for ax in data_sheet(ds, seed=1).axes] == numbers
    if len(signal) == 2:
        raw, drawn = ds["patterns"].values[numbers[0]].astype("f4"), figure.axes[0].images[0]
        np.testing.assert_array_equal(np.asarray(drawn.get_array(), "f4"), raw)
        np.testing.assert_allclose(drawn.get_clim(), np.percentile(raw, (0.5, 99.5)), rtol=1e-6)
    with pytest.raises(NoInputError, match="no variable of classes 'lable'"):
        data_sheet(ds, by="lable")


def test_samples_of_a_scan_and_without_classes() -> None:
    ds = random_patterns_dataset({"sample": 7}, missing=2).drop_vars("label")
    assert [int(ax.get_title()) for ax in data_sheet(ds).axes] == np.flatnonzero(ds["present"].values).tolist()
    scan = data_sheet(random_patterns_dataset({"y": 9, "x": 8}, missing=3))
    rows = [ax.get_ylabel().split("\n")[0] for ax in scan.axes if ax.get_ylabel()]
    assert rows == ["not indexed", "fcc", "bcc"]


@pytest.mark.parametrize("signal", SIGNALS.values(), ids=list(SIGNALS))
def test_decoded_pictures_of_every_kind_of_sample(signal: dict[str, int], tmp_path: Path) -> None:
    rng, attrs = np.random.default_rng(0), {"base": "mean", "by": "label", "space": "tsne"}

    def result(kind: str, coords: dict[str, Any], more: dict[str, Any], **lead: int) -> xr.Dataset:
        values = rng.normal(size=(*lead.values(), *signal.values()))
        return xr.Dataset({"decoded": ((*lead, *signal), values), **more}, coords, attrs | {"kind": kind})

    values = {"latent_dim": [4, 7], "value": (("latent_dim", "step"), np.arange(6.0).reshape(2, 3))}
    axes = {name: (name, [-1.0, 1], {"long_name": f"latent {name}"}) for name in ("row", "column")}
    means = {"latents": (("class", "latent"), np.eye(3, 5)), "n": ("class", [1, 2, 3])}
    asked = np.array([[0.0, 0], [1, 1], [2, 0]])
    way = {"requested": (("step", "axis"), asked), "position": (("step", "axis"), asked + np.array([[0], [0.5], [0]]))}
    way |= {"scatter": (("point", "axis"), rng.normal(size=(10, 2)))}
    flags = {"long_name": "label", "flag_values": [-1, 0, 1], "flag_meanings": ["none", "one", "two"]}
    where = {"axis": ["PC 1", "PC 2"], "number": ("point", np.arange(10)), "class": ("point", [-1, 0] * 5, flags)}
    traversal = result("traversal", values, {}, latent_dim=2, step=3)
    made = [traversal, result("manifold", axes, {}, row=2, column=2), result("path", where, way, step=3)]
    made += [result("prototypes", {"class": ["a", "b", "c"]}, means, **{"class": 3})]
    for found in made:
        figure = va.view(found)
        assert any(ax.images for part in (figure, *figure.subfigs) for ax in part.axes)
    strip = va.view(traversal).axes[:6]
    assert [ax.get_xlabel() for ax in strip] == ["0.00", "1.00", "2.00", "3.00", "4.00", "5.00"]
    if "channel" not in signal:
        assert len({image.get_clim() for ax in strip for image in ax.images}) == 1  # one scale for all


# ---- volumes


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
    figure = volume_slices(da.transpose("x", "z", "y")[::-1], position={"z": 3.2, "x": 0.0})
    for plane, wanted in zip(shown(figure), (da[3], da[:, 3], da[:, :, 4]), strict=False):
        np.testing.assert_array_equal(plane, wanted)
    ax = figure.axes[0]
    assert (ax.get_title(), ax.get_xlabel(), ax.get_aspect()) == ("axial, z = 3 mm", "x (mm)", 1)
    np.testing.assert_allclose(ax.images[0].get_extent(), (-6.75, 5.25, 9, 21))
    assert [text.get_text() for text in ax.texts] == ["L", "R", "P", "A"]
    assert [text.get_text() for text in figure.axes[2].texts] == ["P", "A", "I", "S"]
    assert not volume_slices(volume(orientation=None)).axes[0].texts
    for wrong, at, error, words in (
        (da[0], {}, SchemaError, "expected one volume over z, y and x"),
        (da, {"z": 99}, UsageError, "z = 99 lies outside the volume, which spans -6 to 6 mm"),
        (da.assign_coords(z=[0.0, 1, 2, 3, 9]), {}, UsageError, "'z' has uneven steps"),
    ):
        with pytest.raises(error, match=words):
            volume_slices(wrong, position=at)


def test_sheet_and_page_of_reconstructed_volumes() -> None:
    pair = [xr.concat([volume(i), volume(i + 1)], "example").assign_attrs(volume().attrs) for i in (0, 2)]
    found = xr.Dataset({"input": pair[0], "reconstruction": pair[1], "example_psnr": ("example", [20.0, 21.5])})
    found = found.assign_coords(example_file=("example", ["a.nii.gz", "b.nii.gz"]))
    figure = volume_slices(found, 1)
    np.testing.assert_array_equal(shown(figure)[3], found["reconstruction"][1, 2])
    np.testing.assert_allclose(shown(figure)[6], found["reconstruction"][1, 2] - found["input"][1, 2])
    assert figure.get_suptitle() == "b.nii.gz, PSNR 21.5 dB"
    assert "a.nii.gz" in volume_page(found)
    with pytest.raises(NoInputError, match="no example 2; 2 were kept"):
        volume_slices(found, 2)


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


# ---- networks and layers


@pytest.mark.parametrize(
    ("shape", "name", "options"),
    [
        ((3, 33, 20), "conv", {**SMALL_NETWORK, "attention": "cbam", "norm": "batch"}),
        ((3, 24, 32), "autoencoder-kl", {"channels": [8, 8, 16], "groups": 4}),
    ],
)
def test_a_network_has_a_bar_for_each_stage(shape: tuple[int, ...], name: str, options: dict[str, Any]) -> None:
    if name != "conv":
        pytest.importorskip("monai")
    card = model_card(build_model(ModelConfig(name=name, latent_dim=4, options=options), shape))
    found, figure = stages(card), model_figure(card)
    assert sum(stage.n_parameters for stage in found) == card.attrs["n_parameters"]
    assert [found[0].part, found[-1].part] == ["input", "output"]
    assert len(figure.axes[0].patches) == len(found)
    figure.canvas.draw()
    for word in figure.axes[0].get_yticklabels():
        assert 0 <= word.get_window_extent().x0 < word.get_window_extent().x1 <= figure.bbox.width


def test_bars_and_maps_of_layers_are_the_top_ones_on_one_scale() -> None:
    found = compare_layers(make_model((1, 12, 16)), *np.random.default_rng(0).random((2, 12, 16), dtype="f4"), top=3)
    widths = [bar.get_width() for bar in top_bars(found).axes[0].patches]
    np.testing.assert_allclose(widths, found["relative_l2"].values[top_layers(found, 3)])
    drawn = [ax.images[0] for ax in difference_sheet(found).axes if ax.images][-3:]
    assert len({(image.get_clim(), tuple(image.get_extent())) for image in drawn}) == 1
    assert len(va.view(found, "matplotlib").axes) == 2
