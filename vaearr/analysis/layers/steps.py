"""Several pieces of work side by side, each stopping wherever it has something to show until all have."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

Emit = Callable[[Any], None]


class _StoppedError(Exception):
    """Ends a piece of work whose results nobody waits for any more."""


@dataclass(frozen=True)
class _End:
    """A piece of work is done, or failed."""

    error: BaseException | None = None


def side_by_side(works: Sequence[Callable[[Emit], None]]) -> Generator[tuple[Any, ...], None, None]:
    """What the works emit, one of each at a time: the first of all, the second of all, and so on.

    Each runs in a thread of its own, and waits in `emit` until the next tuple is asked for, so that only what is being
    looked at has to be in memory. Close the iterator (`contextlib.closing`) where it may be left early: the works then
    end at their next `emit`. Raises what a work raises, and RuntimeError where one emits more often than another.
    """
    given: list[SimpleQueue[Any]] = [SimpleQueue() for _ in works]
    go_on = [threading.Semaphore(0) for _ in works]
    stop = threading.Event()

    def body(work: Callable[[Emit], None], line: SimpleQueue[Any], gate: threading.Semaphore) -> None:
        def emit(item: Any) -> None:
            line.put(item)
            gate.acquire()
            if stop.is_set():
                raise _StoppedError

        try:
            work(emit)
            line.put(_End())
        except BaseException as error:  # raised again where the results are waited for
            line.put(_End(error))

    threads = [threading.Thread(target=body, args=each) for each in zip(works, given, go_on, strict=True)]
    for thread in threads:
        thread.start()
    try:
        while True:
            items = tuple(line.get() for line in given)
            ends = [item for item in items if isinstance(item, _End)]
            for end in ends:
                if end.error is not None:
                    raise end.error
            if ends:
                if len(ends) < len(items):
                    raise RuntimeError("one piece of work emitted more than another")
                return
            yield items
            del items
            for gate in go_on:
                gate.release()
    finally:
        stop.set()
        for gate in go_on:
            gate.release()
        for thread in threads:
            thread.join()
