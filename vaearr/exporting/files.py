"""Tables and records of an export; the folders they are staged in are `vaearr.store.folders`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vaearr.errors import ExistsError
from vaearr.provenance import as_json
from vaearr.store.folders import staged

__all__ = ["staged", "write_json"]


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Strict JSON: NaN and infinity become null. Raises ExistsError where this export has written the file already."""
    if path.exists():
        raise ExistsError(f"two parts of this export are both called {path.name}; choose one of them.")
    text = json.dumps(as_json(record), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
