"""Open and read stores. Readers never wait for a lock."""

from __future__ import annotations

import errno
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from zarr.storage import LocalStore, ObjectStore

from vaearr import names as n
from vaearr.computing.borrowed import LazilyIndexedArray, ZarrArrayWrapper
from vaearr.errors import (
    DataError,
    ExistsError,
    NoInputError,
    UsageError,
    VaearrError,
    did_you_mean,
    need,
)
from vaearr.recipe import parsed
from vaearr.store.commit import journalled, recorded_writer, recover
from vaearr.store.fingerprints import check_chunks, damaged, undecodable
from vaearr.store.folders import file_sizes, has_file
from vaearr.store.layout import Region
from vaearr.store.paths import METADATA, as_url, store_path

MAX_ATTEMPTS = 100
VERIFY = "'vaearr verify {store}' says what is damaged and what to do"
# errors of a temporary copy that a source writes
WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def published_at(path: str | Path) -> float:
    """Return the time of the last publication, in seconds since 1970."""
    return (check_store(path) / METADATA).stat().st_mtime


def stored_bytes(path: str | Path) -> int:
    """Return the bytes of all files of a store."""
    return sum(file_sizes(store_path(path)).values())


def refuse_taken(path: str | Path) -> None:
    """Raise ExistsError if something exists at the path of a new store.

    An interrupted publication of a store is completed first, so that store exists.
    """
    recover(store_path(path))
    target = Path(path).expanduser()
    if target.exists() or target.is_symlink():
        raise ExistsError(
            f"{target} already exists; give another path, or remove it first if you mean to "
            "replace it."
        )


def check_store(path: str | Path) -> Path:
    """Return the resolved path of an existing store, after an interrupted publication is completed.

    Raises NoInputError or DataError for anything but a store, UsageError for a URL.
    """
    store = store_path(path)
    recover(store)
    open_group(store)
    return store


def store_of(data: str | Path | xr.Dataset, store: str | Path | None = None) -> Path:
    """Return the store of a path or an opened Dataset. Raises UsageError if it is unknown."""
    if isinstance(data, xr.Dataset):
        source = store or data.encoding.get("source")
        if source is None:
            raise UsageError(
                "the Dataset does not say which store it was opened from; give one by store='…'."
            )
        return check_store(source)
    if store is not None or not isinstance(data, str | Path):
        raise UsageError(
            f"data is a {type(data).__name__}; give a store's path alone, or a Dataset and its "
            "store."
        )
    return check_store(data)


def open_group(path: str | Path) -> zarr.Group:
    """Return the root group of a store for reading, cached until its list of variables changes."""
    store = store_path(path)
    if not store.exists():
        raise NoInputError(
            f"there is no store at {store}; create one with 'vaearr ingest SOURCE {store}'."
        )
    try:
        status = (store / METADATA).stat()
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
    except OSError:
        version = None
    return _group(store, version)


@lru_cache(maxsize=8)
def _group(store: Path, version: Hashable) -> zarr.Group:
    """Open the root group. version: changes with the list of variables."""
    try:
        has_file(store, METADATA)
        group = zarr.open_group(LocalStore(store, read_only=True), mode="r", zarr_format=3)
        _check_version(store, group)
    except VaearrError:
        raise
    except PermissionError as error:
        raise NoInputError(
            f"{store} may not be read ({error.strerror}); change its permissions."
        ) from None
    except Exception as error:  # zarr raises many kinds for damaged metadata
        if store.is_file():
            raise DataError(
                f"{store} is a file, not a store; create a store from it with 'vaearr ingest "
                f"{store} NEW.zarr'."
            ) from None
        raise DataError(
            f"{store} is not a zarr v3 store ({type(error).__name__}); give the path of one. If it "
            f"was one, 'vaearr verify {store}' says what is damaged."
        ) from None
    return group


def root_attributes(group: zarr.Group) -> dict[str, Any]:
    """Return the attributes of a store; those in `/runs` are not replaced by plain xarray."""
    attributes = dict(group.attrs)
    runs = group.get(n.RUNS)
    if isinstance(runs, zarr.Group):
        attributes |= runs.attrs
        attributes.pop("sealed", None)  # of earlier versions
    return attributes


