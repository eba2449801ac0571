"""Names and layout of a Dataset."""

from __future__ import annotations

import pytest
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import SchemaError


@pytest.mark.parametrize("name", ["a", "BC", "x_2", "a" * 63])
def test_valid_names(name: str) -> None:
    assert n.is_valid_name(name)


@pytest.mark.parametrize("name", ["", "a\n", "vae\n\n", "\na", "1a", "_a", "a b", "a-b", "a/b", "é", "a" * 64])
def test_names_that_are_not_valid(name: str) -> None:
    assert not n.is_valid_name(name)


def test_variable_name_with_a_line_end_is_refused(scan: xr.Dataset) -> None:
    with pytest.raises(SchemaError, match=r"variable name 'BC\\n' is not usable"):
        schema.validate(scan.rename(BC="BC\n"))


def test_run_names() -> None:
    assert n.run_name(n.LATENTS, n.DEFAULT_RUN) == "latents"
    assert n.run_name(n.LATENTS, "b") == "latents_b"
