"""From source files to a store: join the side maps, check every value on its way, record where it
came from.

Everything cheap is checked before anything is written; what fails later leaves no store behind.
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
from vaearr.recipe import Recipe, is_made, nested, now, versions
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
Given = Detected | xr.Dataset | xr.DataArray
LEVELS = 16  # float32 numbers, as which networks see patterns, that must lie between the extremes of one of integers


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

    A map in several files is taken from its own CSV first, then from `orientations` (.ang, .ctf),
    then from the source itself.

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
    refuse_unknown(ingest, IngestSettings, settings)
    config = resolved(IngestConfig, config, settings)
    given_source: Given = (
        source if isinstance(source, xr.Dataset | xr.DataArray) else detect(source, config)
    )
    old = _taken(store)
    if old is None or not _is_ingested(old, given_source, config, overwrite=overwrite):
        _ingest(given_source, old or store, config, progress, overwrite=old is not None)
    return open_store(store)


def _ingest(
    source: Given, store: str | Path, config: IngestConfig, progress: Progress, *, overwrite: bool
) -> None:
    """Write a source as a new store."""
    origin = _origin(source, config)
    opening: Any = (
        source.open(config)
        if isinstance(source, Detected)
        else nullcontext(schema.as_dataset(source))
    )
    with opening as lazy:
        _refuse_settings(config, lazy, is_file=isinstance(source, Detected))
        ds = preflight(lazy, config)
        checks = Checks(ds, config.nonfinite)

        def finalise(ds: xr.Dataset) -> xr.Dataset:
            if _origin(source, config) != origin:
                raise DataError(
                    f"{origin['file']} changed while it was read; ingest it again when nothing writes to it."
                )
            packages = source.source.packages if isinstance(source, Detected) else ()
            came_from = nested(ds.attrs, n.PROVENANCE)
            provenance = {
                "source": origin | ({"of": came_from} if came_from else {}),
                "ingest": config.deciding(),
                "versions": versions("h5py", "pandas", *packages),
                "created": now(),
            }
            present = xr.DataArray(
                checks.present, dims=schema.navigation_dims(ds), attrs=n.ATTRS[n.PRESENT]
            )
            patterns = ds[n.PATTERNS].assign_attrs(checks.attrs())
            return ds.assign({n.PATTERNS: patterns, n.PRESENT: present}).assign_attrs(
                {n.PROVENANCE: provenance}
            )

        if isinstance(source, Detected) and (source.path / n.RUNS / "zarr.json").exists():
            check_patterns(source.path)  # a store of ours, none of whose patterns may be lost
        with showing(progress, "reading") as show:
            create_store(
                ds, store, transform=checks, finalise=finalise, progress=show, overwrite=overwrite
            )
    for line in checks.findings():
        log.info(line)


def _taken(store: str | Path) -> Path | None:
    """The store that is there already; None where the place is free. Raises ExistsError for
    anything else there.
    """
    try:
        refuse_taken(store)
        return None
    except ExistsError as error:
        try:
            return check_store(store)
        except VaearrError:
            raise error from None


def _is_ingested(old: Path, source: Given, config: IngestConfig, *, overwrite: bool) -> bool:
    """Whether a store was made of the same file (name, bytes, time of change) with the same
    settings.
    """
    origin = _origin(source, config)
    if not isinstance(source, Detected):
        origin["file"] = "a Dataset, whose values are not compared"
    made = nested(open_store(old, chunks=None).attrs, n.PROVENANCE)
    if isinstance(made, Mapping):
        stored = dict(made.get("source", {}))
        made = {"source": {key: stored.get(key) for key in origin}, "config": made.get("ingest")}
    recipe = Recipe(config, {"source": origin})
    return is_made(
        f"{old} already exists", made, recipe, instead="give another path", overwrite=overwrite
    )


def _origin(source: Given, config: IngestConfig) -> dict[str, Any]:
    """Name, format, bytes and time of the last change (UTC) of a source; of several files, of all
    together.
    """
    if not isinstance(source, Detected):
        return {"file": "a Dataset", "format": "xarray"}
    origin: dict[str, Any] = {"file": source.path.name, "format": source.format}
    states = [file.stat() for file in source.files(config)]
    origin["bytes"] = sum(state.st_size for state in states)
    if states:
        changed = max(state.st_mtime_ns for state in states)
        origin["mtime"] = datetime.fromtimestamp(changed / 1e9, UTC).isoformat()
    return origin


def preflight(ds: xr.Dataset, config: IngestConfig) -> xr.Dataset:
    """`ds` with its side maps joined and everything checked that does not need the patterns'
    values.
    """
    for name in config.maps:
        if name in n.RESERVED or name in ds.coords or name.startswith(n.OF_LATER_RUNS):
            raise UsageError(
                f"{name!r} cannot name a map, the name has a meaning of its own; choose another one."
            )
    if n.PRESENT in ds and not ds[n.PRESENT].all():
        n_absent = int((~ds[n.PRESENT]).sum())
        log.info(
            f"{n_absent} of {ds[n.PRESENT].size} scan points have no pattern; {n.PRESENT!r} marks them."
        )
    for line in ds.attrs.get("notes", ()):
        log.info(line)
    tables = dict(config.maps)
    if config.elements is not None:
        tables[n.ELEMENTS] = config.elements
    if config.phases is not None:
        tables[n.PHASE] = config.phases
    maps: dict[str, xr.DataArray] = {}
    if config.orientations is not None:
        maps = side_maps(config.orientations, ds)
        n_missing = next(iter(maps.values())).attrs["n_missing"]  # the same of all of them
        log.info(f"{config.orientations.name}: {n_missing} scan points without a line")
    for name, path in tables.items():
        maps[name] = side_map(
            ds, path, name, class_names=config.phase_names, units=config.element_units
        )
    rest = ds.drop_vars(maps.keys() & ds.keys())
    used = {dim for variable in rest.data_vars.values() for dim in variable.dims}
    joined = rest.drop_dims(set(rest.dims) - used).assign(maps)
    schema.validate(joined)
    return joined


def _refuse_settings(config: IngestConfig, ds: xr.Dataset, *, is_file: bool) -> None:
    """Raise UsageError for a setting that means nothing for this source."""
    defaults = IngestConfig()
    for key in IngestConfig.model_fields:
        if getattr(config, key) == getattr(defaults, key):
            continue
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
                "chooses scan points, va.crop and va.bin_patterns change patterns)."
            )


class Checks:
    """What the blocks of patterns say on their way into a store, in row-major order: their
    extremes, which are constant or not finite.
    """

    def __init__(self, ds: xr.Dataset, nonfinite: str) -> None:
        self.ds, self.nonfinite, self.present = ds, nonfinite, measured(ds)
        self.low, self.high = np.inf, -np.inf
        self.n_constant = self.n_masked = self.n_varying = 0

    def __call__(self, block: np.ndarray, region: Region) -> np.ndarray:
        """The block as it is to be written, NaN (of integers 0) where no pattern was measured or it
        is masked.

        Raises DataError that names the point of the first pattern that is not finite, or that
        float32 cannot hold, unless `nonfinite` is `mask`.
        """
        present = self.present[tuple(region.values())]  # a view
        pixels = np.ascontiguousarray(block).reshape(*present.shape, -1)
        with np.errstate(invalid="ignore"):
            low, high = pixels.min(-1), pixels.max(-1)
        masked = present & ~_fits(low, high)
        if masked.any() and self.nonfinite != "mask":
            raise DataError(self._first_of(masked, low, high, region))
        self.n_masked += int(masked.sum())
        present &= ~masked
        if present.any():
            self.low = min(self.low, low[present].min().item())
            self.high = max(self.high, high[present].max().item())
        is_constant = (low == high)[present]
        self.n_constant += int(is_constant.sum())
        self.n_varying += int((~is_constant).sum())
        if present.all():
            return block
        empty = np.array(np.nan if block.dtype.kind == "f" else 0, block.dtype)
        return np.where(
            present.reshape(present.shape + (1,) * (block.ndim - present.ndim)), block, empty
        )

    def _first_of(
        self, masked: np.ndarray, low: np.ndarray, high: np.ndarray, region: Region
    ) -> str:
        first = tuple(np.argwhere(masked)[0])
        starts = zip(region.items(), first, strict=True)
        place = ", ".join(
            f"{dim} = {self.ds[dim].values[part.start + int(i)]}" for (dim, part), i in starts
        )
        return (
            f"the pattern at {place} has values from {low[first]} to {high[first]}: NaN, infinite, or such as float32 "
            f"cannot hold or tell apart ({int(masked.sum())} such patterns in this block); correct or scale them or "
            "take off an offset in the file, or leave them out with nonfinite='mask'."
        )

    def attrs(self) -> dict[str, Any]:
        """Attributes of the patterns. Raises DataError where no pattern holds anything to learn
        from.
        """
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
    return np.asarray(
        (step <= 1) | (low == high) | (high.astype("f8") - low.astype("f8") >= LEVELS * step)
    )
