"""A bucket of an S3 server on loopback; tests may act at the very moment when an object is written."""

from __future__ import annotations

import contextlib
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import xarray as xr
from zarr.storage import ObjectStore

KEYS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1"}


class Bucket:
    """url: `s3://…`. before_write(name): called before each object is written, with its name in the bucket."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import create_backend_app
        from werkzeug.serving import make_server

        self.app = create_backend_app("s3")
        self.before_write: Callable[[str], None] = lambda name: None
        self.http = make_server("127.0.0.1", 0, self, threaded=True)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.name = f"lab-{uuid.uuid4().hex[:12]}"  # servers of one process share their buckets
        self.endpoint, self.url = f"http://127.0.0.1:{self.http.server_port}", f"s3://{self.name}"
        self.environment = KEYS | {"AWS_ENDPOINT_URL": self.endpoint}
        with urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{self.name}", method="PUT")):
            pass

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        name = environ["PATH_INFO"].removeprefix(f"/{self.name}/")
        if environ["REQUEST_METHOD"] == "PUT" and name != environ["PATH_INFO"]:
            self.before_write(name)
        return self.app(environ, start)

    def store(self, name: str = "") -> Any:
        """obstore's store of what is below a name, with `get`, `put`, `delete` and `list`."""
        from obstore.store import S3Store

        config: Any = {"endpoint": self.endpoint}
        return S3Store.from_url(f"{self.url}/{name}".rstrip("/"), config=config, client_options={"allow_http": True})

    def names(self, below: str = "") -> set[str]:
        """Names of all objects below a name."""
        return {found["path"] for page in self.store(below).list() for found in page}

    def plain(self, name: str) -> xr.Dataset:
        """A store as a program sees it that knows zarr and nothing else."""
        return xr.open_zarr(ObjectStore(self.store(name), read_only=True), mask_and_scale=False, zarr_format=3)


@contextlib.contextmanager
def serving() -> Iterator[Bucket]:
    """A bucket for as long as it is needed; skips where the server's packages are absent."""
    for package in ("obstore", "moto", "flask", "flask_cors"):
        pytest.importorskip(package, reason=f"NOT TESTED: stores on S3 need {package}, which is not installed")
    bucket = Bucket()
    try:
        yield bucket
    finally:
        bucket.http.shutdown()
        bucket.http.server_close()
