"""Write stores, variables, runs and tables."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import ExistsError, SchemaError, UsageError
from vaearr.store import layout
from vaearr.store.commit import (
    NEW,
    RESULTS,
    STORE_KEY,
    edit_store,
    existing_keys,
    publish,
    work_folder,
)
from vaearr.store.fingerprints import undecodable, variable_fingerprint
from vaearr.store.folders import PART, move, sha256_of, write_errors
from vaearr.store.layout import Region, flat, plain, read_ahead
from vaearr.store.listing import refresh_listing
from vaearr.store.paths import store_path
from vaearr.store.read import (
    block_shape,
    check_store,
    open_store,
    read_block,
    refuse_taken,
    run_folder,
)

Transform = Callable[[np.ndarray, Region], np.ndarray]
ALL_WRITTEN: Any = {"write_empty_chunks": True}  # a chunk of NaN must exist to count as written


@dataclass(frozen=True, kw_only=True)
class VariableSpec:
    """Dims (navigation dims first) and attributes of a float32 variable."""

    dims: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StagedVariables:
    """Unpublished variables that are written block by block."""

    store: Path
    folder: Path
    arrays: Mapping[str, zarr.Array]
    regions: Sequence[Region]


def create_store(
    ds: xr.Dataset,
    path: str | Path,
    *,
    transform: Transform | None = None,
    finalise: Callable[[xr.Dataset], xr.Dataset] | None = None,
    progress: Callable[[int, int], object] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a Dataset as a new store, streaming `patterns` by chunk, and publish it in one step.

    Parameters
    ----------
    ds
        A valid Dataset.
    path
        The store. Unless `overwrite` is True, nothing may exist at this path.
    transform
        Called with every block and its region; returns the block to write.
    finalise
        Called after the last block; returns the Dataset whose other variables are written.
    progress
        Called with the numbers of written and of all blocks.
    overwrite
        Replace the store at `path`, once the new one is complete.

    Returns
    -------
    pathlib.Path
        The store.

    Raises
    ------
    ExistsError
        If `path` exists and `overwrite` is False.
    SchemaError
        If the Dataset is not valid. Nothing is left behind then.
    """
    if not overwrite:
        refuse_taken(path)
    schema.validate(ds)
    store = store_path(path)
    with edit_store(store), work_folder(store, NEW) as work, write_errors(store):
        folder = work / "store"
        group = zarr.create_group(folder, zarr_format=3)
        array = _new_patterns(ds, folder)
        checksums = {}
        # closed, so that no thread continues to write after an error
        with closing(_stream(ds, array, folder / n.PATTERNS, transform)) as written:
            for chunk, checksum in written:
                checksums[chunk] = checksum
                if progress:
                    progress(len(checksums), array.nchunks)
        final = finalise(ds) if finalise else ds
        array.attrs.update(flat(final[n.PATTERNS].attrs))
        _write_small(final.drop_vars(n.PATTERNS), folder)
        attributes = flat(final.attrs) | {"Conventions": "CF-1.11"}
        group.attrs.update(attributes)
        identity = {
            n.SCHEMA_VERSION: n.SCHEMA,
            n.STORE_ID: uuid.uuid4().hex,
            n.PATTERNS_FINGERPRINT: variable_fingerprint(folder, n.PATTERNS),
        }
        group.create_group(n.RUNS, attributes=attributes | identity)
        refresh_listing(folder)
        replacing = [STORE_KEY] if overwrite else []
        publish(store, {STORE_KEY: folder}, replacing=replacing, checksums=checksums)
    return store


def _new_patterns(ds: xr.Dataset, folder: Path) -> zarr.Array:
    """Create the array of the patterns in an unpublished folder."""
    dims = (*schema.navigation_dims(ds), *schema.signal_dims(ds))
    shape = tuple(ds.sizes[dim] for dim in dims)
    dtype = ds[n.PATTERNS].dtype
    n_navigation = len(schema.navigation_dims(ds))
    chunks = layout.pattern_chunks(shape[:n_navigation], shape[n_navigation:], dtype.itemsize)
    return _new_array(folder / n.PATTERNS, dims, shape, chunks, dtype, layout.PATTERN_CODECS)


