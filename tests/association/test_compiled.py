"""Compiled loops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numba
import pytest

from vaearr.association import compiled as module


def test_without_a_folder_to_keep_code_it_is_made_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = numba.njit

    def nowhere(**options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return kept(**options)

    monkeypatch.setattr(module, "numba", SimpleNamespace(njit=nowhere))

    def double(value: int) -> int:
        return 2 * value

    assert module.compiled(double)(21) == 42
