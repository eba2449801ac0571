"""Work on many processes and machines with Dask `distributed`: find the workers, check them, keep them busy.

`where` is the same everywhere: the address of a scheduler (`tcp://host:8786`), its scheduler file (`*.json`), `local`
or `local:4` for that many processes on this machine, or a connected `distributed.Client`, which stays open. Workers
need the same vaearr, and the folders they work on under the same path; the calling process publishes all results.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import math
import os
import queue
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from vaearr import names as n
from vaearr.errors import NoInputError, UsageError, WorkersError, need
from vaearr.provenance import versions

if TYPE_CHECKING:
    from distributed import Client

Where: TypeAlias = "str | Client"
Item = TypeVar("Item")
Share = Callable[[Any], Any]

LOOPBACK = "127.0.0.1"
PATIENCE = 10  # s until a scheduler must answer and have workers
LOST = 60  # s that all workers may be away in the midst of the work
FRESH = 1  # s for which the number of threads is taken to be as it was
GONE = "all Dask workers are gone; start some and run the same command again, it goes on."
TRIES = 3  # for work on shared values, which go when all workers that hold them die
WAITING = 2  # tasks that wait at each thread, so that it never does
KEPT = 2  # opened stores, models and sources that a worker keeps
_LOCAL = re.compile(r"local(?::(\d+))?")


def check_where(where: Where | None) -> None:
    """Raise MissingExtraError where workers are asked for and `distributed` is not there."""
    if where is not None:
        need("distributed", "vaearr[dask]", "dask")


@contextmanager
def connected(where: Where) -> Iterator[Client]:
    """A client of the workers at `where`, all of this version of vaearr; what was started for it ends with it.

    Raises MissingExtraError without `distributed`, UsageError for a place that cannot be meant, WorkersError where no
    scheduler answers, none of its workers is there, or one is of another version.
    """
    check_where(where)
    import distributed

    if isinstance(where, distributed.Client):
        _check_versions(where)
        try:
            yield where
        finally:
            _forget(where)
        return
    local = _LOCAL.fullmatch(where)
    if local:
        with _cluster(int(local[1] or os.cpu_count() or 1)) as cluster, _client(cluster) as client:
            yield client
        return
    address = _address(where)
    _check_scheduler(address)
    with _client(address) as client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            raise WorkersError(
                f"the Dask scheduler at {address} has no workers; start some with 'dask worker {address} --nthreads 1'."
            ) from None
        _check_versions(client)
        try:
            yield client
        finally:
            _forget(client)


@contextmanager
def _cluster(count: int) -> Iterator[Any]:
    """Processes of one thread each on this machine, with a scheduler that nobody else can reach, and no dashboard."""
    from distributed import LocalCluster

    if count < 1:
        raise UsageError("local:0 has no workers; give local:N with N at least 1.")
    with LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        host=LOOPBACK,
        dashboard_address=f"{LOOPBACK}:0",
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster


@contextmanager
def _client(place: Any) -> Iterator[Client]:
    from distributed import Client

    logger = logging.getLogger("distributed.client")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # a scheduler that goes is told in one line, not in a log of tracebacks
    try:
        with Client(place, timeout=PATIENCE, set_as_default=False) as client:
            yield client
    finally:
        logger.setLevel(before)


def _address(where: str) -> str:
    """The address that is meant, or that a scheduler file holds."""
    if where.endswith(".json"):
        try:
            found = json.loads(Path(where).expanduser().read_text())["address"]
        except OSError as error:
            raise NoInputError(
                f"the scheduler file {where} cannot be read ({error.strerror}); check the path."
            ) from None
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{where} is no scheduler file, which 'dask scheduler --scheduler-file' writes.") from None
        return str(found)
    if ":" not in where:
        raise UsageError(
            f"{where!r} is no place of Dask workers; give the address of a scheduler such as tcp://host:8786, its "
            f"scheduler file (*.json), or local:4 for that many processes here."
        )
    return where


def _check_scheduler(address: str) -> None:
    """Raise unless a Dask scheduler answers; without a client, which would leave threads behind if none does."""
    import asyncio

    from distributed.core import connect

    async def ask() -> Any:
        comm = await connect(address, timeout=PATIENCE)
        try:
            await comm.write({"op": "identity", "reply": True})
            return await comm.read()
        finally:
            await comm.close()

    async def answer() -> Any:
        return await asyncio.wait_for(ask(), PATIENCE)

    try:
        with ThreadPoolExecutor(1) as aside:  # a notebook has a loop of its own in this thread
            found = aside.submit(asyncio.run, answer()).result()
    except ValueError as error:
        raise UsageError(f"{address!r} is no address of a Dask scheduler: {error}.") from None
    except (OSError, TimeoutError) as error:
        reason = " ".join(str(error).split()) or f"silent for {PATIENCE} s"
        raise WorkersError(
            f"no Dask scheduler answers at {address} ({reason}); start one with 'dask scheduler', or use local:4."
        ) from None
    if not isinstance(found, dict) or found.get("type") != "Scheduler":
        raise WorkersError(f"what answers at {address} is no Dask scheduler; give the address that it prints.")


def _check_versions(client: Client) -> None:
    def probe() -> str | None:  # goes to the worker as it is, whatever is installed there
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("vaearr")
        except PackageNotFoundError:
            return None

    own = versions()["vaearr"]
    for worker, found in ask(client, probe).items():
        if found != own:
            has = f"vaearr {found}" if isinstance(found, str) else "no vaearr"
            raise WorkersError(f"worker {worker} has {has}, this process {own}; install the same one on every worker.")


def check_each(client: Client, what: str, expected: Any, look: Callable[..., Any], *args: Any) -> None:
    """Raise WorkersError that names the first worker where `look(*args)` is not `expected`; what: `the store /a/b`."""
    for worker, found in ask(client, look, *args).items():
        if found == expected:
            continue
        reason = found if isinstance(found, Exception) else f"it finds {found!r}, this process {expected!r}"
        advice = "put it where all machines have it under the same path"
        if "://" in what:
            advice = "give all workers the network, keys and AWS_ENDPOINT_URL to reach it"
        raise WorkersError(
            f"worker {worker} cannot see {what} as this process does ({' '.join(str(reason).split())}); {advice}."
        )


def ask(client: Client, look: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """What each worker answers, by its address; an exception where it cannot."""
    answers: dict[str, Any] = client.run(look, *args, on_error="return")
    if not answers:
        raise WorkersError("the Dask scheduler has no workers; start some with 'dask worker ADDRESS --nthreads 1'.")
    return answers


def store_id(store: str) -> Any:
    """Which store a worker finds at a path."""
    from vaearr.store import open_group

    return open_group(store).attrs.get(n.STORE_ID)


def block_name(region: Mapping[str, slice]) -> str:
    """`the block at y 0 to 31, x 32 to 63`."""
    return "the block at " + ", ".join(f"{dim} {part.start} to {part.stop - 1}" for dim, part in region.items())


def n_threads(client: Client) -> int:
    """Tasks that run at a time; 0 where all workers are away."""
    return sum(client.nthreads().values())


def _threads(client: Client, what: str) -> int:
    """`n_threads` in the midst of the work. Raises WorkersError where the scheduler is lost."""
    try:
        return n_threads(client)
    except OSError as error:
        raise _lost(what, error) from None


def in_words(client: Client) -> str:
    """`on 4 Dask workers (4 threads)`."""
    workers, threads = len(client.nthreads()), n_threads(client)
    return f"on {workers} Dask worker{'s' * (workers != 1)} ({threads} thread{'s' * (threads != 1)})"


def each(
    client: Client, work: Callable[..., Any], items: Sequence[Item], *args: Any, name: Callable[[Item], str]
) -> Iterator[tuple[Item, Any]]:
    """`(item, work(item, *args))` as they come, few under way at a time; what dies with its worker is done again.

    What one raises is raised when all that are under way are done, the first in order, as a loop would meet it. Raises
    WorkersError, with `name(item)`, for work that kills worker after worker, and when workers or scheduler are gone.
    """
    number, ended, away = iter(range(len(items))), queue.SimpleQueue[Any](), 0
    threads, asked = 0, -math.inf
    under_way: dict[Any, int] = {}
    failed: dict[int, Exception] = {}
    batch = f"{work.__name__}-{uuid.uuid4().hex[:8]}"
    try:
        while True:
            if not failed and time.monotonic() - asked > FRESH:
                threads, asked = _threads(client, "the next block"), time.monotonic()
            room = 0 if failed else WAITING * threads + 1 - len(under_way)
            for i in itertools.islice(number, max(room, 0)):
                future = client.submit(work, items[i], *args, key=f"{batch}-{i}", pure=False)
                under_way[future] = i
                future.add_done_callback(ended.put)
            if not under_way:
                break
            try:
                future = ended.get(timeout=PATIENCE)
            except queue.Empty:
                away = 0 if _threads(client, "the next block") else away + PATIENCE
                if away >= LOST:
                    raise WorkersError(GONE) from None
                continue
            i = under_way.pop(future)
            try:
                found = future.result()
            except Exception as error:
                failed[i] = _in_words(error, name(items[i]))
            else:
                yield items[i], found
        if failed:
            raise failed[min(failed)]
    finally:
        _drain(client, under_way, ended)


def _drain(client: Client, under_way: dict[Any, int], ended: queue.SimpleQueue[Any]) -> None:
    """Wait a little for what cannot be called back, so that no worker writes any more, then forget it."""
    until = time.monotonic() + PATIENCE
    while under_way and client.status == "running" and (left := until - time.monotonic()) > 0:
        with suppress(queue.Empty):
            under_way.pop(ended.get(timeout=left), None)
    if under_way and client.status == "running":
        client.cancel(list(under_way))


def _in_words(error: Exception, what: str) -> Exception:
    """What went wrong with the workers, in one line; an error of the work itself as it is."""
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    if isinstance(error, KilledWorker):
        return WorkersError(
            f"{what} killed every worker that took it, probably for want of memory; give workers more "
            f"(--memory-limit) or make batch_size smaller, and run the same command again."
        )
    if isinstance(error, CancelledError | CommClosedError | TimeoutError):
        return _lost(what, error)
    return error


def _lost(what: str, error: Exception) -> WorkersError:
    reason = " ".join(str(error).split())
    return WorkersError(f"the Dask scheduler was lost at {what} ({reason}); run the same command again.")


@functools.lru_cache(maxsize=KEPT)
def _made(make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return make(*args)


def kept(make: Callable[..., Any], *args: Any) -> Any:
    """`make(*args)` of hashable arguments, kept in this worker until the work ends: opened files, loaded models."""
    return _made(make, args)


def _forget(client: Client) -> None:
    """Let workers close what they kept; those that are gone have."""
    if client.status == "running":
        client.run(_made.cache_clear, on_error="ignore")


@contextmanager
def computing_on(where: Where | None) -> Iterator[None]:
    """Have dask compute on the workers at `where` in the block; None leaves the scheduler in use."""
    if where is None:
        yield
        return
    with connected(where) as client, client.as_current():  # not as dask's setting, which new workers could not get
        yield


def in_use() -> Client | None:
    """The client that dask would compute with in this process, if it is one of distributed's; None in a worker."""
    if "distributed" not in sys.modules or is_worker():
        return None
    from dask.base import get_scheduler
    from distributed import Client

    client = getattr(get_scheduler(), "__self__", None)
    return client if isinstance(client, Client) else None


