"""Put things into a store: the store itself, then variables, runs and tables. All of it through `commit.publish`."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from vaearr import names as n
from vaearr import schema
from vaearr.errors import ExistsError, SchemaError, UsageError
from vaearr.store import commit, layout
from vaearr.store.attributes import NAN_ATTRIBUTE, flat, plain
from vaearr.store.commit import publish, remove_if_empty, staged_folder, staging_root, writer
from vaearr.store.folders import sync_path, sync_tree
from vaearr.store.listing import refresh_listing
from vaearr.store.lock import locked
from vaearr.store.places import Folder, Objects, object_url, sha256_of, store_path
from vaearr.store.read import (
    block_shape,
    check_store,
    open_store,
    read_ahead,
    read_block,
    refuse_taken,
    run_folder,
    run_names,
)
from vaearr.store.seals import AT_ONCE, ROOT_SEAL, attributes_seal, seal
from vaearr.store.sending import creating, finish
from vaearr.store.shards import Elsewhere, chunk_file, from_elsewhere

Transform = Callable[[np.ndarray, layout.Region], np.ndarray]
Progress = Callable[[int, int], None]


def create_store(
    ds: xr.Dataset,
    path: str | Path,
    *,
    transform: Transform | None = None,
    finalise: Callable[[xr.Dataset], xr.Dataset] | None = None,
    progress: Progress | None = None,
    elsewhere: Elsewhere | None = None,
) -> Path:
    """Write a valid Dataset as a new store, streaming `patterns` chunk by chunk, and publish it in one step.

    transform(block, region) sees every block before it is written and returns what to write; finalise(ds) is called
    after the last block and returns the Dataset whose other variables and attributes are written. elsewhere(folder,
    regions) has other processes write the chunks. Chunks for object storage leave this machine one by one. Raises
    ExistsError when something is at `path`, SchemaError for a Dataset that is not valid; nothing is left behind then.
    """
    refuse_taken(path)
    schema.validate(ds)
    store = store_path(path)
    is_far = object_url(store) is not None
    with _making(store) as objects, commit.writing(store, 0 if is_far else ds.nbytes):
        for left in staging_root(store).glob("new-*"):  # of a killed ingest; the lock is ours
            shutil.rmtree(left)
        staged = staging_root(store) / f"new-{uuid.uuid4().hex[:8]}"
        staged.mkdir(parents=True)
        try:
            group = zarr.create_group(staged, zarr_format=3, overwrite=True)
            staging = Staging.of_patterns(ds, group, staged)
            if elsewhere:
                sums = from_elsewhere(elsewhere, staged, staging.regions, progress)
            else:
                sums = _stream(ds, staging, transform, progress, objects)
            final = finalise(ds) if finalise else ds
            group[n.PATTERNS].attrs.update(flat(final[n.PATTERNS].attrs))
            _write_small(final.drop_vars(n.PATTERNS), staged)
            attrs = flat(final.attrs)
            attrs |= {n.SCHEMA_VERSION: n.SCHEMA, n.STORE_ID: uuid.uuid4().hex, "Conventions": "CF-1.11"}
            attrs[ROOT_SEAL] = attributes_seal(attrs)
            group.attrs.update(attrs)
            group.create_group(n.RUNS, attributes=attrs)  # the copy that `root_attributes` goes by
            refresh_listing(staged)
            seal(staged, sums)
            if objects is not None:
                finish(objects, staged)
            else:
                sync_tree(staged)
                if store.exists():
                    raise ExistsError(f"{store} appeared while it was being written; nothing was changed.")
                staged.rename(store)
                sync_path(store.parent)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            remove_if_empty(staging_root(store))
    return store


@contextmanager
def _making(store: Path) -> Iterator[Objects | None]:
    """The right to make a store, and its objects where it is on object storage."""
    if not object_url(store):
        with writer(store):
            yield None
        return
    with locked(store), creating(store, staging_root(store)) as objects:
        yield objects


def _stream(
    ds: xr.Dataset,
    staging: Staging,
    transform: Transform | None,
    progress: Progress | None,
    objects: Objects | None,
) -> dict[str, str]:
    """Write the patterns; returns the checksum of each chunk's file. Of those for object storage few are here at once.

    The next block is read while the ones before are encoded and written.
    """

    def write(region: layout.Region, data: np.ndarray) -> tuple[str, str]:
        write_block(staging, region, {n.PATTERNS: data})
        file = chunk_file(staging.arrays[n.PATTERNS], region)
        name = file.relative_to(staging.folder).as_posix()
        found = name, sha256_of(Folder(staging.folder), name)
        if objects is not None:
            objects.put(name, file)
            file.unlink()
        return found

    sums: dict[str, str] = {}

    def done(future: Future[tuple[str, str]]) -> None:
        sums.update([future.result()])
        if progress:
            progress(len(sums), len(staging.regions))

    read = read_ahead(lambda region: read_block(ds[n.PATTERNS], region), staging.regions)
    under_way: deque[Future[tuple[str, str]]] = deque()
    with ThreadPoolExecutor(1 if objects is None else AT_ONCE) as pool:
        for region, data in zip(staging.regions, read, strict=True):
            under_way.append(pool.submit(write, region, transform(data, region) if transform else data))
            while len(under_way) > (1 if objects is None else AT_ONCE):
                done(under_way.popleft())
        for future in under_way:
            done(future)
    return sums


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


@dataclass(frozen=True, kw_only=True)
class VariableSpec:
    """A variable to come: its dims (navigation dims first), dtype and attributes."""

    dims: tuple[str, ...]
    dtype: str = "float32"
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Staging:
    """Variables that are being written, block by block, where no reader sees them."""

    store: Path
    folder: Path
    arrays: Mapping[str, zarr.Array]
    regions: tuple[layout.Region, ...]
    coords: tuple[str, ...] = ()
    replacing: tuple[str, ...] = ()

    @classmethod
    def of_patterns(cls, ds: xr.Dataset, group: zarr.Group, folder: Path) -> Staging:
        """The patterns of a new store, which is made in a folder."""
        patterns, nav, sig = ds[n.PATTERNS], schema.navigation_dims(ds), schema.signal_dims(ds)
        sizes = {dim: ds.sizes[dim] for dim in nav}
        shape = tuple(sizes.values()), tuple(ds.sizes[d] for d in sig)
        chunks = layout.pattern_chunks(*shape, patterns.dtype.itemsize)
        group.create_array(
            n.PATTERNS,
            shape=patterns.shape,
            dtype=patterns.dtype,
            chunks=chunks,
            compressors=layout.pattern_codecs(),
            fill_value=layout.fill_value(patterns.dtype),
            dimension_names=[*nav, *sig],
            attributes=flat(patterns.attrs),
        )
        regions = tuple(layout.blocks(sizes, dict(zip(nav, chunks, strict=False))))
        return cls(store=folder, folder=folder, arrays={n.PATTERNS: _array(group, n.PATTERNS)}, regions=regions)


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

    coords: coordinates of dims that the store does not have yet, and variables that are known whole. request:
    everything that decides the values; only staged work of the same request is continued. replacing: variables that go
    when these are published (`store.remove.removable`). Raises ExistsError when a variable is there already.
    """
    store = check_store(path)
    with writer(store):
        have = open_store(store, chunks=None).drop_vars(list(replacing), errors="ignore")
        check_new(have, store, [*specs, *map(str, coords.variables)])
        sizes = {**have.sizes, **coords.sizes}
        need = sum(math.prod(sizes[d] for d in spec.dims) * np.dtype(spec.dtype).itemsize for spec in specs.values())
        with commit.writing(store, need):
            yield replace(_staged(store, specs, coords, have, request), replacing=tuple(replacing))