def _check_version(store: str | Path, group: zarr.Group) -> None:
    version = root_attributes(group).get(n.SCHEMA_VERSION)
    patterns = group.get(n.PATTERNS)
    if version is None and patterns is not None and n.NAVIGATION_DIMS in patterns.attrs:
        version = n.SCHEMA  # a copy by plain xarray
    if not isinstance(version, int):
        raise DataError(
            f"{store} is a zarr store, but not one of vaearr's; ingest it with 'vaearr ingest "
            f"{store} NEW.zarr'."
        )
    if version > n.SCHEMA:
        raise DataError(
            f"{store} has schema version {version}, this vaearr knows {n.SCHEMA}; update vaearr."
        )


def open_store(path: str | Path, *, chunks: Literal["shards"] | None = "shards") -> xr.Dataset:
    """Open the root group of a store as a lazy Dataset.

    Parameters
    ----------
    path
        A folder, or a URL that can be read (`s3://…`, `https://…`; needs the extra `remote`). S3
        reads the `AWS_*` variables.
    chunks
        "shards" for dask blocks of the unit of writing, None for no dask.

    Returns
    -------
    xarray.Dataset
        All variables, over navigation dims, signal dims and `latent`.

    Examples
    --------
    >>> ds = va.open_store("scan.zarr")
    >>> ds.patterns.dims
    ('y', 'x', 'dy', 'dx')
    """
    url = as_url(path)
    if url is None:
        store: str | Path = store_path(path)
        recover(store_path(path))
        group = open_group(store)
    else:
        store = url
        group = _open_url(url)
    ds = _dataset(group, store)
    ds.attrs = root_attributes(group)
    ds.encoding["source"] = str(store)  # steps on the Dataset keep it
    if chunks is None:
        return ds
    chunked = {}
    for name, variable in ds.data_vars.items():
        sides = variable.encoding.get("shards") or variable.encoding.get("chunks") or variable.shape
        chunked[name] = variable.variable.chunk(dict(zip(variable.dims, sides, strict=True)))
    return ds.assign(chunked)


def _open_url(url: str) -> zarr.Group:
    """Open the root group of a store at a URL."""
    need("obstore", "vaearr[remote]", url)
    from obstore.store import from_url

    try:
        remote = from_url(url, client_options={"allow_http": True})
        group = zarr.open_group(ObjectStore(remote, read_only=True), mode="r", zarr_format=3)
    except Exception as error:  # each protocol has errors of its own
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise NoInputError(
            f"there is no zarr v3 store at {url} that can be read ({reason}); check the URL, your "
            "access (AWS_* variables) and the network."
        ) from None
    _check_version(url, group)
    return group


@contextmanager
def explain_damage(what: str, to_do: str) -> Iterator[None]:
    """Turn the errors of damaged metadata, coordinates or chunks into a DataError."""
    try:
        yield
    except (VaearrError, MemoryError):
        raise
    except Exception as error:  # codecs and protocols have errors of their own
        if isinstance(error, OSError) and error.errno in WRITE_ERRORS:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{what} cannot be read ({reason}); {to_do}.") from error


class StoredArray(ZarrArrayWrapper):
    """An array of a store on this machine; reading a damaged chunk raises DamagedError."""

    def __init__(self, array: zarr.Array, store: Path) -> None:
        super().__init__(array)
        self.zarr_array = array
        self.store = store
        self.is_checked = False

    def __getitem__(self, key: Any) -> Any:
        """Read values. Raises DamagedError."""
        name = self.zarr_array.path
        with explain_damage(f"{self.store}/{name}", VERIFY.format(store=self.store)):
            if not self.is_checked:
                check_chunks(self.store, name, self.zarr_array)
                self.is_checked = True
            try:
                return super().__getitem__(key)
            except Exception as error:  # codecs have errors of their own
                for chunk, reason in undecodable(self.zarr_array):
                    problem = f"cannot be decoded ({reason})"
                    raise damaged(self.store, f"{name}/{chunk}", problem) from error
                raise  # the array was replaced since it was opened, or the index is wrong


class StoredGroup(xr.backends.ZarrStore):
    """A group of a store on this machine, with variables of StoredArrays."""

    def open_store_variable(self, name: str) -> xr.Variable:
        """Return a lazy variable."""
        variable = super().open_store_variable(name)
        store = self.zarr_group.store
        assert isinstance(store, LocalStore)
        array = LazilyIndexedArray(StoredArray(self.zarr_group[name], Path(store.root)))
        return xr.Variable(variable.dims, array, variable.attrs, variable.encoding)


