"""How a step runs and what it shows: a task with artifacts where a Prefect server records, else a plain function.

A server that cannot be reached costs a picture, never the run: the results are in the store.
"""

from __future__ import annotations

import base64
import errno
import functools
import inspect
import io
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TaskRunContext
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

import vaearr as va
from vaearr.errors import NoInputError, VaearrError, WriteError
from vaearr.recipe import as_json
from vaearr.store import check_store, store_path

P = ParamSpec("P")
T = TypeVar("T")

RETRIES, RETRY_DELAYS = 3, [2.0, 10.0, 60.0]  # s
PASSES = {errno.EIO, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY, errno.ENETUNREACH}
SHOWING_RETRIES = 2  # of what is shown on its way to the server, 2 + 4 s apart; results wait for it
SECONDS = 2.0  # between two updates of a progress artifact
MOST_ROWS = 100
MOST_BYTES = 900_000  # of a picture: it lies in the server's database, as text
DPI = (200, 140, 100, 70)  # a sheet of 7 inches is 1400 pixels wide

# a flow whose result, plain JSON, can be fetched afterwards: `run_deployment("train-vae/train-vae").state.result()`
kept_flow: Any = functools.partial(flow, persist_result=True, result_serializer="json")

log = logging.getLogger("vaearr")


def is_recorded() -> bool:
    """Whether a server records what runs here: inside a flow run or a task run."""
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def _kept_by_the_server(record: logging.LogRecord) -> bool:
    """A filter of vaearr's log: what is told inside a flow run goes to the log of that run, and no further."""
    if is_recorded():
        get_run_logger().log(record.levelno, record.getMessage())
    return not is_recorded()


log.addFilter(_kept_by_the_server)
log.setLevel(logging.INFO)


def place(store: Path) -> str:
    """Where a store is, from the root, for whoever fetches a result."""
    return str(store_path(store))


def step(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A function as one step of a flow: a task with retries inside a flow run, itself where nothing is recorded.

    What a step made is found again by the record in its store, so results are not cached a second time by Prefect.
    """

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        retries: Any = {"retries": RETRIES, "retry_delay_seconds": RETRY_DELAYS, "retry_condition_fn": is_passing}
        recorded = task(name=name, cache_policy=NO_CACHE, persist_result=False, **retries)(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return recorded(*args, **kwargs) if is_recorded() else function(*args, **kwargs)

        return call

    return wrap


def stage(name: str) -> Callable[[Callable[..., Any]], Any]:
    """A function as a flow that runs it as its one step; `.step` is that step, for flows of several."""

    def wrap(function: Callable[..., Any]) -> Any:
        one = step(name)(function)

        @functools.wraps(function)
        def whole(*args: Any, **kwargs: Any) -> Any:
            return one(*args, **kwargs)

        whole.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]  # of the form
        made = kept_flow(name=name)(whole)
        made.step = one
        return made

    return wrap


def is_passing(task: Any, run: Any, state: Any) -> bool:
    """Whether another attempt may help: trouble of a disk or a network, also where vaearr has put it in words.

    What vaearr itself refuses (data, settings, names that are taken) stays refused.
    """
    try:
        state.result()
    except Exception as error:
        found: BaseException | None = error
        while found is not None:
            if isinstance(found, OSError) and not isinstance(found, VaearrError) and found.errno in PASSES:
                return True
            found = found.__cause__
    return False


def key_of(*parts: str) -> str:
    """A key that Prefect takes: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def store_key(what: str, store: Path, *parts: str) -> str:
    """Key of what is shown of a store, such as `train-vae-loss-scan-vae`."""
    return key_of(what, store.name.removesuffix(".zarr"), *parts)


def _shown(show: Callable[[], Any]) -> Any:
    """What Prefect answers, if anything records and is reached."""
    if not is_recorded():
        return None
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: SHOWING_RETRIES}):
            return show()
    except Exception as error:  # of the connection, the server or its database: nothing the results depend on
        log.info(f"not shown on the server's pages: {type(error).__name__}: {error}")
        return None


@contextmanager
def progress(what: str, key: str) -> Iterator[Callable[..., None]]:
    """`show(done, total, text)` tells how far a step is, in the log and as a bar that is updated in place."""
    made = _shown(lambda: create_progress_artifact(progress=0.0, key=key, description=what))
    last = time.monotonic()

    def update(done: int, total: int, text: str = what) -> None:
        nonlocal made, last
        if done < total and time.monotonic() - last < SECONDS:
            return
        share, words, last = 100.0 * done / max(total, 1), f"{text}: {done} of {total}", time.monotonic()
        log.info(words)
        if made and not _shown(lambda: update_progress_artifact(made, progress=share, description=words) or True):
            made = None  # for what is left of this step

    yield update


def table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Rows of numbers and names, at most a hundred; NumPy's become Python's, what is not finite stays empty."""
    plain = [as_json(dict(row)) for row in rows[:MOST_ROWS]]
    _shown(lambda: create_table_artifact(table=plain, key=key, description=f"{description}, {len(rows)} in all"))


def text(key: str, markdown: str, description: str) -> None:
    """Text with markup."""
    _shown(lambda: create_markdown_artifact(markdown=markdown, key=key, description=description))


def picture(store: Path, key: str, result: Callable[[], Any], description: str, **options: Any) -> None:
    """The view of a result as a picture below 1 MB, and the same on a page of its own, which it leads to.

    result: makes it; not called where nothing is recorded. The page lies beside the store and works offline.
    """
    if not is_recorded():
        return
    from vaearr.store.folders import write_errors
    from vaearr.views import on_paper, save

    try:
        shown, path = va.view(result(), **options), check_store(store)
        data = _small_png(on_paper(shown))
        folder = path.with_name(f"{path.name.removesuffix('.zarr')}.views")
        with write_errors(folder):
            folder.mkdir(exist_ok=True)
            heading = f"{path.name}: {description}"
            page = save(shown, folder.resolve() / f"{key}.html", heading=heading, overwrite=True)
    except (NoInputError, WriteError) as reason:
        log.info(f"no picture of {description}: {reason}")
        return
    inline = f"![{description}](data:image/png;base64,{base64.b64encode(data).decode()})"
    text(key, f"{inline}\n\n{link(page)}", description)  # an image artifact's page would spell the data out beside it


def link(page: Path) -> str:
    """Words that lead from a server's page to one on the disk."""
    return (
        f"[{page.as_uri()}]({page.as_uri()})\n\nA page on the disk of the machine that ran, `{page}`. Browsers follow "
        "no link from a server's page to a disk: copy the address into their address bar."
    )


def _small_png(figure: Any) -> bytes:
    """The figure as PNG of 256 colours with as many pixels as fit."""
    from PIL import Image

    from vaearr.views.page import png

    for dpi in DPI:
        data = io.BytesIO()
        with Image.open(io.BytesIO(png(figure, dpi))) as image:
            image.convert("RGB").quantize(256).save(data, "png", optimize=True)
        if data.tell() * 4 / 3 <= MOST_BYTES:
            return data.getvalue()
    raise NoInputError(f"it is larger than {MOST_BYTES / 1000:.0f} kB")