def _staged(
    store: Path, specs: Mapping[str, VariableSpec], coords: xr.Dataset, have: xr.Dataset, request: Mapping[str, Any]
) -> Staging:
    key, block = _key(request), block_shape(store)
    folder = staging_root(store) / f"variables-{'-'.join(sorted(specs))[:60]}"
    if not (folder / f"{key}.request").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _start_staging(folder, specs, coords, have, block)
        (folder / f"{key}.request").write_text(json.dumps(plain(request), indent=2))
    group = zarr.open_group(folder, mode="r+", zarr_format=3)
    regions = tuple(layout.blocks({dim: have.sizes[dim] for dim in block}, block))
    arrays, known = {name: _array(group, name) for name in specs}, tuple(map(str, coords.variables))
    staging = Staging(store=store, folder=folder, arrays=arrays, regions=regions, coords=known)
    _drop_broken(staging)
    return staging


def _drop_broken(staging: Staging) -> None:
    """Remove staged chunks that cannot be read, as a power failure leaves them: they count as not written."""
    for region in staging.regions:
        for array in staging.arrays.values():
            if (chunk := chunk_file(array, region)).exists():
                try:
                    array[tuple(region.values())]
                except Exception:  # codecs have errors of their own
                    chunk.unlink()


def begun(path: str | Path, request: Mapping[str, Any]) -> xr.Dataset | None:
    """What interrupted work of the same request staged whole (`coords` of `staged_variables`), in memory; else None."""
    store = check_store(path)
    for found in staging_root(store).glob(f"variables-*/{_key(request)}.request"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Object at .* is not recognized as a component")  # the request
            staged = xr.open_zarr(found.parent, consolidated=False, chunks=None, zarr_format=3)
        over_grid = [name for name, v in staged.variables.items() if set(block_shape(store)) & set(map(str, v.dims))]
        return staged.drop_vars(over_grid).load()
    return None


def _key(request: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain(request), sort_keys=True).encode()).hexdigest()[:16]


