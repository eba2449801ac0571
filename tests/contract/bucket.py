"""A bucket of a real S3 server on loopback, which counts requests, can stop answering, and lets tests act meanwhile."""

from __future__ import annotations

import contextlib
import threading
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from zarr.storage import ObjectStore

KEYS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1"}


class Bucket:
    """url: `s3://…`. before_write(name): called before each object is written, with its name in the bucket.

    requests, sent, received: requests and bytes of their bodies by method, since `forget`.
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *args: Any, **kwargs: Any) -> None:
                pass

        self.app, self.lock = create_backend_app("s3"), threading.Lock()
        self.requests, self.sent, self.received = Counter[str](), Counter[str](), Counter[str]()
        self.before_write: Callable[[str], object] = lambda name: None
        self.http = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Quiet)
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.name = f"lab-{uuid.uuid4().hex[:12]}"  # servers of one process share their buckets
        self.endpoint, self.url = f"http://127.0.0.1:{self.http.server_port}", f"s3://{self.name}"
        self.forget()
        self.thread.start()
        with urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{self.name}", method="PUT")):
            self.forget()

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterator[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        size = int(environ.get("CONTENT_LENGTH") or 0)
        with self.lock:
            self.requests[method] += 1
            self.received[method] += size
            is_refused = method == self.gone[0] and self.requests[method] > self.gone[1]
            self.is_gone |= is_refused
        if self.is_gone:
            environ["wsgi.input"].read(size)
            start("503 Service Unavailable", [("Content-Length", "0")])
            return
        if method == "PUT" and path.startswith(f"/{self.name}/"):
            self.before_write(path.removeprefix(f"/{self.name}/"))
        with contextlib.closing(self.app(environ, start)) as answer:
            for piece in answer:
                with self.lock:
                    self.sent[method] += len(piece)
                yield piece

    def forget(self) -> None:
        """Count from zero again, and answer everything."""
        self.gone, self.is_gone = ("", 0), False
        for counted in (self.requests, self.sent, self.received):
            counted.clear()

    def go_away(self, after: int, method: str = "PUT") -> None:
        """Answer nothing any more from the request after so many of a method on, counted from now."""
        self.forget()
        self.gone = (method, after)

    def store(self, name: str = "") -> Any:
        """obstore's store of what is below a name, with `get`, `put`, `delete` and `list`."""
        return _objects(f"{self.url}/{name}".rstrip("/"))

    def names(self, below: str = "") -> set[str]:
        """Names of all objects below a name."""
        return {found["path"] for page in self.store(below).list() for found in page}

    def plain(self, name: str) -> xr.Dataset:
        """`plain` of a store by its name."""
        return plain(f"{self.url}/{name}")


def _objects(url: str) -> Any:
    from obstore.store import S3Store

    return S3Store.from_url(url, client_options={"allow_http": True})


def plain(url: str) -> xr.Dataset:
    """A store as a program sees it that knows zarr and nothing else."""
    return xr.open_zarr(ObjectStore(_objects(url), read_only=True), mask_and_scale=False, zarr_format=3)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    """A bucket, and a machine whose environment points to it; skips where the server's packages are absent."""
    for package in ("obstore", "moto", "flask", "flask_cors"):
        pytest.importorskip(package, reason=f"NOT TESTED: stores on S3 need {package}, which is not installed")
    made = Bucket()
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": made.endpoint, "VAEARR_CACHE": str(tmp_path / "cache")}).items():
        monkeypatch.setenv(name, value)
    yield made
    made.http.shutdown()
    made.thread.join()
    made.http.server_close()
