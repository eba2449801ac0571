"""How often the commands open a store and a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import pytest
import zarr

from .harness import TINY, vaearr

MOST_OF_A_STORE, MOST_OF_A_SOURCE = 2, 3
STEPS = {
    "train": ("--epochs", 1, *TINY),
    "encode": (),
    "associate": (),
    "cluster": ("--method", "kmeans", "--k", 3),
}


def opened_stores(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list to which the path of each store is added whenever it is opened."""
    opened: list[Path] = []
    open_group = zarr.open_group

    def counting(store: Any, *args: Any, **kwargs: Any) -> zarr.Group:
        opened.append(Path(getattr(store, "root", store)))
        return open_group(store, *args, **kwargs)

    monkeypatch.setattr(zarr, "open_group", counting)
    return opened


def test_each_command_opens_the_store_at_most_twice(
    scan_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = opened_stores(monkeypatch)
    counts = {}
    for command, options in STEPS.items():
        # nothing is known of a store at a new path, as in a new process
        scan_store = scan_store.rename(scan_store.with_name(f"{command}.zarr"))
        opened.clear()
        vaearr(command, scan_store, *options)
        counts[command] = opened.count(scan_store)
    assert all(1 <= count <= MOST_OF_A_STORE for count in counts.values()), counts


def test_an_ingest_opens_its_file_at_most_three_times(
    scan_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    class Counting(h5py.File):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            opened.append(args[0])
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(h5py, "File", Counting)
    vaearr("ingest", scan_files["patterns"], tmp_path / "scan.zarr", "--bc", scan_files["BC"])
    assert 1 <= len(opened) <= MOST_OF_A_SOURCE, opened
