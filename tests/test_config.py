"""Settings: what cannot be meant is refused in words, and what is meant survives the way through
the attributes.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vaearr import config as c
from vaearr.errors import UsageError

from . import keywords

ALL = [
    value for value in vars(c).values() if isinstance(value, type) and issubclass(value, c.Config)
]
FLOATS = [
    (cls, key)
    for cls in ALL
    for key, field in cls.model_fields.items()
    if field.annotation in (float, float | None)
]


def test_types_of_keywords_are_those_of_the_settings() -> None:
    """`make keywords` writes them."""
    assert Path(keywords.keywords.__file__).read_text() == keywords.text()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, "inf", "nan"], ids=str)
@pytest.mark.parametrize(
    ("cls", "key"), FLOATS, ids=[f"{cls.__name__}.{key}" for cls, key in FLOATS]
)
def test_numbers_are_finite(cls: type[c.Config], key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"{cls.__name__}\.{key}: .*\(got .*(inf|nan)"):
        cls.from_attrs({key: value})


@pytest.mark.parametrize("dim", ["x", "y", "z"])
@pytest.mark.parametrize(
    "box", [(0, math.inf), (-math.inf, 1), (math.nan, 1), (0, math.nan)], ids=str
)
def test_boxes_are_finite(dim: str, box: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match=rf"RoiConfig\.{dim}\.[01]: a finite number is expected"):
        c.RoiConfig.from_attrs({dim: box})


@pytest.mark.parametrize("where", ["", " ", "\t\n"], ids=repr)
def test_blank_condition_is_refused(where: str) -> None:
    with pytest.raises(
        UsageError, match="`where` is blank: write one like 'BC > 45', or leave it out"
    ):
        c.RoiConfig().replace(where=where)
    with pytest.raises(ValidationError, match="is blank"):
        c.RoiConfig(where=where)


@pytest.mark.parametrize("name", ["a b", "1a", "", "a\n", "a" * 64])
def test_map_names(name: str) -> None:
    with pytest.raises(UsageError, match="must be letters, digits and _"):
        c.IngestConfig.from_attrs({"maps": {name: "bc.csv"}})


@pytest.mark.parametrize(
    "cls", [cls for cls in ALL if cls is not c.Config], ids=lambda cls: cls.__name__
)
def test_settings_survive_json(cls: type[c.Config]) -> None:
    settings = cls()
    assert cls.from_attrs(json.loads(json.dumps(settings.to_attrs(), allow_nan=False))) == settings


def test_settings_of_earlier_versions_are_read() -> None:
    """Those that decided nothing."""
    assert c.TrainConfig.from_attrs({"lanes": None, "ema": 0.0, "epochs": 3}) == c.TrainConfig(
        epochs=3
    )
    with pytest.raises(UsageError, match="no setting 'ema'"):
        c.TrainConfig.from_attrs({"ema": 0.9})
