"""From source files to a store: join the side maps, check every value on its way, record where it came from.

Everything cheap is checked before anything is written; what fails later leaves no store behind.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.computing import Where, check_where, connected, each, in_words
from vaearr.config import IngestConfig, resolved, settings_as_keywords
from vaearr.errors import DataError, ExistsError, UsageError, VaearrError, WorkersError, WriteError
from vaearr.ingestion.attaching import side_map
from vaearr.recipe import Recipe, is_made, nested, now, versions
from vaearr.schema.grid import measured
from vaearr.schema.pattern_steps import bin_patterns, crop
from vaearr.sources import check_source, find_source, named_source, open_source, source_files
from vaearr.sources.collection import SKIPPED
from vaearr.sources.orientation_maps import side_maps
from vaearr.sources.vendor import DETECTOR
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
    write_shard,
)
from vaearr.store.layout import pattern_chunks
from vaearr.store.remove import replacing

log = logging.getLogger("vaearr")

OF_SCANS = ("maps", "elements", "phases", "orientations", "step", "crop", "bin")
OF_ANY_SOURCE = {*OF_SCANS, "element_units", "phase_names", "nonfinite"} - {"step"}
CENTRE = "projection_centre"
CONVENTION, SPREAD = f"{CENTRE}_convention", f"{CENTRE}_spread"
LEVELS = 16  # float32 numbers, as which networks see patterns, that must lie between the extremes of one of integers


@settings_as_keywords(IngestConfig)
def ingest(
    source: str | Path | xr.Dataset | xr.DataArray,
    store: str | Path,
    *,
    config: IngestConfig | None = None,
    dask: Where | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **given: Any,
) -> xr.Dataset:
    """Write a source and its side maps as a new store; returns the store's Dataset.

    source: a file, a folder, a zarr store, or a Dataset or DataArray, read block by block, whose dims are told by their
    names or by the attributes `navigation_dims` and `signal_dims`. Keywords replace single settings of `config`.
    A map in several files is taken from its own CSV first, then from `orientations` (.ang, .ctf), then from the source
    itself. progress: called with (blocks written, blocks in all). A store that is there,
    made of the same file with the same settings, is returned; `overwrite` replaces another one, with all its runs, when
    the new one is whole. Raises ExistsError where
    anything else is at `store`, DataError or NoInputError for inputs that do not hold what they should, WriteError
    where they do not fit on the disk. No store is left behind then: what is refused before the patterns are read leaves
    nothing, what fails later only the folders that were made for the store and its hidden lock file. At `s3://…` chunks
    are sent one by one, so that the disk need not hold them.

    dask: the workers that read, check and write the patterns shard by shard, see `vaearr.computing`; the store is the
    same. They need the source and the store's folder under the same path; where the order of a file needs a scratch
    copy, each makes one. Raises WorkersError where they cannot, or die of a shard each time.
    """
    config = resolved(IngestConfig, config, given)
    check_where(dask)
    if dask is not None and (url := object_url(store)):
        raise UsageError(f"Dask workers write into a folder that they share, and {url} is a URL; leave dask out.")
    if (old := _taken(store)) is not None:
        if _is_ingested(old, source, config, overwrite=overwrite):
            return open_store(store)
        with replacing(old) as new:
            ingest(source, new, config=config, dask=dask, progress=progress)
        return open_store(store)
    folder = _existing_parent(desk(store))
    file: Path | None = None
    if isinstance(source, xr.Dataset | xr.DataArray):
        opening: AbstractContextManager[xr.Dataset] = nullcontext(schema.as_dataset(source))
    else:
        file = check_source(source)
        opening = open_source(file, config, scratch=folder)
    before = _state(file, config)
    with opening as lazy:
        _refuse_settings(config, lazy, dask, is_file=file is not None)
        ds = preflight(reduced(lazy, config), config, None if object_url(store) else folder)
        checks = Checks(ds, config.nonfinite)

        def finalise(ds: xr.Dataset) -> xr.Dataset:
            if _state(file, config) != before:
                raise DataError(f"{file} changed while it was read; ingest it again when nothing writes to it.")
            return _described(ds, file, config, checks)

        if file is not None and (file / n.RUNS / "zarr.json").exists():  # one of vaearr's: nothing of it may be lost
            check_patterns(file)

        with _by_workers(dask, file, config, folder, checks) as elsewhere:
            create_store(
                ds, store, transform=checks.transform, finalise=finalise, progress=progress, elsewhere=elsewhere
            )
    left_out = ds.attrs.get(SKIPPED, ())
    heading = [f"left out, {len(left_out)} in all:"] if left_out else []
    for line in (*checks.findings(), *heading, *(f"  {line}" for line in left_out)):
        log.info(line)
    return open_store(store)


def _taken(store: str | Path) -> Path | None:
    """The store that is there already; None where the place is free. Raises ExistsError for anything else there."""
    try:
        refuse_taken(store)
        return None
    except ExistsError as error:
        try:
            path = check_store(store)
        except VaearrError:
            raise error from None
        recover(path)
        return path


def _is_ingested(old: Path, source: Any, config: IngestConfig, *, overwrite: bool) -> bool:
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
    there = f"{old} already exists"
    return is_made(there, made, Recipe(config, inputs), instead="give another path", overwrite=overwrite)


@contextmanager
def _by_workers(
    dask: Where | None, source: Path | None, config: IngestConfig, scratch: Path, checks: Checks
) -> Iterator[Elsewhere | None]:
    """What has Dask workers write the shards, all of which see the source; None without `dask`."""
    if dask is None or source is None:
        yield None
        return
    n_bytes = _state(source, config)["bytes"]
    config = config.replace(manifest=config.manifest and Path(config.manifest).expanduser().absolute())
    what = (str(source.absolute()), json.dumps(config.to_attrs()), n_bytes, str(scratch.absolute()))
    with connected(dask) as client:
        assert client is not None
        log.info(in_words(client))

        def elsewhere(staged: Path, regions: Sequence[Region]) -> Generator[tuple[Path, str], None, None]:
            try:
                for region, (shard, checksum, summary) in each(client, ingest_shard, regions, str(staged), *what):
                    checks.add(region, summary)
                    yield shard, checksum
            finally:
                client.run(_opened.cache_clear, on_error="ignore")  # the source, and a scratch copy of it

        yield elsewhere


def ingest_shard(
    region: Region, staged: str, source: str, config: str, n_bytes: int, scratch: str
) -> tuple[Path, str, Summary]:
    """On a worker: read one shard from the source, look at it, write it; its file, checksum and summary."""
    ds, present, settings = _opened(source, config, n_bytes, scratch)
    block = ds[n.PATTERNS].isel(region).compute(scheduler="synchronous").values
    block, summary = look_at(block, region, ds, present, settings.nonfinite)
    if not (Path(staged) / "zarr.json").exists():
        raise WorkersError(
            f"a worker does not see {staged}; put the store where all machines have it at the same path."
        )
    return *write_shard(staged, region, block), summary


@lru_cache(maxsize=1)
def _opened(source: str, config: str, n_bytes: int, scratch: str) -> tuple[xr.Dataset, np.ndarray, IngestConfig]:
    settings = IngestConfig.from_attrs(json.loads(config))
    if _state(check_source(source), settings)["bytes"] != n_bytes:
        raise WorkersError(f"a worker sees another file at {source} than this process; give all machines the same one.")
    ds = reduced(open_source(source, settings, scratch=scratch), settings)
    return ds, measured(ds), settings


def preflight(ds: xr.Dataset, config: IngestConfig, folder: Path | None) -> xr.Dataset:
    """`ds` with its side maps joined and everything checked that does not need the patterns' values.

    folder: on the disk that the patterns must fit on; None where they go elsewhere.
    """
    for name in config.maps:
        if name in n.RESERVED or name in ds.coords or name.startswith(n.OF_LATER_RUNS):
            raise UsageError(f"{name!r} cannot name a map, the name has a meaning of its own; choose another one.")
    need = ds[n.PATTERNS].nbytes * 1.1 / 1e9
    if folder is not None and need > (free := shutil.disk_usage(folder).free / 1e9):
        raise WriteError(f"{folder}: the patterns need up to {need:.1f} GB, {free:.1f} GB are free; make room there.")
    if n_absent := int((~ds[n.PRESENT]).sum()) if n.PRESENT in ds else 0:
        log.info(f"{n_absent} of {ds[n.PRESENT].size} scan points have no pattern; {n.PRESENT!r} marks them.")
    for line in ds.attrs.get("notes", ()):
        log.info(line)
    beside = side_maps(config.orientations, ds) if config.orientations is not None else {}
    new = {name: side_map(ds, path, name) for name, path in config.maps.items()}
    if config.elements is not None:
        new[n.ELEMENTS] = side_map(ds, config.elements, n.ELEMENTS, units=config.element_units)
    if config.phases is not None:
        new[n.PHASE] = side_map(ds, config.phases, n.PHASE, words=config.phase_names)
    for name, variable in (dict(list(beside.items())[:1]) | new).items():  # those of an orientation map are alike
        for key, words in (
            ("n_missing", f"scan points have no entry in {variable.attrs['source']}"),
            ("n_outside", f"lines of {variable.attrs['source']} lie outside the scan and are left out"),
            ("n_dropped", f"columns of {variable.attrs['source']} without a name are left out"),
        ):
            if variable.attrs[key]:
                log.info(f"{name}: {variable.attrs[key]} {words}.")
    for name in sorted((new.keys() & (beside.keys() | ds.keys())) | (beside.keys() & ds.keys())):
        log.info(f"{name}: taken from {(beside | new)[name].attrs['source']}; it is also in another of the files.")
    new = beside | new
    left = ds.drop_vars([name for name in new if name in ds])
    used = {dim for variable in left.data_vars.values() for dim in variable.dims}  # the others go with their maps
    joined = left.drop_vars([name for name, coord in left.coords.items() if not set(coord.dims) <= used]).assign(new)
    schema.validate(joined)
    return joined


def _refuse_settings(config: IngestConfig, ds: xr.Dataset, dask: Where | None, *, is_file: bool) -> None:
    """Raise UsageError for what a collection has no place for, and of a Dataset for what says how files are read."""
    given = [key for key in IngestConfig.model_fields if getattr(config, key) != getattr(IngestConfig(), key)]
    if not is_file and (wrong := [*(key for key in given if key not in OF_ANY_SOURCE), *["dask"] * (dask is not None)]):
        raise UsageError(
            f"{wrong[0]} says how files are read, and a Dataset is taken as it is; leave it out and change the Dataset "
            "(coordinates by ds.assign_coords, size by ds.isel or ds.coarsen)."
        )
    if not schema.is_scan(ds) and (wrong := [key for key in OF_SCANS if key in given]):
        raise UsageError(
            f"{wrong[0]} is for scans, and the source is a collection without scan points; leave it out (a manifest "
            f"brings columns of numbers for each sample, size another size)."
        )


def _described(ds: xr.Dataset, file: Path | None, config: IngestConfig, checks: Checks) -> xr.Dataset:
    """The Dataset with what the stream has found, and where all of it came from."""
    kind = "xarray" if file is None else find_source(file, config)
    came_from = nested(ds.attrs, n.PROVENANCE)
    source = {"file": "a Dataset" if file is None else file.name, "format": kind, **_state(file, config)}
    origin = {
        "source": source | ({"of": came_from} if came_from else {}),
        "ingest": config.deciding(),
        "versions": versions("h5py", "pandas", *(() if file is None else named_source(kind).packages)),
        "created": now(),
    }
    present = xr.DataArray(checks.present, dims=schema.navigation_dims(ds), attrs=n.ATTRS[n.PRESENT])
    patterns = ds[n.PATTERNS].assign_attrs(checks.attrs())
    return ds.assign({n.PATTERNS: patterns, n.PRESENT: present}).assign_attrs({n.PROVENANCE: origin})


def _state(source: Path | None, config: IngestConfig) -> dict[str, Any]:
    """Bytes and time of the last change (UTC), of several files: of all together; of a Dataset no bytes."""
    states = [] if source is None else [file.stat() for file in source_files(source, config)]
    changed = max((state.st_mtime_ns for state in states), default=0)
    time = {"mtime": datetime.fromtimestamp(changed / 1e9, UTC).isoformat()} if changed else {}
    return {"bytes": sum(state.st_size for state in states), **time}


def _existing_parent(target: Path) -> Path:
    """The nearest folder above `target` that exists, on the disk that will hold the store."""
    folder = next(folder for folder in target.absolute().parents if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise WriteError(f"{folder} is no folder that can be written to; choose another path or its permissions.")
    return folder


# less of the detector


def reduced(ds: xr.Dataset, config: IngestConfig) -> xr.Dataset:
    """`ds` with `config.crop` and then `config.bin` applied to everything over the detector; lazy where it was.

    A static background and the numbers of the attribute `detector` follow. Patterns are read by whole shards, so memory
    stays that of a few. Scan points without a pattern are NaN where binning makes floats of integers. Raises UsageError
    for a window without pixels and for a side that is not a multiple of `bin`.
    """
    if not config.crop and config.bin == 1:
        return ds
    patterns, about = ds[n.PATTERNS], dict(nested(ds.attrs, DETECTOR) or {})
    new: dict[str, xr.DataArray] = {}
    for name, variable in ds.data_vars.items():
        if dims := [dim for dim in schema.signal_dims(ds) if dim in variable.dims]:
            nav = schema.navigation_dims(ds) if name == n.PATTERNS else ()
            said = variable.assign_attrs({n.NAVIGATION_DIMS: list(nav), n.SIGNAL_DIMS: dims})
            windows: dict[str, Any] = {dim: window for dim, window in config.crop.items() if dim in dims}
            less = said = crop(said, **windows) if windows else said
            if nav and about:
                about = _detector_after(about, patterns, said, config.bin)
            if config.bin > 1:
                shape, signal = (tuple(said.sizes[dim] for dim in part) for part in (nav, dims))
                chunks = zip(nav, pattern_chunks(shape, signal, variable.dtype.itemsize), strict=False)
                less = bin_patterns(said.chunk(dict(chunks)) if nav else said, config.bin)
            new[str(name)] = less if nav else less.drop_attrs(deep=False).assign_attrs(variable.attrs)
    if patterns.dtype.kind != "f" and new[n.PATTERNS].dtype.kind == "f" and n.PRESENT in ds:
        new[n.PATTERNS] = new[n.PATTERNS].where(ds[n.PRESENT])
    own = [name for name, coord in ds.coords.items() if {n.DY, n.DX} & set(coord.dims)]
    others = [name for name in ds.coords if name not in own]
    rest = ds.drop_vars([*new, *own])
    rest = rest.assign({name: variable.drop_vars(others, errors="ignore") for name, variable in new.items()})
    return rest.assign_attrs({DETECTOR: about} if about else {})


def _detector_after(about: dict[str, Any], before: xr.DataArray, after: xr.DataArray, size: int) -> dict[str, Any]:
    """The numbers of the detector after a crop, and binning by `size` then.

    Bruker's projection centre is in shares: x from the left edge of the width, y from the top and z, the distance, of
    the height. In another convention it no longer holds after a crop.
    """
    kept = about | ({"binning": about["binning"] * size} if "binning" in about else {})
    if CENTRE not in about or before.sizes == after.sizes:
        return kept
    (x, y, z), spread, convention = kept.pop(CENTRE), kept.pop(SPREAD, None), str(kept.pop(CONVENTION, ""))
    if convention.lower() != "bruker":
        return kept
    wide, high = (before.sizes[dim] / after.sizes[dim] for dim in (n.DX, n.DY))
    left, top = (int((before[dim] < after[dim][0]).sum()) / after.sizes[dim] for dim in (n.DX, n.DY))
    kept |= {CENTRE: [x * wide - left, y * high - top, z * high], CONVENTION: convention}
    return kept | ({SPREAD: [spread[0] * wide, spread[1] * high, spread[2] * high]} if spread else {})


# what is looked for in each block


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One block: its extremes (None without a finite pattern), patterns by kind, which are masked, its checksum."""

    low: float | None
    high: float | None
    n_constant: int
    n_varying: int
    masked: np.ndarray  # over the block's points
    sha256: bytes


