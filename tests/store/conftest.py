"""Stores on a real S3 server, seen from one or more machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .s3 import KEYS, Server, serving


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def s3(s3_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """The server, counting from zero, and a machine that uses it."""
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": s3_server.endpoint}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VAEARR_CACHE", str(tmp_path / "cache"))
    s3_server.forget()
    return s3_server


@pytest.fixture
def url(s3: Server) -> str:
    """Where a store can be made."""
    return f"s3://{s3.new_bucket()}/lab/scan.zarr"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second try of a request."""
    monkeypatch.setattr("vaearr.store.places.RETRIES", 0)
