"""Single shards of a store that is being made, written by other processes than the one that publishes it."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import zarr

from vaearr import names as n
from vaearr.store.commit import sync_path
from vaearr.store.layout import Region
from vaearr.store.write import _chunk, _synced


def write_shard(folder: str | Path, region: Region, values: np.ndarray) -> tuple[Path, str]:
    """Write one whole shard of `patterns` durably; returns its file and checksum. No two processes share a shard."""
    array = zarr.open_group(folder, mode="r+", zarr_format=3)[n.PATTERNS]
    assert isinstance(array, zarr.Array)
    array.with_config({"write_empty_chunks": True})[tuple(region.values())] = values
    return _synced(_chunk(array, region, array.shards))


def can_write(folder: str) -> bool:
    """Whether this process sees the folder of a store that is being made, and may write there."""
    probe = Path(folder) / f".{uuid.uuid4().hex}"
    if not (Path(folder) / "zarr.json").exists():
        raise FileNotFoundError(f"there is no {folder}")
    probe.touch()
    sync_path(probe)
    probe.unlink()
    return True
