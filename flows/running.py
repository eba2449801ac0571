"""How a step runs: recorded as a task by a Prefect server inside a flow run, as a plain function anywhere else."""

from __future__ import annotations

import errno
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TaskRunContext

from vaearr.errors import VaearrError
from vaearr.store import as_url, local_path

P = ParamSpec("P")
T = TypeVar("T")

RETRIES, RETRY_DELAYS = 3, [2.0, 10.0, 60.0]  # s
PASSES = {errno.EIO, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY, errno.ENETUNREACH}

# a flow whose result, plain JSON, can be fetched afterwards: `run_deployment("train-vae/train-vae").state.result()`
kept_flow: Any = functools.partial(flow, persist_result=True, result_serializer="json")

_SAY: ContextVar[Callable[[str], None]] = ContextVar("_SAY", default=lambda text: None)
_BAR: ContextVar[Callable[[str], Any] | None] = ContextVar("_BAR", default=None)


def is_recorded() -> bool:
    """Whether a server records what runs here: inside a flow run or a task run."""
    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def tell(text: str) -> None:
    """One line of news: to the log of the flow run, or to whoever runs the plain functions."""
    if is_recorded():
        get_run_logger().info(text)
    else:
        _SAY.get()(text)


def place(store: Path) -> str:
    """Where a store is, for who fetches a result: its URL, or its path from the root."""
    return as_url(store) or str(local_path(store).expanduser().absolute())


@contextmanager
def plainly(say: Callable[[str], None], bar: Callable[[str], Any] | None = None) -> Iterator[None]:
    """Where steps run as plain functions: `say` gets their news, `bar(what)` makes their progress bars."""
    tokens = _SAY.set(say), _BAR.set(bar)
    try:
        yield
    finally:
        _SAY.reset(tokens[0])
        _BAR.reset(tokens[1])


@contextmanager
def progress(what: str, key: str) -> Iterator[Callable[..., None]]:
    """`show(done, total, text)` moves a bar: an artifact of the flow run, updated in place, or that of `plainly`."""
    if is_recorded():
        from .showing import progress_artifact

        with progress_artifact(what, key) as show:
            yield show
    elif (bar := _BAR.get()) is not None:
        with bar(what) as show:
            yield show
    else:
        yield lambda *args: None


def step(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A function as one step of a flow: a task with retries inside a flow run, itself where nothing is recorded.

    What a step made is found again by the record in its store, so results are not cached a second time by Prefect.
    """

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        recorded = task(
            name=name,
            retries=RETRIES,
            retry_delay_seconds=RETRY_DELAYS,
            retry_condition_fn=is_passing,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(function)

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
