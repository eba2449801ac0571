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
    a, b = (shades[:, i] / shades[:, 0] for i in (1, 2))
    assert np.ptp(a) < 1e-3
    assert np.ptp(b) < 1e-3
    assert (np.diff(shades[:, 0]) > 0).all()


@pytest.mark.parametrize("count", [1, 2, 6, 10, 12])
def test_no_shade_of_one_class_is_near_one_of_another(count: int) -> None:
    ramps = colors.ramp(colors.distinct_colors(count))
    assert ramps.shape == (count, colors.LEVELS, 3)
    flat = colors.oklab(ramps).reshape(-1, 3)
    whose = np.repeat(np.arange(count), colors.LEVELS)
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    assert distance[whose[:, None] != whose[None]].min(initial=np.inf) >= colors.APART


def test_red_and_brown_never_merge() -> None:
    red, brown = colors.oklab(colors.ramp(["red", "brown"]))
    assert np.linalg.norm(red[:, None] - brown[None], axis=-1).min() >= colors.APART


def test_many_colours_are_different_and_not_grey() -> None:
    found = colors.distinct_colors(80)
    assert len(set(found)) == 80
    assert found == colors.distinct_colors(80)
    lab = colors.oklab(colors.rgb_of(found))
    assert np.linalg.norm(lab - colors.oklab(colors.rgb_of([colors.NOISE_COLOR])), axis=1).min() > colors.APART


def test_given_colours_are_kept_and_others_keep_away() -> None:
    found = colors.class_colors([0, 1, 5], {1: "#0072B2"})
    assert found[1] == "#0072b2"
    assert len(set(found)) == 3
    assert "#0072B2" not in (found[0], found[2])
    assert colors.class_colors([3, 4], ["teal", "#ff0000"]) == ["#008080", "#ff0000"]


@pytest.mark.parametrize(
    ("given_colors", "words"),
    [
        (["red"], "2 classes and 1 colours"),
        ({7: "red"}, r"no class has the code \[7\]"),
        (["red", "no colour"], "by a name such as"),
        (["#ff0000", "#fe0000"], "can hardly be told apart"),
    ],
    ids=["too few", "unknown code", "no colour", "alike"],
)
def test_wrong_colours_are_told(given_colors: list[str] | dict[int, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        colors.class_colors([0, 1], given_colors)
