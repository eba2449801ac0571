"""The saved report in a real browser, opened from disk with every look-up of a host refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

import vaearr as va

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--virtual-time-budget=20000",
    "--window-size=1400,2600",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_page_draws_offline_without_errors(trained_store: Path, tmp_path: Path) -> None:
    page, picture = va.report(trained_store), tmp_path / "page.png"
    command = [
        str(CHROMIUM),
        *FLAGS,
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        [*command, f"--screenshot={picture}", page.resolve().as_uri()],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not [line for line in console if "rror" in line or "Uncaught" in line], console
    shown = matplotlib.image.imread(picture)[..., :3]
    assert shown.shape == (2600, 1400, 3)
    drawn = [n_close(shown, colour) for colour in ("#440154", "#21918c", "#fde725")]  # viridis: low, middle, high
    assert min(drawn) > 2000, drawn
    lower = shown[1300:]  # the linked and selectable maps are drawn by scripts; without them this part is plain
    assert min(n_close(lower, colour) for colour in ("#440154", "#fde725")) > 500


def n_close(picture: np.ndarray, colour: str) -> int:
    """Number of pixels within 8 % of a colour."""
    want = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return int((np.abs(picture - want).max(-1) < 0.08).sum())
