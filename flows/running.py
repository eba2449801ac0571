"""How a step runs: a flow run with artifacts where a Prefect server records it, else a plain
function.
"""

from __future__ import annotations

import base64
import functools
import io
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import Flow, flow, get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext

import vaearr as va
from vaearr.errors import NoInputError
from vaearr.recipe import as_json
from vaearr.store import check_store, store_path

SECONDS = 2.0  # between two updates of a progress artifact
MOST_ROWS = 100
DPI = 150  # of a picture in the server's database

# a flow whose result, plain JSON, can be fetched afterwards:
# `run_deployment("train-vae/train-vae").state.result()`
kept_flow: Any = functools.partial(flow, persist_result=True, result_serializer="json")

log = logging.getLogger("vaearr")


def is_recorded() -> bool:
    """Whether a server records what runs here: inside a flow run."""
    return FlowRunContext.get() is not None


def _kept_by_the_server(record: logging.LogRecord) -> bool:
    """A filter of vaearr's log: what is told inside a flow run goes to the log of that run, and no
    further.
    """
    if is_recorded():
        get_run_logger().log(record.levelno, record.getMessage())
    return not is_recorded()


log.addFilter(_kept_by_the_server)
log.setLevel(logging.INFO)


def place(store: Path) -> str:
    """Where a store is, from the root, for whoever fetches a result."""
    return str(store_path(store))


def step(part: Flow[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a flow as one step of another: recorded as a flow run of its own, or its function where
    nothing records.
    """
    return part(*args, **kwargs) if is_recorded() else part.fn(*args, **kwargs)


def key_of(*parts: str) -> str:
    """A key that Prefect takes: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def store_key(what: str, store: Path, *parts: str) -> str:
    """Key of what is shown of a store, such as `train-vae-loss-scan-vae`."""
    return key_of(what, store.name.removesuffix(".zarr"), *parts)


@contextmanager
def progress(what: str, key: str) -> Iterator[Callable[..., None]]:
    """`show(done, total, text)` tells how far a step is, in the log and as a bar that is updated in
    place.
    """
    artifact: Any = None
    if is_recorded():
        artifact = create_progress_artifact(progress=0.0, key=key, description=what)
    last = time.monotonic()

    def update(done: int, total: int, text: str = what) -> None:
        nonlocal last
        if done < total and time.monotonic() - last < SECONDS:
            return
        last = time.monotonic()
        words = f"{text}: {done} of {total}"
        log.info(words)
        if artifact:
            update_progress_artifact(
                artifact, progress=100.0 * done / max(total, 1), description=words
            )

    yield update


def table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Rows of numbers and names, at most a hundred; NumPy's become Python's, what is not finite
    stays empty.
    """
    if is_recorded():
        plain = [as_json(dict(row)) for row in rows[:MOST_ROWS]]
        create_table_artifact(
            table=plain, key=key, description=f"{description}, {len(rows)} in all"
        )


def text(key: str, markdown: str, description: str) -> None:
    """Text with markup."""
    if is_recorded():
        create_markdown_artifact(markdown=markdown, key=key, description=description)


def picture(store: Path, key: str, result: Any, description: str, **options: Any) -> None:
    """The view of a result as a picture, and the same on a page, which lies beside the store and
    works offline.
    """
    if not is_recorded():
        return
    from vaearr.store.folders import write_errors
    from vaearr.views import on_paper, save

    try:
        shown, path = va.view(result, **options), check_store(store)
    except NoInputError as reason:
        log.info(f"no picture of {description}: {reason}")
        return
    folder = path.with_name(f"{path.name.removesuffix('.zarr')}.views")
    with write_errors(folder):
        folder.mkdir(exist_ok=True)
        heading = f"{path.name}: {description}"
        page = save(shown, folder.resolve() / f"{key}.html", heading=heading, overwrite=True)
    inline = f"![{description}](data:image/png;base64,{_small_png(on_paper(shown))})"
    text(
        key, f"{inline}\n\n{link(page)}", description
    )  # an image artifact's page would spell the data out beside it


def link(page: Path) -> str:
    """Words that lead from a server's page to one on the disk."""
    return (
        f"[{page.as_uri()}]({page.as_uri()})\n\nA page on the disk of the machine that ran, `{page}`. Browsers follow "
        "no link from a server's page to a disk: copy the address into their address bar."
    )


def _small_png(figure: Any) -> str:
    """The figure as PNG of 256 colours, as text."""
    from PIL import Image

    from vaearr.views.page import png

    data = io.BytesIO()
    with Image.open(io.BytesIO(png(figure, DPI))) as image:
        image.convert("RGB").quantize(256).save(data, "png", optimize=True)
    return base64.b64encode(data.getvalue()).decode()
