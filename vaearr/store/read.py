"""Open a store. Readers never wait for a lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from zarr.errors import GroupNotFoundError

from vaearr import names as n
from vaearr.errors import DataError, NoInputError, did_you_mean
from vaearr.store.layout import Region, blocks


def check_store(path: str | Path) -> Path:
    """The real path of an existing vaearr store. Raises NoInputError or DataError that says what is there instead."""
    store = Path(path).expanduser().resolve()
    if not store.exists():
        raise NoInputError(f"there is no store at {store}; make one with 'vaearr ingest SOURCE {store}'.")
    try:
        attrs = zarr.open_group(store, mode="r", zarr_format=3).attrs
    except (GroupNotFoundError, NotADirectoryError, ValueError, KeyError) as error:
        raise DataError(f"{store} is not a zarr v3 store ({type(error).__name__}); give the path of one.") from None
    version = attrs.get(n.SCHEMA_VERSION)
    if not isinstance(version, int):
        raise DataError(f"{store} is a zarr store, but not one of vaearr's; make one with 'vaearr ingest'.")
    if version > n.SCHEMA:
        raise DataError(f"{store} has schema version {version}, this vaearr knows {n.SCHEMA}; update vaearr.")
    return store


def open_store(path: str | Path, *, chunks: Literal["shards"] | None = "shards") -> xr.Dataset:
    """The store's root group as a lazy Dataset; `chunks="shards"` for dask blocks of what was written whole, None for
    no dask."""
    ds = xr.open_zarr(check_store(path), chunks=None, zarr_format=3)
    if chunks is None:
        return ds
    return ds.assign({name: variable.chunk(_written_whole(variable)) for name, variable in ds.data_vars.items()})


def _written_whole(variable: xr.DataArray) -> dict[Any, int]:
    sides = variable.encoding.get("shards") or variable.encoding.get("chunks") or variable.shape
    return {dim: min(side, size) for dim, side, size in zip(variable.dims, sides, variable.shape, strict=True)}


def _patterns(store: Path) -> zarr.Array:
    patterns = zarr.open_group(store, mode="r", zarr_format=3)[n.PATTERNS]
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
    """Names of the trained runs in a store."""
    folder = check_store(path) / n.RUNS
    return sorted(child.name for child in folder.iterdir() if (child / "zarr.json").exists()) if folder.exists() else []


def run_folder(path: str | Path, run: str) -> Path:
    """Folder of a run. Raises NoInputError that lists the runs there are."""
    store = check_store(path)
    known = run_names(store)
    if run not in known:
        hint = did_you_mean(run, known) if known else f" It has none yet: 'vaearr train {store}'."
        raise NoInputError(f"{store} has no run {run!r}.{hint}")
    return store / n.RUNS / run


def run_manifest(path: str | Path, run: str) -> dict[str, Any]:
    """What produced a run: config, data fingerprint, model hash, versions, time."""
    folder = run_folder(path, run)
    try:
        return dict(zarr.open_group(folder, mode="r", zarr_format=3).attrs)
    except (ValueError, KeyError, GroupNotFoundError) as error:
        raise DataError(f"run {run!r} is damaged: {folder / 'zarr.json'} cannot be read ({error}).") from None


def has_table(path: str | Path, run: str, name: str) -> bool:
    """Whether a run holds the table (`history`, `health`, `association`…)."""
    return (run_folder(path, run) / name / "zarr.json").exists()


def open_table(path: str | Path, run: str, name: str) -> xr.Dataset:
    """A table of a run, in memory. Raises NoInputError when it has not been made yet."""
    folder = run_folder(path, run)
    if not (folder / name / "zarr.json").exists():
        raise NoInputError(f"run {run!r} of {path} has no table {name!r} yet.")
    table = xr.open_zarr(folder / name, consolidated=False, chunks=None, zarr_format=3).load()
    return table.rename({n.run_name(n.LATENT, run): n.LATENT}) if n.run_name(n.LATENT, run) in table.dims else table


def check_patterns(path: str | Path) -> None:
    """Raise DataError, with its name, when a shard of `patterns` is missing: zarr would read zeros there."""
    store = check_store(path)
    array = _patterns(store)
    sides = array.shards or array.chunks
    for region in blocks(dict(enumerate(array.shape)), dict(enumerate(sides))):
        place = "/".join(str(part.start // side) for part, side in zip(region.values(), sides, strict=True))
        if not (store / n.PATTERNS / "c" / place).exists():
            raise DataError(
                f"{store} is damaged: {n.PATTERNS}/c/{place} is missing; restore it from a copy or ingest again."
            )


def read_block(variable: xr.DataArray, region: Region) -> np.ndarray:
    """Values of one region of a stored variable. Raises DataError that names the place when a chunk is damaged."""
    try:
        return np.asarray(variable.isel(region).values)
    except (ValueError, RuntimeError, OSError) as error:
        place = ", ".join(f"{dim} {part.start} to {part.stop - 1}" for dim, part in region.items())
        raise DataError(
            f"{variable.name!r} cannot be read at {place}: {error}; restore the store from a copy or ingest again."
        ) from error
