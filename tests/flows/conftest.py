"""Flows that no server records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings


@pytest.fixture
def unrecorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No server is configured, and none may be started: whoever asks for a client fails."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a Prefect client was asked for")

    monkeypatch.setattr("prefect.client.orchestration.PrefectClient.__init__", refuse)
    monkeypatch.setattr("prefect.client.orchestration.SyncPrefectClient.__init__", refuse)
    with temporary_settings({PREFECT_HOME: tmp_path / "home"}, restore_defaults={PREFECT_API_URL}):
        yield
