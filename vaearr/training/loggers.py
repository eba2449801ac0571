"""Experiment loggers beside the stored history: off unless asked for, and none needs a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from vaearr.errors import need


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


class _WandB:
    """Online only where the user's WANDB_MODE says so; offline otherwise."""

    def __init__(self, folder: Path, run: str, settings: Mapping[str, Any]) -> None:
        import os

        import wandb

        mode = os.environ.get("WANDB_MODE", "offline")
        self.run = wandb.init(project="vaearr", name=run, dir=str(folder), config=dict(settings), mode=mode)

    def log(self, epoch: int, row: Mapping[str, float]) -> None:
        self.run.log(dict(row), step=epoch)

    def close(self) -> None:
        self.run.finish()


class _MLflow:
    """Into MLFLOW_TRACKING_URI where the user set it; a folder otherwise."""

    def __init__(self, folder: Path, run: str, settings: Mapping[str, Any]) -> None:
        import os

        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        self.client = MlflowClient(tracking_uri=uri)
        known = self.client.get_experiment_by_name("vaearr")
        experiment = known.experiment_id if known else self.client.create_experiment("vaearr")
        self.run = self.client.create_run(experiment, run_name=run).info.run_id
        for name, value in settings.items():
            self.client.log_param(self.run, name, value)

    def log(self, epoch: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self.client.log_metric(self.run, name, value, step=epoch)

    def close(self) -> None:
        self.client.set_terminated(self.run)


# name -> class, and the module that must be there for it
LOGGERS: dict[str, tuple[Callable[[Path, str, Mapping[str, Any]], Logger], str]] = {
    "tensorboard": (_TensorBoard, "tensorboard"),
    "wandb": (_WandB, "wandb"),
    "mlflow": (_MLflow, "mlflow"),
}


def check_loggers(names: tuple[str, ...]) -> None:
    """Raise MissingExtraError, with the command that installs it, for a logger whose package is missing."""
    for name in names:
        need(name, "vaearr[loggers]" if name == "tensorboard" else name, f"logging to {name}")


@contextmanager
def open_loggers(
    names: tuple[str, ...], place: tuple[Path, str] | None, settings: Mapping[str, Any]
) -> Iterator[list[Logger]]:
    """The named loggers, closed at the end. place: the folder for what they write, and the run's name there."""
    check_loggers(names)
    opened: list[Logger] = []
    try:
        for name in names:
            folder, run = place or (Path.cwd(), "run")
            folder.mkdir(parents=True, exist_ok=True)
            opened.append(LOGGERS[name][0](folder, run, settings))
        yield opened
    finally:
        for logger in opened:
            logger.close()
