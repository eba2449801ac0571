"""From source files to a store: join the side maps, check every value on its way, record where it came from.

Everything cheap is checked before anything is written; what fails later leaves no store behind.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.computing.progress import Progress, showing
from vaearr.config import IngestConfig, resolved, settings_as_keywords
from vaearr.errors import DataError, ExistsError, UsageError, VaearrError, WriteError
from vaearr.ingestion.attaching import side_map
from vaearr.recipe import Recipe, is_made, nested, now, versions
from vaearr.schema.grid import measured
from vaearr.schema.pattern_steps import bin_patterns, crop
from vaearr.sources import check_source, find_source, named_source, open_source, source_files
from vaearr.sources.orientation_maps import side_maps
from vaearr.sources.vendor import DETECTOR
from vaearr.store import (
    Region,
    check_patterns,
    check_store,
    create_store,
    desk,
    open_store,
    recover,
    refuse_taken,
)
from vaearr.store.layout import pattern_chunks
from vaearr.store.remove import replacing

log = logging.getLogger("vaearr")

OF_SCANS = ("maps", "elements", "phases", "orientations", "step", "crop", "bin")
OF_ANY_SOURCE = {*OF_SCANS, "element_units", "phase_names", "nonfinite"} - {"step"}
CENTRE = "projection_centre"
LEVELS = 16  # float32 numbers, as which networks see patterns, that must lie between the extremes of one of integers


@settings_as_keywords(IngestConfig)
def ingest(
    source: str | Path | xr.Dataset | xr.DataArray,
    store: str | Path,
    *,
    config: IngestConfig | None = None,
    overwrite: bool = False,
    progress: Progress = True,
    **given: Any,
) -> xr.Dataset:
    """Write a source and its side maps as a new store; returns the store's Dataset.

    source: a file, a folder, a zarr store, or a Dataset or DataArray, read block by block, whose dims are told by their
    names or by the attributes `navigation_dims` and `signal_dims`. Keywords replace single settings of `config`.
    A map in several files is taken from its own CSV first, then from `orientations` (.ang, .ctf), then from the source
    itself. A store that is there, made of the same file with the same settings, is returned; `overwrite` replaces
    another one, with all its runs, when the new one is whole. Raises ExistsError where anything else is at `store`,
    DataError or NoInputError for inputs that do not hold what they should, WriteError where they do not fit on the
    disk. No store is left behind then: what is refused before the patterns are read leaves nothing, what fails later
    only the folders that were made for the store and its hidden lock file. At `s3://…` chunks are sent one by one, so
    that the disk need not hold them.
    """
    config = resolved(IngestConfig, config, given)
    if (old := _taken(store)) is not None:
        if _is_ingested(old, source, config, overwrite=overwrite):
            return open_store(store)
        with replacing(old) as new:
            ingest(source, new, config=config, progress=progress)
        return open_store(store)
    folder, file = _existing_parent(desk(store)), None
    if isinstance(source, xr.Dataset | xr.DataArray):
        opening: Any = nullcontext(schema.as_dataset(source))
    else:
        file = check_source(source)
        opening = open_source(file, config, scratch=folder)
    before = _state(file, config)
    with opening as lazy:
        _refuse_settings(config, lazy, is_file=file is not None)
        ds = preflight(reduced(lazy, config), config)
        checks = Checks(ds, config.nonfinite)

        def finalise(ds: xr.Dataset) -> xr.Dataset:
            if _state(file, config) != before:
                raise DataError(f"{file} changed while it was read; ingest it again when nothing writes to it.")
            return _described(ds, file, config, checks)

        if file is not None and (file / n.RUNS / "zarr.json").exists():  # one of vaearr's: nothing of it may be lost
            check_patterns(file)
        with showing(progress, "reading") as show:
            create_store(ds, store, transform=checks, finalise=finalise, progress=show)
    for line in checks.findings():
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


def preflight(ds: xr.Dataset, config: IngestConfig) -> xr.Dataset:
    """`ds` with its side maps joined and everything checked that does not need the patterns' values."""
    for name in config.maps:
        if name in n.RESERVED or name in ds.coords or name.startswith(n.OF_LATER_RUNS):
            raise UsageError(f"{name!r} cannot name a map, the name has a meaning of its own; choose another one.")
    if n_absent := int((~ds[n.PRESENT]).sum()) if n.PRESENT in ds else 0:
        log.info(f"{n_absent} of {ds[n.PRESENT].size} scan points have no pattern; {n.PRESENT!r} marks them.")
    for line in ds.attrs.get("notes", ()):
        log.info(line)
    beside = side_maps(config.orientations, ds) if config.orientations is not None else {}
    own = {name: side_map(ds, path, name) for name, path in config.maps.items()}
    if config.elements is not None:
        own[n.ELEMENTS] = side_map(ds, config.elements, n.ELEMENTS, units=config.element_units)
    if config.phases is not None:
        own[n.PHASE] = side_map(ds, config.phases, n.PHASE, words=config.phase_names)
    for name, variable in (dict(list(beside.items())[:1]) | own).items():  # those of an orientation map are alike
        source = variable.attrs["source"]
        for key, words in (
            ("n_missing", f"scan points have no entry in {source}"),
            ("n_outside", f"lines of {source} lie outside the scan and are left out"),
            ("n_dropped", f"columns of {source} without a name are left out"),
        ):
            if variable.attrs[key]:
                log.info(f"{name}: {variable.attrs[key]} {words}.")
    new = beside | own
    for name in sorted((beside.keys() & own.keys()) | (new.keys() & ds.keys())):
        log.info(f"{name}: taken from {new[name].attrs['source']}; it is also in another of the files.")
    left = ds.drop_vars([name for name in new if name in ds])
    used = {dim for variable in left.data_vars.values() for dim in variable.dims}  # the others go with their maps
    joined = left.drop_vars([name for name, coord in left.coords.items() if not set(coord.dims) <= used]).assign(new)
    schema.validate(joined)
    return joined


