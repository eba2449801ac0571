"""Reads that may fail for a moment: tried a few times more where the system says so, never where data are wrong."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

TRANSIENT = frozenset({errno.EIO, errno.EAGAIN})
PAUSES = (0.1, 0.3, 1.0)  # seconds before each further try
_IN_WORDS = re.compile(r"(?:errno = |os error )(\d+)")  # of HDF5, of Rust


def patiently(read: Callable[[], T]) -> T:
    """`read()`, up to three times more where it raises an input/output error or "try again"; else its own error."""
    for pause in pauses():
        try:
            return read()
        except Exception as error:  # libraries wrap the system's errors in their own
            if pause is None or not is_transient(error):
                raise
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def pauses() -> Iterator[float | None]:
    """How long to wait after each try that fails; None after the last."""
    yield from (*PAUSES, None)


def is_transient(error: BaseException) -> bool:
    """Whether an error, or the one it was raised from, is the system's and may pass."""
    found = _IN_WORDS.search(str(error)) if isinstance(error, OSError | RuntimeError) else None
    number = int(found[1]) if found else getattr(error, "errno", None)
    if isinstance(error, OSError | RuntimeError) and number in TRANSIENT:
        return True
    return error.__cause__ is not None and is_transient(error.__cause__)
