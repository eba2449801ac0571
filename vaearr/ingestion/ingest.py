"""From source files to a store: join the side maps, check every value on its way, record where it came from.

Everything cheap is checked before anything is written; what fails later leaves no store behind.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping
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
from vaearr.sources import COLLECTION_SETTINGS, Detected, detect
from vaearr.sources.orientation_maps import side_maps
from vaearr.sources.vendor import DETECTOR
from vaearr.store import (
    Region,
    check_patterns,
    check_store,
    create_store,
    open_store,
    refuse_taken,
    store_path,
)
from vaearr.store.layout import pattern_chunks
from vaearr.store.remove import replacing

log = logging.getLogger("vaearr")

OF_SCANS = ("maps", "elements", "phases", "orientations", "step", "crop", "bin")
OF_ANY_SOURCE = {*OF_SCANS, "element_units", "phase_names", "nonfinite"} - {"step"}
CENTRE = "projection_centre"
Given = Detected | xr.Dataset | xr.DataArray
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
    """Write a source and its side maps as a new store.

    A map in several files is taken from its own CSV first, then from `orientations` (.ang, .ctf), then from the source
    itself.

    Parameters
    ----------
    source : path, Dataset or DataArray
        File, folder, zarr store, or a Dataset or DataArray, which is read block by block. Its dims are identified by
        their names, or by the attributes `navigation_dims` and `signal_dims`.
    store : str or Path
        Store to create. A store of the same file with the same settings is returned as it is.
    config : IngestConfig, optional
        Settings; keywords replace single ones.
    overwrite : bool
        Replace another store, with all its runs, once the new one is complete.
    progress : bool or callable
        Show a bar, or call with (done, total, text).

    Returns
    -------
    xr.Dataset
        The Dataset of the store.

    Raises
    ------
    ExistsError
        If anything else lies at `store`.
    NoInputError, DataError
        For inputs that do not exist or do not hold what they should.
    WriteError
        If the store does not fit on the disk. No store is left behind then.
    """
    config = resolved(IngestConfig, config, given)
    given_source: Given = source if isinstance(source, xr.Dataset | xr.DataArray) else detect(source, config)
    if (old := _taken(store)) is not None:
        if _is_ingested(old, given_source, config, overwrite=overwrite):
            return open_store(store)
        with replacing(old) as new:
            _ingest(given_source, new, config, progress)
    else:
        _ingest(given_source, store, config, progress)
    return open_store(store)


def _ingest(source: Given, store: str | Path, config: IngestConfig, progress: Progress) -> None:
    """Write a source as a new store."""
    _check_parent(store_path(store))
    before = _state(source, config)
    if isinstance(source, Detected):
        opening: Any = source.open(config)
    else:
        opening = nullcontext(schema.as_dataset(source))
    with opening as lazy:
        _refuse_settings(config, lazy, is_file=isinstance(source, Detected))
        ds = preflight(reduced(lazy, config), config)
        checks = Checks(ds, config.nonfinite)

        def finalise(ds: xr.Dataset) -> xr.Dataset:
            state = _state(source, config)
            if state != before:
                raise DataError(
                    f"{_name(source)} changed while it was read; ingest it again when nothing writes to it."
                )
            return _described(ds, source, config, checks, state)

        is_vaearr_store = isinstance(source, Detected) and (source.path / n.RUNS / "zarr.json").exists()
        if isinstance(source, Detected) and is_vaearr_store:  # none of its patterns may be lost
            check_patterns(source.path)
        with showing(progress, "reading") as show:
            create_store(ds, store, transform=checks, finalise=finalise, progress=show)
    for line in checks.findings():
        log.info(line)


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
        return path


def _is_ingested(old: Path, source: Given, config: IngestConfig, *, overwrite: bool) -> bool:
    """Whether a store was made of the same file (name, bytes, time of change) with the same settings."""
    if isinstance(source, Detected):
        state = {"file": _name(source), **_state(source, config)}
    else:
        state = {"file": "a Dataset, whose values are not compared"}
    made = nested(open_store(old, chunks=None).attrs, n.PROVENANCE)
    if isinstance(made, Mapping):
        stored = dict(made.get("source", {}))
        made = {"source": {key: stored.get(key) for key in state}, "config": made.get("ingest")}
    recipe = Recipe(config, {"source": state})
    return is_made(f"{old} already exists", made, recipe, instead="give another path", overwrite=overwrite)


def preflight(ds: xr.Dataset, config: IngestConfig) -> xr.Dataset:
    """`ds` with its side maps joined and everything checked that does not need the patterns' values."""
    for name in config.maps:
        if name in n.RESERVED or name in ds.coords or name.startswith(n.OF_LATER_RUNS):
            raise UsageError(f"{name!r} cannot name a map, the name has a meaning of its own; choose another one.")
    if n.PRESENT in ds and not ds[n.PRESENT].all():
        n_absent = int((~ds[n.PRESENT]).sum())
        log.info(f"{n_absent} of {ds[n.PRESENT].size} scan points have no pattern; {n.PRESENT!r} marks them.")
    for line in ds.attrs.get("notes", ()):
        log.info(line)
    maps: dict[str, xr.DataArray] = {}
    if config.orientations is not None:
        maps = side_maps(config.orientations, ds)
        _log_gaps(*next(iter(maps.items())))  # the same of all of them
    tables = _tables(ds, config)
    for name, variable in tables.items():
        _log_gaps(name, variable)
    in_several = maps.keys() & tables.keys()
    maps |= tables
    for name in sorted(in_several | (maps.keys() & ds.keys())):
        log.info(f"{name}: taken from {maps[name].attrs['source']}; it is also in another of the files.")
    joined = _without(ds, maps.keys() & ds.keys()).assign(maps)
    schema.validate(joined)
    return joined


