"""A real S3 server on loopback, which counts requests and bytes and can stop answering."""

from __future__ import annotations

import contextlib
import threading
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1"}


class Server:
    """moto's S3 behind a counter. requests, sent, received: requests and bytes of their bodies by method."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *args: Any, **kwargs: Any) -> None:
                pass

        self.app = create_backend_app("s3")
        self.lock = threading.Lock()
        self.refuse: Callable[[str, str], bool] = lambda method, path: False
        self.seen: list[tuple[str, str]] = []
        self.requests, self.sent, self.received = Counter[str](), Counter[str](), Counter[str]()
        self.http = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Quiet)
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterator[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self.lock:
            self.requests[method] += 1
            self.received[method] += int(environ.get("CONTENT_LENGTH") or 0)
            self.seen.append((method, path + "?" * bool(environ["QUERY_STRING"])))
            is_refused = self.refuse(method, path)
        if is_refused:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("503 Service Unavailable", [("Content-Length", "0")])
            return
        with contextlib.closing(self.app(environ, start)) as answer:
            for piece in answer:
                with self.lock:
                    self.sent[method] += len(piece)
                yield piece

    def forget(self) -> None:
        """Count from zero again, and answer everything."""
        self.refuse = lambda method, path: False
        for counted in (self.requests, self.sent, self.received, self.seen):
            counted.clear()

    def go_away(self, after: int, method: str = "PUT") -> None:
        """Answer nothing any more from the request after so many of a method on."""
        count = 0

        def refuse(found: str, path: str) -> bool:
            nonlocal count
            count += found == method
            return count > after

        self.refuse = refuse

    def new_bucket(self) -> str:
        name = f"b{uuid.uuid4().hex[:12]}"
        with urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")):
            return name

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server for as long as it is needed; skips where its packages are absent."""
    for package in ("obstore", "moto", "flask", "flask_cors"):
        pytest.importorskip(package, reason=f"NOT TESTED: stores on S3 need {package}, which is not installed")
    server = Server()
    try:
        yield server
    finally:
        server.close()
