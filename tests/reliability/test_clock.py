"""Names and numbers of what is made never come from the clock alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import vaearr as va
from tests.reliability.jobs import TRAINING
from vaearr import names as n
from vaearr.store import create_store, open_store, run_manifest, run_names
from vaearr.store.verify import verify_store

from ..data import random_patterns_dataset


@pytest.fixture(params=["stands", "goes back"])
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time of day stands still, or goes back by an hour whenever it is asked."""
    now = [1.7e9]

    def told() -> float:
        now[0] -= 3600 if request.param == "goes back" else 0
        return now[0]

    monkeypatch.setattr(time, "time", told)
    monkeypatch.setattr("vaearr.recipe.now", lambda: datetime.fromtimestamp(told(), UTC).isoformat())
    return iter(())


def test_what_is_made_in_the_same_second(clock: None, tmp_path: Path) -> None:
    ds = random_patterns_dataset({"y": 12, "x": 10}, {"dy": 8, "dx": 9})
    stores = [create_store(ds, tmp_path / f"{name}.zarr") for name in "ab"]
    assert len({open_store(store).attrs[n.STORE_ID] for store in stores}) == 2
    for run, seed in (("one", 1), ("two", 2)):
        va.train(stores[0], run=run, config=TRAINING.replace(seed=seed, epochs=1))
        va.encode(stores[0], run=run)
    assert run_names(stores[0]) == ["one", "two"]
    assert len({run_manifest(stores[0], run)["weights_sha256"] for run in ("one", "two")}) == 2
    found = verify_store(stores[0])
    assert (found.findings, found.leftovers) == ([], [])
