"""Presets are valid settings, can be changed, and build what they are named after."""

from __future__ import annotations

import pytest

from vaearr.config import TrainConfig
from vaearr.errors import UsageError
from vaearr.models import build_model
from vaearr.presets import PRESETS, check_preset, preset, preset_settings


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_whole_settings(name: str) -> None:
    assert preset(name) == TrainConfig.from_attrs(preset_settings(name))
    assert preset(name, epochs=3).epochs == 3
    preset_settings(name)["model"].clear()
    assert preset(name).model == TrainConfig.from_attrs(preset_settings(name)).model, "a copy was changed"
    assert preset_settings(name)["model"]


def test_sd_is_the_first_stage_of_stable_diffusion() -> None:
    network = build_model(preset("sd").model, (3, 64, 64))
    assert sum(p.numel() for p in network.parameters()) == 83_653_863  # Rombach et al.; the published checkpoints
    assert network.latent_shape == (4, 8, 8)


def test_maisi_takes_volumes_of_any_size() -> None:
    network = build_model(preset("maisi").model, (1, 46, 55, 46))
    assert network.latent_shape == (4, 12, 14, 12)


@pytest.mark.parametrize(
    ("name", "n_dims", "match"), [("sd", 3, "not for volumes.*maisi"), ("maisi", 2, "not for images.*sd")]
)
def test_presets_for_samples_of_another_kind_are_refused(name: str, n_dims: int, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        check_preset(name, n_dims)
    check_preset(name, 5 - n_dims)


def test_unknown_presets_are_refused() -> None:
    with pytest.raises(UsageError, match=r"there is no preset .maizi..*maisi"):
        preset("maizi")
