"""Open a store, wherever it is. Readers never wait for a lock."""

from __future__ import annotations

import atexit
import errno
import shutil
import tempfile
import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.errors import GroupNotFoundError
from zarr.storage import FsspecStore, LocalStore, ObjectStore

from vaearr import names as n
from vaearr.errors import DataError, ExistsError, NoInputError, UsageError, VaearrError, did_you_mean
from vaearr.recipe import parsed
from vaearr.store.commit import journalled, staging_root
from vaearr.store.folders import is_there, sha256_of
from vaearr.store.layout import Region, blocks, chunks_of
from vaearr.store.listing import read_seal
from vaearr.store.places import METADATA, Objects, local_path, object_url, place, reach, read_only_url, store_path
from vaearr.store.sending import check_free, read_root
from vaearr.store.settling import root_attributes
from vaearr.store.whole import MISSING, WholeStore, damaged, naming

MOST_TRIES = 100
OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}  # a source's own copy, made as it is read
NOT_A_STORE = (GroupNotFoundError, NotADirectoryError, ValueError, KeyError)


def published_at(path: str | Path) -> float:
    """When something was published in a store last, in seconds since 1970: its listing is new each time."""
    store = check_store(path)
    head = Objects(store).head(METADATA) if object_url(store) else None
    return float(head["last_modified"].timestamp()) if head else (store / METADATA).stat().st_mtime


def stored_bytes(path: str | Path) -> int:
    """Bytes of all files, or objects, of a store."""
    return sum(place(path).files().values())


def refuse_taken(path: str | Path) -> None:
    """Raise ExistsError where a new store would stand in the place of something."""
    store = store_path(path)
    if object_url(store):
        check_free(Objects(store), staging_root(store))
        return
    target = local_path(path).expanduser()
    if target.exists() or target.is_symlink():
        raise ExistsError(f"{target} already exists; give another path, or remove it first if you mean to replace it.")


def check_store(path: str | Path) -> Path:
    """The one name of an existing vaearr store: the real path of a folder, the path of an S3 URL that prints as it.

    Raises NoInputError or DataError that says what is there instead, UsageError for a URL that can only be read.
    """
    store = store_path(path)
    open_group(store)
    return store


def store_of(data: str | Path | xr.Dataset, store: str | Path | None = None) -> Path:
    """The store on this machine that results of `data` go into. Raises UsageError where that is not said."""
    if isinstance(data, xr.Dataset):
        if (place := store or data.encoding.get("source")) is None:
            raise UsageError("the Dataset does not say which store it was opened from; name one by store='…'.")
        return check_store(place)
    if store is not None or not isinstance(data, str | Path):
        raise UsageError(f"data is a {type(data).__name__}; give a store's path alone, or a Dataset and its store.")
    return check_store(data)


def named(path: str | Path) -> str | Path:
    """The one name of a store wherever it is, also where it can only be read."""
    return read_only_url(path) or store_path(path)


def open_group(path: str | Path, storage_options: Mapping[str, Any] | None = None, *, now: bool = False) -> zarr.Group:
    """The root group of a vaearr store on this machine or at a URL, for reading, with all that it lists.

    That of a store on object storage may be a second old, unless it is asked for `now`.
    """
    if url := read_only_url(path):
        return _at_url(url, storage_options)
    store, options = store_path(path), tuple((storage_options or {}).items())
    return _listed(store, place(store, storage_options).tag(now=now), options)


@lru_cache(maxsize=8)
def _listed(store: Path, tag: Hashable, options: tuple[tuple[str, Any], ...]) -> zarr.Group:
    """The root group, once for the same listing: of a store with many variables it takes as long as all else."""
    found = place(store, dict(options))
    if isinstance(found, Objects):
        read_root(found)
    elif not store.exists():
        raise NoInputError(f"there is no store at {store}; make one with 'vaearr ingest SOURCE {store}'.")
    try:
        inner: Store = LocalStore(store, read_only=True)
        if isinstance(found, Objects):
            inner = ObjectStore(found.client, read_only=True)
        group = zarr.open_group(WholeStore(inner, str(store), object_url(store)), mode="r", zarr_format=3)
        _check_version(store, group)
    except VaearrError:
        raise
    except PermissionError as error:
        raise NoInputError(f"{store} may not be read ({error.strerror}); change its permissions.") from None
    except Exception as error:  # zarr raises many kinds for damaged metadata
        raise DataError(
            f"{store} is not a zarr v3 store ({type(error).__name__}); give the path of one. If it was one, 'vaearr "
            f"verify {store}' says what is damaged."
        ) from None
    return group


