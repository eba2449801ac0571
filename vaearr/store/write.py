"""Put things into a store: the store itself, then variables, runs and tables, by `commit.publish`."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import uuid
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import ExistsError, SchemaError, UsageError
from vaearr.store import layout
from vaearr.store.commit import edit_store, publish, remove_if_empty, staged_folder, staging_root
from vaearr.store.fingerprints import variable_fingerprint
from vaearr.store.folders import sha256_of, sync_path, sync_tree, write_errors
from vaearr.store.layout import Region, flat, plain, read_ahead
from vaearr.store.listing import SEALED, refresh_listing, seal
from vaearr.store.paths import store_path
from vaearr.store.read import (
    block_shape,
    check_store,
    open_store,
    read_block,
    refuse_taken,
    run_folder,
    run_names,
)

Transform = Callable[[np.ndarray, Region], np.ndarray]
Progress = Callable[[int, int], object]
WrittenChunks = Generator[tuple[Path, str], None, None]  # the file of each chunk, and its checksum


@dataclass(frozen=True, kw_only=True)
class VariableSpec:
    """A variable to come: its dims (navigation dims first), dtype and attributes."""

    dims: tuple[str, ...]
    dtype: str = "float32"
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Staging:
    """Variables that are being written, block by block, where no reader finds them."""

    store: Path
    folder: Path
    arrays: Mapping[str, zarr.Array]
    regions: tuple[Region, ...]
    coords: tuple[str, ...] = ()
    replacing: tuple[str, ...] = ()


def create_store(
    ds: xr.Dataset,
    path: str | Path,
    *,
    transform: Transform | None = None,
    finalise: Callable[[xr.Dataset], xr.Dataset] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a valid Dataset as a new store, streaming `patterns` by chunk, and publish it in one step.

    Parameters
    ----------
    ds
        What is written.
    path
        Where; nothing may be there.
    transform
        Called with every block and its region before it is written; returns what to write.
    finalise
        Called after the last block; returns the Dataset whose other variables are written.
    progress
        Called with the number of blocks that are written, and of all.

    Returns
    -------
    pathlib.Path
        The store.

    Raises
    ------
    ExistsError
        If something is at `path`.
    SchemaError
        For a Dataset that is not valid. Nothing is left behind then.
    """
    refuse_taken(path)
    schema.validate(ds)
    store = store_path(path)
    with edit_store(store):
        staged = staging_root(store) / f"new-{uuid.uuid4().hex[:8]}"
        try:
            with write_errors(store, ds.nbytes):
                group = _new_group(staged)
                array, regions = _new_patterns(group, ds)
            sums = {}
            # closed, so that no thread writes on after an error
            with closing(_stream(ds, staged, array, regions, transform)) as written:
                for file, checksum in written:
                    sums[file.relative_to(staged).as_posix()] = checksum
                    if progress:
                        progress(len(sums), len(regions))
            final = finalise(ds) if finalise else ds
            with write_errors(store, ds.nbytes):
                array.attrs.update(flat(final[n.PATTERNS].attrs))
                _write_small(final.drop_vars(n.PATTERNS), staged)
                attributes = flat(final.attrs) | {"Conventions": "CF-1.11"}
                group.attrs.update(attributes)
                identity = {
                    n.SCHEMA_VERSION: n.SCHEMA,
                    n.STORE_ID: uuid.uuid4().hex,
                    SEALED: sorted(map(str, final.variables)),
                    n.PATTERNS_FINGERPRINT: variable_fingerprint(staged, n.PATTERNS),
                }
                group.create_group(n.RUNS, attributes=attributes | identity)
                refresh_listing(staged)
                seal(staged, sums)
                sync_tree(staged)
                refuse_taken(store)
                staged.rename(store)
                sync_path(store.parent)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            remove_if_empty(staging_root(store))
    return store


def _new_patterns(group: zarr.Group, ds: xr.Dataset) -> tuple[zarr.Array, list[Region]]:
    """The array of a new store's patterns, and its chunks."""
    patterns, nav, sig = ds[n.PATTERNS], schema.navigation_dims(ds), schema.signal_dims(ds)
    sizes = {dim: ds.sizes[dim] for dim in nav}
    signal = tuple(ds.sizes[dim] for dim in sig)
    chunks = layout.pattern_chunks(tuple(sizes.values()), signal, patterns.dtype.itemsize)
    spec = VariableSpec(dims=(*nav, *sig), dtype=patterns.dtype.str, attrs=patterns.attrs)
    array = _new_array(group, n.PATTERNS, spec, ds.sizes, chunks, layout.pattern_codecs())
    return array, list(layout.blocks(sizes, dict(zip(nav, chunks, strict=False))))


