"""Write a source with its side maps as a store.

Everything that does not need the patterns' values is checked before anything is written. An error
after that leaves no store behind.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr import schema
from vaearr.computing.progress import Progress, showing
from vaearr.config import IngestConfig, refuse_unknown, resolved
from vaearr.config.keywords import IngestSettings
from vaearr.errors import DataError, ExistsError, UsageError, VaearrError
from vaearr.ingestion.attaching import side_map
from vaearr.recipe import Recipe, can_reuse, nested, now, versions
from vaearr.schema.grid import measured
from vaearr.sources import COLLECTION_SETTINGS, Detected, detect
from vaearr.sources.orientation_maps import side_maps
from vaearr.store import (
    Region,
    check_patterns,
    check_store,
    create_store,
    open_store,
    refuse_taken,
)
from vaearr.store.paths import METADATA

log = logging.getLogger("vaearr")

OF_SCANS = ("maps", "elements", "phases", "orientations", "step")
OF_ANY_SOURCE = {
    "maps",
    "elements",
    "phases",
    "orientations",
    "element_units",
    "phase_names",
    "nonfinite",
}
SourceData = Detected | xr.Dataset | xr.DataArray
MIN_FLOAT32_STEPS = 16  # between the extremes of an integer pattern; networks read float32


def ingest(
    source: str | Path | xr.Dataset | xr.DataArray,
    store: str | Path,
    *,
    config: IngestConfig | None = None,
    overwrite: bool = False,
    progress: Progress = True,
    **settings: Unpack[IngestSettings],
) -> xr.Dataset:
    """Write a source and its side maps as a new store.

    A map that several files contain is taken from its CSV first, then from `orientations` (.ang,
    .ctf), then from the source itself.

    Parameters
    ----------
    source : path, Dataset or DataArray
        File, folder, zarr store, or a Dataset or DataArray, which is read block by block. Its dims
        are identified by their names, or by the attributes `navigation_dims` and `signal_dims`.
    store : str or Path
        Store to create. A store of the same file with the same settings is returned as it is.
    config : IngestConfig, optional
        Settings; keywords replace single ones.
    overwrite : bool
        Replace another store, with all its runs, once the new one is complete.
    progress : bool or callable
        Show a bar, or call with (done, total, text).
    **settings
        Fields of `IngestConfig`, such as ``maps``, ``elements`` and ``step``.

    Returns
    -------
    xr.Dataset
        The Dataset of the store.

    Raises
    ------
    ExistsError
        If `store` exists and was not created from this source with these settings.
    NoInputError, DataError
        If an input does not exist or is invalid.
    WriteError
        If the store does not fit on the disk. No store is left behind then.

    Examples
    --------
    >>> from vaearr.testing import synthetic_scan
    >>> scan = synthetic_scan(nx=8, ny=6, pattern_shape=(16, 16), n_grains=3)
    >>> ds = va.ingest(scan, "new.zarr")
    >>> ds.patterns.dims
    ('y', 'x', 'dy', 'dx')

    A file and its side maps, with 0.25 um between points:

    >>> va.ingest(
    ...     "scan.h5", "scan2.zarr", maps={"BC": "bc.csv"}, elements="elements.csv", step=0.25
    ... )  # doctest: +SKIP
    """
    refuse_unknown(ingest, IngestSettings, settings)
    config = resolved(IngestConfig, config, settings)
    if isinstance(source, xr.Dataset | xr.DataArray):
        opened: SourceData = source
    else:
        opened = detect(source, config)
    existing = _existing_store(store)
    if existing is None:
        _ingest(opened, store, config, progress)
    elif not _is_ingested(existing, opened, config, overwrite=overwrite):
        _ingest(opened, existing, config, progress, overwrite=True)
    return open_store(store)


def _ingest(
    source: SourceData,
    store: str | Path,
    config: IngestConfig,
    progress: Progress,
    *,
    overwrite: bool = False,
) -> None:
    """Write a source as a new store."""
    origin = _origin(source, config)
    packages: tuple[str, ...] = ()
    is_file = isinstance(source, Detected)
    if isinstance(source, Detected):
        packages = source.source.packages
        opening: Any = source.open(config)
        if (source.path / n.RUNS / METADATA).exists():  # a store, whose patterns must be intact
            check_patterns(source.path)
    else:
        opening = nullcontext(schema.as_dataset(source))
    with opening as lazy:
        _refuse_settings(config, lazy, is_file=is_file)
        ds = preflight(lazy, config)
        source_recipe = nested(ds.attrs, n.PROVENANCE)
        provenance = {
            "source": origin | ({"of": source_recipe} if source_recipe else {}),
            "ingest": config.deciding(),
            "versions": versions("h5py", "pandas", *packages),
            "created": now(),
        }
        ds = ds.assign_attrs({n.PROVENANCE: provenance})
        checks = Checks(ds, config.nonfinite)

        def finalise(ds: xr.Dataset) -> xr.Dataset:
            if _origin(source, config) != origin:
                raise DataError(
                    f"{origin['file']} changed while it was read; ingest it again when no program "
                    "writes to it."
                )
            return checks.finalise(ds)

        with showing(progress, "reading") as show:
            create_store(
                ds, store, transform=checks, finalise=finalise, progress=show, overwrite=overwrite
            )
    for line in checks.findings():
        log.info(line)


def _existing_store(path: str | Path) -> Path | None:
    """Return the store at a path, None for a free path. Raises ExistsError for anything else."""
    try:
        refuse_taken(path)
    except ExistsError as error:
        try:
            return check_store(path)
        except VaearrError:
            raise error from None
    return None


def _is_ingested(store: Path, source: SourceData, config: IngestConfig, *, overwrite: bool) -> bool:
    """Whether a store was created from the same file (name, bytes, time of change) and settings."""
    origin = _origin(source, config)
    if not isinstance(source, Detected):
        origin["file"] = "a Dataset, whose values are not compared"
    stored = nested(open_store(store, chunks=None).attrs, n.PROVENANCE)
    if isinstance(stored, Mapping):
        stored_origin = dict(stored.get("source", {}))
        compared = {key: stored_origin.get(key) for key in origin}
        stored = {"source": compared, "config": stored.get("ingest")}
    recipe = Recipe(config, {"source": origin})
    return can_reuse(
        f"{store} already exists", stored, recipe, way_out="give another path", overwrite=overwrite
    )


def _origin(source: SourceData, config: IngestConfig) -> dict[str, Any]:
    """Name, format, total bytes and last change (UTC) of a source."""
    if not isinstance(source, Detected):
        return {"file": "a Dataset", "format": "xarray"}
    states = [file.stat() for file in source.files(config)]
    origin = {
        "file": source.path.name,
        "format": source.format,
        "bytes": sum(state.st_size for state in states),
    }
    if states:
        changed = max(state.st_mtime_ns for state in states)
        origin["mtime"] = datetime.fromtimestamp(changed / 1e9, UTC).isoformat()
    return origin


def preflight(ds: xr.Dataset, config: IngestConfig) -> xr.Dataset:
    """Join the side maps and check everything that does not need the patterns' values."""
    for name in config.maps:
        if name in n.RESERVED or name in ds.coords or name.startswith(n.PREFIXES_OF_RUNS):
            raise UsageError(f"{name!r} cannot name a map, it is reserved; choose another one.")
    if n.PRESENT in ds and not ds[n.PRESENT].all():
        n_absent = int((~ds[n.PRESENT]).sum())
        log.info(
            f"{n_absent} of {ds[n.PRESENT].size} scan points have no pattern; {n.PRESENT!r} marks "
            "them."
        )
    for line in ds.attrs.get("notes", ()):
        log.info(line)
    maps = _side_maps(ds, config)
    kept = ds.drop_vars(maps.keys() & ds.keys())
    used_dims = {dim for variable in kept.data_vars.values() for dim in variable.dims}
    joined = kept.drop_dims(set(kept.dims) - used_dims).assign(maps)
    schema.validate(joined)
    return joined


