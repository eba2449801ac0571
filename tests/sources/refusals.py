"""What tests of sources share: a source that is refused, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vaearr.errors import DataError
from vaearr.sources import open_source


def refused(path: Path, match: str, error: type[Exception] = DataError, **given: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        open_source(path, **given).load()
    assert "\n" not in str(caught.value)
