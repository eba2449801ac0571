"""Names of codes: as given, missing or not as many as the codes."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from vaearr.schema import categories, meanings


def _map(values: object, name: str | None = None, **attrs: object) -> xr.DataArray:
    return xr.DataArray(values, dims="x", name=name, attrs=attrs)


@pytest.mark.parametrize("words", ["noise a b", ["noise", "a", "b"]])
def test_names_go_with_their_codes(words: object) -> None:
    codes = _map([2, 5], flag_values=np.array([-1, 2, 5]), flag_meanings=words)
    assert meanings(codes) == {-1: "noise", 2: "a", 5: "b"}
    assert categories(codes) == {2: "a", 5: "b"}


@pytest.mark.parametrize("words", ["", "a", "a b c d"])
def test_without_a_name_each_a_code_is_its_number(words: str) -> None:
    codes = _map([0, 1], flag_values=[-1, 0, 1], flag_meanings=words)
    assert meanings(codes) == {-1: "-1", 0: "0", 1: "1"}
    assert categories(codes) == {0: "0", 1: "1"}


def test_without_flags_the_codes_are_those_found() -> None:
    assert categories(_map([3, -1, 3, 0])) == {0: "0", 3: "3"}
    assert categories(_map([2.0, np.nan, -2.0])) == {2: "2"}
    assert meanings(_map([3, -1])) == {}