def _dataset(group: zarr.Group, store: str | Path) -> xr.Dataset:
    """Return a group as a lazy Dataset."""
    kind = StoredGroup if isinstance(group.store, LocalStore) else xr.backends.ZarrStore
    with explain_damage(str(store), VERIFY.format(store=store)):
        return xr.open_dataset(kind(group, mode="r"), engine="store", chunks=None)


def block_shape(ds: xr.Dataset) -> dict[str, int]:
    """Return the scan points per chunk (shard) along each navigation dim, the unit of writing."""
    patterns = ds[n.PATTERNS]
    sides = patterns.encoding.get("shards") or patterns.encoding["chunks"]
    return dict(zip(patterns.attrs[n.NAVIGATION_DIMS], sides, strict=False))


def run_names(path: str | Path) -> list[str]:
    """Return the names of the runs of a store."""
    runs = open_group(path).get(n.RUNS)
    return sorted(runs.group_keys()) if isinstance(runs, zarr.Group) else []


def _with_run(path: str | Path, run: str) -> tuple[Path, zarr.Group]:
    """Return a store and its root group. Raises NoInputError if it has no such run."""
    store = store_path(path)
    existing = run_names(path)
    if run not in existing:
        hint = f" It has none yet: 'vaearr train {store}'."
        writer = recorded_writer(store)
        if writer:
            hint = (
                f" A run appears once its training is complete; the store is written by {writer}."
            )
        elif existing:
            hint = did_you_mean(run, existing)
        raise NoInputError(f"{store} has no run {run!r}.{hint}")
    return store, open_group(store)


def run_folder(path: str | Path, run: str) -> Path:
    """Return the folder of a run. Raises NoInputError, or DamagedError for a link to a model."""
    store, _ = _with_run(path, run)
    for file in (n.MODEL_CONFIG, n.MODEL_WEIGHTS):
        has_file(store, f"{n.RUNS}/{run}/{n.MODEL}/{file}")
    return store / n.RUNS / run


def run_manifest(path: str | Path, run: str) -> dict[str, Any]:
    """Return what produced a run: settings, data, checksum of the weights, time."""
    _, root = _with_run(path, run)
    return dict(root[f"{n.RUNS}/{run}"].attrs)


def has_table(path: str | Path, run: str, name: str) -> bool:
    """Whether a run has a table (`history`, `health`, `association`…)."""
    store, root = _with_run(path, run)
    key = f"{n.RUNS}/{run}/{name}"
    # while a table is replaced, only the journal has it
    return key in root or journalled(store).get(key) is not None


def open_table(path: str | Path, run: str, name: str) -> xr.Dataset:
    """Read a table of a run into memory, from one publication even if it is being replaced.

    Raises NoInputError if the run has no such table.
    """
    for _ in range(MAX_ATTEMPTS):
        if not has_table(path, run, name):
            raise NoInputError(f"run {run!r} of {path} has no table {name!r} yet.")
        store, root = _with_run(path, run)
        try:
            group: Any = root[f"{n.RUNS}/{run}/{name}"]
            table = _dataset(group, store).load()
        except KeyError:  # between the old and the new table
            time.sleep(0.01)
            continue
        except DataError:
            if open_group(store) is root:
                raise
            continue
        if open_group(store) is root:  # else old metadata may have met new chunks
            return _without_run_name(table, run)
    raise NoInputError(f"table {name!r} of {path} is being replaced; try again in a moment.")


def _without_run_name(table: xr.Dataset, run: str) -> xr.Dataset:
    """Return a stored table with its dim `latent` and its nested attributes."""
    with_attributes: list[Any] = [table, *table.variables.values()]
    for item in with_attributes:
        item.attrs = {key: parsed(value) for key, value in item.attrs.items()}
    latent = n.run_name(n.LATENT, run)
    return table.rename({latent: n.LATENT}) if latent in table.dims else table


def reading(name: object, region: Region) -> Any:
    """Turn the error of a damaged chunk into a DataError that names the region."""
    ranges = [
        f"{dim} {positions.start} to {positions.stop - 1}" for dim, positions in region.items()
    ]
    to_do = "restore the store from a copy, or ingest again"
    return explain_damage(f"{name!r} at {', '.join(ranges)}", to_do)


def read_block(variable: xr.DataArray, region: Region) -> np.ndarray:
    """Return the values of one region of a stored variable. Raises DataError for damage."""
    with reading(variable.name, region):
        return np.asarray(variable.isel(region).values)