def _at_url(url: str, storage_options: Mapping[str, Any] | None) -> zarr.Group:
    with reach(url):
        try:
            found = FsspecStore.from_url(url, storage_options=dict(storage_options or {}) or None, read_only=True)
            group = zarr.open_group(WholeStore(found, url, url), mode="r", zarr_format=3)
        except NOT_A_STORE as error:
            if "rotocol" in str(error):  # fsspec: "Protocol not known"
                raise UsageError(f"{url} cannot be read: {' '.join(str(error).split())}; check the URL.") from None
            raise NoInputError(f"there is no zarr v3 store at {url} ({type(error).__name__}); check the URL.") from None
    _check_version(url, group)
    return group


def _check_version(store: str | Path, group: zarr.Group) -> None:
    version = root_attributes(group, store).get(n.SCHEMA_VERSION)
    if not isinstance(version, int):
        raise DataError(
            f"{store} is a zarr store, but not one of vaearr's; make one of it with 'vaearr ingest {store} NEW.zarr'."
        )
    if version > n.SCHEMA:
        raise DataError(f"{store} has schema version {version}, this vaearr knows {n.SCHEMA}; update vaearr.")


def open_store(
    path: str | Path,
    *,
    chunks: Literal["shards"] | None = "shards",
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """The store's root group as a lazy Dataset; `chunks="shards"` for dask blocks of what was written whole, None for
    no dask.

    path: a folder, or a URL with its `storage_options`: `s3://…`, or any that fsspec knows (`https://…`).
    """
    group, store = open_group(path, storage_options), named(path)
    ds = _dataset(group, store)
    if n.SCHEMA_VERSION not in ds.attrs:
        ds.attrs = root_attributes(group, store)
    ds.encoding["source"] = str(store)  # steps on the Dataset keep it
    if chunks is None:
        return ds
    return ds.assign(
        {name: variable.variable.chunk(_written_whole(variable)) for name, variable in ds.data_vars.items()}
    )


def _written_whole(variable: xr.DataArray) -> dict[Any, int]:
    sides = variable.encoding.get("shards") or variable.encoding.get("chunks") or variable.shape
    return {dim: min(side, size) for dim, side, size in zip(variable.dims, sides, variable.shape, strict=True)}


@contextmanager
def telling(what: str, do: str) -> Iterator[None]:
    """Whatever damaged metadata, coordinates or chunks raise, as one DataError that says what to do."""
    try:
        yield
    except VaearrError:
        raise
    except Exception as error:  # codecs and protocols have errors of their own
        if isinstance(error, OSError) and error.errno in OF_WRITING:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{what} cannot be read ({reason}); {do}.") from error


def _asking(what: object, store: object) -> AbstractContextManager[None]:
    return telling(str(what), f"'vaearr verify {store}' says what is damaged and what to do")


def reading(name: object, region: Region) -> AbstractContextManager[None]:
    """What a damaged chunk raises, as one DataError that names the place."""
    place = ", ".join(f"{dim} {part.start} to {part.stop - 1}" for dim, part in region.items())
    do = "restore the store from a copy, ingest again, or check the connection where it is a URL"
    return telling(f"{name!r} at {place}", do)


def _dataset(group: zarr.Group, store: object) -> xr.Dataset:
    """A group as a lazy Dataset."""
    with _asking(store, store):
        with naming():
            ds = xr.open_dataset(xr.backends.ZarrStore(group, mode="r"), engine="store", chunks=None)
        for name, variable in ds.variables.items():
            if 0 in (variable.encoding.get("chunks") or ()):
                raise damaged(store, str(name), "has chunks of no length")
        return ds


def _patterns(store: Path) -> zarr.Array:
    patterns = open_group(store)[n.PATTERNS]
    assert isinstance(patterns, zarr.Array)
    return patterns


def stored_array(folder: Path) -> zarr.Array:
    """An array by its own folder, for reading, as it is there."""
    return zarr.open_array(folder, mode="r", zarr_format=3)


def block_shape(store: Path) -> dict[str, int]:
    """Scan points per chunk (shard) along each navigation dim: the unit of writing."""
    patterns = _patterns(store)
    dims = patterns.attrs[n.NAVIGATION_DIMS]
    assert isinstance(dims, list)
    return {str(dim): size for dim, size in zip(dims, patterns.shards or patterns.chunks, strict=False)}


def store_blocks(path: str | Path) -> list[Region]:
    """The chunks (shards) of a store as regions `{dim: slice}` of its navigation grid, row-major."""
    store = check_store(path)
    block = block_shape(store)
    return list(blocks(dict(zip(block, _patterns(store).shape, strict=False)), block))


def run_names(path: str | Path) -> list[str]:
    """Names of the trained runs in a store: those that are listed, so that one whose publication was killed is none."""
    return _runs(open_group(path))


def _runs(root: zarr.Group) -> list[str]:
    runs = root.get(n.RUNS)
    return sorted(runs.group_keys()) if isinstance(runs, zarr.Group) else []


def _with_run(path: str | Path, run: str) -> tuple[str | Path, zarr.Group]:
    """A store by its name, and its root group. Raises NoInputError that lists the runs where this one is not there."""
    store = named(path)
    root = open_group(store)
    known = _runs(root)
    if run not in known:
        hint = did_you_mean(run, known) if known else f" It has none yet: 'vaearr train {store}'."
        raise NoInputError(f"{store} has no run {run!r}.{hint}")
    return store, root


def run_folder(path: str | Path, run: str) -> Path:
    """A folder with the files of a run's model; of a store at a URL a copy, which goes when the program ends.

    Raises NoInputError that lists the runs there are.
    """
    store, model = store_path(path), f"{n.RUNS}/{run}/{n.MODEL}"
    _, root = _with_run(store, run)
    if object_url(store):
        assert isinstance(root.store, WholeStore)
        return _downloaded(store, model, root.store.token)
    for name in (f"{n.RUNS}/{run}", model):
        for file in sorted((store / name).iterdir()) if is_there(store, name) else ():
            is_there(store, f"{name}/{file.name}")
    return store / n.RUNS / run


@lru_cache(maxsize=8)
def _downloaded(store: Path, model: str, token: str) -> Path:
    """A new folder with a folder `model` of the files below a name, as their checksums say. Raises DamagedError."""
    objects, folder = Objects(store), Path(tempfile.mkdtemp(prefix="vaearr-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, digest in (read_seal(objects, model) or {}).items():
        file = folder / n.MODEL / name
        file.parent.mkdir(parents=True, exist_ok=True)
        data = objects.read(f"{model}/{name}")
        if data is None:
            raise damaged(store, f"{model}/{name}", MISSING.split(" (")[0])
        file.write_bytes(data)
        if sha256_of(file) != digest:
            raise damaged(store, f"{model}/{name}", "is not what was written")
    return folder


def run_manifest(path: str | Path, run: str) -> dict[str, Any]:
    """What produced a run: config, data fingerprint, model hash, versions, time; as it was published."""
    store, root = _with_run(path, run)
    with _asking(f"run {run!r} is damaged: {store}/{n.RUNS}/{run}/{METADATA}", store):
        return dict(root[f"{n.RUNS}/{run}"].attrs)


def has_table(path: str | Path, run: str, name: str) -> bool:
    """Whether a run holds the table (`history`, `health`, `association`…)."""
    store, root = _with_run(path, run)
    key = f"{n.RUNS}/{run}/{name}"
    return key in root or _is_being_replaced(store, key)


def _is_being_replaced(store: str | Path, key: str) -> bool:
    return isinstance(store, Path) and journalled(store).get(key) is not None


def open_table(path: str | Path, run: str, name: str) -> xr.Dataset:
    """A table of a run, in memory, as it was published, though another may take its place meanwhile.

    Raises NoInputError when it has not been made yet.
    """
    key = f"{n.RUNS}/{run}/{name}"
    for _ in range(MOST_TRIES):
        store, root = _with_run(path, run)
        problem = None
        if key in root:
            try:
                table = _table(root, key, store)
            except DataError as error:
                problem = error
            if read_only_url(path) or open_group(store, now=True) is root:  # else old metadata may have met new chunks
                break
        elif _is_being_replaced(store, key):
            time.sleep(0.01)  # between the old and the new
        else:
            raise NoInputError(f"run {run!r} of {path} has no table {name!r} yet.")
    else:
        raise NoInputError(f"{store}/{key} is being replaced; try again in a moment.")
    if problem:
        raise problem
    ones: list[Any] = [table, *table.variables.values()]
    for one in ones:
        one.attrs = {key: parsed(value) for key, value in one.attrs.items()}
    return table.rename({n.run_name(n.LATENT, run): n.LATENT}) if n.run_name(n.LATENT, run) in table.dims else table


def _table(root: zarr.Group, key: str, store: object) -> xr.Dataset:
    with _asking(f"{store}/{key}", store):
        group = root[key]
        assert isinstance(group, zarr.Group)
        return _dataset(group, store).load()


def check_patterns(path: str | Path) -> None:
    """Raise DataError, with its name, when a chunk of `patterns` is missing: zarr would read zeros there."""
    store = check_store(path)
    there, seal = place(store).files(n.PATTERNS), read_seal(place(store), n.PATTERNS)
    for chunk, _ in chunks_of(_patterns(store)):
        if not object_url(store) and not there.get(f"{n.PATTERNS}/{chunk}"):
            is_there(store, f"{n.PATTERNS}/{chunk}")  # no link
        if f"{n.PATTERNS}/{chunk}" not in there and (seal is None or chunk in seal):
            raise DataError(
                f"{store} is damaged: {n.PATTERNS}/{chunk} is missing; restore it from a copy or ingest again."
            )


def read_block(variable: xr.DataArray, region: Region) -> np.ndarray:
    """Values of one region of a stored variable. Raises DataError that names the place when a chunk is damaged."""
    with reading(variable.name, region):
        return np.asarray(variable.isel(region).values)
