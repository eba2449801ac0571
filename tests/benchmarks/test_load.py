"""Commands beside two busy processes, against the same commands alone. About four minutes on two idle cores.

Alone and beside the load take turns, and medians are compared. CPU seconds tell spinning threads from waiting ones also
where the machine is not idle. The first row lets threads wait as libgomp does unasked.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from vaearr.store import create_store
from vaearr.testing import synthetic_scan

pytestmark = pytest.mark.benchmarks

PAIRS, BUSY = 3, 2
NEVER_WAITS = (
    "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(1_000_000))"  # nor outlives it
)
SPINNING = {"GOMP_SPINCOUNT": "300000"}
VAEARR = (sys.executable, "-m", "vaearr")
DECODE = """
import sys
import numpy as np
import vaearr as va
model = va.load_model(sys.argv[1])
for z in np.random.default_rng(0).normal(size=(500, 1, model.latent_shape[0])).astype("float32"):
    model.decode(z)
"""
COMMANDS = {
    "train": (*VAEARR, "train", "{}", "--run", "again", "--epochs", "4"),
    "encode": (*VAEARR, "encode", "{}"),
    "associate": (*VAEARR, "associate", "{}", "--metric", "all"),
    "decode, as explore does": (sys.executable, "-c", DECODE, "{}"),
}
SAID = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # the tests' own, not a user's


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """3 072 patterns with a short run; for `encode` without latents, for the others with them."""
    folder = tmp_path_factory.mktemp("load")
    trained = create_store(synthetic_scan(nx=64, ny=48, n_grains=72, n_twins=10), folder / "trained.zarr")
    subprocess.run([*VAEARR, "train", trained, "--epochs", "1"], check=True, capture_output=True)
    encoded = shutil.copytree(trained, folder / "encoded.zarr")
    subprocess.run([*VAEARR, "encode", encoded], check=True, capture_output=True)
    return {"encode": Path(trained)} | {name: Path(encoded) for name in COMMANDS if name != "encode"}


@contextmanager
def load(n: int) -> Iterator[None]:
    """So many processes that never wait."""
    busy = [subprocess.Popen([sys.executable, "-c", NEVER_WAITS]) for _ in range(n)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measured(command: Sequence[str], store: Path, folder: Path, said: dict[str, str]) -> tuple[float, float]:
    """Seconds, and CPU seconds, of a command on a fresh copy of a store."""
    shutil.rmtree(folder, ignore_errors=True)
    copy = shutil.copytree(store, folder / "scan.zarr")
    environment = {key: value for key, value in os.environ.items() if key not in SAID} | said
    began = time.perf_counter()
    process = subprocess.Popen(
        [part.format(copy) if part == "{}" else part for part in command],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


@pytest.mark.parametrize(("name", "said"), [("train", SPINNING), *((name, {}) for name in COMMANDS)])
def test_beside_two_busy_processes(name: str, said: dict[str, str], stores: dict[str, Path], tmp_path: Path) -> None:
    found: dict[int, list[tuple[float, float]]] = {0: [], BUSY: []}
    for _ in range(PAIRS):
        for n, times in found.items():
            with load(n):
                times.append(measured(COMMANDS[name], stores[name], tmp_path / "copy", said))
    medians = [[statistics.median(column) for column in zip(*times, strict=True)] for times in found.values()]
    (alone, cpu), (beside, cpu_beside) = medians
    spread = ", ".join(f"{b[0] / a[0]:.2f}" for a, b in zip(*found.values(), strict=True))
    print(
        f"\n{name}{', threads spin' if said else ''}: alone {alone:.1f} s (CPU {cpu:.1f}), beside {BUSY} busy "
        f"processes {beside:.1f} s (CPU {cpu_beside:.1f}): {beside / alone:.2f} x (pairs {spread}), target <= 2.5"
    )