def _tables(ds: xr.Dataset, config: IngestConfig) -> dict[str, xr.DataArray]:
    """The side maps that come as tables."""
    maps = {name: side_map(ds, path, name) for name, path in config.maps.items()}
    if config.elements is not None:
        maps[n.ELEMENTS] = side_map(ds, config.elements, n.ELEMENTS, units=config.element_units)
    if config.phases is not None:
        maps[n.PHASE] = side_map(ds, config.phases, n.PHASE, words=config.phase_names)
    return maps


def _log_gaps(name: str, variable: xr.DataArray) -> None:
    """Log how many points, lines and columns have no counterpart."""
    attrs = variable.attrs
    if attrs["n_missing"]:
        log.info(f"{name}: {attrs['n_missing']} scan points have no entry in {attrs['source']}.")
    if attrs["n_outside"]:
        log.info(f"{name}: {attrs['n_outside']} lines of {attrs['source']} lie outside the scan and are left out.")
    if attrs["n_dropped"]:
        log.info(f"{name}: {attrs['n_dropped']} columns of {attrs['source']} without a name are left out.")


def _without(ds: xr.Dataset, names: Iterable[Hashable]) -> xr.Dataset:
    """`ds` without some variables and the coordinates that only they have."""
    rest = ds.drop_vars(names)
    used = {dim for variable in rest.data_vars.values() for dim in variable.dims}
    return rest.drop_vars([name for name, coord in rest.coords.items() if not set(coord.dims) <= used])


def _refuse_settings(config: IngestConfig, ds: xr.Dataset, *, is_file: bool) -> None:
    """Raise UsageError for a setting that means nothing for this source."""
    defaults = IngestConfig()
    given = [key for key in IngestConfig.model_fields if getattr(config, key) != getattr(defaults, key)]
    for key in given:
        if not is_file and key not in OF_ANY_SOURCE:
            raise UsageError(
                f"{key} says how files are read, and a Dataset is taken as it is; leave it out and change the Dataset "
                "(coordinates by ds.assign_coords, size by ds.isel or ds.coarsen)."
            )
        if key in OF_SCANS and not schema.is_scan(ds):
            raise UsageError(
                f"{key} is for scans, and the source is a collection without scan points; leave it out (a manifest "
                "brings columns of numbers for each sample, size another size)."
            )
        if key in COLLECTION_SETTINGS and schema.is_scan(ds):
            raise UsageError(
                f"{key} is for collections of images or volumes, and the source is a scan; leave it out (va.roi "
                "chooses scan points, crop and bin change patterns)."
            )


