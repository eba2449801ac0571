"""Colours stay apart, for all eyes and at any brightness."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaearr.errors import UsageError
from vaearr.views import colors


@given(st.lists(st.floats(0.05, 1), min_size=3, max_size=3))
def test_a_shade_keeps_hue_and_never_gains_chroma(rgb: list[float]) -> None:
    shades = colors.oklab(colors.ramp(colors.hex_of(np.array([rgb]))))[0]
    assert max(np.ptp(shades[:, 1] / shades[:, 0]), np.ptp(shades[:, 2] / shades[:, 0])) < 1e-3
    assert (np.diff(shades[:, 0]) > 0).all()


@pytest.mark.parametrize("bases", [*(colors.distinct_colors(count) for count in (1, 6, 12)), ["red", "brown"]], ids=len)
def test_no_shade_of_one_class_is_near_one_of_another(bases: list[str]) -> None:
    flat = colors.oklab(colors.ramp(bases)).reshape(-1, 3)
    whose = np.repeat(np.arange(len(bases)), colors.LEVELS)
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    assert distance[whose[:, None] != whose[None]].min(initial=np.inf) >= colors.APART


def test_many_colours_are_different_and_given_ones_are_kept() -> None:
    assert len(set(colors.distinct_colors(80))) == 80
    found = colors.class_colors([0, 1, 5], {1: "#0072B2"})
    assert found[1] == "#0072b2"
    assert len({color.lower() for color in found}) == 3
    assert colors.class_colors([3, 4], ["teal", "#ff0000"]) == ["#008080", "#ff0000"]
    for wrong, words in (
        (["red"], "2 classes and 1 colours"),
        ({7: "red"}, r"no class has the code \[7\]"),
        (["red", "no colour"], "by a name such as"),
        (["#ff0000", "#fe0000"], "can hardly be told apart"),
    ):
        with pytest.raises(UsageError, match=words):
            colors.class_colors([0, 1], wrong)  # type: ignore[arg-type]