def _start_staging(
    folder: Path, specs: Mapping[str, VariableSpec], coords: xr.Dataset, have: xr.Dataset, block: Mapping[str, int]
) -> None:
    folder.mkdir(parents=True)
    group = zarr.create_group(folder, zarr_format=3, overwrite=True)
    if coords.variables:
        _write_small(coords, folder)
    sizes = {**have.sizes, **coords.sizes}
    for name, spec in specs.items():
        dtype = np.dtype(spec.dtype)
        group.create_array(
            name,
            shape=tuple(sizes[d] for d in spec.dims),
            chunks=tuple(min(block.get(d, sizes[d]), sizes[d]) for d in spec.dims),
            dtype=dtype,
            compressors=layout.map_codecs(),
            fill_value=layout.fill_value(dtype),
            dimension_names=spec.dims,
            attributes=flat(spec.attrs) | ({"_FillValue": NAN_ATTRIBUTE} if dtype.kind == "f" else {}),
        )


def pending(staging: Staging) -> list[layout.Region]:
    """Blocks that are not written yet; a block counts as written when every variable's chunk is there."""
    return [
        region for region in staging.regions if not all(chunk_file(a, region).exists() for a in staging.arrays.values())
    ]


def write_block(staging: Staging, region: layout.Region, values: Mapping[str, np.ndarray]) -> None:
    """Write one block of every staged variable."""
    for name, array in staging.arrays.items():
        array[tuple(region.values())] = values[name]


def publish_staged(staging: Staging) -> None:
    """Check that every block is there, then publish all variables of the staging at once."""
    left = pending(staging)
    if left:
        raise RuntimeError(f"{len(left)} of {len(staging.regions)} blocks are not written; the staging stays.")
    come = {name: staging.folder / name for name in (*staging.coords, *staging.arrays)}
    publish(staging.store, come, instead_of=staging.replacing)


def add_variables(path: str | Path, ds: xr.Dataset, *, replacing: Collection[str] = ()) -> None:
    """Add small in-memory variables (maps, masks) to the store. Raises ExistsError or SchemaError before any write.

    Coordinates that the store has must be equal to the store's; they are not written again. replacing: variables that
    go in the same step.
    """
    store = check_store(path)
    with writer(store):
        new = _fit(store, ds, replacing)
        with staged_folder(store, "maps") as folder:
            zarr.create_group(folder, zarr_format=3, overwrite=True)
            _write_small(new, folder)
            publish(store, {str(name): folder / str(name) for name in new.variables}, instead_of=replacing)


