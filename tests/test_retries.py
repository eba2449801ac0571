"""Reads are tried again a bounded number of times, for errors of the moment alone."""

from __future__ import annotations

import errno
import os

import pytest

from vaearr.errors import DataError
from vaearr.store import retries
from vaearr.store.retries import PAUSES, is_transient, patiently

WRAPPED = DataError("rows 3 to 4 cannot be read")
WRAPPED.__cause__ = OSError(errno.EAGAIN, "try again")
OF_THE_MOMENT = [
    *(OSError(number, os.strerror(number)) for number in (errno.EIO, errno.EAGAIN)),
    OSError("Can't read data (file read failed: ..., errno = 5, error message = 'Input/output')"),
    RuntimeError("Input/output error (os error 5)"),
    WRAPPED,
]
OF_THE_DATA = [
    DataError("errno = 5"),
    ValueError("bad"),
    FileNotFoundError(errno.ENOENT, "no such file"),
    OSError("Can't synchronously read data (inflate() failed)"),
    RuntimeError("No such file or directory (os error 2)"),
]


@pytest.mark.parametrize("error", OF_THE_MOMENT + OF_THE_DATA, ids=str)
@pytest.mark.parametrize("times", range(5))
def test_three_further_tries_for_errors_of_the_moment(
    error: Exception, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries.time, "sleep", lambda seconds: None)
    assert is_transient(error) == (error in OF_THE_MOMENT)
    calls: list[int] = []

    def read() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "read"

    allowed = len(PAUSES) if error in OF_THE_MOMENT else 0
    if times <= allowed:
        assert patiently(read) == "read"
    else:
        with pytest.raises(type(error)):
            patiently(read)
    assert len(calls) == min(times, allowed) + 1
