"""What a flow run shows in Prefect's pages: progress, tables, pictures, text. Nothing where no server records.

A server that cannot be reached costs a picture, never the run: the results are in the store.
"""

from __future__ import annotations

import base64
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.running import is_recorded, tell
from vaearr.errors import MissingExtraError, NoInputError
from vaearr.provenance import as_json

MOST_BYTES = 190_000  # of a picture: it lies in the server's database, as text
DPI = (110, 80, 60, 40)
SECONDS = 2.0  # between two updates of a progress artifact
MOST_ROWS = 100
RETRIES = 2  # of a picture on its way to the server, 2 + 4 s apart; results wait for it


def key_of(*parts: str) -> str:
    """A key that Prefect takes: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def store_key(what: str, store: Path, *parts: str) -> str:
    """Key of what is shown of a store, such as `train-vae-loss-scan-vae`."""
    return key_of(what, store.name.removesuffix(".zarr"), *parts)


def _shown(show: Callable[[], Any]) -> Any:
    if not is_recorded():
        return None
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: RETRIES}):
            return show()
    except Exception as error:  # of the connection, the server or its database: nothing the results depend on
        tell(f"not shown on the server's pages: {type(error).__name__}: {error}")
        return None


@contextmanager
def progress_artifact(what: str, key: str) -> Iterator[Callable[..., None]]:
    """One artifact that is updated in place, at most every two seconds and at the end."""
    made = _shown(lambda: create_progress_artifact(progress=0.0, key=key, description=what))
    state: dict[str, Any] = {"id": made, "time": time.monotonic()}

    def show(done: int, total: int, text: str = what) -> None:
        if state["id"] is None or (done < total and time.monotonic() - state["time"] < SECONDS):
            return
        share = 100.0 * done / max(total, 1)
        words = f"{text}: {done} of {total}"
        reached = _shown(lambda: update_progress_artifact(state["id"], progress=share, description=words) or True)
        state["time"] = time.monotonic() if reached else math.inf  # then only at the end: each attempt takes a while

    yield show


def table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Rows of numbers and names, at most a hundred; NumPy's become Python's, what is not finite stays empty."""
    plain = [{name: _cell(value) for name, value in row.items()} for row in rows[:MOST_ROWS]]
    more = f" (the first {MOST_ROWS} of {len(rows)})" if len(rows) > MOST_ROWS else ""
    _shown(lambda: create_table_artifact(table=plain, key=key, description=f"{description}{more}"))


def _cell(value: Any) -> Any:
    plain = as_json(value)
    return float(f"{plain:.4g}") if isinstance(plain, float) else plain


def text(key: str, markdown: str, description: str) -> None:
    """Text with markup."""
    _shown(lambda: create_markdown_artifact(markdown=markdown, key=key, description=description))


def picture(key: str, figure: Callable[[], Any], description: str) -> None:
    """A figure as a picture below 200 kB. figure: makes it; not called where nothing is recorded."""
    if not is_recorded():
        return
    try:
        data = _small_png(figure())
    except (MissingExtraError, NoInputError) as reason:
        tell(f"no picture of {description}: {reason}")
        return
    if data is None:
        tell(f"no picture of {description}: it is larger than {MOST_BYTES / 1000:.0f} kB")
        return
    shown = f"![{description}](data:image/png;base64,{base64.b64encode(data).decode()})"
    text(key, shown, description)  # as an image artifact the page would spell the data out beside it


def _small_png(figure: Any) -> bytes | None:
    """The figure as PNG with as many pixels as fit."""
    from vaearr.plots.page import png

    made = (png(figure, dpi) for dpi in DPI)
    return next((data for data in made if len(data) * 4 / 3 <= MOST_BYTES), None)
