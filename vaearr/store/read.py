"""Open a store. Readers never wait for a lock."""

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
from vaearr.store.commit import complete_publication, journalled
from vaearr.store.fingerprints import check_chunks, damaged, undecodable
from vaearr.store.folders import file_sizes, is_there
from vaearr.store.layout import Region, blocks
from vaearr.store.paths import METADATA, as_url, store_path

MOST_TRIES = 100
VERIFY = "'vaearr verify {store}' says what is damaged and what to do"
WHILE_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}  # a source's temporary copy


def published_at(path: str | Path) -> float:
    """When something was published in a store last, in seconds since 1970."""
    return (check_store(path) / METADATA).stat().st_mtime


def stored_bytes(path: str | Path) -> int:
    """Bytes of all files of a store."""
    return sum(file_sizes(store_path(path)).values())


def refuse_taken(path: str | Path) -> None:
    """Raise ExistsError where a new store would replace something.

    A store that a killed command had begun to publish exists: it is completed first.
    """
    complete_publication(store_path(path))
    target = Path(path).expanduser()
    if target.exists() or target.is_symlink():
        raise ExistsError(
            f"{target} already exists; give another path, or remove it first if you mean to replace it."
        )


def check_store(path: str | Path) -> Path:
    """The one name of an existing store: the real path of its folder.

    What a killed command had begun to publish is completed. Raises NoInputError or DataError that
    says what is there instead, UsageError for a URL.
    """
    store = store_path(path)
    complete_publication(store)
    open_group(store)
    return store


def store_of(data: str | Path | xr.Dataset, store: str | Path | None = None) -> Path:
    """The store that results of `data` go into. Raises UsageError where that is not known."""
    if isinstance(data, xr.Dataset):
        source = store or data.encoding.get("source")
        if source is None:
            raise UsageError(
                "the Dataset does not say which store it was opened from; name one by store='…'."
            )
        return check_store(source)
    if store is not None or not isinstance(data, str | Path):
        raise UsageError(
            f"data is a {type(data).__name__}; give a store's path alone, or a Dataset and its store."
        )
    return check_store(data)


def open_group(path: str | Path) -> zarr.Group:
    """The root group of a store, for reading, with everything that it lists."""
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
    """The root group, opened once for the same list of variables."""
    try:
        is_there(store, METADATA)
        group = zarr.open_group(LocalStore(store, read_only=True), mode="r", zarr_format=3)
        _check_version(store, group)
    except VaearrError:
        raise
    except PermissionError as error:
        raise NoInputError(
            f"{store} may not be read ({error.strerror}); change its permissions."
        ) from None
    except Exception as error:  # zarr raises many kinds for damaged metadata
        raise DataError(
            f"{store} is not a zarr v3 store ({type(error).__name__}); give the path of one. If it "
            f"was one, 'vaearr verify {store}' says what is damaged."
        ) from None
    return group