def _side_maps(ds: xr.Dataset, config: IngestConfig) -> dict[str, xr.DataArray]:
    """The maps of all side files on the grid; those of tables replace those of `orientations`."""
    maps: dict[str, xr.DataArray] = {}
    if config.orientations is not None:
        maps = side_maps(config.orientations, ds)
        n_missing = next(iter(maps.values())).attrs["n_missing"]  # the same for all of them
        log.info(f"{config.orientations.name}: {n_missing} scan points without a row")
    tables = {**config.maps, n.ELEMENTS: config.elements, n.PHASE: config.phases}
    for name, path in tables.items():
        if path is not None:
            maps[name] = side_map(
                ds, path, name, class_names=config.phase_names, units=config.element_units
            )
    return maps


def _refuse_settings(config: IngestConfig, ds: xr.Dataset, *, is_file: bool) -> None:
    """Raise UsageError for a setting that does not apply to this source."""
    is_scan = schema.is_scan(ds)
    defaults = IngestConfig()
    for key in IngestConfig.model_fields:
        if getattr(config, key) == getattr(defaults, key):
            continue
        if not is_file and key not in OF_ANY_SOURCE:
            raise UsageError(
                f"{key} applies to files, and the source is a Dataset; leave it out and change the "
                "Dataset (coordinates by ds.assign_coords, size by ds.isel or ds.coarsen)."
            )
        if key in OF_SCANS and not is_scan:
            raise UsageError(
                f"{key} is for scans, and the source is a collection without scan points; leave it "
                "out (a manifest brings columns of numbers for each sample, size another size)."
            )
        if key in COLLECTION_SETTINGS and is_scan:
            raise UsageError(
                f"{key} is for collections of images or volumes, and the source is a scan; leave "
                "it out (va.roi chooses scan points, va.crop and va.bin_patterns change patterns)."
            )


