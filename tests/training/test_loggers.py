"""Experiment loggers: off by default, every epoch when asked for, a clear line when the package is missing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import vaearr as va
from vaearr.training.loggers import open_loggers

from ..conftest import TINY_TRAINING


def test_none_by_default(scan_store: Path) -> None:
    va.train(scan_store, config=TINY_TRAINING)
    assert not scan_store.with_name(f"{scan_store.name}.logs").exists()


def test_tensorboard_gets_every_epoch(scan_store: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = va.train(scan_store, config=TINY_TRAINING.replace(log=["tensorboard"]))
    folder = scan_store.with_name(f"{scan_store.name}.logs") / "tensorboard" / "vae"
    events = reader.EventAccumulator(str(folder)).Reload()
    written = [(event.step, event.value) for event in events.Scalars("loss")]
    assert written == [(1, pytest.approx(float(run.history.loss[0]))), (2, pytest.approx(float(run.history.loss[1])))]


def test_wandb_is_offline_unless_the_user_says_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []

    class Run:
        def log(self, row: Mapping[str, float], step: int) -> None:
            calls.append(("log", (step, dict(row))))

        def finish(self) -> None:
            calls.append(("finish", None))

    def init(**kwargs: Any) -> Run:
        calls.append(("init", kwargs))
        return Run()

    module = ModuleType("wandb")
    module.__spec__ = __spec__
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with open_loggers(("wandb",), (tmp_path / "logs", "vae"), {"epochs": 2}) as opened:
        opened[0].log(1, {"loss": 3.0})
    assert calls[0][1]["mode"] == "offline"
    assert calls[0][1]["config"] == {"epochs": 2}
    assert calls[1:] == [("log", (1, {"loss": 3.0})), ("finish", None)]


def test_mlflow_writes_into_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with open_loggers(("mlflow",), (tmp_path, "vae"), {"epochs": 2}) as opened:
        opened[0].log(1, {"loss": 3.0})
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("vaearr")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics == {"loss": 3.0}
    assert run.data.params == {"epochs": "2"}
