"""A real Prefect server on loopback, and processes that talk to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[2]
SECONDS = 180


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], event: str, seconds: float = SECONDS) -> Any:
    """Return the value of `condition()` once it is true."""
    end = time.monotonic() + seconds
    value = condition()
    while not value:
        assert time.monotonic() < end, f"not within {seconds} s: {event}"
        time.sleep(0.05)
        value = condition()
    return value


def environment(home: Path, url: str | None = None, **further: str) -> dict[str, str]:
    """The environment of a process that uses the server at `url` and no settings of the user."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    if url:
        variables["PREFECT_API_URL"] = url
    variables |= {
        "PREFECT_HOME": str(home),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "OMP_NUM_THREADS": "1",
    }
    return variables | further


class Server:
    """A running server."""

    def __init__(self, url: str, env: dict[str, str]) -> None:
        self.url, self.env = url, env

    def ask(self, path: str, body: Any = None) -> Any:
        """Send a request, again while the server is too busy (503), and return the answer."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        end = time.monotonic() + SECONDS
        while True:
            try:
                with urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except HTTPError as error:
                if error.code != 503 or time.monotonic() > end:
                    raise
            time.sleep(0.5)

    def artifacts(self) -> dict[str, dict[str, Any]]:
        """The latest artifact of each key."""
        artifacts = self.ask("/artifacts/filter", {"limit": 200, "sort": "UPDATED_DESC"})
        with_key = [item for item in artifacts if item["key"]]  # those of Prefect have none
        return {item["key"]: item for item in reversed(with_key)}

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Flow runs of a flow, the newest first."""
        query = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"}
        return list(self.ask("/flow_runs/filter", query))

    def command(
        self, *words: str, cwd: Path, seconds: float = SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m …`; after `seconds` it is killed with all processes that it has started."""
        with tempfile.TemporaryFile("w+") as log:  # a pipe would stay open after a kill
            with (
                _started(words, cwd, self.env, log) as process,
                suppress(subprocess.TimeoutExpired),
            ):
                process.wait(seconds)
            log.seek(0)
            return subprocess.CompletedProcess(words, process.returncode, log.read())


@contextmanager
def running(
    *words: str, cwd: Path, env: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m …` in the background, terminated at the end."""
    with open(log, "w") as out, _started(words, cwd, env, out) as process:
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(40)


@contextmanager
def _started(
    words: tuple[str, ...], cwd: Path, env: dict[str, str], log: IO[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m …` in a new session, all processes of which are killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=cwd,
        env=env,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@contextmanager
def server(folder: Path, **further: str) -> Iterator[Server]:
    """A new server on a free port of loopback, with an empty home."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    env = environment(folder / "home", url, **further)
    words = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui")
    with running(*words, cwd=folder, env=env, log=folder / "server.log") as process:

        def healthy() -> bool:
            assert process.poll() is None, (folder / "server.log").read_text()
            try:
                with urlopen(f"{url}/health", timeout=5) as answer:
                    return bool(answer.read() == b"true")
            except OSError:
                return False

        until(healthy, "the server answers")
        yield Server(url, env)
