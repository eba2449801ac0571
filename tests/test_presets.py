"""Presets are complete settings."""

import pytest

from vaearr.config import TrainConfig
from vaearr.config.presets import PRESETS, preset, preset_settings


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_whole_settings(name):
    assert preset(name) == TrainConfig.from_attrs(preset_settings(name))
    assert preset(name, epochs=3).epochs == 3
    preset_settings(name)["model"].clear()
    assert preset_settings(name)["model"], "a copy was changed"