def _refuse_settings(config: IngestConfig, ds: xr.Dataset, *, is_file: bool) -> None:
    """Raise UsageError for what a collection has no place for, and of a Dataset for what says how files are read."""
    given = [key for key in IngestConfig.model_fields if getattr(config, key) != getattr(IngestConfig(), key)]
    if not is_file and (wrong := [key for key in given if key not in OF_ANY_SOURCE]):
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

    A static background and the numbers of the attribute `detector` follow. Patterns are read by whole chunks of the
    store, so memory stays that of a few. Scan points without a pattern are NaN where binning makes floats of integers.
    Raises UsageError for a window without pixels and for a side that is not a multiple of `bin`.
    """
    if not config.crop and config.bin == 1:
        return ds
    signal = schema.signal_dims(ds)
    detector = [name for name, variable in ds.data_vars.items() if set(signal) & set(variable.dims)]
    less = {name: _reduced(ds[name], ds, config) for name in detector}
    patterns = less[n.PATTERNS]
    if ds[n.PATTERNS].dtype.kind != "f" and patterns.dtype.kind == "f" and n.PRESENT in ds:
        less[n.PATTERNS] = patterns.where(ds[n.PRESENT])
    rest = ds.drop_vars([*detector, *(name for name, coord in ds.coords.items() if set(signal) & set(coord.dims))])
    result = rest.assign({name: variable.drop_vars(rest.coords, errors="ignore") for name, variable in less.items()})
    about = _detector_after(dict(nested(ds.attrs, DETECTOR) or {}), ds, config)
    return result.assign_attrs({DETECTOR: about} if about else {})


def _reduced(variable: xr.DataArray, ds: xr.Dataset, config: IngestConfig) -> xr.DataArray:
    signal = [dim for dim in schema.signal_dims(ds) if dim in variable.dims]
    nav = schema.navigation_dims(ds) if variable.name == n.PATTERNS else ()
    less = variable.assign_attrs({n.NAVIGATION_DIMS: list(nav), n.SIGNAL_DIMS: signal})
    if windows := {dim: window for dim, window in config.crop.items() if dim in signal}:
        less = crop(less, **windows)
    if config.bin > 1:
        sizes, pixels = (tuple(less.sizes[dim] for dim in dims) for dims in (nav, signal))
        chunks = dict(zip(nav, pattern_chunks(sizes, pixels, less.dtype.itemsize), strict=False))
        less = bin_patterns(less.chunk(chunks) if nav else less, config.bin)
    return less if nav else less.drop_attrs(deep=False).assign_attrs(variable.attrs)


def _detector_after(about: dict[str, Any], ds: xr.Dataset, config: IngestConfig) -> dict[str, Any]:
    """The numbers of the detector after a crop, and binning then.

    Bruker's projection centre is in shares: x from the left edge of the width, y from the top and z, the distance, of
    the height. In another convention it no longer holds after a crop.
    """
    if "binning" in about:
        about["binning"] *= config.bin
    if CENTRE not in about or not config.crop:
        return about
    (x, y, z), convention = about.pop(CENTRE), about.pop(f"{CENTRE}_convention", None)
    if str(convention).lower() != "bruker":
        return about
    left = crop(ds[n.PATTERNS], **config.crop)
    (wide, off_x), (high, off_y) = (
        (ds.sizes[dim] / left.sizes[dim], int((ds[dim] < left[dim][0]).sum()) / left.sizes[dim]) for dim in (n.DX, n.DY)
    )
    return about | {CENTRE: [x * wide - off_x, y * high - off_y, z * high], f"{CENTRE}_convention": convention}


# what is looked for in each block


class Checks:
    """What the blocks of patterns say on their way into a store, in row-major order: their extremes, which are constant
    or not finite, a checksum of the values."""

    def __init__(self, ds: xr.Dataset, nonfinite: str) -> None:
        self.ds, self.nonfinite, self.present = ds, nonfinite, measured(ds)
        self.low, self.high = np.inf, -np.inf
        self.n_constant = self.n_masked = self.n_varying = 0
        self.sha256 = hashlib.sha256()

    def __call__(self, block: np.ndarray, region: Region) -> np.ndarray:
        """The block as it is to be written, NaN (of integers 0) where a pattern is masked.

        Raises DataError that names the point of the first pattern that is not finite, or that float32 cannot hold,
        unless `nonfinite` is `mask`.
        """
        place = tuple(region.values())
        inside = self.present[place]
        flat = np.ascontiguousarray(block).reshape(*inside.shape, -1)
        with np.errstate(invalid="ignore"):
            low, high = flat.min(-1), flat.max(-1)
        masked = inside & ~_fits(low, high)
        if masked.any():
            if self.nonfinite != "mask":
                raise DataError(self._first_of(masked, low, high, region))
            empty = np.array(np.nan if block.dtype.kind == "f" else 0, block.dtype)
            block = np.where(masked.reshape(masked.shape + (1,) * (block.ndim - masked.ndim)), empty, block)
            self.present[place] = inside = inside & ~masked
        if inside.any():
            self.low = min(self.low, low[inside].min().item())
            self.high = max(self.high, high[inside].max().item())
        n_constant = int((low == high)[inside].sum())
        self.n_constant += n_constant
        self.n_varying += int(inside.sum()) - n_constant
        self.n_masked += int(masked.sum())
        self.sha256.update(hashlib.sha256(np.ascontiguousarray(block).data).digest())
        return block

    def _first_of(self, masked: np.ndarray, low: np.ndarray, high: np.ndarray, region: Region) -> str:
        first = tuple(np.argwhere(masked)[0])
        starts = zip(region.items(), first, strict=True)
        place = ", ".join(f"{dim} = {self.ds[dim].values[part.start + int(i)]}" for (dim, part), i in starts)
        return (
            f"the pattern at {place} has values from {low[first]} to {high[first]}: NaN, infinite, or such as float32 "
            f"cannot hold or tell apart ({int(masked.sum())} such patterns in this block); correct or scale them or "
            "take off an offset in the file, or leave them out with nonfinite='mask'."
        )

    def attrs(self) -> dict[str, Any]:
        """What the patterns say of themselves; the checksum is that of the blocks' checksums: see
        `verifying._is_as_ingested`. Raises DataError where no pattern holds anything to learn from."""
        if not self.n_varying:
            raise DataError(
                f"no pattern holds anything to learn from: {self.n_constant} are constant (every pixel has the same "
                "value), the others are missing or not finite; check the source file."
            )
        counts = {"n_constant": self.n_constant, "n_masked": self.n_masked}
        seal = {"sha256": self.sha256.hexdigest(), n.SHA256_OF: n.SHARDS}
        return {"value_min": self.low, "value_max": self.high, **counts, **seal}

    def findings(self) -> Iterator[str]:
        """What is worth knowing, a line each."""
        what = "patterns" if schema.is_scan(self.ds) else schema.samples_word(self.ds)
        if self.n_masked:
            words = "NaN or infinite values, or such as float32 cannot hold,"
            yield f"{self.n_masked} patterns with {words} are left out; {n.PRESENT!r} marks them."
        if self.n_constant:
            yield f"{self.n_constant} {what} are constant (every pixel has the same value)."


def _fits(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whether patterns with these extremes are finite and float32 can hold them."""
    largest = np.maximum(np.abs(low.astype("f8")), np.abs(high.astype("f8")))
    if low.dtype.kind == "f":
        return np.asarray(largest <= np.finfo("f4").max)  # false for NaN
    step = np.spacing(largest.astype("f4"))
    return np.asarray((step <= 1) | (low == high) | (high.astype("f8") - low.astype("f8") >= LEVELS * step))
