"""Running a notebook as a user would, in a folder of its own, with the interpreter of the tests."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat

FOLDER = Path(__file__).parents[2] / "notebooks"
LONGEST = 90.0  # seconds of one core, which do not depend on what else the machine does
KERNEL = "tests"


def run(name: str, folder: Path, monkeypatch: Any, *, as_pictures: bool = False) -> Any:
    """The executed notebook. Fails with the first error in a cell.

    as_pictures: give live figures a PNG as well.

    The kernel needs no registered kernel spec and no home: its spec, its files and what it writes
    are in `folder`.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    work = folder / "work"
    spec = folder / "kernels" / KERNEL
    for path in (work, spec):
        path.mkdir(parents=True)
    guard = Path(__file__).with_name("kernel.py")
    argv = [sys.executable, str(guard), "-f", "{connection_file}"]
    if as_pictures:
        argv.append("--pictures")
    own = {
        "HOME": str(folder),
        "TMPDIR": str(work),
        "IPYTHONDIR": str(folder / "ipython"),
        "OMP_NUM_THREADS": "1",
    }
    spec.joinpath("kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": KERNEL, "language": "python", "env": own})
    )
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    manager = AsyncKernelManager(kernel_name=KERNEL)
    manager.kernel_spec_manager = KernelSpecManager(
        kernel_dirs=[str(folder / "kernels")], ensure_native_kernel=False
    )
    client = NotebookClient(
        notebook,
        km=manager,
        kernel_name=KERNEL,
        timeout=600,
        resources={"metadata": {"path": str(work)}},
    )
    began, before = time.perf_counter(), _cpu_seconds()
    client.execute(cleanup_kc=True, stderr=subprocess.DEVNULL)
    took = _cpu_seconds() - before
    print(f"{name}: {took:.1f} s of one core, {time.perf_counter() - began:.1f} s by the clock")
    if not as_pictures:  # which take time of their own
        assert 0 < took < LONGEST, f"{name} took {took:.0f} s of one core"
    return notebook


def _cpu_seconds() -> float:
    """What processes that were started here and have ended have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def outputs(notebook: Any) -> list[Any]:
    """All outputs of all cells."""
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def n_figures(notebook: Any) -> tuple[int, int]:
    """How many bokeh views and how many pictures the outputs hold."""
    shown = [set(output.get("data", {})) for output in outputs(notebook)]
    views = sum(
        {"application/vnd.holoviews_exec.v0+json", "text/plain"} <= kinds for kinds in shown
    )
    return views, sum("image/png" in kinds for kinds in shown)


def check(notebook: Any, *, views: int, pictures: int) -> None:
    """Nothing in an output is an error or a complaint, and the figures are there."""
    for output in outputs(notebook):
        assert output.output_type != "error", output.evalue
        assert output.get("name") != "stderr", output.text
    assert n_figures(notebook) == (views, pictures)
