"""Open a store. Readers never wait for a lock."""

from __future__ import annotations

import errno
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import xarray as xr
import zarr
from zarr.errors import GroupNotFoundError
from zarr.storage import StorePath

from vaearr import names as n
from vaearr.borrowed import ZarrArrayWrapper, indexing
from vaearr.errors import DataError, ExistsError, NoInputError, UsageError, VaearrError, did_you_mean
from vaearr.provenance import parsed
from vaearr.store import copies
from vaearr.store.attributes import root_attributes
from vaearr.store.creation import check_free
from vaearr.store.folders import is_there
from vaearr.store.layout import Region, blocks
from vaearr.store.objects import Objects
from vaearr.store.pipeline import damaged, for_reading
from vaearr.store.seals import was_published
from vaearr.store.urls import copied_url, local_path, reach, read_only_url
from vaearr.store.whole import WholeStore

Item = TypeVar("Item")
Value = TypeVar("Value")

MOST_TRIES = 100
OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}  # a source's own copy, made as it is read
NOT_A_STORE = (GroupNotFoundError, NotADirectoryError, ValueError, KeyError)


def place_of(path: str | Path) -> Path:
    """The folder on this machine where a store is, or where its working copy is; nothing need be there."""
    url = copied_url(path)
    if url is None:
        return local_path(path).expanduser().resolve()
    objects = Objects(url)
    return copies.place(objects.url, objects.endpoint)


def here(path: str | Path, storage_options: Mapping[str, Any] | None = None) -> Path:
    """`place_of`, with the working copy brought up to date. Raises NoInputError where a URL has no store."""
    url = copied_url(path)
    return copies.pull(url, storage_options) if url else place_of(path)


def stored_bytes(path: str | Path) -> int:
    """Bytes of all files, or objects, of a store."""
    if url := copied_url(path):
        return sum(stamp.size for stamp in Objects(url).below())
    return sum(file.stat().st_size for file in local_path(path).expanduser().rglob("*") if file.is_file())


def refuse_taken(path: str | Path) -> None:
    """Raise ExistsError where a new store would stand in the place of something."""
    if url := copied_url(path):
        check_free(Objects(url))
        return
    target = local_path(path).expanduser()
    if target.exists() or target.is_symlink():
        raise ExistsError(f"{target} already exists; give another path, or remove it first if you mean to replace it.")


def check_store(path: str | Path) -> Path:
    """The real path of an existing vaearr store on this machine; for `s3://…` its working copy, up to date.

    Raises NoInputError or DataError that says what is there instead, UsageError for a URL that can only be read.
    """
    return _checked(here(path))


def _checked(store: Path) -> Path:
    _root(store)
    return store


def _root(store: Path) -> zarr.Group:
    """The root group of a store on this machine, for reading, with what it lists."""
    try:
        listing = (store / "zarr.json").stat()
    except OSError:
        return _open_root(store)  # which says what is wrong
    return _listed_root(store, listing.st_ino, listing.st_mtime_ns, listing.st_size)


@lru_cache(maxsize=8)
def _listed_root(store: Path, *of_the_file: int) -> zarr.Group:
    """`_open_root`, once for the same file: of a store with many variables it takes as long as all else."""
    return _open_root(store)


def _open_root(store: Path) -> zarr.Group:
    if not store.exists():
        raise NoInputError(f"there is no store at {store}; make one with 'vaearr ingest SOURCE {store}'.")
    try:
        group = zarr.open_group(store, mode="r", zarr_format=3)
        _check_version(copies.shown(store), group)
    except VaearrError:
        raise
    except PermissionError as error:
        raise NoInputError(f"{store} may not be read ({error.strerror}); change its permissions.") from None
    except Exception as error:  # zarr raises many kinds for damaged metadata
        named = copies.shown(store)
        raise DataError(
            f"{named} is not a zarr v3 store ({type(error).__name__}); give the path of one. If it was one, 'vaearr "
            f"verify {named}' says what is damaged."
        ) from None
    return group


def _check_version(store: str | Path, group: zarr.Group) -> None:
    version = root_attributes(group, store).get(n.SCHEMA_VERSION)
    if not isinstance(version, int):
        raise DataError(
            f"{store} is a zarr store, but not one of vaearr's; make one of it with 'vaearr ingest {store} NEW.zarr'."
        )
    if version > n.SCHEMA:
        raise DataError(f"{store} has schema version {version}, this vaearr knows {n.SCHEMA}; update vaearr.")