def _stream(
    ds: xr.Dataset,
    staged: Path,
    array: zarr.Array,
    regions: Sequence[Region],
    transform: Transform | None,
) -> WrittenChunks:
    """Write the patterns. The next block is read while the previous one is encoded and written."""

    def read(region: Region) -> np.ndarray:
        with write_errors(staged, ds.nbytes):  # a source may write a temporary copy as it is read
            return read_block(ds[n.PATTERNS], region)

    def write(block: tuple[Region, np.ndarray]) -> tuple[Path, str]:
        region, values = block
        index = tuple(region.values())
        with write_errors(staged, ds.nbytes):
            array[index] = values
        file = staged / array.path / layout.chunk_name(array, index)
        return file, sha256_of(file)

    def transformed() -> Iterator[tuple[Region, np.ndarray]]:
        for region, values in zip(regions, read_ahead(read, regions), strict=True):
            yield region, transform(values, region) if transform else values

    yield from read_ahead(write, transformed())


def _new_group(
    folder: Path, small: xr.Dataset | None = None, attributes: Mapping[str, Any] | None = None
) -> zarr.Group:
    """A zarr group with small variables, in a folder nobody reads yet."""
    group = zarr.create_group(folder, zarr_format=3)
    if small is not None and small.variables:
        _write_small(small, folder)
    group.attrs.update(attributes or {})  # those that xarray leaves are empty
    return group


def _new_array(
    group: zarr.Group,
    name: str,
    spec: VariableSpec,
    sizes: Mapping[Any, int],
    chunks: Sequence[int],
    codecs: tuple[Any, ...],
) -> zarr.Array:
    group.create_array(
        name,
        shape=tuple(sizes[dim] for dim in spec.dims),
        chunks=tuple(chunks),
        dtype=np.dtype(spec.dtype),
        compressors=codecs,
        fill_value=layout.fill_value(np.dtype(spec.dtype)),
        dimension_names=spec.dims,
        attributes=flat(spec.attrs),
    )
    return _array(group, name)


def _array(group: zarr.Group, name: str) -> zarr.Array:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array.with_config({"write_empty_chunks": True})  # an all-NaN chunk must exist to count as written


def _write_small(ds: xr.Dataset, folder: Path) -> None:
    """Maps and coordinates, by xarray, with checksummed codecs; into a folder nobody reads yet."""
    clean = ds.drop_encoding()
    clean.attrs = {}
    for name in [name for name, v in clean.variables.items() if v.dtype.kind == "U"]:
        clean[name] = clean[name].astype(object)  # text of variable length: the form that zarr v3 specifies
    for variable in clean.variables.values():
        variable.attrs = flat(variable.attrs)
    encoding = {
        str(name): {"compressors": layout.map_codecs()} | ({"_FillValue": np.nan} if v.dtype.kind == "f" else {})
        for name, v in clean.variables.items()
    }
    clean.to_zarr(folder, mode="a", zarr_format=3, consolidated=False, encoding=encoding, write_empty_chunks=True)


@contextmanager
def staged_variables(
    path: str | Path,
    specs: Mapping[str, VariableSpec],
    *,
    coords: xr.Dataset,
    request: Mapping[str, Any],
    replacing: Collection[str] = (),
) -> Iterator[Staging]:
    """Stage new variables: write every pending block, then `publish_staged`. Interrupted work is found again.

    coords: coordinates of dims that the store does not have yet, and variables that are known.
    request: everything that decides the values; only staged work of the same request is continued.
    replacing: variables that are removed when these are published (`store.remove.removable`).
    Raises ExistsError when a variable exists already.
    """
    store = check_store(path)
    with edit_store(store):
        have = open_store(store, chunks=None).drop_vars(list(replacing), errors="ignore")
        _check_new(have, store, [*specs, *map(str, coords.variables)])
        sizes, block = {**have.sizes, **coords.sizes}, block_shape(store)
        needed_bytes = 0
        for spec in specs.values():
            count = math.prod(sizes[dim] for dim in spec.dims)
            needed_bytes += count * np.dtype(spec.dtype).itemsize
        folder = staging_root(store) / f"variables-{'-'.join(sorted(specs))[:60]}"
        request_file = folder / f"{_key(request)}.request"
        with write_errors(store, needed_bytes):
            if not request_file.exists():
                shutil.rmtree(folder, ignore_errors=True)
                group = _new_group(folder, coords)
                for name, spec in specs.items():
                    chunks = [min(block.get(dim, sizes[dim]), sizes[dim]) for dim in spec.dims]
                    if np.dtype(spec.dtype).kind == "f":
                        attrs = {**spec.attrs, "_FillValue": layout.NAN_ATTRIBUTE}
                        spec = replace(spec, attrs=attrs)
                    _new_array(group, name, spec, sizes, chunks, layout.map_codecs())
                request_file.write_text(json.dumps(plain(request), indent=2))
        group = zarr.open_group(folder, mode="r+", zarr_format=3)
        staging = Staging(
            store=store,
            folder=folder,
            arrays={name: _array(group, name) for name in specs},
            regions=tuple(layout.blocks({dim: have.sizes[dim] for dim in block}, block)),
            coords=tuple(map(str, coords.variables)),
            replacing=tuple(replacing),
        )
        _drop_broken(staging)
        yield staging


