"""Reads are tried again a bounded number of times, for errors of the moment alone."""

from __future__ import annotations

import errno
import os

import pytest

from vaearr import retries
from vaearr.errors import DataError
from vaearr.retries import PAUSES, is_transient, patiently


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries.time, "sleep", lambda seconds: None)


class Failing:
    """A read that fails so many times."""

    def __init__(self, times: int, error: Exception) -> None:
        self.times, self.error, self.calls = times, error, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return "read"


@pytest.mark.parametrize("number", [errno.EIO, errno.EAGAIN])
@pytest.mark.parametrize("times", range(5))
def test_three_further_tries_and_no_more(number: int, times: int) -> None:
    read = Failing(times, OSError(number, os.strerror(number)))
    if times <= len(PAUSES):
        assert patiently(read) == "read"
        assert read.calls == times + 1
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            patiently(read)
        assert read.calls == 4
    assert len(PAUSES) == 3


@pytest.mark.parametrize(
    "error",
    [
        DataError("the checksum is another one"),
        ValueError("bad"),
        FileNotFoundError(errno.ENOENT, "no such file"),
        OSError("Can't synchronously read data (inflate() failed)"),
        PermissionError(errno.EACCES, "not allowed"),
    ],
)
def test_wrong_data_are_read_once(error: Exception) -> None:
    read = Failing(1, error)
    with pytest.raises(type(error)):
        patiently(read)
    assert read.calls == 1


def test_errors_of_the_system_in_the_words_of_libraries() -> None:
    assert is_transient(OSError("Can't read data (file read failed: ..., errno = 5, error message = 'Input/output')"))
    assert is_transient(RuntimeError("Input/output error (os error 5)"))
    assert not is_transient(RuntimeError("No such file or directory (os error 2)"))
    wrapped = DataError("rows 3 to 4 cannot be read")
    wrapped.__cause__ = OSError(errno.EAGAIN, "try again")
    assert is_transient(wrapped)
    assert not is_transient(DataError("errno = 5"))
