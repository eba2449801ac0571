"""Work side by side: in step, no further than asked for, and never left behind."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from vaearr.layers.steps import Emit, side_by_side


def test_items_come_in_tuples_and_no_work_runs_ahead() -> None:
    progress = [0, 0]

    def work(which: int) -> object:
        def run(emit: Emit) -> None:
            for i in range(5):
                progress[which] += 1
                emit((which, i))

        return run

    for i, items in enumerate(side_by_side([work(0), work(1)])):  # type: ignore[list-item]
        assert items == ((0, i), (1, i))
        assert progress == [i + 1, i + 1]


def test_an_error_of_one_ends_both() -> None:
    def good(emit: Emit) -> None:
        for i in range(100):
            emit(i)

    def bad(emit: Emit) -> None:
        emit(0)
        raise ValueError("broken layer")

    before = threading.active_count()
    with pytest.raises(ValueError, match="broken layer"):
        list(side_by_side([good, bad]))
    assert threading.active_count() == before


def test_left_early_and_uneven() -> None:
    def work(emit: Emit) -> None:
        emit(1)
        emit(2)

    before = threading.active_count()
    with closing(side_by_side([work, work])) as items:
        assert next(items) == (1, 1)
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="more than another"):
        list(side_by_side([work, lambda emit: emit(1)]))
    assert threading.active_count() == before