def _key(request: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain(request), sort_keys=True).encode()).hexdigest()[:16]


def _files(staging: Staging, region: Region) -> Iterator[tuple[zarr.Array, Path]]:
    """Each staged array, and the file of its chunk."""
    for name, array in staging.arrays.items():
        yield array, staging.folder / name / layout.chunk_name(array, tuple(region.values()))


def _drop_broken(staging: Staging) -> None:
    """Remove staged chunks that cannot be read, as a power failure leaves them: they count as not written."""
    for region in staging.regions:
        for array, file in _files(staging, region):
            if file.exists():
                try:
                    array[tuple(region.values())]
                except Exception:  # codecs have errors of their own
                    file.unlink()


def pending(staging: Staging) -> list[Region]:
    """Blocks that are not written yet; a block counts as written when every variable's chunk is there."""
    return [region for region in staging.regions if not all(file.exists() for _, file in _files(staging, region))]


def write_block(staging: Staging, region: Region, values: Mapping[str, np.ndarray]) -> None:
    """Write one block of every staged variable. Raises WriteError."""
    with write_errors(staging.store):
        for name, array in staging.arrays.items():
            array[tuple(region.values())] = values[name]


def publish_staged(
    staging: Staging,
    *,
    run: str = "",
    tables: Mapping[str, xr.Dataset] | None = None,
    replacing: Collection[str] = (),
) -> None:
    """Check that every block is there, then publish all variables of the staging at once.

    run, tables, replacing: tables that are published in the same step, as in `write_results`.
    """
    left = pending(staging)
    if left:
        raise RuntimeError(f"{len(left)} of {len(staging.regions)} blocks are not written; the staging stays.")
    store, tables = staging.store, tables or {}
    moves = {name: staging.folder / name for name in (*staging.coords, *staging.arrays)}
    with staged_folder(store, "tables") as folder:
        moves |= _staged_tables(folder, run, tables)
        publish(store, moves, replacing=[*staging.replacing, *replacing])


def write_results(
    path: str | Path,
    *,
    variables: xr.Dataset | None = None,
    run: str = "",
    tables: Mapping[str, xr.Dataset] | None = None,
    replacing: Collection[str] = (),
) -> None:
    """Publish all that a step has made, in one step.

    Parameters
    ----------
    path
        The store.
    variables
        Small variables in memory, such as maps. Coordinates that the store has must be equal to
        the store's; they are not written again.
    run
        Whose tables `tables` are.
    tables
        Tables of the run by their names.
    replacing
        Keys (variables, `runs/vae/probe`) that are removed in the same step.

    Raises
    ------
    ExistsError
        For a variable or table that exists and is not replaced.
    SchemaError
        For variables that do not fit the store.
    """
    store, tables = check_store(path), tables or {}
    if tables:
        run_folder(store, run)
    with edit_store(store), staged_folder(store, "results") as folder:
        moves: dict[str, Path] = {}
        if variables is not None:
            moves |= _staged_maps(store, variables, folder / "maps", replacing)
        moves |= _staged_tables(folder, run, tables)
        publish(store, moves, replacing=replacing)


def add_variables(path: str | Path, ds: xr.Dataset, *, replacing: Collection[str] = ()) -> None:
    """Publish variables alone, see `write_results`."""
    write_results(path, variables=ds, replacing=replacing)


def write_table(path: str | Path, run: str, name: str, ds: xr.Dataset, *, replace: bool = False) -> None:
    """Publish one table of a run, see `write_results`; replace: instead of one of this name."""
    replacing = [f"{n.RUNS}/{run}/{name}"] if replace else []
    write_results(path, run=run, tables={name: ds}, replacing=replacing)


