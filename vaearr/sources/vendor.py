"""Scans in the formats of EBSD vendors: lazy, labelled, with the maps that come in the file.

kikuchipy (an optional package, GPL) reads each file's header: detector, static background, crystal map. The patterns
themselves are read by `KikuchiArray`, block by block from the file, whatever the size of the scan.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import xarray as xr
from xarray.backends import CachingFileManager

from vaearr import names as n
from vaearr.config import IngestConfig
from vaearr.errors import DataError, UsageError, VaearrError, need
from vaearr.sources import ebsd_maps as m
from vaearr.sources import vendor_h5 as h5
from vaearr.sources.hdf5 import (
    check_file,
    damage_in_words,
    find_dataset,
    find_optional,
    has_hdf5_signature,
    open_hdf5,
    refuse_outside_links,
)
from vaearr.sources.kikuchi_h5 import KikuchiArray, scan_dataset
from vaearr.sources.rows import RawFile
from vaearr.sources.scan_grid import ScanGrid, scan_grid, step_numbers
from vaearr.sources.vendor_binary import RawLayout, is_nordif, is_up, nordif_layout, up_layout

FORMATS: dict[str, str] = {
    **{name: layout.holds for name, layout in h5.LAYOUTS.items()},
    "edax-up": "EDAX UP1 or UP2 patterns",
    "nordif": "NORDIF patterns (.dat) with Setting.txt beside them",
    "emsoft-ebsd": "EMsoft simulation of EBSD patterns",
}
MASTER = "emsoft-master"
RAW_ROWS = "patterns"  # the one name that a `RawFile` knows
STATIC_BACKGROUND, NOTES, DETECTOR = "static_background", "notes", "detector"


def format_of(path: Path) -> str:
    """Name of the vendor format, "" for anything else. Looks at the content; raises nothing for a damaged file."""
    if is_up(path):
        return "edax-up"
    if is_nordif(path):
        return "nordif"
    if not has_hdf5_signature(path):
        return ""
    try:
        with open_hdf5(path) as file:
            if any(name in file for name in h5.MASTER_PATTERNS):
                return MASTER
            if h5.EMSOFT_PATTERNS in file:
                return "emsoft-ebsd"
            return h5.MANUFACTURERS.get(h5.manufacturer(file), "")
    except (DataError, OSError, RuntimeError, KeyError, ValueError, TypeError, SystemError):  # opening it says how
        return ""


def refuse_master_pattern(
    path: str | Path, config: IngestConfig | None = None, *, scratch: Path | None = None
) -> NoReturn:
    """Raises DataError: there are no scan points in a master pattern."""
    raise DataError(
        f"{path} holds a master pattern, not a scan: the diffraction of one crystal in all directions, without scan "
        f"points; give the file of a measured or simulated scan."
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    """What our own look into a file gives: where its rows are, how they lie on the grid, what else is known."""

    manager: CachingFileManager
    rows: str
    row_shape: tuple[int, ...]
    dtype: np.dtype
    grid: ScanGrid
    step: tuple[float | None, float | None]
    options: dict[str, Any] | None = None  # for kikuchipy.load; None: it is not asked
    maps: dict[str, xr.DataArray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_vendor(path: str | Path, config: IngestConfig | None = None, *, scratch: Path | None = None) -> xr.Dataset:
    """Lazy Dataset of patterns (y, x, dy, dx) with `present`, the file's maps, `static_background` and `detector`.

    config: `scan` chooses one of several scans, `nav_shape` gives (rows, columns) where the file has none, `images` the
    dataset of the patterns where the file has several, `step` and `units` replace those of the file. Attribute `notes`:
    lines worth knowing, such as a scan shape that is not known. Raises DataError or UsageError for what cannot be read,
    MissingExtraError where kikuchipy is not installed.
    """
    config = config or IngestConfig()
    file = check_file(path)
    kind = format_of(file)
    with damage_in_words(file):
        if kind == "edax-up":
            found = _raw(file, up_layout(file), config, kind)
        elif kind == "nordif":
            found = _raw(file, nordif_layout(file), config, kind)
        elif kind in FORMATS:
            with open_hdf5(file) as opened:
                refuse_outside_links(opened)
                found = _emsoft(opened, config) if kind == "emsoft-ebsd" else _h5ebsd(opened, kind, config)
        else:
            raise DataError(f"{file} is in none of the vendor formats {', '.join(FORMATS)}.")
    facts = _read_by_kikuchipy(file, found)
    array = KikuchiArray(found.manager, found.rows, found.grid, found.row_shape, found.dtype, scratch)
    step = (config.step, config.step) if config.step is not None else found.step
    units = config.units if config.step is not None else "um" if any(step) else "step"
    notes = [*found.notes, *facts.pop(NOTES)]
    detector = facts.pop(DETECTOR)
    ds = scan_dataset(array, found.grid, step, units).assign(found.maps | facts)
    ds.attrs = ({DETECTOR: detector} if detector else {}) | ({NOTES: notes} if notes else {})
    ds.encoding["source"] = str(file)
    ds.set_close(array.close)
    return ds


def _raw(file: Path, layout: RawLayout, config: IngestConfig, kind: str) -> _Found:
    nav, notes = _nav_shape(file, layout.n_patterns, layout.nav, config)
    shape = (layout.n_patterns, *layout.pattern)
    options: dict[str, Any] | None = {"nav_shape": nav} if kind == "edax-up" else {"scan_size": nav[::-1]}
    if kind == "edax-up" and layout.nav is not None and layout.nav[0] * layout.nav[1] != layout.n_patterns:
        options = None  # an interrupted scan, which kikuchipy cannot read
    return _Found(
        manager=CachingFileManager(RawFile, str(file.resolve()), layout.offset, layout.dtype, shape),
        rows=RAW_ROWS,
        row_shape=layout.pattern,
        dtype=np.dtype(layout.dtype),
        grid=_raster(nav),
        step=layout.step,
        options=options,
        notes=notes,
    )


def _h5ebsd(file: h5py.File, kind: str, config: IngestConfig) -> _Found:
    layout, scan = h5.LAYOUTS[kind], h5.choose_scan(file, config.scan)
    h5.refuse_other_grids(file, scan, layout)
    wanted = config.images if config.images != IngestConfig.model_fields["images"].default else None
    dataset = _check_patterns(h5.patterns_in(file, scan, layout, wanted))
    name = str(dataset.name)
    steps = h5.bruker_steps(file, scan, dataset.shape[0]) if kind == "bruker-h5" else None
    notes: tuple[str, ...] = ()
    if steps is not None:
        where = f"{file.filename}: {scan!r}"
        grid = scan_grid(step_numbers(steps, where), where)
    else:
        shape = h5.header_shape(file, scan, layout)
        nav, notes = _nav_shape(Path(file.filename), dataset.shape[0], shape, config)
        grid = _raster(nav)
    others = [other for other in h5.scans(file) if other != scan]
    if others and config.scan is None:
        notes += (f"{scan!r} is read; the file also holds {', '.join(map(repr, others))} (scan=…).",)
    also = [p for p in layout.patterns if not name.endswith(p) and find_optional(file, f"{scan}/EBSD/Data/{p}")]
    if also and wanted is None:
        notes += (f"{name.rsplit('/', 1)[-1]!r} are read; the file also holds {also[0]!r} (images=…).",)
    options: dict[str, Any] = {"scan_group_names": scan}
    if kind == "h5oina":
        options["processed"] = not name.endswith("/Unprocessed Patterns")
    return _Found(
        manager=CachingFileManager(open_hdf5, str(Path(file.filename).resolve()), mode="r"),
        rows=name,
        row_shape=dataset.shape[1:],
        dtype=dataset.dtype,
        grid=grid,
        step=h5.header_step(file, scan, layout),
        options=options,
        maps=h5.maps_in(file, scan, layout, grid),
        notes=notes,
    )


def _emsoft(file: h5py.File, config: IngestConfig) -> _Found:
    dataset = _check_patterns(find_dataset(file, h5.EMSOFT_PATTERNS, "images"))
    nav, notes = _nav_shape(Path(file.filename), dataset.shape[0], None, config)
    return _Found(
        manager=CachingFileManager(open_hdf5, str(Path(file.filename).resolve()), mode="r"),
        rows=h5.EMSOFT_PATTERNS,
        row_shape=dataset.shape[1:],
        dtype=dataset.dtype,
        grid=_raster(nav),
        step=(None, None),
        options={},
        notes=("the patterns are simulated", *notes),
    )


def _check_patterns(dataset: h5py.Dataset) -> h5py.Dataset:
    where = f"{dataset.file.filename}: {dataset.name!r}"
    if dataset.ndim != 3 or 0 in dataset.shape:
        raise DataError(f"{where} has shape {dataset.shape}; expected (N, dy, dx), one pattern for each scan point.")
    if dataset.dtype.kind not in "uif":
        raise DataError(f"{where} has dtype {dataset.dtype}; expected an integer or float type.")
    return dataset


def _nav_shape(
    file: Path, n_patterns: int, in_file: tuple[int, int] | None, config: IngestConfig
) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Rows and columns of the scan: the setting, else the file's, else one row (which a note says)."""
    wanted = config.nav_shape or in_file
    if wanted is None:
        note = f"{file.name} stores no scan shape: {n_patterns} patterns in one row; nav_shape=(rows, columns) sets it."
        return (1, n_patterns), (note,) if n_patterns > 1 else ()
    if wanted[0] * wanted[1] == n_patterns:
        return wanted, ()
    said = f"{wanted[0]} x {wanted[1]} = {wanted[0] * wanted[1]} scan points"
    if config.nav_shape is not None:
        raise UsageError(
            f"nav_shape={wanted} means {said}, but {file} holds {n_patterns} patterns; give its own shape."
        )
    raise DataError(
        f"{file}: its header says {said}, but it holds {n_patterns} patterns (an interrupted scan, or a truncated "
        f"file); fetch it again, or give nav_shape=(rows, columns) for the patterns that are there."
    )


