"""Dask workers, as every step takes them: a client of `distributed`, or the word for where one is to be opened.

`where` is the address of a scheduler (`tcp://host:8786`), its scheduler file (`*.json`), `local` or `local:4` for that
many processes on this machine, or a connected `distributed.Client`, which stays open. None leaves the scheduler in use,
so that `with Client(...):` around a call has the same effect. Workers need the same vaearr, and files and stores under
the same path; the calling process publishes all results.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from vaearr.errors import NoInputError, UsageError, WorkersError, need

if TYPE_CHECKING:
    from distributed import Client

Where: TypeAlias = "str | Client"
Item = TypeVar("Item")

PATIENCE = 10  # s until a scheduler must answer and have workers
HOST = "127.0.0.1"  # of clusters of our own, which nobody else shall reach
LOCAL = re.compile(r"local(?::(\d+))?")
AT_ONCE = 10_000  # tasks that the scheduler is given together: they share what they are made from, and take memory


def check_where(where: Where | None) -> None:
    """Raise MissingExtraError where workers are asked for and `distributed` is not there."""
    if where is not None:
        need("distributed", "vaearr[dask]", "dask")


@contextmanager
def connected(where: Where | None) -> Iterator[Client | None]:
    """The client that dask computes with inside the block; None where that is no cluster. What was started for the
    block ends with it.

    Raises MissingExtraError without `distributed`, UsageError for a place that cannot be meant, WorkersError where no
    scheduler answers, it has no workers, or all are lost in the midst of the work.
    """
    check_where(where)
    if where is None and (where := in_use()) is None:
        yield None
        return
    from distributed import Client, KilledWorker
    from distributed.client import FuturesCancelledError
    from distributed.comm import CommClosedError

    with ExitStack() as stack:
        client = where if isinstance(where, Client) else _opened(where, stack)
        stack.enter_context(client.as_current())
        try:
            yield client
        except KilledWorker as error:
            raise WorkersError(
                f"a part of the work killed every worker that took it ({error.task}), probably for want of memory; "
                "give workers more (--memory-limit) or make batch_size smaller, and run the same command again."
            ) from None
        except (FuturesCancelledError, CommClosedError, TimeoutError) as error:
            reason = " ".join(str(error).split())
            raise WorkersError(f"the Dask scheduler was lost ({reason}); run the same command again.") from None


def _opened(where: str, stack: ExitStack) -> Client:
    """A client of what a word stands for; it ends, and so does what was started for it, with the stack."""
    from distributed import Client, LocalCluster

    place: Any = where
    if where.endswith(".json"):
        try:
            place = str(json.loads(Path(where).expanduser().read_text())["address"])
        except OSError as error:
            raise NoInputError(f"the scheduler file {where} cannot be read ({error.strerror}).") from None
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{where} is no scheduler file, which 'dask scheduler --scheduler-file' writes.") from None
    quiet = logging.getLogger("distributed")
    stack.callback(quiet.setLevel, quiet.level)
    quiet.setLevel(logging.CRITICAL + 1)  # what goes wrong is told in one line, not in a log of tracebacks
    try:
        if local := LOCAL.fullmatch(where):
            if local[1] == "0":
                raise ValueError("none")
            count, options = int(local[1] or 0) or None, {"host": HOST, "dashboard_address": None}
            place = LocalCluster(n_workers=count, threads_per_worker=1, silence_logs=logging.CRITICAL, **options)
            stack.enter_context(place)
        client = stack.enter_context(Client(place, timeout=PATIENCE, set_as_default=False))
        client.wait_for_workers(1, timeout=PATIENCE)
    except ValueError as error:
        raise UsageError(
            f"{place!r} is no place of Dask workers ({error}); give the address of a scheduler such as "
            "tcp://host:8786, its scheduler file (*.json), or local:4 for that many processes here, at least 1."
        ) from None
    except (OSError, TimeoutError) as error:
        raise WorkersError(
            f"no Dask scheduler with workers answers at {place} ({' '.join(str(error).split())}); start 'dask "
            "scheduler' and 'dask worker ADDRESS --nthreads 1', or use local:4."
        ) from None
    return client


def in_use() -> Client | None:
    """The client that dask computes with here, if any; None in a task on a worker, which computes by itself.

    Threads that a task starts are not known as its own: ask before they start.
    """
    if "distributed" not in sys.modules:
        return None
    from dask.base import get_scheduler
    from distributed import Client, get_worker

    with suppress(ValueError):
        get_worker()  # a task that waited for others here would keep them from running
        return None
    client = getattr(get_scheduler(), "__self__", None)
    return client if isinstance(client, Client) else None


def in_words(client: Client) -> str:
    """`on 4 Dask workers`."""
    count = len(client.nthreads())
    return f"on {count} Dask worker{'s' * (count != 1)}"


def each(client: Client, work: Callable[..., Any], items: Sequence[Item], *args: Any) -> Iterator[tuple[Item, Any]]:
    """`(item, work(item, *args))` as they come; items may be dask collections or delayed parts of the work."""
    from dask import delayed
    from distributed import as_completed

    task = delayed(work, pure=False)
    for start in range(0, len(items), AT_ONCE):
        some = items[start : start + AT_ONCE]
        item_of = dict(zip(client.compute([task(item, *args) for item in some]), some, strict=True))
        try:
            for future in as_completed(list(item_of)):
                yield item_of.pop(future), future.result()
        finally:
            client.cancel(list(item_of))