def _stream(
    ds: xr.Dataset, array: zarr.Array, folder: Path, transform: Transform | None
) -> Generator[tuple[Path, str], None, None]:
    """Write the patterns; yield the file of each chunk and its checksum.

    The next block is read while the previous one is encoded and written.
    """
    navigation = schema.navigation_dims(ds)
    regions = [dict(zip(navigation, region, strict=False)) for _, region in layout.chunks_of(array)]

    def read(region: Region) -> np.ndarray:
        return read_block(ds[n.PATTERNS], region)

    def write(block: tuple[Region, np.ndarray]) -> tuple[Path, str]:
        region, values = block
        positions = tuple(region.values())
        array[positions] = values
        chunk = folder / layout.chunk_name(array, positions)
        return chunk, sha256_of(chunk)

    blocks: Iterable[np.ndarray] = read_ahead(read, regions)
    if transform is not None:
        blocks = map(transform, blocks, regions)
    return read_ahead(write, zip(regions, blocks, strict=True))


def _write_small(ds: xr.Dataset, folder: Path) -> None:
    """Write maps and coordinates with checksummed codecs into an unpublished folder."""
    clean = ds.drop_encoding().drop_attrs(deep=False)
    encoding = {}
    for name in list(clean.variables):
        if clean[name].dtype.kind == "U":  # zarr v3 specifies only text of variable length
            clean[name] = clean[name].astype(object)
        clean[name].attrs = flat(clean[name].attrs)
        encoding[name] = {"compressors": layout.MAP_CODECS}
    clean.to_zarr(
        folder,
        mode="a",
        zarr_format=3,
        consolidated=False,
        encoding=encoding,
        write_empty_chunks=True,
    )


def _write_group(ds: xr.Dataset, folder: Path, attributes: Mapping[str, Any]) -> None:
    """Write a Dataset as a new zarr group into an unpublished folder."""
    group = zarr.create_group(folder, zarr_format=3)
    if ds.variables:
        _write_small(ds, folder)
    group.attrs.update(attributes)


@contextmanager
def stage_variables(
    path: str | Path,
    specs: Mapping[str, VariableSpec],
    *,
    coords: xr.Dataset,
    request: Mapping[str, Any],
    replacing: Collection[str] = (),
) -> Iterator[StagedVariables]:
    """Stage new variables: write every pending block, then call `finish_variables`.

    coords: coordinates of dims that the store does not have yet, and variables in memory.
    request: everything that decides the values; interrupted work of the same request is resumed.
    replacing: variables that `finish_variables` will replace (`store.remove.removable`).
    Raises ExistsError if a variable exists already.
    """
    store = check_store(path)
    name = f"variables-{'-'.join(sorted(specs))[:60]}"
    request_text = json.dumps(plain(request), sort_keys=True)
    request_hash = hashlib.sha256(request_text.encode()).hexdigest()[:16]
    with edit_store(store), work_folder(store, name, keep=request_hash) as work:
        existing = _open_without(store, replacing)
        _check_new(existing, store, [*specs, *map(str, coords.variables)])
        block = block_shape(existing)
        folder = work / request_hash
        with write_errors(store):
            if not folder.exists():
                unfinished = work / f".{request_hash}{PART}"
                _write_group(coords, unfinished, {})
                sizes = {**existing.sizes, **coords.sizes}
                chunk_sizes = sizes | block
                for variable, spec in specs.items():
                    _new_variable(unfinished / variable, spec, sizes, chunk_sizes)
                move(unfinished, folder)
        arrays = {variable: _resumable_array(folder / variable) for variable in specs}
        regions = list(layout.blocks({dim: existing.sizes[dim] for dim in block}, block))
        yield StagedVariables(store=store, folder=folder, arrays=arrays, regions=regions)


