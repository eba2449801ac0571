"""The picture of a network: stages from its card, boxes in order and inside the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from vaearr.config import ModelConfig
from vaearr.errors import SchemaError
from vaearr.model_card import model_card
from vaearr.models import build_model
from vaearr.views.network import model_figure, stages
from vaearr.views.paper import save_figure

from ..conftest import SMALL_NETWORK


def _card(shape: tuple[int, ...], name: str = "conv", **options: Any) -> xr.Dataset:
    if name != "conv":
        pytest.importorskip("monai")
    return model_card(build_model(ModelConfig(name=name, latent_dim=4, options=options), shape))


CARDS = {
    "vector": ((1, 28, 28), "conv", SMALL_NETWORK),
    "attention": ((3, 33, 20), "conv", {**SMALL_NETWORK, "attention": "cbam", "norm": "batch"}),
    "spatial": ((3, 24, 32), "autoencoder-kl", {"channels": [8, 8, 16], "groups": 4}),
    "volume": ((1, 16, 18, 16), "autoencoder-kl", {"channels": [8, 16], "groups": 4, "res_blocks": 3}),
    "deep": ((3, 256, 256), "conv", {**SMALL_NETWORK, "patch": 1, "coarsest": 2}),
}


@pytest.mark.parametrize("case", CARDS)
def test_words_stay_inside_and_apart(case: str, tmp_path: Path) -> None:
    shape, name, options = CARDS[case]
    card = _card(shape, name, **options)
    figure = model_figure(card)
    path = save_figure(figure, tmp_path / "network.png", dpi=100)
    assert path.stat().st_size > 4000
    axes = figure.axes[0]
    renderer = figure.canvas.get_renderer()
    width, height = figure.bbox.width, figure.bbox.height
    boxes = [word.get_window_extent(renderer) for word in axes.texts if word.get_text()]
    for box in boxes:
        assert -1 < box.x0 < box.x1 < width + 1
        assert -1 < box.y0 < box.y1 < height + 1
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            assert one.x1 <= other.x0 + 1 or other.x1 <= one.x0 + 1 or one.y1 <= other.y0 + 2 or other.y1 <= one.y0 + 2


def test_stages_follow_the_resolution() -> None:
    found = stages(_card((3, 24, 32), "autoencoder-kl", channels=[8, 8, 16], groups=4))
    assert [stage.part for stage in found] == ["input", *3 * ["encoder"], "latent", *3 * ["decoder"], "output"]
    sizes = [stage.sizes for stage in found]
    assert sizes[:5] == [(24, 32), (24, 32), (12, 16), (6, 8), (6, 8)]
    assert sizes[5:] == [(6, 8), (12, 16), (24, 32), (24, 32)]
    assert max(found[3].channels) == 16
    assert "SpatialAttentionBlock" in found[3].contents
    assert found[0].contents == ""


def test_every_parameter_is_in_a_stage() -> None:
    card = _card((1, 28, 28), **SMALL_NETWORK)
    assert sum(stage.n_parameters for stage in stages(card)) == card.attrs["n_parameters"]


def test_boxes_are_to_scale() -> None:
    card = _card((1, 64, 32), **SMALL_NETWORK)
    boxes = model_figure(card).axes[0].patches[: len(stages(card))]
    rectangles = [patch for patch in boxes if hasattr(patch, "get_height")]
    rows = np.array([stage.sizes[0] for stage in stages(card) if stage.sizes])
    heights = np.array([r.get_height() for r, stage in zip(rectangles, stages(card), strict=True) if stage.sizes])
    assert heights / heights.max() == pytest.approx(rows / rows.max())


def test_another_dataset_is_refused() -> None:
    with pytest.raises(SchemaError, match="no model card"):
        model_figure(xr.Dataset())