class Checks:
    """Check blocks of patterns on their way into a store, and record their extremes."""

    def __init__(self, ds: xr.Dataset, nonfinite: str) -> None:
        self.ds = ds
        self.nonfinite = nonfinite
        self.present = measured(ds)
        self.low = np.inf
        self.high = -np.inf
        self.n_constant = 0
        self.n_masked = 0

    def __call__(self, block: np.ndarray, region: Region) -> np.ndarray:
        """Return the block with NaN (integers: 0) where no pattern was measured or it is masked.

        Raises DataError that names the point of the first pattern that is not finite, or that
        float32 cannot hold, unless `nonfinite` is `mask`.
        """
        present = self.present[tuple(region.values())]  # a view
        pixels = np.ascontiguousarray(block).reshape(*present.shape, -1)
        with np.errstate(invalid="ignore"):
            low = pixels.min(-1)
            high = pixels.max(-1)
        masked = present & ~_fits_float32(low, high)
        n_masked = int(masked.sum())
        if n_masked and self.nonfinite != "mask":
            first = tuple(np.argwhere(masked)[0])
            raise DataError(
                f"the pattern at {self._point(region, first)} has values from {low[first]} to "
                f"{high[first]}: NaN, infinite, or such as float32 cannot hold or tell apart "
                f"({n_masked} such patterns in this block); correct or scale them or take off an "
                "offset in the file, or leave them out with nonfinite='mask'."
            )
        self.n_masked += n_masked
        present &= ~masked
        if present.any():
            self.low = min(self.low, low[present].min().item())
            self.high = max(self.high, high[present].max().item())
        self.n_constant += int((low == high)[present].sum())
        if present.all():
            return block
        empty = np.array(np.nan if block.dtype.kind == "f" else 0, block.dtype)
        is_pattern = np.expand_dims(present, tuple(range(present.ndim, block.ndim)))
        return np.where(is_pattern, block, empty)

    def _point(self, region: Region, index: tuple[int, ...]) -> str:
        """Coordinates of a scan point, by its index in a region."""
        parts = []
        for (dim, positions), i in zip(region.items(), index, strict=True):
            parts.append(f"{dim} = {self.ds[dim].values[positions.start + int(i)]}")
        return ", ".join(parts)

    def finalise(self, ds: xr.Dataset) -> xr.Dataset:
        """Add `present`, and to the patterns their extremes and counts.

        Raises DataError if every pattern is constant or missing.
        """
        if self.n_constant == self.present.sum():
            raise DataError(
                f"no pattern holds anything to learn from: {self.n_constant} are constant (every "
                "pixel has the same value), the others are missing or not finite; check the source "
                "file."
            )
        present = xr.DataArray(self.present, dims=schema.navigation_dims(ds))
        patterns = ds[n.PATTERNS].assign_attrs(
            value_min=self.low,
            value_max=self.high,
            n_constant=self.n_constant,
            n_masked=self.n_masked,
        )
        return ds.assign(
            {n.PATTERNS: patterns, n.PRESENT: present.assign_attrs(n.ATTRS[n.PRESENT])}
        )

    def findings(self) -> Iterator[str]:
        """Describe the patterns that are left out or constant, one line each."""
        if self.n_masked:
            yield (
                f"{self.n_masked} patterns with NaN or infinite values, or such as float32 cannot "
                f"hold, are left out; {n.PRESENT!r} marks them."
            )
        if self.n_constant:
            samples = "patterns" if schema.is_scan(self.ds) else schema.samples_word(self.ds)
            yield f"{self.n_constant} {samples} are constant (every pixel has the same value)."


def _fits_float32(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whether patterns with these extremes are finite, and float32 resolves their values."""
    low_value = low.astype("f8")
    high_value = high.astype("f8")
    largest = np.maximum(np.abs(low_value), np.abs(high_value))
    if low.dtype.kind == "f":
        return np.asarray(largest <= np.finfo("f4").max)  # false for NaN
    step = np.spacing(largest.astype("f4"))
    is_resolved = high_value - low_value >= MIN_FLOAT32_STEPS * step
    return np.asarray((step <= 1) | (low == high) | is_resolved)
