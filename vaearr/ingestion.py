"""From source files to a store: join the side maps, check every value on its way, record where it came from.

Everything cheap is checked before anything is written; what fails later leaves no store behind.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.attaching import element_array, map_array, phase_array
from vaearr.block_checks import Checks, Summary, look_at, present_of
from vaearr.computing import Where, check_where, connected, each, in_words
from vaearr.config import IngestConfig, resolved, settings_as_keywords
from vaearr.detector import reduced
from vaearr.errors import DataError, ExistsError, UsageError, VaearrError, WorkersError, WriteError
from vaearr.provenance import nested, now, versions
from vaearr.recipe import Recipe, is_made
from vaearr.sources import SOURCES, check_source, find_source, open_source, source_files
from vaearr.sources.collection import SKIPPED
from vaearr.sources.orientation_maps import side_maps
from vaearr.store import (
    Elsewhere,
    Region,
    check_patterns,
    check_store,
    create_store,
    desk,
    object_url,
    open_store,
    recover,
    refuse_taken,
    shown,
    write_shard,
)
from vaearr.store.remove import replacing

OF_ANY_SOURCE = {"maps", "elements", "element_units", "phases", "phase_names", "orientations"}
OF_ANY_SOURCE |= {"crop", "bin", "nonfinite"}
Say = Callable[[str], None]


@settings_as_keywords(IngestConfig)
def ingest(
    source: str | Path | xr.Dataset | xr.DataArray,
    store: str | Path,
    *,
    config: IngestConfig | None = None,
    dask: Where | None = None,
    overwrite: bool = False,
    say: Say | None = None,
    progress: Callable[[int, int], None] | None = None,
    **given: Any,
) -> xr.Dataset:
    """Write a source and its side maps as a new store; returns the store's Dataset.

    source: a file, a folder, a zarr store, or a Dataset or DataArray, read block by block, whose dims are told by their
    names or by the attributes `navigation_dims` and `signal_dims`. Keywords replace single settings of `config`.
    A map in several files is taken from its own CSV first, then from `orientations` (.ang, .ctf), then from the source
    itself. say: called with one line for each thing worth knowing, such as scan points without a value. progress:
    called with (blocks written, blocks in all). A store that is there, made of the same file with the same settings, is
    returned; `overwrite` replaces another one, with all its runs, when the new one is whole. Raises ExistsError where
    anything else is at `store`, DataError or NoInputError for inputs that do not hold what they should, WriteError
    where they do not fit on the disk. No store is left behind then: what is refused before the patterns are read leaves
    nothing, what fails later only the folders that were made for the store and its hidden lock file. At `s3://…` chunks
    are sent one by one, so that the disk need not hold them.

    dask: the workers that read, check and write the patterns shard by shard, see `vaearr.computing`; the store is the
    same. They need the source and the store's folder under the same path; where the order of a file needs a scratch
    copy, each makes one. Raises WorkersError where they cannot, or die of a shard each time.
    """
    say = say or (lambda line: None)
    config = resolved(IngestConfig, config, given)
    check_where(dask)
    if dask is not None and (url := object_url(store)):
        raise UsageError(f"Dask workers write into a folder that they share, and {url} is a URL; leave dask out.")
    if (old := _taken(store)) is not None:
        if _is_ingested(old, source, config, overwrite=overwrite, say=say):
            return open_store(store)
        with replacing(old) as new:
            ingest(source, new, config=config, dask=dask, say=say, progress=progress)
        return open_store(store)
    is_here = object_url(store) is None
    folder = _existing_parent(desk(store))
    file: Path | None = None
    if isinstance(source, xr.Dataset | xr.DataArray):
        _refuse_file_settings(config, dask)
        opening: AbstractContextManager[xr.Dataset] = nullcontext(schema.as_dataset(source))
    else:
        file = check_source(source)
        opening = open_source(file, config, scratch=folder)
    before = source_state(file, config)
    with opening as lazy:
        if not schema.is_scan(lazy):
            _refuse_scan_settings(config)
        ds = preflight(reduced(lazy, config), config, folder if is_here else None, say)
        checks = Checks(ds, config.nonfinite)

        def finalise(ds: xr.Dataset) -> xr.Dataset:
            if source_state(file, config) != before:
                raise DataError(f"{file} changed while it was read; ingest it again when nothing writes to it.")
            return _described(ds, file, config, checks)

        if file is not None and (file / n.RUNS / "zarr.json").exists():  # one of vaearr's: nothing of it may be lost
            check_patterns(file)

        with _by_workers(file, config, before, folder, checks, dask, say) as elsewhere:
            create_store(
                ds, store, transform=checks.transform, finalise=finalise, progress=progress, elsewhere=elsewhere
            )
    for line in checks.findings():
        say(line)
    left_out = ds.attrs.get(SKIPPED, ())
    if left_out:
        say(f"left out, {len(left_out)} in all:")
    for line in left_out:
        say(f"  {line}")
    return open_store(store)


def _taken(store: str | Path) -> Path | None:
    """The store that is there already; None where the place is free. Raises ExistsError for anything else there."""
    try:
        refuse_taken(store)
    except ExistsError as error:
        try:
            path = check_store(store)
        except VaearrError:
            raise error from None
        recover(path)
        return path
    return None


def _is_ingested(old: Path, source: Any, config: IngestConfig, *, overwrite: bool, say: Say) -> bool:
    """Whether a store was made of the same file (name, bytes, time of change) with the same settings."""
    if isinstance(source, xr.Dataset | xr.DataArray):
        inputs = {"source": {"file": "a Dataset, whose values are not compared"}}
    else:
        file = check_source(source)
        inputs = {"source": {"file": file.name, **_state(file, config)}}
    made = nested(open_store(old, chunks=None).attrs, n.PROVENANCE)
    if isinstance(made, Mapping):
        known = dict(made.get("source", {}))
        made = {"source": {key: known.get(key) for key in inputs["source"]}, "config": made.get("ingest")}
    there = f"{shown(old)} already exists"
    return is_made(there, made, Recipe(config, inputs), instead="give another path", overwrite=overwrite, say=say)


@contextmanager
def _by_workers(
    file: Path | None,
    config: IngestConfig,
    state: tuple[int, int],
    folder: Path,
    checks: Checks,
    dask: Where | None,
    say: Say,
) -> Iterator[Elsewhere | None]:
    """What has Dask workers write the shards, all of which see the source; None without `dask`."""
    if dask is None or file is None:
        yield None
        return
    source, settings = str(file.absolute()), _with_absolute_paths(config).to_attrs()
    with connected(dask) as client:
        assert client is not None
        say(in_words(client))

        def elsewhere(staged: Path, regions: Sequence[Region]) -> Generator[tuple[Path, str], None, None]:
            what = (str(staged), source, json.dumps(settings), state, str(folder.absolute()))
            try:
                for region, (shard, checksum, summary) in each(client, ingest_shard, regions, *what):
                    checks.add(region, summary)
                    yield shard, checksum
            finally:
                client.run(_opened.cache_clear, on_error="ignore")  # the source, and a scratch copy of it

        yield elsewhere


def ingest_shard(
    region: Region, staged: str, source: str, config: str, state: tuple[int, int], scratch: str
) -> tuple[Path, str, Summary]:
    """On a worker: read one shard from the source, look at it, write it; its file, checksum and summary."""
    ds, present = _opened(source, config, tuple(state), scratch)
    block = ds[n.PATTERNS].isel(region).compute(scheduler="synchronous").values
    block, summary = look_at(block, region, ds, present, IngestConfig.from_attrs(json.loads(config)).nonfinite)
    if not (Path(staged) / "zarr.json").exists():
        raise WorkersError(
            f"a worker does not see {staged}; put the store where all machines have it at the same path."
        )
    return *write_shard(staged, region, block), summary


@lru_cache(maxsize=1)
def _opened(source: str, config: str, state: tuple[int, int], scratch: str) -> tuple[xr.Dataset, np.ndarray]:
    settings = IngestConfig.from_attrs(json.loads(config))
    if source_state(check_source(source), settings)[0] != state[0]:
        raise WorkersError(f"a worker sees another file at {source} than this process; give all machines the same one.")
    ds = reduced(open_source(source, settings, scratch=scratch), settings)
    return ds, present_of(ds)


def _with_absolute_paths(config: IngestConfig) -> IngestConfig:
    """The settings for a process with another working folder, as far as they concern the source."""
    return config.replace(manifest=config.manifest and Path(config.manifest).expanduser().absolute())


def preflight(ds: xr.Dataset, config: IngestConfig, folder: Path | None, say: Say) -> xr.Dataset:
    """`ds` with its side maps joined and everything checked that does not need the patterns' values.

    folder: on the disk that the patterns must fit on; None where they go elsewhere.
    """
    brought = {str(name) for name in ds.data_vars} - n.RESERVED
    for name in config.maps:
        if name in n.RESERVED or (name in ds.variables and name not in brought) or name.startswith(n.OF_LATER_RUNS):
            raise UsageError(f"{name!r} cannot name a map, the name has a meaning of its own; choose another one.")
    need = int(ds[n.PATTERNS].nbytes * 1.1)
    if folder is not None and need > (free := shutil.disk_usage(folder).free):
        raise WriteError(
            f"{folder}: the patterns need up to {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; free some space or "
            f"choose another disk."
        )
    n_absent = int((~ds[n.PRESENT]).sum()) if n.PRESENT in ds else 0
    if n_absent:
        say(f"{n_absent} of {ds[n.PRESENT].size} scan points have no pattern; {n.PRESENT!r} marks them.")
    for line in ds.attrs.get("notes", ()):
        say(line)
    beside = side_maps(config.orientations, ds) if config.orientations is not None else {}
    if taken := sorted((beside.keys() & n.RESERVED) - {n.PHASE, n.ELEMENTS}):
        raise DataError(f"{config.orientations} has a column {taken[0]!r}, a name with a meaning of its own.")
    n_lacking = next((variable.attrs["n_missing"] for variable in beside.values()), 0)
    if n_lacking:
        say(f"{Path(config.orientations or '').name}: {n_lacking} scan points have no entry.")
    new: dict[str, xr.DataArray] = {name: map_array(path, name, ds) for name, path in config.maps.items()}
    if config.elements is not None:
        new[n.ELEMENTS] = element_array(config.elements, ds, config.element_units)
    if config.phases is not None:
        new[n.PHASE] = phase_array(config.phases, ds, config.phase_names)
    for name, variable in new.items():
        for line in _coverage(name, variable):
            say(line)
    for name in sorted((new.keys() & (beside.keys() | ds.keys())) | (beside.keys() & ds.keys())):
        say(f"{name}: taken from {(beside | new)[name].attrs['source']}; it is also in another of the files.")
    new = beside | new
    joined = _without(ds, [name for name in new if name in ds]).assign(new)
    schema.validate(joined)
    return joined


def _refuse_scan_settings(config: IngestConfig) -> None:
    """Raise UsageError for what a collection has no place for."""
    given = [key for key in ("maps", "elements", "phases", "orientations", "step", "crop") if getattr(config, key)]
    if given or config.bin != 1:
        raise UsageError(
            f"{(given or ['bin'])[0]} is for scans, and the source is a collection without scan points; leave it out "
            f"(a manifest brings columns of numbers for each sample, size another size)."
        )


def _refuse_file_settings(config: IngestConfig, dask: Where | None) -> None:
    """Raise UsageError for what says how files are read."""
    plain = IngestConfig()
    given = [key for key in IngestConfig.model_fields if getattr(config, key) != getattr(plain, key)]
    given = [key for key in given if key not in OF_ANY_SOURCE] + ["dask"] * (dask is not None)
    if given:
        raise UsageError(
            f"{given[0]} says how files are read, and a Dataset is taken as it is; leave it out and change the Dataset "
            "(coordinates by ds.assign_coords, size by ds.isel or ds.coarsen)."
        )


def _without(ds: xr.Dataset, names: list[str]) -> xr.Dataset:
    """The Dataset without these variables, and without the dims that only they had."""
    left = ds.drop_vars(names)
    used = {dim for variable in left.data_vars.values() for dim in variable.dims}
    return left.drop_vars([name for name, coord in left.coords.items() if not set(coord.dims) <= used])


def _coverage(name: str, variable: xr.DataArray) -> Iterator[str]:
    attrs = variable.attrs
    if attrs["n_missing"]:
        yield f"{name}: {attrs['n_missing']} scan points have no line in {attrs['source']}."
    if attrs["n_outside"]:
        yield f"{name}: {attrs['n_outside']} lines of {attrs['source']} lie outside the scan and are left out."
    if attrs["n_dropped"]:
        yield f"{name}: {attrs['n_dropped']} columns of {attrs['source']} without a name are left out."


def _described(ds: xr.Dataset, file: Path | None, config: IngestConfig, checks: Checks) -> xr.Dataset:
    """The Dataset with what the stream has found, and where all of it came from."""
    checks.refuse_useless()
    nav = schema.navigation_dims(ds)
    patterns = ds[n.PATTERNS].assign_attrs(
        value_min=checks.low,
        value_max=checks.high,
        n_constant=checks.n_constant,
        n_masked=checks.n_masked,
        sha256=checks.sha256(),
        **{n.SHA256_OF: n.SHARDS},
    )
    kind = "xarray" if file is None else find_source(file, config)
    packages = () if file is None else SOURCES[kind].packages
    came_from = nested(ds.attrs, n.PROVENANCE)
    origin = {
        "source": {
            "file": "a Dataset" if file is None else file.name,
            "format": kind,
            **_state(file, config),
            **({"of": came_from} if came_from else {}),
        },
        "ingest": config.deciding(),
        "versions": versions("h5py", "pandas", *packages),
        "created": now(),
    }
    present = xr.DataArray(checks.present, dims=nav, attrs=n.ATTRS[n.PRESENT])
    return ds.assign({n.PATTERNS: patterns, n.PRESENT: present}).assign_attrs({n.PROVENANCE: origin})


def source_state(source: Path | None, config: IngestConfig) -> tuple[int, int]:
    """Bytes and time of the last change, of several files: of all together; of a Dataset nothing."""
    if source is None:
        return 0, 0
    states = [file.stat() for file in source_files(source, config)]
    return sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)


def _state(file: Path | None, config: IngestConfig) -> dict[str, Any]:
    """The same as the store keeps it: bytes and, of files, the time in UTC."""
    size, changed = source_state(file, config)
    return {"bytes": size, **({"mtime": datetime.fromtimestamp(changed / 1e9, UTC).isoformat()} if changed else {})}


def _existing_parent(target: Path) -> Path:
    """The nearest folder above `target` that exists, on the disk that will hold the store."""
    folder = target.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise WriteError(f"{folder} is not a folder, so {target} cannot be created in it; choose another path.")
    if not os.access(folder, os.W_OK):
        raise WriteError(f"{folder} cannot be written to; choose another path or change its permissions.")
    return folder