def _fit(store: Path, ds: xr.Dataset, replacing: Collection[str] = ()) -> xr.Dataset:
    """`ds` without the coordinates that the store has, after a check that they agree."""
    have = open_store(store, chunks=None).drop_vars(list(replacing), errors="ignore")
    for dim, size in ds.sizes.items():
        if dim in have.sizes and have.sizes[dim] != size:
            raise SchemaError(f"dimension {dim!r} has {size} entries, in {store} it has {have.sizes[dim]}.")
    for name in ds.coords:
        if name in have.coords and not np.array_equal(have[name].values, ds[name].values):
            raise SchemaError(
                f"coordinate {name!r} differs from the one in {store}; align the data to the store first."
            )
    new = ds.drop_vars([name for name in ds.coords if name in have.variables])
    check_new(have, store, list(map(str, new.variables)))
    return new


def check_new(have: xr.Dataset, store: Path, wanted: list[str]) -> None:
    """Raise unless every name is usable and free."""
    for name in wanted:
        if not n.is_valid_name(name):
            raise UsageError(f"{name!r} cannot be a variable name; use letters, digits and _, a letter first.")
    taken = [name for name in wanted if name in have.variables]
    if taken:
        raise ExistsError(f"{store} already holds {', '.join(taken)}; choose another run name.")


def write_table(path: str | Path, run: str, name: str, ds: xr.Dataset, *, replace: bool = False) -> None:
    """Store a table of a run under `/runs/<run>/<name>`; one that is there is replaced only if `replace`."""
    store = check_store(path)
    run_folder(store, run)
    with writer(store), staged_folder(store, f"{run}-{name}") as folder:
        write_dataset(ds, folder / name, run=run)
        publish(store, {f"{n.RUNS}/{run}/{name}": folder / name}, replace=replace)


def write_dataset(ds: xr.Dataset, folder: Path, *, run: str) -> None:
    """A table of a run as a zarr group of its own, in a folder nobody reads yet.

    Its dim `latent` is stored under the run's own name, so that runs of different size stand in one tree.
    """
    own = ds.rename({n.LATENT: n.run_name(n.LATENT, run)}) if n.LATENT in ds.dims and run != n.DEFAULT_RUN else ds
    group = zarr.create_group(folder, zarr_format=3)
    if own.variables:
        _write_small(own, folder)
    group.attrs.update(flat(own.attrs))


@contextmanager
def staged_run(
    path: str | Path, run: str, *, keep: str | None = None, replacing: Collection[str] = ()
) -> Iterator[Path]:
    """A folder for a new run, locked; what it holds at the end is published as `/runs/<run>` by `publish_run`.

    Of what an interrupted training left in it, the subfolder `keep` is still there. Raises ExistsError at once when the
    run, or a variable that it or its encoding will write, is there already and not among those that go (`replacing`).
    """
    store = check_store(path)
    check_run_name(run)
    with writer(store):
        is_there = run in run_names(store) or (store / n.RUNS / run).exists()
        if is_there and f"{n.RUNS}/{run}" not in replacing:
            raise ExistsError(f"{store} already has a run {run!r}; choose another name with run='…' (--run).")
        have = open_store(store, chunks=None).drop_vars(list(replacing), errors="ignore")
        check_new(have, store, [n.run_name(name, run) for name in n.OF_A_RUN])
        folder = staging_root(store) / f"run-{run}"
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():
            if left.name != keep:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield folder
        finally:
            if folder.exists() and not any(file.is_file() for file in folder.rglob("*")):
                shutil.rmtree(folder)
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
    new = _fit(store, variables, replacing)
    maps = folder.with_name(f"{folder.name}-maps")
    shutil.rmtree(maps, ignore_errors=True)
    zarr.create_group(maps, zarr_format=3, overwrite=True)
    _write_small(new, maps)
    zarr.create_group(folder, zarr_format=3, attributes=plain(manifest))
    come = {str(v): maps / str(v) for v in new.variables} | {f"{n.RUNS}/{run}": folder}
    publish(store, come, instead_of=replacing)
    (store / n.RUNS / run / n.MODEL / n.CHECKPOINT).unlink(missing_ok=True)  # its work is done


def check_run_name(run: str) -> None:
    """Raise UsageError for a name that cannot name a run."""
    if not n.is_valid_name(run) or run.startswith("std"):
        raise UsageError(f"{run!r} cannot name a run; use letters, digits and _, a letter first, and not 'std…'.")


def _array(group: zarr.Group, name: str) -> zarr.Array:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array.with_config({"write_empty_chunks": True})  # an all-NaN chunk must exist to count as written
