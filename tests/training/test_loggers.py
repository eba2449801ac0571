"""Experiment loggers: off by default, every epoch when asked for, a clear line when the package is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

import vaearr as va

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
