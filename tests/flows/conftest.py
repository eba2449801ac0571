"""One Prefect server for all tests that need one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from tests.contract import prefect_server as real


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.Server]:
    """A real server on loopback, of a home of its own."""
    with real.server(tmp_path_factory.mktemp("prefect")) as found:
        yield found
        EventsWorker.drain_all(timeout=real.SECONDS)  # else the interpreter's end waits for a server that is gone


@pytest.fixture
def recorded(prefect_server: real.Server) -> Iterator[real.Server]:
    """Flows that are called in this process are recorded by that server."""
    home = Path(prefect_server.env["PREFECT_HOME"])
    known = {PREFECT_API_URL: prefect_server.url, PREFECT_HOME: home, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(known):  # log lines that are on their way would outlive the server
        yield prefect_server


@pytest.fixture
def unrecorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No server is configured, and none may be started: whoever asks for a client fails."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a Prefect client was asked for")

    monkeypatch.setattr("prefect.client.orchestration.PrefectClient.__init__", refuse)
    monkeypatch.setattr("prefect.client.orchestration.SyncPrefectClient.__init__", refuse)
    with temporary_settings({PREFECT_HOME: tmp_path / "home"}, restore_defaults={PREFECT_API_URL}):
        yield
