"""Loggers beside the stored history: off unless asked for, and none needs a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from vaearr.errors import UsageError, did_you_mean, need


class Logger(Protocol):
    """Takes the row of the history after each epoch (counted from 1)."""

    def log(self, epoch: int, row: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class _TensorBoard:
    def __init__(self, folder: Path, run: str, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard" / run))
        self.writer.add_text("settings", f"```{settings}```")

    def log(self, epoch: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


# name -> what opens it: the folder for what it writes, the run's name, the settings
LOGGERS: dict[str, Callable[[Path, str, Mapping[str, Any]], Logger]] = {"tensorboard": _TensorBoard}


def check_loggers(names: tuple[str, ...]) -> None:
    """Raise UsageError for an unknown name, MissingExtraError (how to install it) where its package is missing."""
    for name in names:
        if name not in LOGGERS:
            raise UsageError(f"there is no logger {name!r}.{did_you_mean(name, sorted(LOGGERS))}")
        need(name, "vaearr[loggers]", f"logging to {name}")


@contextmanager
def open_loggers(
    names: tuple[str, ...], place: tuple[Path, str] | None, settings: Mapping[str, Any]
) -> Iterator[list[Logger]]:
    """The named loggers, closed at the end. place: the folder for what they write, and the run's name there."""
    check_loggers(names)
    folder, run = place or (Path.cwd(), "run")
    with ExitStack() as opened:
        if names:
            folder.mkdir(parents=True, exist_ok=True)
        yield [opened.enter_context(closing(LOGGERS[name](folder, run, settings))) for name in names]