def is_worker() -> bool:
    """Whether this is a task on a Dask worker, which computes by itself."""
    if "distributed" not in sys.modules:
        return False
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def compute(build: Callable[[Share], Iterable[Any]]) -> Sequence[Any]:
    """Results of the delayed tasks that `build(share)` makes, under the dask scheduler in use.

    `share(value)` is a large value as tasks take it: itself, or on workers of a client a copy that each of them gets
    once. In a task of a worker all runs in its own thread.
    """
    import dask

    client = in_use()
    if client is None:
        tasks = list(build(lambda value: value))
        return tuple(dask.compute(*tasks, scheduler="synchronous" if is_worker() else None))
    from distributed import KilledWorker

    what = "a part of the computation"
    for left in reversed(range(TRIES)):
        try:
            tasks = list(build(lambda value: client.scatter(value, broadcast=True, hash=False)))
            return tuple(client.gather(client.compute(tasks)))
        except KilledWorker as error:
            raise _in_words(error, what) from None
        except (CancelledError, OSError) as error:  # shared values went with their workers
            if not left:
                raise _lost(what, error) from None
            _wait_for_workers(client, what)
    raise AssertionError("the last try returns or raises")


def _wait_for_workers(client: Client, what: str) -> None:
    """Wait until a worker is there again. Raises WorkersError where none comes, or the scheduler is lost."""
    try:
        client.wait_for_workers(1, timeout=LOST)
    except TimeoutError:
        raise WorkersError(GONE) from None
    except OSError as error:
        raise _lost(what, error) from None
