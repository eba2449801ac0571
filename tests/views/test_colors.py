"""Colours of classes stay apart at any brightness; given ones are kept."""

from __future__ import annotations

import pytest

from vaearr.errors import UsageError
from vaearr.views import colors


@pytest.mark.parametrize("count", [1, 6, 12, 40])
def test_no_two_classes_share_a_shade(count: int) -> None:
    classes = [
        set(colors.shades(colors.palette(count))[i * colors.LEVELS : (i + 1) * colors.LEVELS])
        for i in range(count)
    ]
    assert len(set.union(*classes)) == sum(map(len, classes))


def test_given_colours_are_kept() -> None:
    assert len(set(colors.palette(80))) == 80
    assert colors.class_colors([0, 1, 5], {1: "#0072B2"}) == ["#E69F00", "#0072B2", "#009E73"]
    assert colors.class_colors([3, 4], ["teal", "#ff0000"]) == ["#008080", "#FF0000"]
    for wrong, words in (
        (["red"], "give a colour for each"),
        ({7: "red"}, "give a colour for each"),
        (["red", "no colour"], "by a name such as"),
    ):
        with pytest.raises(UsageError, match=words):
            colors.class_colors([0, 1], wrong)  # type: ignore[arg-type]