def _raster(nav: tuple[int, int]) -> ScanGrid:
    return ScanGrid(x=np.arange(nav[1]), y=np.arange(nav[0]), rows=np.arange(nav[0] * nav[1]).reshape(nav))


@contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read_by_kikuchipy(file: Path, found: _Found) -> dict[str, Any]:
    """What kikuchipy makes of the header: `detector`, `notes`, and variables for what it knows beyond the patterns."""
    with _quietly():
        need("kikuchipy", "vaearr[ebsd]", file.name)
        import kikuchipy

        if found.options is None:
            return {NOTES: [], DETECTOR: {}}
        try:
            signal = kikuchipy.load(str(file), lazy=True, **found.options)
            try:
                return _facts(signal, found)
            finally:
                _close_files(signal)
        except VaearrError:
            raise
        except Exception as error:  # whatever a damaged header makes it raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(f"{file} cannot be read by kikuchipy ({reason}); check how it was exported.") from error


def _close_files(signal: Any) -> None:
    """A lazy signal leaves its HDF5 file open: the source of its graph, in a layer of its own."""
    for layer in signal.data.dask.layers.values():
        parts = getattr(layer, "mapping", {})
        for part in parts.values() if len(parts) == 1 else ():
            if isinstance(part, h5py.Dataset) and part.id.valid:
                part.file.close()