def _new_variable(
    folder: Path, spec: VariableSpec, sizes: Mapping[Any, int], chunk_sizes: Mapping[Any, int]
) -> None:
    """Create the array of a float32 variable."""
    shape = [sizes[dim] for dim in spec.dims]
    chunks = [min(chunk_sizes[dim], sizes[dim]) for dim in spec.dims]
    dtype = np.dtype("float32")
    array = _new_array(folder, spec.dims, shape, chunks, dtype, layout.MAP_CODECS)
    array.attrs.update(flat(spec.attrs))


def _resumable_array(folder: Path) -> zarr.Array:
    """Open a staged array, without chunks that cannot be decoded: they are written again."""
    array = zarr.open_array(folder, mode="r+", zarr_format=3).with_config(ALL_WRITTEN)
    for chunk, _ in undecodable(array):  # left by a power failure
        (folder / chunk).unlink()
    return array


def _new_array(
    folder: Path,
    dims: Sequence[str],
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: np.dtype,
    codecs: Sequence[Any],
) -> zarr.Array:
    return zarr.create_array(
        folder,
        shape=tuple(shape),
        chunks=tuple(chunks),
        dtype=dtype,
        compressors=codecs,
        fill_value=np.nan if dtype.kind == "f" else None,
        dimension_names=dims,
        config=ALL_WRITTEN,
    )


def pending(staged: StagedVariables) -> list[Region]:
    """Return the blocks for which a chunk of any variable does not exist yet."""
    regions = []
    for region in staged.regions:
        for name, array in staged.arrays.items():
            chunk = layout.chunk_name(array, tuple(region.values()))
            if not (staged.folder / name / chunk).exists():
                regions.append(region)
                break
    return regions


def write_block(staged: StagedVariables, region: Region, values: Mapping[str, np.ndarray]) -> None:
    """Write one block of every staged variable. Raises WriteError."""
    with write_errors(staged.store):
        for name, array in staged.arrays.items():
            array[tuple(region.values())] = values[name]


def finish_variables(
    staged: StagedVariables,
    *,
    run: str = "",
    tables: Mapping[str, xr.Dataset] | None = None,
    replacing: Collection[str] = (),
) -> None:
    """Publish all staged variables in one step, after a check that every block is written.

    run, tables: tables that are published in the same step. replacing: variables and tables that
    are removed in the same step. See `write_results`.
    """
    n_pending = len(pending(staged))
    if n_pending:
        raise RuntimeError(f"{n_pending} of {len(staged.regions)} blocks are not written.")
    folders = {folder.name: folder for folder in staged.folder.iterdir() if folder.is_dir()}
    _write_and_publish(staged.store, folders, replacing, run=run, tables=tables)


def write_results(
    path: str | Path,
    *,
    variables: xr.Dataset | None = None,
    run: str = "",
    tables: Mapping[str, xr.Dataset] | None = None,
    replacing: Collection[str] = (),
) -> None:
    """Publish the results of a step in one atomic step.

    Parameters
    ----------
    path
        The store.
    variables
        Small variables in memory, such as maps. Existing coordinates must be equal to the store's;
        they are not written again.
    run
        The run of `tables`.
    tables
        Tables of the run by their names.
    replacing
        Keys (variables, `runs/vae/probe`) that are removed in the same step.

    Raises
    ------
    ExistsError
        If a variable or table exists and is not replaced.
    SchemaError
        If variables do not fit the store.
    """
    store = check_store(path)
    if tables:
        run_folder(store, run)
    with edit_store(store):
        _write_and_publish(store, {}, replacing, variables=variables, run=run, tables=tables)


def _write_and_publish(
    store: Path,
    folders: Mapping[str, Path],
    replacing: Collection[str],
    *,
    variables: xr.Dataset | None = None,
    run: str = "",
    tables: Mapping[str, xr.Dataset] | None = None,
) -> None:
    """Publish finished folders together with variables and tables in memory. Needs the lock."""
    with work_folder(store, RESULTS) as work:
        moves = dict(folders)
        if variables is not None:
            new = _new_variables(_open_without(store, replacing), store, variables)
            with write_errors(store):
                _write_group(new, work / "variables", {})
            for name in map(str, new.variables):
                moves[name] = work / "variables" / name
        for name, table in (tables or {}).items():
            folder = work / "tables" / name
            _write_table(table, folder, run)
            moves[f"{n.RUNS}/{run}/{name}"] = folder
        publish(store, moves, replacing=replacing)


