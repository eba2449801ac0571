"""Decoded pictures: one scale for all, channels and volumes, animations that can be read back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from vaearr.errors import ExistsError, NoInputError, SchemaError, UsageError
from vaearr.plots import static
from vaearr.plots.curves import reconstruction_parts
from vaearr.plots.decoded import animation_frames, pictures, save_animation, save_pictures

SHAPES: dict[str, dict[str, int]] = {
    "grey": {"dy": 8, "dx": 10},
    "colour": {"channel": 3, "dy": 8, "dx": 10},
    "two channels": {"channel": 2, "dy": 8, "dx": 10},
    "volume": {"dz": 5, "dy": 8, "dx": 10},
}

PAIR = ((0, "input"), (1, "reconstruction"))


def _array(lead: str, count: int, signal: dict[str, int], seed: int = 0) -> xr.DataArray:
    values = np.random.default_rng(seed).normal(size=(count, *signal.values())).astype("f4")
    return xr.DataArray(values, dims=(lead, *signal), name="decoded", attrs={"scale": "preprocessed", "units": "1"})


@pytest.fixture(params=list(SHAPES.values()), ids=list(SHAPES))
def signal(request: pytest.FixtureRequest) -> dict[str, int]:
    """Sizes of the signal dims."""
    return dict(request.param)


def _png(figure: Any) -> Image.Image:
    buffer = io.BytesIO()
    with static.journal():
        figure.savefig(buffer, format="png", dpi=60)
    return Image.open(buffer)


def test_sheets_render(signal: dict[str, int]) -> None:
    examples = xr.Dataset(
        {"input": _array("example", 3, signal), "reconstruction": _array("example", 3, signal, 1)},
        coords={"example_y": ("example", [1.0, 2.0, 3.0], {"units": "um"}), "example_x": ("example", [1.0, 2.0, 3.0])},
    )
    examples["example_psnr"] = ("example", [20.0, np.inf, np.nan])
    draws = xr.Dataset({"decoded": _array("sample", 11, signal)}, {"sample": np.arange(11)}, {"source": "prior"})
    path = xr.Dataset(
        {"decoded": _array("step", 20, signal), "input": _array("end", 2, signal)},
        coords={"t": ("step", np.linspace(0, 1, 20)), "end": ["a", "b"], "sample_of_end": ("end", [3, 4])},
        attrs={"method": "lerp"},
    )
    for figure in (static.reconstruction_strip(examples), static.sample_sheet(draws), static.interpolation_strip(path)):
        assert np.asarray(_png(figure).convert("L")).std() > 0
    titles = [ax.get_title() for ax in static.interpolation_strip(path).axes]
    assert titles[0] == "a: input"
    assert titles[1] == "t = 0"
    assert titles[-2] == "t = 1"
    assert len(titles) == 14


def test_all_pictures_share_one_scale() -> None:
    draws = xr.Dataset({"decoded": _array("sample", 4, SHAPES["grey"])}, {"sample": np.arange(4)}, {"source": "fitted"})
    figure = static.sample_sheet(draws)
    limits = {ax.images[0].get_clim() for ax in figure.axes if ax.images}
    assert len(limits) == 1
    assert "fitted distribution" in figure.get_suptitle()


def test_residuals_are_centred_and_as_wide_as_the_pictures() -> None:
    pair = {name: _array("example", 2, SHAPES["grey"], i) for i, name in enumerate(("input", "reconstruction"))}
    figure = static.reconstruction_strip(xr.Dataset(pair))
    low, high = figure.axes[0].images[0].get_clim()
    images = [ax.images[0] for ax in figure.axes if ax.images and ax.images[0].get_array().shape == (8, 10)]
    assert images[-1].get_clim() == pytest.approx((-(high - low) / 2, (high - low) / 2))
    with pytest.raises(NoInputError, match="examples of 1 or more"):
        static.reconstruction_strip(xr.Dataset())


def test_pictures_of_channels_and_volumes() -> None:
    assert pictures(_array("sample", 2, SHAPES["colour"])).shape == (2, 8, 10, 3)
    two, volume = (_array("sample", 2, SHAPES[name]) for name in ("two channels", "volume"))
    np.testing.assert_array_equal(pictures(two), two.values[:, 0])
    np.testing.assert_array_equal(pictures(volume), volume.values[:, 2])
    with pytest.raises(SchemaError, match="expected"):
        pictures(two.transpose("channel", ...))
    with pytest.raises(SchemaError, match="expected"):
        pictures(volume.isel(dz=0, dy=0))


def test_animation_goes_there_and_back(tmp_path: Path, signal: dict[str, int]) -> None:
    frames = animation_frames(xr.Dataset({"decoded": _array("step", 5, signal)}))
    assert frames[0].shape[:2] == (24 * 8, 24 * 10)
    path = save_animation(frames, tmp_path / "way.gif")
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 8
        assert image.info["loop"] == 0
        assert image.info["duration"] == 400
        if frames[0].ndim == 2:
            np.testing.assert_array_equal(np.asarray(image.convert("L")), frames[0])
    with pytest.raises(ExistsError, match="overwrite"):
        save_animation(frames, path)
    assert save_animation(frames, path, overwrite=True) == path
    assert sorted(tmp_path.iterdir()) == [path]
    with pytest.raises(UsageError, match=r"end in \.gif"):
        save_animation(frames, tmp_path / "way.png")
    with pytest.raises(UsageError, match="two frames or more"):
        save_animation(frames[:1], tmp_path / "b.gif")
    with pytest.raises(NoInputError, match="no folder"):
        save_animation(frames, tmp_path / "none" / "b.gif")


def test_single_pictures_are_pixel_for_pixel(tmp_path: Path) -> None:
    paths = save_pictures(_array("sample", 2, SHAPES["colour"]), tmp_path, "sample")
    assert [path.name for path in paths] == ["sample_000.png", "sample_001.png"]
    with Image.open(paths[0]) as image:
        assert (image.size, image.mode) == ((10, 8), "RGB")


@pytest.mark.parametrize("deterministic", [False, True])
def test_statistics_sheet(deterministic: bool) -> None:
    values = np.linspace(0.5, 1, 5)
    names = ("mean", "std", "kl", "aggregate_mean", "aggregate_std", "logvar_mean", "logvar_std")
    table = xr.Dataset(dict.fromkeys(names, ("latent", values)), {"latent": np.arange(5)})
    table = table.assign(min=table["mean"] - 2, max=table["mean"] + 2, is_active=table["kl"] > 0.7)
    if deterministic:
        table["logvar_mean"] = table["logvar_mean"] * np.nan
    figure = static.statistics_sheet(table)
    _png(figure)
    assert figure.axes[0].get_title() == "3 of 5 latents active"
    assert any(t.get_text() == "no posterior" for t in figure.axes[3].texts) == deterministic


def test_one_colour_example_is_in_line() -> None:
    found = xr.Dataset({name: _array("example", 1, {"channel": 3, "y": 12, "x": 16}, seed=k) for k, name in PAIR})
    figure = static.reconstruction_strip(found)
    figure.draw_without_rendering()
    lefts = [ax.get_position().x0 for ax in figure.axes if ax.get_ylabel() in ("input", "reconstruction", "residual")]
    assert np.ptp(lefts) < 1e-6


def test_progress_of_volumes_shows_the_middle() -> None:
    values = np.zeros((1, 2, 5, 4, 6), np.float32)
    values[:, :, 2] = 1
    dims = ("epoch", "sample", "z", "y", "x")
    sheets = xr.Dataset({"input": (dims[1:], values[0]), "reconstruction": (dims, values), "prior": (dims, values)})
    figure = static.progress_sheet(sheets.assign_coords(epoch=[1]))
    assert all((ax.images[0].get_array() == 1).all() for ax in figure.axes)


@pytest.mark.parametrize(
    "signal", [{"channel": 3, "y": 12, "x": 16}, {"z": 5, "y": 12, "x": 16}], ids=["rgb", "volume"]
)
def test_parts_of_colour_and_volumes(signal: dict[str, int]) -> None:
    found = xr.Dataset({name: _array("sample", 2, signal, seed=k) for k, name in PAIR})
    parts, _, _ = reconstruction_parts(found, 1)
    for name, image in parts[:2]:
        da = found["input" if name == "original" else name]
        np.testing.assert_array_equal(image, pictures(da)[1])
    assert parts[2][1].shape == (12, 16)
    rows, columns = 12, 16
    figure = static.reconstruction_sheet(found)
    width, height = figure.get_size_inches()
    assert height < 3 * (width / 2) * rows / columns + 0.6
