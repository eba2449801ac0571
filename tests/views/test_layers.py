"""Figures of layer-wise comparisons: what they show is what was compared, for every kind of network."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from vaearr.errors import NoInputError, SchemaError
from vaearr.layers.compare import LAYER, Layer, layer_table, top_layers, with_maps
from vaearr.layers.measures import squared_map, sums
from vaearr.layers.pairs import compare_pairs
from vaearr.views import paper
from vaearr.views.layers import difference_sheet, layer_curves, top_bars

from ..analyses.conftest import make_model

assert make_model  # the fixture


class Shaped:
    """What `with_maps` has to know of a model."""

    def __init__(self, *sides: int) -> None:
        self.input_shape = (1, *sides)
        self.signal_dims = ("z", "y", "x")[-len(sides) :]


def _compared(*sides: int, channels: int = 2) -> xr.Dataset:
    """A comparison of random activations, its second layer half as large as the input."""
    shapes = {"input": (1, *sides), "down": (channels, *(s // 2 for s in sides)), "flat": (5,), "latent": (3,)}
    shapes |= {"up": (channels, *(s // 2 for s in sides)), "output": (1, *sides)}
    parts = ["input", "encoder", "encoder", "latent", "decoder", "output"]
    layers = []
    for (name, shape), part in zip(shapes.items(), parts, strict=True):
        a, b = torch.randn(2, *shape, generator=torch.Generator().manual_seed(len(layers)))
        squares = squared_map(a, b) if len(shape) == len(sides) + 1 else None
        layers.append(Layer(name, 1, "Conv", part, shape, sums(a, b), squares))
    table = layer_table(layers, np.stack([layer.sums for layer in layers]))
    model: Any = Shaped(*sides)
    return with_maps(table, [layer.squares for layer in layers], model, 2).assign_attrs(top=3)


def _drawn(figure: Any) -> Image.Image:
    buffer = io.BytesIO()
    with paper.journal():
        figure.savefig(buffer, format="png", dpi=50)
    return Image.open(buffer)


@pytest.mark.parametrize("sides", [(8, 12), (6, 8, 10)], ids=["picture", "volume"])
def test_sheets_render(sides: tuple[int, ...]) -> None:
    found = _compared(*sides)
    for figure in (top_bars(found), layer_curves(found), difference_sheet(found)):
        assert np.asarray(_drawn(figure).convert("L")).std() > 0
    sheet = difference_sheet(found)
    assert ("middle slice" in sheet.get_suptitle()) == (len(sides) == 3)


def test_bars_are_the_top_layers() -> None:
    found = _compared(8, 12)
    axes = top_bars(found, 3).axes[0]
    top = top_layers(found, 3)
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], found["relative_l2"].values[top])
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert labels == [f"{name}  (Conv)" for name in found[LAYER].values[top]]


def test_maps_are_relative_and_on_one_scale() -> None:
    found = _compared(8, 12)
    images = [ax.images[0] for ax in difference_sheet(found).axes if ax.images]
    assert len({image.get_clim() for image in images}) == 1
    shown = [np.asarray(image.get_array()) for image in images]
    assert [image.shape for image in shown] == [(8, 12), (8, 12), (4, 6), (4, 6)]
    name = found.attrs["maps"][0]
    size = float(found["rms_a"][int(name.rpartition("_")[2])])
    np.testing.assert_allclose(shown[2], found[name].values / size, rtol=1e-6)
    assert len({tuple(image.get_extent()) for image in images}) == 1


def test_many_pairs(make_model: MakeModel) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 12, 13), dtype=np.uint8)
    found = compare_pairs(make_model(), [(images[i], images[i + 4]) for i in range(4)], top=3)
    curves = layer_curves(found)
    assert len(curves.axes) == 3
    assert "mean ± std of 4 pairs" in curves.get_suptitle()
    line = curves.axes[0].lines[0]
    encoder = found["part"].values == "encoder"
    np.testing.assert_allclose(line.get_ydata(), found["relative_l2_mean"].values[encoder])
    np.testing.assert_allclose(line.get_xdata(), found["order"].values[encoder])
    for figure in (curves, top_bars(found), difference_sheet(found)):
        assert np.asarray(_drawn(figure).convert("L")).std() > 0
    one = compare_pairs(make_model(), [(images[0], images[1])])
    for figure in (layer_curves(one), top_bars(one)):
        _drawn(figure)


def test_refused() -> None:
    with pytest.raises(SchemaError, match="no layer-wise comparison"):
        layer_curves(xr.Dataset())
    found = _compared(8, 12)
    with pytest.raises(NoInputError, match="top of 1 or more"):
        difference_sheet(found.assign_attrs(maps=[]))
    with pytest.raises(NoInputError, match="nothing to rank"):
        top_bars(found.isel(layer=[0, 3]))