def _open_without(store: Path, replacing: Collection[str]) -> xr.Dataset:
    """Open a store without the variables to be replaced."""
    return open_store(store, chunks=None).drop_vars(list(replacing), errors="ignore")


def _new_variables(existing: xr.Dataset, store: Path, ds: xr.Dataset) -> xr.Dataset:
    """Return the variables that the store does not have, after a check of its coordinates."""
    try:
        xr.align(existing, ds, join="exact", copy=False)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise SchemaError(f"{store}: {reason}; align the data to the store first.") from None
    new = ds.drop_vars([name for name in ds.coords if name in existing.variables])
    _check_new(existing, store, list(map(str, new.variables)))
    return new


def _check_new(existing: xr.Dataset, store: Path, wanted: list[str]) -> None:
    """Raise UsageError or ExistsError unless every name is valid and free."""
    for name in wanted:
        if not n.is_valid_name(name):
            raise UsageError(
                f"{name!r} cannot be a variable name; use letters, digits and _, a letter first."
            )
    taken = [name for name in wanted if name in existing.variables]
    if taken:
        raise ExistsError(f"{store} already holds {', '.join(taken)}; choose another run name.")


def _write_table(ds: xr.Dataset, folder: Path, run: str) -> None:
    """Write a table of a run as a zarr group into an unpublished folder.

    Its dim `latent` gets the name of the run, because all dims of a tree have one size.
    """
    if n.LATENT in ds.dims and run != n.DEFAULT_RUN:
        ds = ds.rename({n.LATENT: n.run_name(n.LATENT, run)})
    with write_errors(folder):
        _write_group(ds, folder, flat(ds.attrs))


@contextmanager
def stage_run(
    path: str | Path, run: str, *, keep: str = "", replacing: Collection[str] = ()
) -> Iterator[Path]:
    """Lock the store and yield a folder for a new run; `finish_run` publishes it.

    The subfolder `keep` of an interrupted training still exists. Raises ExistsError if the run, or
    a variable that it or its encoding will write, exists already and is not replaced.
    """
    store = check_store(path)
    check_run_name(run)
    key = f"{n.RUNS}/{run}"
    with edit_store(store):
        if key not in replacing and existing_keys(store, [key]):
            raise ExistsError(
                f"{store} already has a run {run!r}; choose another name with run='…' (--run)."
            )
        names = [n.run_name(name, run) for name in n.OF_A_RUN]
        _check_new(_open_without(store, replacing), store, names)
        with work_folder(store, f"run-{run}", keep) as folder:
            yield folder


def finish_run(
    path: str | Path,
    run: str,
    folder: Path,
    manifest: Mapping[str, Any],
    variables: xr.Dataset,
    *,
    tables: Mapping[str, xr.Dataset] | None = None,
    replacing: Collection[str] = (),
) -> None:
    """Publish the folder of `stage_run` with tables and maps (`roi`, `split`) as `/runs/<run>`."""
    store = check_store(path)
    for name, table in (tables or {}).items():  # they are published with the folder
        _write_table(table, folder / name, run)
    with write_errors(store):  # nested attributes stay; only tables go to netCDF
        _write_group(xr.Dataset(), folder, plain(manifest))
    folders = {f"{n.RUNS}/{run}": folder}
    _write_and_publish(store, folders, replacing, variables=variables)
    with suppress(OSError):  # the run is published already; a checkpoint does no harm
        (store / n.RUNS / run / n.MODEL / n.CHECKPOINT).unlink()


def check_run_name(run: str) -> None:
    """Raise UsageError for a name that cannot name a run; `latents_std` is that of the run `vae`."""
    if not n.is_valid_name(run) or run.startswith("std"):
        raise UsageError(
            f"{run!r} cannot name a run; use letters, digits and _, a letter first, and not 'std…'."
        )