def root_attributes(group: zarr.Group) -> dict[str, Any]:
    """Attributes of a store, which its group `/runs` has too: plain xarray replaces the root's."""
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
            f"{store} is a zarr store, but not one of vaearr's; ingest it with 'vaearr ingest {store} NEW.zarr'."
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
        "shards" for dask blocks of what was written at once, None for no dask.

    Returns
    -------
    xarray.Dataset
        All variables, over navigation dims, signal dims and `latent`.
    """
    url = as_url(path)
    if url is None:
        store: str | Path = store_path(path)
        complete_publication(store_path(path))
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
    """The root group of a store at a URL."""
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
    """Turn what damaged metadata, coordinates or chunks raise into a DataError that says what to
    do.
    """
    try:
        yield
    except (VaearrError, MemoryError):
        raise
    except Exception as error:  # codecs and protocols have errors of their own
        if isinstance(error, OSError) and error.errno in WHILE_WRITING:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{what} cannot be read ({reason}); {to_do}.") from error


class StoredArray(ZarrArrayWrapper):
    """An array of a store on this machine, whose damage is an error that names the chunk."""

    def __init__(self, array: zarr.Array, store: Path) -> None:
        super().__init__(array)
        self.store = store
        self.is_checked = False

    def __getitem__(self, key: Any) -> Any:
        """Values of a part. Raises DamagedError."""
        name = self._array.path
        with explain_damage(f"{self.store}/{name}", VERIFY.format(store=self.store)):
            if not self.is_checked:
                check_chunks(self.store, name, self._array)
                self.is_checked = True
            try:
                return super().__getitem__(key)
            except Exception as error:  # codecs have errors of their own
                for chunk, reason in undecodable(self._array):
                    raise damaged(
                        self.store, f"{name}/{chunk}", f"cannot be decoded ({reason})"
                    ) from error
                raise  # it was replaced since it was opened, or the index is wrong


class StoredGroup(xr.backends.ZarrStore):
    """A group of a store on this machine, whose variables are StoredArrays.

    Values that another program appended along a dimension are left out: other variables lack them.
    """

    def __init__(self, group: zarr.Group, mode: str) -> None:
        super().__init__(group, mode=mode)
        self.sizes = common_sizes(group)

    def open_store_variable(self, name: str) -> xr.Variable:
        """The variable, lazy."""
        variable = super().open_store_variable(name)
        store = self.zarr_group.store
        assert isinstance(store, LocalStore)
        array = LazilyIndexedArray(StoredArray(self.zarr_group[name], Path(store.root)))
        cut = {
            dim: slice(self.sizes[dim])
            for dim in variable.dims
            if variable.sizes[dim] > self.sizes[dim]
        }
        return xr.Variable(variable.dims, array, variable.attrs, variable.encoding).isel(cut)


def named_sizes(array: zarr.Array) -> dict[str, int]:
    """Size of an array along each of its dimensions."""
    names = getattr(array.metadata, "dimension_names", None) or ()
    return dict(zip(map(str, names), array.shape, strict=False))


def common_sizes(group: zarr.Group) -> dict[str, int]:
    """The smallest size of each dimension among the arrays of a group."""
    sizes: dict[str, int] = {}
    for _, array in group.arrays():
        for dim, size in named_sizes(array).items():
            sizes[dim] = min(size, sizes.get(dim, size))
    return sizes


def _dataset(group: zarr.Group, store: str | Path) -> xr.Dataset:
    """A group as a lazy Dataset."""
    kind = StoredGroup if isinstance(group.store, LocalStore) else xr.backends.ZarrStore
    with explain_damage(str(store), VERIFY.format(store=store)):
        return xr.open_dataset(kind(group, mode="r"), engine="store", chunks=None)


def block_shape(path: str | Path) -> dict[str, int]:
    """Scan points per chunk (shard) along each navigation dim: the unit of writing."""
    patterns = open_store(path, chunks=None)[n.PATTERNS]
    sides = patterns.encoding.get("shards") or patterns.encoding["chunks"]
    return dict(zip(patterns.attrs[n.NAVIGATION_DIMS], sides, strict=False))


def store_blocks(path: str | Path) -> list[Region]:
    """The chunks (shards) of a store as regions `{dim: slice}` of its navigation grid, row-major."""
    block, sizes = block_shape(path), open_store(path, chunks=None).sizes
    return list(blocks({dim: sizes[dim] for dim in block}, block))


def run_names(path: str | Path) -> list[str]:
    """Names of the listed runs of a store."""
    runs = open_group(path).get(n.RUNS)
    return sorted(runs.group_keys()) if isinstance(runs, zarr.Group) else []


def _with_run(path: str | Path, run: str) -> tuple[Path, zarr.Group]:
    """A store and its root group. Raises NoInputError that lists the runs where this one is
    missing.
    """
    store, known = store_path(path), run_names(path)
    if run not in known:
        hint = f" It has none yet: 'vaearr train {store}'."
        if known:
            hint = did_you_mean(run, known)
        raise NoInputError(f"{store} has no run {run!r}.{hint}")
    return store, open_group(store)


def run_folder(path: str | Path, run: str) -> Path:
    """The folder of a run; a link in the place of its model's files is refused.

    Raises NoInputError that lists the runs of the store.
    """
    store, _ = _with_run(path, run)
    for file in (n.MODEL_CONFIG, n.MODEL_WEIGHTS):
        is_there(store, f"{n.RUNS}/{run}/{n.MODEL}/{file}")
    return store / n.RUNS / run


def run_manifest(path: str | Path, run: str) -> dict[str, Any]:
    """What produced a run, as it was published: settings, data, checksum of the weights, time."""
    _, root = _with_run(path, run)
    return dict(root[f"{n.RUNS}/{run}"].attrs)


def has_table(path: str | Path, run: str, name: str) -> bool:
    """Whether a run holds the table (`history`, `health`, `association`…)."""
    store, root = _with_run(path, run)
    key = f"{n.RUNS}/{run}/{name}"
    return key in root or journalled(store).get(key) is not None


def open_table(path: str | Path, run: str, name: str) -> xr.Dataset:
    """A table of a run, in memory, as it was published, even if it is being replaced meanwhile.

    Raises NoInputError where the run has no such table.
    """
    for _ in range(MOST_TRIES):
        if not has_table(path, run, name):
            raise NoInputError(f"run {run!r} of {path} has no table {name!r} yet.")
        store, root = _with_run(path, run)
        try:
            group: Any = root[f"{n.RUNS}/{run}/{name}"]
            table = _dataset(group, store).load()
        except KeyError:  # between the old and the new
            time.sleep(0.01)
            continue
        except DataError:
            if open_group(store) is root:
                raise
            continue
        if open_group(store) is root:  # else old metadata may have met new chunks
            return _renamed(table, run)
    raise NoInputError(f"table {name!r} of {path} is being replaced; try again in a moment.")


def _renamed(table: xr.Dataset, run: str) -> xr.Dataset:
    """A table as it was before it was stored: its dim `latent`, and its attributes."""
    with_attributes: list[Any] = [table, *table.variables.values()]
    for item in with_attributes:
        item.attrs = {key: parsed(value) for key, value in item.attrs.items()}
    latent = n.run_name(n.LATENT, run)
    return table.rename({latent: n.LATENT}) if latent in table.dims else table


def reading(name: object, region: Region) -> Any:
    """Turn what a damaged chunk raises into a DataError that names the place."""
    place = ", ".join(f"{dim} {part.start} to {part.stop - 1}" for dim, part in region.items())
    return explain_damage(f"{name!r} at {place}", "restore the store from a copy, or ingest again")


def read_block(variable: xr.DataArray, region: Region) -> np.ndarray:
    """Values of one region of a stored variable. Raises DataError that names a damaged place."""
    with reading(variable.name, region):
        return np.asarray(variable.isel(region).values)
