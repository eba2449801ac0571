"""Stores on a real S3 server, seen from one or more machines."""

from __future__ import annotations

import pytest

from ..contract.bucket import Bucket, bucket  # noqa: F401


@pytest.fixture
def url(bucket: Bucket) -> str:  # noqa: F811
    """Where a store can be made."""
    return f"{bucket.url}/lab/scan.zarr"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second try of a request."""
    monkeypatch.setattr("vaearr.store.places.RETRIES", 0)
