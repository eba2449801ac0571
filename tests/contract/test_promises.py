"""What holds in any weather: kills, second writers, refusals, memory, no network (promises P1 to
P5, P8, P9, P11).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from . import inputs
from .harness import BUSY, TINY, command, spawn, tree, vaearr, zarr

LONG = (
    "--x",
    "0:2",
    "--epochs",
    4,
    "--set",
    "batch_size=16",
    "--set",
    "checkpoint_minutes=1e-6",
    *TINY,
)
WEIGHTS = Path("runs", "vae", "model", "weights.safetensors")


@contextmanager
def stopped_at(words: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process of a command, stopped (SIGSTOP) when it prints `words` and killed at the end."""
    process = subprocess.Popen(
        command(*arguments), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    lines = []
    try:
        for line in process.stderr:
            os.setpriority(os.PRIO_PROCESS, process.pid, 19)  # the test reads before it continues
            lines.append(line)
            if words in line:
                break
        assert process.poll() is None, "".join(lines)
        os.kill(process.pid, signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_killed_training_goes_on_bit_for_bit(scan_template: Path, tmp_path: Path) -> None:
    """And while it runs: nothing of it is visible, readers read, a second writer is refused and
    told by whom.
    """
    killed, whole = (
        Path(shutil.copytree(scan_template, tmp_path / name / "a.zarr"))
        for name in ("killed", "whole")
    )
    before = tree(killed)
    with stopped_at("epoch 2/4", "train", killed, *LONG) as process:
        assert tree(killed) == before
        xr.testing.assert_identical(zarr(killed), zarr(whole))
        np.save(tmp_path / "map.npy", inputs.quality())
        done = vaearr(
            "attach", killed, tmp_path / "map.npy", "--kind", "map", "--name", "late", code=BUSY
        )
        assert str(process.pid) in done.error
    assert tree(killed) == before
    assert "is intact" in vaearr("verify", killed).out
    for store in (killed, whole):
        vaearr("train", store, *LONG)
    assert (killed / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    one, other = (zarr(store, "runs/vae/history") for store in (killed, whole))
    xr.testing.assert_equal(one.drop_vars("seconds"), other.drop_vars("seconds"))
    np.testing.assert_array_equal(zarr(killed).split, zarr(whole).split)


def test_killed_encoding_is_no_result_and_goes_on(tmp_path: Path) -> None:
    rows, columns = (axis.ravel() for axis in np.mgrid[:45, :12])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = (
            np.random.default_rng(0).integers(0, 255, (len(rows), 9, 10)).astype("uint8")
        )
        file["coords"] = np.stack([columns, rows], 1)
    store = tmp_path / "a.zarr"
    vaearr("ingest", tmp_path / "a.h5", store)
    vaearr("train", store, "--epochs", 1, *TINY)
    whole = Path(shutil.copytree(store, tmp_path / "whole" / "a.zarr"))
    with stopped_at("scan points", "encode", store, "--set", "batch_size=1"):
        assert "latents" not in zarr(store)
    assert "latents" not in zarr(store)
    assert "is intact" in vaearr("verify", store).out
    vaearr("encode", store, "--set", "batch_size=1")
    vaearr("encode", whole, "--set", "batch_size=1")
    for name in ("latents", "latents_std", "reconstruction_error"):
        np.testing.assert_array_equal(zarr(store)[name], zarr(whole)[name])
    assert "is intact" in vaearr("verify", store).out


REFUSED: dict[str, tuple[object, ...]] = {
    "unknown run": ("encode", "STORE", "--run", "nosuch"),
    "run that is there": ("train", "STORE", "--epochs", 3),
    "name that is taken": ("cluster", "STORE", "--method", "gmm", "--k", 2, "--name", "grains"),
    "name of the data": ("cluster", "STORE", "--name", "patterns"),
    "empty region": ("train", "STORE", "--run", "b", "--where", "BC > 1000"),
    "unknown setting": ("train", "STORE", "--run", "b", "--set", "learnrate=1"),
    "setting out of bounds": ("train", "STORE", "--run", "b", "--beta", "-1"),
    "unknown model": ("train", "STORE", "--run", "b", "--model", "gan"),
    "unknown map": ("associate", "STORE", "--target", "Xy"),
    "unknown metric": ("associate", "STORE", "--metric", "pearsn"),
    "other settings of what is there": (
        "train",
        "STORE",
        "--run",
        "pca",
        "--model",
        "pca",
        "--latent-dim",
        2,
    ),
    "missing file": ("attach", "STORE", "nosuch.npy", "--kind", "map", "--name", "more"),
    "no store": ("info", "nosuch.zarr"),
    "no number": ("train", "STORE", "--run", "b", "--x", "a:b"),
    "bad name": ("train", "STORE", "--run", "../b"),
    "missing weights": ("import", "STORE", "nosuch.safetensors", "--run", "b"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_change_nothing(name: str, trained_template: Path) -> None:
    """One line, an exit code, and every byte of the store as it was."""
    before = tree(trained_template)
    arguments = [trained_template if part == "STORE" else part for part in REFUSED[name]]
    done = vaearr(*arguments, code=None)
    assert done.code not in (0, 70)
    assert len(done.error) > 10
    assert tree(trained_template) == before


def test_what_is_there_stays_as_it_is(trained_store: Path) -> None:
    """Adding results changes no byte of the arrays and runs that are there."""
    before = {name: digest for name, digest in tree(trained_store).items() if "/" in name}
    del before["runs/zarr.json"]  # the list of all arrays that have checksums
    vaearr("cluster", trained_store, "--method", "kmeans", "--k", 2, "--name", "halves")
    vaearr("train", trained_store, "--run", "b", "--epochs", 1, *TINY)
    vaearr("encode", trained_store, "--run", "b")
    assert before.items() <= tree(trained_store).items()
    assert "is intact" in vaearr("verify", trained_store).out


MEMORY = """
import resource, sys
import vaearr as va
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
import torch, h5py, zarr, pandas, PIL.Image, nibabel  # what is imported in any case
va.ingest(sys.argv[1], sys.argv[2])
before = peak()
va.ingest(sys.argv[3], sys.argv[4])
ingested = peak()
ds = va.open_store(sys.argv[4])
count = 0
for epoch in range(2):
    for batch in va.batches(ds, batch_size=64, memory=0.02):
        count += 1
print(before, ingested, peak(), count)
"""


@pytest.mark.slow
def test_memory_stays_within_the_allowance(tmp_path: Path) -> None:
    """A scan of 192 MiB is ingested and streamed twice with 20 MiB of patterns at a time."""
    side, shape = 256, (96, 32)
    for name, (rows, columns) in {"small": (2, 3), "large": shape}.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            y, x = (axis.ravel() for axis in np.mgrid[:rows, :columns])
            images = file.create_dataset(
                "images", (rows * columns, side, side), "uint8", chunks=(6, side, side)
            )
            block = np.random.default_rng(0).integers(0, 4, (1, side, side)).astype("uint8")
            for start in range(0, rows * columns, 256):
                images[start : start + 256] = block + (
                    np.arange(start, min(start + 256, len(x)))[:, None, None] % 200
                )
            file["coords"] = np.stack([x, y], 1)
    files = [str(tmp_path / name) for name in ("small.h5", "small.zarr", "large.h5", "large.zarr")]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *files], capture_output=True, text=True, check=True
    )
    before, ingested, streamed, count = map(float, done.stdout.split())
    assert count == 2 * np.prod(shape) / 64
    assert ingested - before < 150, done.stdout
    assert streamed - ingested < 100, done.stdout


def test_nothing_connects_or_listens(
    trained_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was used")

    for name in ("connect", "connect_ex", "bind", "listen"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    vaearr("info", trained_store)
    vaearr("train", trained_store, "--run", "b", "--epochs", 1, *TINY)
    vaearr("encode", trained_store, "--run", "b")
    vaearr("associate", trained_store, "--run", "b", "--metric", "pearson")
    vaearr("look", "sample", trained_store, "--n", 1)
    vaearr("verify", trained_store)
    vaearr("export", trained_store, tmp_path / "out")


def test_help_is_quick_and_quiet(tmp_path: Path) -> None:
    """In a process of its own, in an empty folder: a screen of commands, and nothing left behind."""
    done = spawn("--help", cwd=tmp_path)
    assert "ingest" in done.out
    assert not done.err
    assert not list(tmp_path.iterdir())
