"""The explorer on a large scan: how soon it is there, how soon it answers, what memory it takes:
`make bench`.

VAEARR_BENCH_EXPLORE=400x295 sets the scan points and VAEARR_BENCH_EXPLORE_LATENTS=64 the latent
dimensions of the simulated scan; VAEARR_BENCH_EXPLORE_STORE names a store that is used as it is, or
made there where none is. The network is trained for one epoch: what it says of the scan does not
matter here, its size does. Nothing here can fail on speed. Read the table.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import vaearr as va
from tests.contract.browser import CHROMIUM, Page, browser
from vaearr.testing import synthetic_scan, write_scan_files

pytestmark = [pytest.mark.benchmarks, pytest.mark.filterwarnings("default")]

NX, NY = map(int, os.environ.get("VAEARR_BENCH_EXPLORE", "100x60").split("x"))
LATENTS = int(os.environ.get("VAEARR_BENCH_EXPLORE_LATENTS", "64"))
STORE = os.environ.get("VAEARR_BENCH_EXPLORE_STORE")
MOVES, PANS = 20, 5
LINES: list[str] = []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(STORE) if STORE else tmp_path_factory.mktemp("explore") / "scan.zarr"
    if not path.exists():
        scan = synthetic_scan(nx=NX, ny=NY, n_grains=max(8, NX * NY // 80), n_twins=NX * NY // 3000)
        files = write_scan_files(scan, path.parent / f"{path.stem}_files")
        va.ingest(
            files["patterns"], path, maps={"BC": files["BC"]}, elements=files["elements"], phases=files["phase"],
            step=0.25,
        )  # fmt: skip
        va.train(path, latent_dim=LATENTS, epochs=1)
        va.encode(path)
    ds = va.open_store(path)
    LINES.append(
        f"{path.name}: {ds.sizes['y'] * ds.sizes['x']} scan points, {ds.sizes['latent']} latent dimensions"
    )
    return path


def _memory(pid: int) -> float:
    """Resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_page(store: Path, tmp_path: Path) -> None:
    """From the command to the page, and from a slider to its picture, in a browser on this machine."""
    LINES.append(f"page: {opened(store, tmp_path / 'profile')}")


def opened(store: Path, profile: Path) -> str:
    """What opening, moving a slider and dragging the map takes, in words."""
    command = [sys.executable, "-m", "vaearr", "explore", str(store), "--no-show"]
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = None
            for line in server.stdout:
                if found := re.search(r"http://\S+", line):
                    address = found[0]
                    break
            assert address, "the server ended"
            threading.Thread(
                target=server.stdout.read, daemon=True
            ).start()  # so that it never blocks
            listening = time.perf_counter() - began
            with browser(profile) as page:
                loads = []
                for _ in range(3):
                    loaded = time.perf_counter()
                    page.go(address)
                    page.until(DRAWN)
                    loads.append(time.perf_counter() - loaded)
                    page.until(DECODED)
                    decoded = time.perf_counter() - loaded
                before = _memory(server.pid)
                moves, pans = page.run(MOVE), [_panned(page) for _ in range(PANS)]
                assert not page.errors
                return (
                    f"listening after {listening:.2f} s, drawn {loads[0]:.2f} s later, again {loads[-1]:.2f} s, "
                    f"with the decoded picture {decoded:.2f} s; slider to picture {np.median(moves):.0f} ms "
                    f"({max(moves):.0f} ms at most of {MOVES}); map dragged in {1e3 * np.median(pans):.0f} ms; "
                    f"server {before:.0f} MiB, then {_memory(server.pid):.0f}"
                )
        finally:
            server.terminate()


def _panned(page: Page) -> float:
    """Seconds from the start of a drag of the map until the next picture after it."""
    left, top = page.run(CENTRE)
    began = time.perf_counter()
    for kind, at in (
        ("mousePressed", 0),
        ("mouseMoved", 20),
        ("mouseMoved", 40),
        ("mouseReleased", 40),
    ):
        button = {"button": "left", "buttons": 1, "clickCount": 1}
        page.call("Input.dispatchMouseEvent", type=kind, x=left + at, y=top + at, **button)
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return time.perf_counter() - began


LIVE = """deep((e) => e.tagName === "IMG" && e.alt === "from the sliders")[0]"""
DRAWN = "!!window.deep && deep((e) => e.tagName === 'CANVAS').some((e) => e.width > 100)"
CENTRE = """(() => {
  const map = deep((e) => e.tagName === "CANVAS" && e.width > 100)[0].getBoundingClientRect();
  return [map.left + map.width / 2, map.top + map.height / 2];
})()"""
DECODED = f"!!window.deep && !!{LIVE}"
MOVE = f"""(async () => {{
  const handles = deep((e) => e.getAttribute("role") === "slider" && e.getBoundingClientRect().width);
  const found = [];
  for (let i = 0; i < {MOVES}; i++) {{
    const before = {LIVE}.src, began = performance.now();
    handles[1].dispatchEvent(new KeyboardEvent("keydown", {{ key: "ArrowRight", bubbles: true }}));
    while (({LIVE}?.src ?? before) === before) await new Promise((done) => setTimeout(done, 0));
    found.push(performance.now() - began);
    await new Promise((done) => setTimeout(done, 50));
  }}
  return found;
}})()"""