def open_group(path: str | Path, storage_options: Mapping[str, Any] | None = None) -> zarr.Group:
    """The root group of a vaearr store on this machine or at a URL, for reading."""
    url = read_only_url(path)
    if url is None:
        return _root(here(path, storage_options))
    with reach(url):
        try:
            group = zarr.open_group(url, mode="r", zarr_format=3, storage_options=dict(storage_options or {}) or None)
        except NOT_A_STORE as error:
            if "rotocol" in str(error):  # fsspec: "Protocol not known"
                raise UsageError(f"{url} cannot be read: {' '.join(str(error).split())}; check the URL.") from None
            raise NoInputError(f"there is no zarr v3 store at {url} ({type(error).__name__}); check the URL.") from None
    _check_version(url, group)
    return group


def open_store(
    path: str | Path,
    *,
    chunks: Literal["shards"] | None = "shards",
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """The store's root group as a lazy Dataset; `chunks="shards"` for dask blocks of what was written whole, None for
    no dask.

    path: a folder, or a URL with its `storage_options`: `s3://…`, of which all but the patterns is read from a working
    copy, or any that fsspec knows (`https://…`).
    """
    url = read_only_url(path)
    path = path if url else here(path, storage_options)
    group = open_group(path, storage_options)
    with reach(url) if url else _opening(Path(path)):
        store = group.store if url else WholeStore(Path(path), read_only=True)
        ds = xr.open_zarr(store, chunks=None, zarr_format=3)
    if n.SCHEMA_VERSION not in ds.attrs:
        ds.attrs = root_attributes(group, url or copies.shown(Path(path)))
    if n.PATTERNS in ds:
        array = group[n.PATTERNS]
        if url is None and (record := copies.record_of(Path(path))):
            array = _far(array, Objects(record.url, storage_options) if storage_options else copies.objects_of(record))
        ds = ds.assign({n.PATTERNS: _read_whole(ds[n.PATTERNS], array)})
    for name, variable in ds.variables.items():
        if name != n.PATTERNS and (stored := _handle(variable)):
            for_reading(stored, is_full=False)
    ds.encoding["source"] = url or str(copies.shown(Path(path)))  # steps on the Dataset keep it
    if chunks is None:
        return ds
    return ds.assign(
        {name: variable.variable.chunk(_written_whole(variable)) for name, variable in ds.data_vars.items()}
    )


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """What damaged metadata or coordinates raise, as one DataError."""
    try:
        yield
    except VaearrError:
        raise
    except Exception as error:  # codecs have errors of their own
        reason, named = " ".join(f"{type(error).__name__}: {error}".split()), copies.shown(path)
        raise DataError(
            f"{named} cannot be opened ({reason[:200]}); 'vaearr verify {named}' says what is damaged and what to do."
        ) from error


def _far(array: zarr.Array | zarr.Group, objects: Objects) -> zarr.Array:
    """The patterns of a working copy, of which it has the metadata only, to be read where they are."""
    assert isinstance(array, zarr.Array)
    path = StorePath(objects.zarr_store(), f"{objects.name}/{n.PATTERNS}")
    return zarr.Array(zarr.AsyncArray(metadata=array.metadata, store_path=path, config=array.async_array.config))


def _written_whole(variable: xr.DataArray) -> dict[Any, int]:
    sides = variable.encoding.get("shards") or variable.encoding.get("chunks") or variable.shape
    return {dim: min(side, size) for dim, side, size in zip(variable.dims, sides, variable.shape, strict=True)}


def _read_whole(variable: xr.DataArray, array: zarr.Array | zarr.Group) -> xr.DataArray:
    """The same variable, whose lost chunks are errors; as it is where xarray decodes the stored values."""
    fill = variable.encoding.get("_FillValue")
    is_changed = {"scale_factor", "add_offset", "missing_value"} & set(variable.encoding)
    is_masked = fill is not None and not (variable.dtype.kind == "f" and np.isnan(fill))  # NaN for NaN is no change
    if not isinstance(array, zarr.Array) or array.dtype != variable.dtype or is_changed or is_masked:
        return variable
    lazy = indexing.LazilyIndexedArray(ZarrArrayWrapper(for_reading(array)))
    return variable.copy(data=indexing.MemoryCachedArray(lazy))


def _handle(variable: xr.Variable) -> zarr.Array | None:
    """The stored array behind a lazy variable, however xarray decodes it; None for one in memory."""
    data: Any = variable._data
    while not isinstance(data, ZarrArrayWrapper | np.ndarray | None):
        data = getattr(data, "array", None)
    return data.get_array() if isinstance(data, ZarrArrayWrapper) else None


def _patterns(store: Path) -> zarr.Array:
    patterns = _root(store)[n.PATTERNS]
    assert isinstance(patterns, zarr.Array)
    return patterns


def block_shape(store: Path) -> dict[str, int]:
    """Scan points per shard along each navigation dim: the unit of writing."""
    patterns = _patterns(store)
    dims = patterns.attrs[n.NAVIGATION_DIMS]
    assert isinstance(dims, list)
    shape = patterns.shards or patterns.chunks
    return {str(dim): size for dim, size in zip(dims, shape, strict=False)}


def store_blocks(path: str | Path) -> list[Region]:
    """The shards of a store as regions `{dim: slice}` of its navigation grid, row-major."""
    store = check_store(path)
    block = block_shape(store)
    return list(blocks(dict(zip(block, _patterns(store).shape, strict=False)), block))


def run_names(path: str | Path) -> list[str]:
    """Names of the trained runs in a store: those that are listed, so that one whose publication was killed is none."""
    group = open_group(path)
    if read_only_url(path) or group.metadata.consolidated_metadata is not None:
        runs = group.get(n.RUNS)
        return sorted(runs.group_keys()) if isinstance(runs, zarr.Group) else []
    folder = check_store(path) / n.RUNS
    return sorted(child.name for child in folder.iterdir() if (child / "zarr.json").exists()) if folder.exists() else []


def run_folder(path: str | Path, run: str) -> Path:
    """Folder of a run. Raises NoInputError that lists the runs there are."""
    store = check_store(path)
    _check_run(path, run)
    for name in (f"{n.RUNS}/{run}", f"{n.RUNS}/{run}/{n.MODEL}"):
        for file in os.listdir(store / name) if is_there(store, name) else ():
            is_there(store, f"{name}/{file}")
    return store / n.RUNS / run


def _check_run(path: str | Path, run: str) -> str | Path:
    store = read_only_url(path) or check_store(path)
    known = run_names(store)
    if run not in known:
        named = copies.shown(store) if isinstance(store, Path) else store
        hint = did_you_mean(run, known) if known else f" It has none yet: 'vaearr train {named}'."
        raise NoInputError(f"{named} has no run {run!r}.{hint}")
    return store


def run_manifest(path: str | Path, run: str) -> dict[str, Any]:
    """What produced a run: config, data fingerprint, model hash, versions, time."""
    store = _check_run(path, run)
    try:
        return dict(open_group(store)[f"{n.RUNS}/{run}"].attrs)  # as it is listed: as it was published
    except (ValueError, KeyError, GroupNotFoundError) as error:
        where = f"{store}/{n.RUNS}/{run}/zarr.json"
        raise DataError(f"run {run!r} is damaged: {where} cannot be read ({error}).") from None


def has_table(path: str | Path, run: str, name: str) -> bool:
    """Whether a run holds the table (`history`, `health`, `association`…)."""
    store = _check_run(path, run)
    if isinstance(store, Path):
        return (store / n.RUNS / run / name / "zarr.json").exists()
    return f"{n.RUNS}/{run}/{name}" in open_group(store)


def open_table(path: str | Path, run: str, name: str) -> xr.Dataset:
    """A table of a run, in memory. Raises NoInputError when it has not been made yet."""
    if not has_table(path, run, name):
        raise NoInputError(f"run {run!r} of {path} has no table {name!r} yet.")
    if read_only_url(path):  # by the root's listing: not every server lists folders
        group = open_group(path)[f"{n.RUNS}/{run}/{name}"]
        assert isinstance(group, zarr.Group)
        table = xr.open_dataset(xr.backends.ZarrStore(group, mode="r"), chunks=None).load()
    else:
        table = _whole_table(check_store(path), f"{n.RUNS}/{run}/{name}")
    ones: list[Any] = [table, *table.variables.values()]
    for one in ones:
        one.attrs = {key: parsed(value) for key, value in one.attrs.items()}
    return table.rename({n.run_name(n.LATENT, run): n.LATENT}) if n.run_name(n.LATENT, run) in table.dims else table


def _whole_table(store: Path, key: str) -> xr.Dataset:
    """A table as it was published, though another may take its place meanwhile: chunks of one that went read as NaN."""
    folder, is_changed = store / key, False
    for _ in range(MOST_TRIES):
        try:
            before = (folder / "zarr.json").stat()
            try:
                whole = WholeStore(store, read_only=True)
                table = xr.open_zarr(whole, group=key, consolidated=False, chunks=None, zarr_format=3).load()
            except Exception as error:  # codecs have errors of their own, for old metadata with new chunks too
                if _is_other(folder, before):
                    continue
                if isinstance(error, VaearrError):
                    raise
                raise DataError(
                    f"{folder} cannot be read ({' '.join(str(error).split())}); 'vaearr verify STORE' says what to do."
                ) from error
        except FileNotFoundError:  # between the old and the new
            time.sleep(0.01)
            continue
        if not _is_other(folder, before):
            listed = _root(store).get(key)
            own = zarr.open_group(folder, mode="r", zarr_format=3)
            is_changed = listed is not None and json.dumps(dict(listed.attrs)) != json.dumps(dict(own.attrs))
            if not is_changed:
                return table
            time.sleep(0.01)
    if is_changed:
        raise damaged(StorePath(WholeStore(store, read_only=True), f"{key}/zarr.json"), "is not what was written")
    raise NoInputError(f"{folder} is being replaced; try again in a moment.")


def _is_other(folder: Path, before: os.stat_result) -> bool:
    """Whether another table stands there now, or none."""
    try:
        after = (folder / "zarr.json").stat()
    except FileNotFoundError:
        return True
    return (before.st_ino, before.st_mtime_ns) != (after.st_ino, after.st_mtime_ns)


def check_patterns(path: str | Path) -> None:
    """Raise DataError, with its name, when a shard of `patterns` is missing: zarr would read zeros there."""
    store = check_store(path)
    array = _patterns(store)
    sides = array.shards or array.chunks
    sent = copies.patterns_there(store)
    for region in blocks(dict(enumerate(array.shape)), dict(enumerate(sides))):
        place = "/".join(str(part.start // side) for part, side in zip(region.values(), sides, strict=True))
        shard = f"{n.PATTERNS}/c/{place}"
        has_it = is_there(store, shard) if sent is None else shard in sent
        if not has_it and was_published(store / shard, store) is not False:
            raise DataError(
                f"{copies.shown(store)} is damaged: {shard} is missing; restore it from a copy or ingest again."
            )


def read_block(variable: xr.DataArray, region: Region) -> np.ndarray:
    """Values of one region of a stored variable. Raises DataError that names the place when a chunk is damaged."""
    with reading(variable.name, region):
        return np.asarray(variable.isel(region).values)


def read_ahead(read: Callable[[Item], Value], items: Iterable[Item]) -> Iterator[Value]:
    """`map(read, items)`, where one thread reads the next item while the caller works on the one before."""
    ahead: deque[Future[Value]] = deque()
    with ThreadPoolExecutor(1) as reader:
        for item in items:
            ahead.append(reader.submit(read, item))
            if len(ahead) == 2:
                yield ahead.popleft().result()
        if ahead:
            yield ahead.popleft().result()


@contextmanager
def reading(name: object, region: Region) -> Iterator[None]:
    """What a damaged chunk raises, as one DataError that names the place."""
    try:
        yield
    except VaearrError:
        raise
    except Exception as error:  # codecs and protocols have errors of their own
        if isinstance(error, OSError) and error.errno in OF_WRITING:
            raise
        place = ", ".join(f"{dim} {part.start} to {part.stop - 1}" for dim, part in region.items())
        raise DataError(
            f"{name!r} cannot be read at {place}: {' '.join(str(error).split())}; restore the store from a copy, "
            "ingest again, or check the connection where it is a URL."
        ) from error
