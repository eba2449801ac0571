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
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[2]
SECONDS = 180


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(found: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """The value of `found()` once it is true."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return value


def environment(home: Path, url: str | None = None, **further: str) -> dict[str, str]:
    """Of a process that knows this server, or none, and nothing of the user's Prefect."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    known = {"PREFECT_API_URL": url} if url else {}
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**kept, **known, "PREFECT_HOME": str(home), "PYTHONPATH": python_path, "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_RUNNER_POLL_FREQUENCY": "1", "OMP_NUM_THREADS": "1", **further}  # fmt: skip


class Server:
    """A running server: its address, and its answers."""

    def __init__(self, url: str, env: dict[str, str]) -> None:
        self.url, self.env = url, env

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urlopen(
            Request(f"{self.url}{path}", data, {"Content-Type": "application/json"}), timeout=30
        ) as answer:
            return json.load(answer)

    def artifacts(self) -> dict[str, dict[str, Any]]:
        """The latest artifact of each key."""
        found = self.ask("/artifacts/filter", {"limit": 200, "sort": "UPDATED_DESC"})
        return {
            item["key"]: item for item in reversed(found) if item["key"]
        }  # those of Prefect itself have none

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Flow runs of a flow, the newest first."""
        return list(
            self.ask(
                "/flow_runs/filter",
                {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"},
            )
        )

    def command(
        self, *words: str, cwd: Path, seconds: float = SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """`python -m …` to its end; killed with all that it has started where that is too late."""
        with (
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as err,
        ):  # pipes outlive their process
            with _started(words, cwd, self.env, out, err) as process:
                try:
                    process.wait(seconds)
                except subprocess.TimeoutExpired:
                    err.seek(0)
                    raise AssertionError(
                        f"{words} was not over after {seconds} s and said: {err.read()}"
                    ) from None
            out.seek(0), err.seek(0)
            return subprocess.CompletedProcess(words, process.returncode, out.read(), err.read())


@contextmanager
def running(
    *words: str, cwd: Path, env: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m …` in the background, in a session of its own; ended, and killed if that does not
    help.
    """
    with open(log, "w") as out, _started(words, cwd, env, out, out) as process:
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(40)


@contextmanager
def _started(
    words: tuple[str, ...], cwd: Path, env: dict[str, str], out: IO[str], err: IO[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m …` in a session of its own, of which nothing is left at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=cwd,
        env=env,
        stdout=out,
        stderr=err,
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
    """A fresh server on a free port of loopback, with its own home."""
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
