"""Progress of a step: one line in a terminal, a bar in a notebook, lines in the log elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from html import escape
from typing import TypeAlias, TypeVar

log = logging.getLogger("vaearr")

# whether to show progress, or a function of (done, total, text)
Progress: TypeAlias = bool | Callable[[int, int, str], object]
Show: TypeAlias = Callable[..., object]
Item = TypeVar("Item")
BAR_WIDTH = 8  # characters
MINUTE, HOUR = 60, 3600  # seconds


@contextmanager
def showing(progress: Progress, what: str, unit: str = "") -> Iterator[Show]:
    """Yield `show(done, total, detail)`, which moves a bar or writes ten lines to the log.

    progress: False for neither, or a function to call instead. unit: of what is counted, such as
    epoch; without one, a percentage is shown. Only the first of several processes shows progress.
    """
    if not progress or os.environ.get("RANK", "0") != "0":
        yield lambda done, total, detail="": None
    elif callable(progress):
        report = progress
        yield lambda done, total, detail="": report(done, total, _joined(what, detail))
    elif "ipykernel" in sys.modules:
        yield _bar_in_notebook(what)
    elif not sys.stderr.isatty():  # without rich, which takes as long as a short step
        yield _lines_in_log(what, unit)
    else:
        with _line_in_terminal(what, unit) as show:
            yield show


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show in a terminal for how long a step without countable parts has run."""
    if not sys.stderr.isatty():
        log.info(what)
    with showing(sys.stderr.isatty(), what):
        yield


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


class _Estimate:
    """The state of a step as text: how much is done, and the time that is left.

    The time is estimated from the second report on: a resumed step does not begin at 0.
    """

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.first_report: tuple[float, int] | None = None

    def text(self, done: int, total: int, detail: str) -> str:
        """Return text such as "epoch 3/40, loss 2.5, 2 min left"."""
        now = time.monotonic()
        count = f"{self.unit} {done}/{total}" if self.unit else f"{done / total:.0%}"
        left = ""
        if self.first_report is None:
            self.first_report = now, done
        elif done < total:
            began, done_before = self.first_report
            seconds_each = (now - began) / max(done - done_before, 1)
            left = f"{duration(seconds_each * (total - done))} left"
        return _joined(count, detail, left)


def duration(seconds: float) -> str:
    """Return a time in its largest unit, such as "12 s" or "3 min"."""
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / HOUR:.1f} h"


def _bar_in_notebook(what: str) -> Show:
    from IPython.display import HTML, display

    handle = display(HTML(""), display_id=True)

    def show(done: int, total: int, detail: str = "") -> None:
        bar = f'<progress max="{total}" value="{done}"></progress>'
        handle.update(HTML(f"{bar} {escape(_joined(what, detail))}: {done} of {total}"))

    return show


def _lines_in_log(what: str, unit: str) -> Show:
    estimate = _Estimate(unit)
    logged_tenths = 0

    def show(done: int, total: int, detail: str = "") -> None:
        nonlocal logged_tenths
        text = estimate.text(done, total, detail)
        tenths = done * 10 // total
        if tenths > logged_tenths:
            log.info(f"{what}: {text}")
            logged_tenths = tenths

    return show


@contextmanager
def _line_in_terminal(what: str, unit: str) -> Iterator[Show]:
    """A line at the bottom of the terminal that vanishes; what is logged appears above it."""
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
    columns = (SpinnerColumn(), BarColumn(BAR_WIDTH), text, TimeElapsedColumn())
    console = Console(stderr=True)
    estimate = _Estimate(unit)
    # the log is written to sys.stderr, which rich replaces; results on stdout are not touched
    with Bars(*columns, console=console, transient=True, redirect_stdout=False) as bars:
        task = bars.add_task(what, total=None)

        def show(done: int, total: int, detail: str = "") -> None:
            state = estimate.text(done, total, detail)
            bars.update(task, completed=done, total=total, description=f"{what}: {state}")

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