def look_at(
    block: np.ndarray, region: Region, ds: xr.Dataset, present: np.ndarray, nonfinite: str
) -> tuple[np.ndarray, Summary]:
    """The block as it is to be written, NaN (of integers 0) where a pattern is masked, and its summary.

    It knows one block only, so any process may do it. present: of the whole grid. Raises DataError that names the point
    of the first pattern that is not finite, or that float32 cannot hold, unless `nonfinite` is `mask`.
    """
    inside = present[tuple(region.values())]
    flat = np.ascontiguousarray(block).reshape(*inside.shape, -1)
    with np.errstate(invalid="ignore"):
        low, high = flat.min(-1), flat.max(-1)
    masked = inside & ~_fits(low, high)
    if masked.any():
        if nonfinite != "mask":
            first = tuple(np.argwhere(masked)[0])
            starts = zip(region.items(), first, strict=True)
            place = ", ".join(f"{dim} = {ds[dim].values[part.start + int(i)]}" for (dim, part), i in starts)
            raise DataError(
                f"the pattern at {place} has values from {low[first]} to {high[first]}: NaN, infinite, or such as "
                f"float32 cannot hold or tell apart ({int(masked.sum())} such patterns in this block); correct or "
                "scale them or take off an offset in the file, or leave them out with nonfinite='mask'."
            )
        empty = np.array(np.nan if block.dtype.kind == "f" else 0, block.dtype)
        block = np.where(masked.reshape(masked.shape + (1,) * (block.ndim - masked.ndim)), empty, block)
        inside = inside & ~masked
    n_constant = int((low == high)[inside].sum())
    return block, Summary(
        low=low[inside].min().item() if inside.any() else None,
        high=high[inside].max().item() if inside.any() else None,
        n_constant=n_constant,
        n_varying=int(inside.sum()) - n_constant,
        masked=masked,
        sha256=hashlib.sha256(np.ascontiguousarray(block).data).digest(),
    )