def _staged_tables(folder: Path, run: str, tables: Mapping[str, xr.Dataset]) -> dict[str, Path]:
    """Write tables of a run into a folder; returns where each is, by its key in the store."""
    moves = {}
    for name, table in tables.items():
        moves[f"{n.RUNS}/{run}/{name}"] = folder / f"table-{name}"
        write_dataset(table, folder / f"table-{name}", run=run)
    return moves


def _staged_maps(store: Path, ds: xr.Dataset, folder: Path, replacing: Collection[str]) -> dict[str, Path]:
    """Stage what the store does not have of some variables and coordinates, after a check that the rest agrees."""
    have = open_store(store, chunks=None).drop_vars(list(replacing), errors="ignore")
    try:
        xr.align(have, ds, join="exact", copy=False)
    except ValueError as error:
        raise SchemaError(f"{store}: {' '.join(str(error).split())}; align the data to the store first.") from None
    new = ds.drop_vars([name for name in ds.coords if name in have.variables])
    _check_new(have, store, list(map(str, new.variables)))
    with write_errors(store):
        _new_group(folder, new)
    return {str(name): folder / str(name) for name in new.variables}


def _check_new(have: xr.Dataset, store: Path, wanted: list[str]) -> None:
    """Raise unless every name is usable and free."""
    for name in wanted:
        if not n.is_valid_name(name):
            raise UsageError(f"{name!r} cannot be a variable name; use letters, digits and _, a letter first.")
    taken = [name for name in wanted if name in have.variables]
    if taken:
        raise ExistsError(f"{store} already holds {', '.join(taken)}; choose another run name.")


def write_dataset(ds: xr.Dataset, folder: Path, *, run: str) -> None:
    """A table of a run as a zarr group of its own, in a folder nobody reads yet.

    Its dim `latent` is stored under the run's own name, so that runs of different size stand in one tree.
    """
    if n.LATENT in ds.dims and run != n.DEFAULT_RUN:
        ds = ds.rename({n.LATENT: n.run_name(n.LATENT, run)})
    with write_errors(folder):
        _new_group(folder, ds, flat(ds.attrs))


@contextmanager
def staged_run(
    path: str | Path, run: str, *, keep: str | None = None, replacing: Collection[str] = ()
) -> Iterator[Path]:
    """A folder for a new run, with the store locked; `publish_run` publishes it as `/runs/<run>`.

    Of what an interrupted training left in it, the subfolder `keep` is still there. Raises
    ExistsError when the run, or a variable that it or its encoding will write, exists already and
    is not among those that are replaced.
    """
    store = check_store(path)
    check_run_name(run)
    with edit_store(store):
        exists = run in run_names(store) or (store / n.RUNS / run).exists()
        if exists and f"{n.RUNS}/{run}" not in replacing:
            raise ExistsError(f"{store} already has a run {run!r}; choose another name with run='…' (--run).")
        have = open_store(store, chunks=None).drop_vars(list(replacing), errors="ignore")
        _check_new(have, store, [n.run_name(name, run) for name in n.OF_A_RUN])
        folder = staging_root(store) / f"run-{run}"
        with write_errors(store):
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.iterdir():
                if left.is_dir() and left.name != keep:
                    shutil.rmtree(left)
                elif left.name != keep:
                    left.unlink()
        try:
            yield folder
        finally:
            if folder.exists() and not any(file.is_file() for file in folder.rglob("*")):
                shutil.rmtree(folder, ignore_errors=True)
                remove_if_empty(staging_root(store))


def publish_run(
    path: str | Path,
    run: str,
    folder: Path,
    manifest: Mapping[str, Any],
    variables: xr.Dataset,
    *,
    replacing: Collection[str] = (),
) -> None:
    """Publish a run's folder and its maps (`roi`, `split`) together. Call it inside `staged_run`."""
    store = check_store(path)
    with staged_folder(store, "maps") as maps:
        moves = _staged_maps(store, variables, maps / "maps", replacing)
        with write_errors(store):
            _new_group(folder, attributes=plain(manifest))
        publish(store, moves | {f"{n.RUNS}/{run}": folder}, replacing=replacing)
    with suppress(OSError):  # the run is published; a checkpoint that stays does no harm
        (store / n.RUNS / run / n.MODEL / n.CHECKPOINT).unlink()


def check_run_name(run: str) -> None:
    """Raise UsageError for a name that cannot name a run."""
    if not n.is_valid_name(run) or run.startswith("std"):
        raise UsageError(f"{run!r} cannot name a run; use letters, digits and _, a letter first, and not 'std…'.")