def _described(
    ds: xr.Dataset, source: Given, config: IngestConfig, checks: Checks, state: Mapping[str, Any]
) -> xr.Dataset:
    """The Dataset with what was found while it was read, and where it came from."""
    origin: dict[str, Any] = {"file": _name(source), "format": "xarray", **state}
    packages: tuple[str, ...] = ()
    if isinstance(source, Detected):
        origin["format"] = source.format
        packages = source.source.packages
    came_from = nested(ds.attrs, n.PROVENANCE)
    if came_from:
        origin["of"] = came_from
    provenance = {
        "source": origin,
        "ingest": config.deciding(),
        "versions": versions("h5py", "pandas", *packages),
        "created": now(),
    }
    present = xr.DataArray(checks.present, dims=schema.navigation_dims(ds), attrs=n.ATTRS[n.PRESENT])
    patterns = ds[n.PATTERNS].assign_attrs(checks.attrs())
    return ds.assign({n.PATTERNS: patterns, n.PRESENT: present}).assign_attrs({n.PROVENANCE: provenance})


def _name(source: Given) -> str:
    return source.path.name if isinstance(source, Detected) else "a Dataset"


def _state(source: Given, config: IngestConfig) -> dict[str, Any]:
    """Bytes and time of the last change (UTC), of several files: of all together; of a Dataset no bytes."""
    states = [file.stat() for file in source.files(config)] if isinstance(source, Detected) else []
    state: dict[str, Any] = {"bytes": sum(state.st_size for state in states)}
    changed = max((state.st_mtime_ns for state in states), default=0)
    if changed:
        state["mtime"] = datetime.fromtimestamp(changed / 1e9, UTC).isoformat()
    return state


def _check_parent(target: Path) -> None:
    """Raise WriteError unless the nearest folder above `target` that exists can be written to."""
    folder = next(folder for folder in target.absolute().parents if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise WriteError(f"{folder} is no folder that can be written to; choose another path or its permissions.")


# less of the detector


def reduced(ds: xr.Dataset, config: IngestConfig) -> xr.Dataset:
    """`ds` with `config.crop` and then `config.bin` applied to everything over the detector; lazy where it was.

    A static background and the numbers of the attribute `detector` follow. Patterns are read by whole chunks of the
    store, so memory stays that of a few. Scan points without a pattern are NaN where binning makes floats of integers.
    Raises UsageError for a window without pixels and for a side that is not a multiple of `bin`.
    """
    result = ds
    if config.crop:
        result = crop(result, **config.crop)
    if config.bin > 1:
        patterns = result[n.PATTERNS]
        shape = tuple(patterns.sizes[dim] for dim in schema.signal_dims(ds))
        tile = pattern_chunks(schema.navigation_shape(ds), shape, patterns.dtype.itemsize)
        chunks = dict(zip(schema.navigation_dims(ds), tile, strict=False))
        result = bin_patterns(result.assign({n.PATTERNS: patterns.chunk(chunks)}), config.bin)
        if patterns.dtype.kind != "f" and n.PRESENT in ds:
            result[n.PATTERNS] = result[n.PATTERNS].where(ds[n.PRESENT])
    detector = nested(ds.attrs, DETECTOR)
    if not detector or result is ds:
        return result
    return result.assign_attrs({DETECTOR: _detector_after(dict(detector), ds, config)})


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
    or not finite."""

    def __init__(self, ds: xr.Dataset, nonfinite: str) -> None:
        self.ds, self.nonfinite, self.present = ds, nonfinite, measured(ds)
        self.low, self.high = np.inf, -np.inf
        self.n_constant = self.n_masked = self.n_varying = 0

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
        """Attributes of the patterns. Raises DataError where no pattern holds anything to learn from."""
        if not self.n_varying:
            raise DataError(
                f"no pattern holds anything to learn from: {self.n_constant} are constant (every pixel has the same "
                "value), the others are missing or not finite; check the source file."
            )
        counts = {"n_constant": self.n_constant, "n_masked": self.n_masked}
        return {"value_min": self.low, "value_max": self.high, **counts}

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
