"""A process that has everything imported and forks a child for each job, so that a kill costs a job
and no start.

It reads a line of JSON for each job (`Workshop.run` writes it) and answers with one. The child
counts, under the job's folder, every change of the file system (open for writing, rename, remove,
link, new and removed folders, fsync), and at one of them it dies, leaves half a file, or is told
that the disk is full.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
KILLED = 99  # exit code of a child that a fault ended
CHANGES = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.truncate",
    "os.chmod",
    "os.symlink",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Faults:
    """Counts changes below a folder, and does at the `at`-th what `kind` says."""

    def __init__(self, folder: str, fault: dict[str, Any]) -> None:
        self.folder, self.kind, self.at = (
            os.path.realpath(folder),
            fault["kind"],
            fault.get("at", 0),
        )
        self.number, self.lasting = fault.get("errno", 0), fault.get("lasting", False)
        self.counted: list[str] = []
        self.lock = threading.RLock()
        self.fsync = os.fsync

    def install(self) -> None:
        os.fsync = self._synced  # type: ignore[assignment]
        sys.addaudithook(self._audited)

    def _synced(self, handle: int) -> None:
        self._at(f"fsync {os.readlink(f'/proc/self/fd/{handle}')}", "")
        self.fsync(handle)

    def _audited(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            is_writing = (
                bool(flags & WRITING) if isinstance(flags, int) else mode not in (None, "r", "rb")
            )
            if is_writing and isinstance(path, str | bytes | os.PathLike):
                new = os.fspath(path) if not isinstance(flags, int) or not flags & os.O_RDWR else ""
                self._at(f"write {os.fsdecode(path)}", os.fsdecode(new))
        elif event in CHANGES and isinstance(args[0], str | bytes | os.PathLike):
            path = os.fsdecode(args[0])
            where = (
                args[-1]
                if isinstance(args[-1], int) and args[-1] >= 0 and not os.path.isabs(path)
                else None
            )
            if event in ("os.remove", "os.rmdir") and where is not None:
                path = os.path.join(os.readlink(f"/proc/self/fd/{where}"), path)
            self._at(f"{event.removeprefix('os.')} {path}", "")

    def _at(self, what: str, new: str) -> None:
        if self.folder not in what:
            return
        with self.lock:
            self.counted.append(what)
            count = len(self.counted)
            if self.kind == "kill" and count == self.at:
                os._exit(KILLED)
            if self.kind == "torn" and count == self.at:
                if new:
                    self.kind = "done"
                    with contextlib.suppress(OSError), open(new, "wb") as file:
                        file.write(b"\0" * 7)
                os._exit(KILLED)
            if self.kind == "errno" and (count == self.at or (self.lasting and count > self.at)):
                raise OSError(self.number, os.strerror(self.number), what.split(" ", 1)[1])


def _child(order: dict[str, Any], answer: int) -> None:
    """Do the job, write how it ended to the pipe, and go."""
    if "memory" in order:  # that the child may take beyond what it has from its parent
        with open("/proc/self/statm") as file:
            limit = order["memory"] + int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    faults = Faults(order["folder"], order.get("fault", {"kind": "count"}))
    if faults.kind != "off":
        faults.install()
    result: dict[str, Any] = {"error": None}
    try:
        module = importlib.import_module(order["module"])
        result["value"] = module.JOBS[order["job"]](
            Path(order["folder"]), **order.get("arguments", {})
        )
    except BaseException as error:  # whatever it is, it is the answer
        from vaearr.errors import VaearrError

        result["error"] = {
            "type": type(error).__name__,
            "message": str(error)[:2000],
            "exit_code": getattr(error, "exit_code", None),
            "is_ours": isinstance(error, VaearrError),
        }
    faults.kind = "done"
    result["changes"] = faults.counted
    with os.fdopen(answer, "w") as pipe:
        json.dump(result, pipe)
    os._exit(0)


def _do(order: dict[str, Any]) -> dict[str, Any]:
    """Fork, wait, and say how the child ended; kill it as hung after `timeout` seconds."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(order, writing)
    os.close(writing)
    end = time.monotonic() + order["timeout"]
    data, is_over = b"", False
    while not is_over:
        ready, _, _ = select.select([reading], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            os.kill(pid, signal.SIGKILL)
            break
        piece = os.read(reading, 2**16)
        data, is_over = data + piece, not piece
    os.close(reading)
    status = os.waitpid(pid, 0)[1]
    result: dict[str, Any] = {"code": os.waitstatus_to_exitcode(status), "hung": not is_over}
    result["killed"] = result["code"] == KILLED
    with contextlib.suppress(ValueError):
        result |= json.loads(data)
    return result


class Workshop:
    """The process, from outside."""

    def __init__(self, *modules: str) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "NUMBA_DISABLE_JIT": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.reliability.workshop", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def run(
        self, job: str, folder: Path, *, module: str = "tests.reliability.jobs", **order: Any
    ) -> dict[str, Any]:
        """Do a job; `order` may hold fault, memory, timeout, arguments."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {"job": job, "folder": str(folder), "module": module, "timeout": 120, **order}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def do(self, job: str, folder: Path, **order: Any) -> dict[str, Any]:
        """Like `run`, for a job that must succeed."""
        found = self.run(job, folder, **order)
        assert found.get("error", "no answer") is None, found
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def main() -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, as they are imported
        for module in sys.argv[1:]:
            importlib.import_module(module)
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what jobs print is not an answer
        for line in sys.stdin:
            answers.write(json.dumps(_do(json.loads(line))) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