def _facts(signal: Any, found: _Found) -> dict[str, Any]:
    if type(signal).__name__ not in ("EBSD", "LazyEBSD"):
        raise DataError(f"kikuchipy reads it as {type(signal).__name__}, not as a scan of EBSD patterns.")
    shape = tuple(signal.axes_manager.signal_shape[::-1])
    if shape != tuple(found.row_shape):
        raise DataError(f"the header says patterns of {shape} px, the patterns have {found.row_shape}.")
    is_in_file = found.rows != RAW_ROWS or signal.static_background is not None or signal.xmap is not None
    facts: dict[str, Any] = {NOTES: [], DETECTOR: _detector(signal.detector) if is_in_file else {}}
    background = signal.static_background
    if background is not None:
        background = np.asarray(background)
        if background.shape == shape:
            attrs = {"long_name": "static background", "units": "counts"}
            facts[STATIC_BACKGROUND] = xr.DataArray(background, dims=(n.DY, n.DX), attrs=attrs)
        else:
            facts[NOTES].append(f"a static background of {background.shape} px is left out: patterns have {shape}.")
    return facts | _crystal_map(signal.xmap, found)


def _detector(detector: Any) -> dict[str, Any]:
    """Plain numbers; the projection centre in Bruker's convention, the mean over the scan where it varies.

    A centre of (1/2, 1/2, 1/2) is what kikuchipy puts where a file has none, so it is left out.
    """
    if detector is None:
        return {}
    centres = np.asarray(detector.pc, dtype="f8").reshape(-1, 3)
    angles = {key: float(getattr(detector, key)) for key in ("sample_tilt", "tilt", "azimuthal", "twist")}
    facts: dict[str, Any] = {**angles, "angle_units": "degree", "binning": float(detector.binning)}
    if np.all(centres == 0.5):
        return facts
    return facts | {
        "projection_centre": [float(v) for v in centres.mean(axis=0)],
        "projection_centre_spread": [float(v) for v in np.ptp(centres, axis=0)],
        "projection_centre_convention": "Bruker",
    }


def _crystal_map(xmap: Any, found: _Found) -> dict[str, xr.DataArray]:
    """Phases, orientations and scores of a crystal map that holds any (kikuchipy's own files, EMsoft)."""
    names = {} if xmap is None else {int(i): str(phase.name or "") for i, phase in xmap.phases if int(i) >= 0}
    if n.PHASE in found.maps or not any(names.values()) or xmap.is_in_data.size != found.grid.rows.size:
        return {}
    inside, cells = np.asarray(xmap.is_in_data), found.grid.rows.shape
    numbers = np.full(inside.size, n.PHASE_UNKNOWN)
    numbers[inside] = np.where(xmap.is_indexed, xmap.phase_id, n.PHASE_UNKNOWN)
    angles = np.full((inside.size, 3), np.nan)
    angles[inside] = xmap.rotations.to_euler().reshape(-1, 3)
    laue = {int(i): str(phase.point_group.laue.name) for i, phase in xmap.phases if phase.point_group is not None}
    maps = {n.PHASE: m.phase_map(numbers.reshape(cells), names, laue)}
    maps |= m.orientation_arrays(angles.reshape(*cells, 3), numbers.reshape(cells) >= 0)
    if "scores" in xmap.prop:
        scores = np.full(inside.size, np.nan)
        scores[inside] = np.asarray(xmap.prop["scores"]).reshape(int(inside.sum()), -1)[:, 0]
        maps["scores"] = xr.DataArray(scores.reshape(cells).astype("f4"), dims=(n.Y, n.X), attrs=m.ATTRS["scores"])
    return maps
