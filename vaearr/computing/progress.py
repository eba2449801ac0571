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
        return
    if callable(progress):
        report = progress
        yield lambda done, total, text=what: report(done, total, text)
        return
    if "ipykernel" in sys.modules:
        from IPython.display import HTML, display

        handle = display(HTML(""), display_id=True)

        def draw(done: int, total: int, text: str = what) -> None:
            bar = f'<progress max="{total}" value="{done}"></progress>'
            handle.update(HTML(f"{bar} {escape(text)}: {done} of {total}"))

        yield draw
        return
    if not sys.stderr.isatty():  # without rich, which takes as long as a short step

        def say(done: int, total: int, text: str = what) -> None:
            if done * 10 // total > (done - 1) * 10 // total:
                log.info(f"{text}: {done} of {total}")

        yield say
        return
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TimeElapsedColumn

    with Bars(
        *Bars.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True)
    ) as bars:
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
            show(done, done + sum(len(state[of]) for of in ("ready", "waiting", "running")))

        with Callback(posttask=after):
            yield


def tracked(items: Sequence[Item], progress: Progress, what: str) -> Iterator[Item]:
    """Yield the items, with a bar that moves when an item is done."""
    with showing(progress, what) as show:
        for done, item in enumerate(items, 1):
            yield item
            show(done, len(items))
