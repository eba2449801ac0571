"""What a flow run shows in Prefect's pages: progress, tables, pictures, text. Nothing where no server records.

A server that cannot be reached costs a picture, never the run: the results are in the store.
"""

from __future__ import annotations

import base64
import io
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

from vaearr.errors import NoInputError, WriteError
from vaearr.provenance import as_json

from .running import is_recorded, tell

MOST_BYTES = 900_000  # of a picture: it lies in the server's database, as text
DPI = (200, 140, 100, 70)  # a sheet of 7 inches is 1400 pixels wide
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


def picture(store: Path, key: str, view: Callable[[], Any], description: str) -> None:
    """A view as a picture below 1 MB, and the same on a page of its own, which it leads to.

    view: makes it; not called where nothing is recorded. The page lies beside the store and works offline.
    """
    if not is_recorded():
        return
    try:
        from vaearr.views import on_paper

        shown = view()
        data = _small_png(on_paper(shown))
        words = link(_page(store, key, shown, description))
    except (NoInputError, WriteError) as reason:
        tell(f"no picture of {description}: {reason}")
        return
    if data is None:
        tell(f"no picture of {description}: it is larger than {MOST_BYTES / 1000:.0f} kB")
        return
    inline = f"![{description}](data:image/png;base64,{base64.b64encode(data).decode()})"
    text(key, f"{inline}\n\n{words}", description)  # an image artifact's page would spell the data out beside it


def link(page: Path) -> str:
    """Words that lead from a server's page to one on the disk."""
    address = page.as_uri()
    return (
        f"[{address}]({address})\n\nA page on the disk of the machine that ran, `{page}`. Browsers follow no link "
        "from a server's page to a disk: copy the address into their address bar."
    )


def _page(store: Path, key: str, view: Any, description: str) -> Path:
    from vaearr.store import beside, check_store
    from vaearr.store.commit import writing
    from vaearr.views import save

    path = check_store(store)
    folder = beside(path).with_name(f"{path.name.removesuffix('.zarr')}.views")
    with writing(folder):
        folder.mkdir(exist_ok=True)
        return save(view, folder.resolve() / f"{key}.html", heading=f"{path.name}: {description}", overwrite=True)


def _small_png(figure: Any) -> bytes | None:
    """The figure as PNG of 256 colours with as many pixels as fit."""
    from PIL import Image

    from vaearr.views.page import png

    for dpi in DPI:
        data = io.BytesIO()
        with Image.open(io.BytesIO(png(figure, dpi))) as image:
            image.convert("RGB").quantize(256).save(data, "png", optimize=True)
        if data.tell() * 4 / 3 <= MOST_BYTES:
            return data.getvalue()
    return None
