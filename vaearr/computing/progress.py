"""Progress of a step: a bar in a terminal or notebook, lines in the log elsewhere."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from html import escape
from typing import TypeAlias, TypeVar

log = logging.getLogger("vaearr")

# whether to show progress, or a function of (done, total, text)
Progress: TypeAlias = bool | Callable[[int, int, str], object]
Show: TypeAlias = Callable[..., object]
Item = TypeVar("Item")


@contextmanager
def showing(progress: Progress, what: str) -> Iterator[Show]:
    """Yield `show(done, total, text)`, which moves a bar or writes ten lines to the log.

    progress: False for neither, or a function to call instead. Only the first of several processes
    shows progress.
    """
    if not progress or os.environ.get("RANK", "0") != "0":
        yield lambda done, total, text=what: None
    elif callable(progress):
        report = progress
        yield lambda done, total, text=what: report(done, total, text)
    elif "ipykernel" in sys.modules:
        yield _bar_in_notebook(what)
    elif not sys.stderr.isatty():  # without rich, which takes as long as a short step
        yield _lines_in_log(what)
    else:
        with _bar_in_terminal(what) as show:
            yield show


def _bar_in_notebook(what: str) -> Show:
    from IPython.display import HTML, display

    handle = display(HTML(""), display_id=True)

    def show(done: int, total: int, text: str = what) -> None:
        bar = f'<progress max="{total}" value="{done}"></progress>'
        handle.update(HTML(f"{bar} {escape(text)}: {done} of {total}"))

    return show


def _lines_in_log(what: str) -> Show:
    def show(done: int, total: int, text: str = what) -> None:
        is_next_tenth = done * 10 // total > (done - 1) * 10 // total
        if is_next_tenth:
            log.info(f"{text}: {done} of {total}")

    return show


@contextmanager
def _bar_in_terminal(what: str) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TimeElapsedColumn

    columns = (*Bars.get_default_columns(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(what, total=None)

        def show(done: int, total: int, text: str = what) -> None:
            bars.update(task, completed=done, total=total, description=text)

        yield show


@contextmanager
def showing_tasks(progress: Progress, what: str) -> Iterator[None]:
    """Show a bar of the dask tasks that threads of this process complete inside the block."""
    from dask.callbacks import Callback

    with showing(progress, what) as show:

        def after(
            key: object, result: object, graph: object, state: dict[str, Sized], worker: object
        ) -> None:
            done = len(state["finished"])
            to_do = len(state["ready"]) + len(state["waiting"]) + len(state["running"])
            show(done, done + to_do)

        with Callback(posttask=after):
            yield


def tracked(items: Sequence[Item], progress: Progress, what: str) -> Iterator[Item]:
    """Yield the items, with a bar that moves when an item is done."""
    with showing(progress, what) as show:
        for done, item in enumerate(items, 1):
            yield item
            show(done, len(items))