def _fits(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whether patterns with these extremes are finite and float32 can hold them."""
    largest = np.maximum(np.abs(low.astype("f8")), np.abs(high.astype("f8")))
    if low.dtype.kind == "f":
        return np.asarray(largest <= np.finfo("f4").max)  # false for NaN
    step = np.spacing(largest.astype("f4"))
    return np.asarray((step <= 1) | (low == high) | (high.astype("f8") - low.astype("f8") >= LEVELS * step))


class Checks:
    """What all blocks say together: non-finite and constant patterns, extremes, a checksum of the values.

    They may come in any order.
    """

    def __init__(self, ds: xr.Dataset, nonfinite: str) -> None:
        self.ds, self.nonfinite, self.present = ds, nonfinite, measured(ds)
        self.seen: dict[tuple[int, ...], Summary] = {}

    def transform(self, block: np.ndarray, region: Region) -> np.ndarray:
        """Look at a block on its way into the store."""
        block, summary = look_at(block, region, self.ds, self.present, self.nonfinite)
        self.add(region, summary)
        return block

    def add(self, region: Region, summary: Summary) -> None:
        """Count a block in, once."""
        self.present[tuple(region.values())] &= ~summary.masked
        self.seen[tuple(part.start for part in region.values())] = summary

    def attrs(self) -> dict[str, Any]:
        """What the patterns say of themselves; the checksum is that of the blocks' checksums, in row-major order: see
        `verifying._is_as_ingested`. Raises DataError where no pattern holds anything to learn from."""
        found = [self.seen[start] for start in sorted(self.seen)]
        n_constant = sum(summary.n_constant for summary in found)
        if not sum(summary.n_varying for summary in found):
            raise DataError(
                f"no pattern holds anything to learn from: {n_constant} are constant (every pixel has the same value), "
                "the others are missing or not finite; check the source file."
            )
        return {
            "value_min": min(summary.low for summary in found if summary.low is not None),
            "value_max": max(summary.high for summary in found if summary.high is not None),
            "n_constant": n_constant,
            "n_masked": int(sum(summary.masked.sum() for summary in found)),
            "sha256": hashlib.sha256(b"".join(summary.sha256 for summary in found)).hexdigest(),
            n.SHA256_OF: n.SHARDS,
        }

    def findings(self) -> Iterator[str]:
        """What is worth knowing, a line each."""
        attrs, what = self.attrs(), "patterns" if schema.is_scan(self.ds) else schema.samples_word(self.ds)
        if attrs["n_masked"]:
            words = "NaN or infinite values, or such as float32 cannot hold,"
            yield f"{attrs['n_masked']} patterns with {words} are left out; {n.PRESENT!r} marks them."
        if attrs["n_constant"]:
            yield f"{attrs['n_constant']} {what} are constant (every pixel has the same value)."
