"""The shards of `patterns` in a store that is being made: each written whole, by one process, synced and summed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from vaearr import names as n
from vaearr import schema
from vaearr.store import layout
from vaearr.store.attributes import flat
from vaearr.store.folders import sync_path
from vaearr.store.read import read_ahead, read_block
from vaearr.store.seals import AT_ONCE, sha256_of

MOST_WAITING = 2 * AT_ONCE  # shards that are on the disk and not sent yet
Transform = Callable[[np.ndarray, layout.Region], np.ndarray]
Progress = Callable[[int, int], None]
Elsewhere = Callable[[Path, Sequence[layout.Region]], Generator[tuple[Path, str], None, None]]


def stream_patterns(
    ds: xr.Dataset,
    group: zarr.Group,
    transform: Transform | None,
    progress: Progress | None,
    send: Callable[[Path], None] | None = None,
    elsewhere: Elsewhere | None = None,
) -> dict[Path, str]:
    """Write the patterns; returns the checksum of each shard's file, taken while it was in memory anyway.

    send: called with each shard once it is on the disk; few wait for it at a time. elsewhere(folder,
    regions): has other processes write the shards, and gives the file and checksum of each.
    """
    patterns = ds[n.PATTERNS]
    array = _create(ds, group)
    sizes = {dim: ds.sizes[dim] for dim in schema.navigation_dims(ds)}
    regions = list(layout.blocks(sizes, dict(zip(sizes, array.chunks, strict=False))))
    if elsewhere:
        return _from_elsewhere(elsewhere, Path(str(group.store_path).removeprefix("file://")), regions, progress)

    def write(region: layout.Region, data: np.ndarray) -> None:
        array[tuple(region.values())] = data
        syncing.append(syncer.submit(_synced, chunk_file(array, region), send))
        if send and len(syncing) > MOST_WAITING:
            syncing[-MOST_WAITING].result()

    read = read_ahead(lambda region: read_block(patterns, region), regions)
    # the disk works while the next is encoded
    with ThreadPoolExecutor(AT_ONCE if send else 1) as syncer, ThreadPoolExecutor(1) as behind:
        syncing: list[Future[tuple[Path, str]]] = []
        writing: Future[None] | None = None
        for i, (region, data) in enumerate(zip(regions, read, strict=True)):
            checked = transform(data, region) if transform else data
            if writing:
                _written(writing, i, len(regions), progress)
            writing = behind.submit(write, region, checked)
        if writing:
            _written(writing, len(regions), len(regions), progress)
        return dict(done.result() for done in syncing)


def _from_elsewhere(
    elsewhere: Elsewhere, folder: Path, regions: Sequence[layout.Region], progress: Progress | None
) -> dict[Path, str]:
    """Checksums of shards that other processes write; what killed ones left, `seal` removes."""
    sums = {}
    with closing(elsewhere(folder, regions)) as written:  # whatever happens, nobody writes any more when it is closed
        for shard, checksum in written:
            sums[shard] = checksum
            if progress:
                progress(len(sums), len(regions))
    return sums


def _create(ds: xr.Dataset, group: zarr.Group) -> zarr.Array:
    patterns, nav, sig = ds[n.PATTERNS], schema.navigation_dims(ds), schema.signal_dims(ds)
    shape = tuple(ds.sizes[d] for d in nav), tuple(ds.sizes[d] for d in sig)
    return group.create_array(
        n.PATTERNS,
        shape=patterns.shape,
        dtype=patterns.dtype,
        chunks=layout.pattern_chunks(*shape, patterns.dtype.itemsize),
        compressors=layout.pattern_codecs(),
        fill_value=layout.fill_value(patterns.dtype),
        dimension_names=[*nav, *sig],
        attributes=flat(patterns.attrs),
        config={"write_empty_chunks": True},  # so that a chunk that is not there is known to be lost
    )


def _synced(shard: Path, send: Callable[[Path], None] | None = None) -> tuple[Path, str]:
    sync_path(shard)
    found = shard, sha256_of(shard)
    if send:
        send(shard)
    return found


def _written(writing: Future[None], count: int, total: int, progress: Progress | None) -> None:
    writing.result()
    if progress:
        progress(count, total)


def chunk_file(array: zarr.Array, region: layout.Region) -> Path:
    """The file of the chunk that starts a region."""
    index = [s.start // size for s, size in zip(region.values(), array.chunks, strict=False)]
    index += [0] * (array.ndim - len(index))
    return Path(str(array.store_path).removeprefix("file://")) / "c" / "/".join(map(str, index))


def write_shard(folder: str | Path, region: layout.Region, values: np.ndarray) -> tuple[Path, str]:
    """Write one whole shard of `patterns` durably; returns its file and checksum. No two processes share a shard."""
    array = zarr.open_group(folder, mode="r+", zarr_format=3)[n.PATTERNS]
    assert isinstance(array, zarr.Array)
    array.with_config({"write_empty_chunks": True})[tuple(region.values())] = values
    return _synced(chunk_file(array, region))
