"""Scans in the formats of EBSD vendors: lazy, labelled, with the maps that come in the file.

kikuchipy (an optional package, GPL) reads the files. This module adds what it lacks: the maps of
the vendors' indexing, the choice of a scan, interrupted scans, error messages of one line; and
patterns of HDF5 read in blocks, since kikuchipy makes a task of 1 kB for each chunk of the file,
which is often one pattern.

HDF5 files of EDAX, Oxford (H5OINA), Bruker and kikuchipy follow Jackson et al., Integrating
Materials and Manufacturing Innovation 3 (2014) 4: a group for each scan with `EBSD/Header` and
`EBSD/Data`, one row of `Data` for each scan point.
"""

from __future__ import annotations

import math
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.config import IngestConfig
from vaearr.errors import DataError, UsageError, did_you_mean, need
from vaearr.sources import ebsd_maps as m
from vaearr.sources.hdf5 import find_dataset, in_words, open_hdf5, refuse_outside_links
from vaearr.sources.lazy import H5Rows, lazy_array
from vaearr.sources.scan_grid import ScanGrid, scan_dataset, scan_grid, step_numbers
from vaearr.store.layout import pattern_chunks

EDAX_NO_POSITION = -1111111.0  # x and y of grid points with invalid data
EMSOFT_PATTERNS = "EMData/EBSD/EBSDPatterns"
EMSOFT = "emsoft-ebsd"

MAPS = {  # columns of `EBSD/Data` of all vendors, and their names in the Dataset
    "IQ": m.IQ_HOUGH,
    "CI": m.CI,
    "Fit": m.FIT,
    "SEM Signal": m.SEM_SIGNAL,
    "PRIAS Bottom Strip": "prias_bottom",
    "PRIAS Center Square": "prias_centre",
    "PRIAS Top Strip": "prias_top",
    "Band Contrast": n.BC,
    "Band Slope": m.BAND_SLOPE,
    "Bands": m.BANDS,
    "Mean Angular Deviation": m.MAD,
    "Error": m.INDEXING_ERROR,
    "Pattern Quality": "pattern_quality",
    "RadonQuality": "iq_radon",
    "MAD": m.MAD,
    "NIndexedBands": m.BANDS,
}
# units of element maps by group; the first group is used
ELEMENT_MAPS = {"Composition": "wt%", "Peak Area": "counts/s", "Window Integral": "counts/s"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What an HDF5 file of a vendor holds for each scan.

    patterns: datasets that may hold them, the preferred first. unindexed: phase number of points
    that are not indexed. phases: group of the header, and name of the phase's name in its entries.
    """

    holds: str
    maker: str
    patterns: tuple[str, ...]
    euler: tuple[str, ...] = ()
    to_radians: float = 1
    mad_to_degrees: float = 1
    unindexed: int | None = None
    phases: tuple[str, str] = ("", "")


LAYOUTS: dict[str, Layout] = {
    "edax-h5": Layout(
        holds="EDAX HDF5 (OIM Analysis)",
        maker="edax",
        patterns=("Pattern",),
        euler=("Phi1", "Phi", "Phi2"),
        phases=("Phase", "MaterialName"),
    ),
    "h5oina": Layout(
        holds="Oxford Instruments H5OINA (AZtec)",
        maker="oxford instruments",
        patterns=("Processed Patterns", "Unprocessed Patterns"),
        euler=("Euler",),
        mad_to_degrees=180 / math.pi,
        unindexed=0,
        phases=("Phases", "Phase Name"),
    ),
    "bruker-h5": Layout(
        holds="Bruker HDF5 (Esprit)",
        maker="bruker nano",
        patterns=("RawPatterns",),
        euler=("phi1", "PHI", "phi2"),
        to_radians=math.pi / 180,
        unindexed=0,
        phases=("Phases", "Name"),
    ),
    "kikuchipy-h5": Layout(holds="kikuchipy h5ebsd", maker="kikuchipy", patterns=("patterns",)),
}
HDF5_FORMATS: dict[str, str] = {
    **{name: layout.holds for name, layout in LAYOUTS.items()},
    EMSOFT: "EMsoft simulation of EBSD patterns",
}


def hdf5_format(file: h5py.File) -> str:
    """Name of the vendor format of an HDF5 file, "" for other files."""
    if EMSOFT_PATTERNS in file:
        return EMSOFT
    for key in file:
        if key.strip().lower() == "manufacturer":
            text = np.ravel(file[key][()])[0]
            maker = text.split(b"\0")[0].decode().strip().lower()
            for name, layout in LAYOUTS.items():
                if layout.maker == maker:
                    return name
    return ""


def is_up(path: Path) -> bool:
    """Whether a file is an UP1 or UP2 file by its name and the version in its first bytes."""
    return 0 < _up_version(path) < 100


def _up_version(path: Path) -> int:
    """Version of an UP1 or UP2 file; 0 for other files."""
    if path.suffix.lower() not in (".up1", ".up2"):
        return 0
    with path.open("rb") as file:
        return int.from_bytes(file.read(4), "little")


def is_nordif(path: Path) -> bool:
    """Whether a file is a .dat file with the settings of a NORDIF scan next to it."""
    settings = path.with_name("Setting.txt")
    if path.suffix.lower() != ".dat" or not settings.is_file():
        return False
    return b"[NORDIF]" in settings.read_bytes()[:4096]


def open_binary(file: Path, config: IngestConfig) -> xr.Dataset:
    """Open the patterns (y, x, dy, dx) of an UP1, UP2 or NORDIF file; see `open_vendor_hdf5`."""
    options: dict[str, Any] = {}
    is_raw = is_nordif(file)
    if is_raw and config.nav_shape:
        options["scan_size"] = config.nav_shape[::-1]
    with in_words(file, "a scan"):
        signal = _by_kikuchipy(file, file, **options)
        *sizes, height, width = signal.data.shape
        n_bytes = file.stat().st_size
        if is_raw and signal.data.nbytes != n_bytes:
            raise DataError(
                f"{file} has {n_bytes} bytes, but {sizes} patterns of {height} x {width} px are "
                f"{signal.data.nbytes}; give the Setting.txt of this scan or, if it was "
                "interrupted, nav_shape=(rows, columns) of the existing patterns."
            )
        grid, notes = _raster(file, math.prod(sizes), signal, config)
        tile = pattern_chunks(grid.rows.shape, (height, width), signal.data.dtype.itemsize)
        patterns = signal.data.reshape(*grid.rows.shape, height, width).rechunk(tile)
        return _scan(file, config, signal, patterns, grid, notes)


def open_vendor_hdf5(file: Path, config: IngestConfig) -> xr.Dataset:
    """Open patterns (y, x, dy, dx), lazy, with `present`, the file's maps and `static_background`.

    config: `scan` chooses one of several scans, `nav_shape` gives (rows, columns) where the file
    has none, `images` the dataset of the patterns where the file has several, `step` and `units`
    replace those of the file. Attributes: `detector`, and `notes`, such as an unknown scan shape.
    Raises DataError or UsageError for a file that cannot be read, MissingExtraError where kikuchipy
    is not installed.
    """
    with in_words(file, "a scan"), open_hdf5(file) as opened:
        refuse_outside_links(opened)
        return _hdf5(opened, file, hdf5_format(opened), config)


def _hdf5(opened: h5py.File, file: Path, kind: str, config: IngestConfig) -> xr.Dataset:
    """Open a scan of an HDF5 file; kikuchipy reads a copy without the patterns."""
    if kind not in HDF5_FORMATS:
        raise DataError(f"{file} is in none of the vendor formats {', '.join(HDF5_FORMATS)}.")
    layout = LAYOUTS.get(kind)
    scan = ""
    options: dict[str, Any] = {}
    if layout is None:
        dataset = find_dataset(opened, EMSOFT_PATTERNS, "images")
        notes = ["the patterns are simulated"]
    else:
        scan, notes = _choose_scan(opened, config)
        dataset, dataset_notes = _choose_patterns(opened, scan, layout, config)
        notes += dataset_notes
        options["scan_group_names"] = scan
        if kind == "h5oina":
            options["processed"] = not dataset.name.endswith("/Unprocessed Patterns")
    if dataset.ndim != 3 or 0 in dataset.shape or dataset.dtype.kind not in "uif":
        raise DataError(
            f"{file}: {dataset.name!r} has dtype {dataset.dtype} and shape {dataset.shape}; "
            "expected numbers (N, dy, dx), one pattern for each scan point."
        )
    with tempfile.TemporaryDirectory() as folder:
        header = Path(folder) / file.name
        with h5py.File(header, "w") as copy:
            _copy_header(opened, copy, dataset, scan)
        signal = _by_kikuchipy(file, header, **options)
        grid = _bruker_grid(opened, scan, len(dataset)) if kind == "bruker-h5" else None
        if grid is None:
            grid, raster_notes = _raster(file, len(dataset), signal, config)
            notes += raster_notes
        rows = H5Rows(dataset)
        patterns = lazy_array(rows, grid.rows, dataset.shape[1:], dataset.dtype)
        ds = _scan(file, config, signal, patterns, grid, notes)
    if layout is not None:
        header_entries = signal.original_metadata.as_dictionary()
        ds = ds.assign(_maps(opened, scan, layout, grid, header_entries))
    ds.set_close(rows.close)
    return ds


def _choose_scan(file: h5py.File, config: IngestConfig) -> tuple[str, list[str]]:
    """The requested or first scan, and a note on the others."""
    scans = [key for key in file if f"{key}/EBSD/Data" in file]
    if not scans:
        raise DataError(
            f"{file.filename} holds no scan: no group with 'EBSD/Data' in it; check the export."
        )
    if config.scan is None:
        return scans[0], _note_on_others(scans, "scan")
    if config.scan not in scans:
        hint = did_you_mean(config.scan, scans)
        raise UsageError(f"{file.filename} has no scan {config.scan!r}.{hint}")
    return config.scan, []


def _choose_patterns(
    file: h5py.File, scan: str, layout: Layout, config: IngestConfig
) -> tuple[h5py.Dataset, list[str]]:
    """The requested or preferred patterns of a scan, and a note on the others."""
    folder = f"{scan}/EBSD/Data"
    names = [key for key in layout.patterns if f"{folder}/{key}" in file]
    if config.images != IngestConfig().images:
        names = [config.images]
    if not names:
        expected = " or ".join(map(repr, layout.patterns))
        raise DataError(
            f"{file.filename}: {folder!r} holds no patterns ({expected}); save the patterns with "
            "the scan."
        )
    return find_dataset(file, f"{folder}/{names[0]}", "images"), _note_on_others(names, "images")


def _note_on_others(names: list[str], setting: str) -> list[str]:
    """A note on what the file holds besides the first, unless that is all."""
    chosen, *others = map(repr, names)
    if not others:
        return []
    return [f"{chosen} is read; the file also holds {', '.join(others)} ({setting}=…)."]


def _copy_header(
    source: h5py.Group, target: h5py.Group, patterns: h5py.Dataset, scan: str = ""
) -> None:
    """Copy all but patterns, of which the shape is kept, element maps and other scans."""
    for name in source:
        item = source.get(name)
        if isinstance(item, h5py.Group) and name != "EDS" and scan in ("", name):
            _copy_header(item, target.create_group(name), patterns)
        elif isinstance(item, h5py.Dataset) and item.ndim == 3 and item.shape == patterns.shape:
            target.create_dataset(name, item.shape, item.dtype)  # empty: nothing is written
        elif isinstance(item, h5py.Dataset):
            source.copy(item, target, name)


def _by_kikuchipy(file: Path, header: Path, **options: Any) -> Any:
    """The lazy signal of kikuchipy. Raises DataError where it cannot read the file."""
    need("kikuchipy", "vaearr[ebsd]", file.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*hexagonal grid")
        import kikuchipy

        try:
            signal = kikuchipy.load(str(header), lazy=True, **options)
            grid = signal.original_metadata.as_dictionary().get("grid_type", "square")
            if grid != "square" or type(signal).__name__ not in ("EBSD", "LazyEBSD"):
                raise ValueError(
                    f"grid {grid!r} of {type(signal).__name__}, not a square grid of EBSD patterns"
                )
        except Exception as error:  # whatever a damaged header makes it raise
            traceback.clear_frames(error.__traceback__)  # closes the files that it leaves open then
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            remedy = "check how it was exported."
            if "grid" in reason:
                remedy = (
                    "only square grids can be read, so convert the scan to a square grid in the "
                    "vendor's program first."
                )
            raise DataError(f"{file} cannot be read by kikuchipy ({reason}); {remedy}") from error
    return signal


def _raster(
    file: Path, count: int, signal: Any, config: IngestConfig
) -> tuple[ScanGrid, list[str]]:
    """The grid by the setting, else by the header, and a note on scans of one row."""
    sizes = {axis.name: int(axis.size) for axis in signal.axes_manager.navigation_axes}
    rows, columns = config.nav_shape or (sizes.get(n.Y, 1), sizes.get(n.X, 1))
    if rows * columns != count:
        source = "nav_shape" if config.nav_shape else "its header"
        error = UsageError if config.nav_shape else DataError
        raise error(
            f"{file}: {source} says {rows} x {columns} = {rows * columns} scan points, but it "
            f"holds {count} patterns; for an interrupted scan give nav_shape=(rows, columns) of "
            "the existing patterns."
        )
    notes = []
    if rows == 1 and count > 1 and config.nav_shape is None:
        notes = [
            f"{file.name}: {count} patterns in one row; nav_shape=(rows, columns) sets another "
            "shape."
        ]
    numbers = np.arange(count).reshape(rows, columns)
    return ScanGrid(x=np.arange(columns), y=np.arange(rows), rows=numbers), notes


def _bruker_grid(file: h5py.File, scan: str, n_patterns: int) -> ScanGrid | None:
    """The grid by the step numbers that Bruker lists where the region is a part of the scan."""
    names = [f"{scan}/EBSD/SEM/{key}" for key in ("IX", "IY")]
    if n_patterns == 1 or not all(name in file for name in names):
        return None
    where = f"{file.filename}: {scan!r}"
    steps = np.stack([find_dataset(file, name, "images")[()] for name in names], axis=1)
    return scan_grid(step_numbers(steps, where), where)


def _scan(
    file: Path, config: IngestConfig, signal: Any, patterns: Any, grid: ScanGrid, notes: list[str]
) -> xr.Dataset:
    """The Dataset of a scan, with what kikuchipy read from the header."""
    header_shape = tuple(signal.axes_manager.signal_shape[::-1])
    shape = patterns.shape[-2:]
    if header_shape != shape:
        raise DataError(
            f"{file}: the header says patterns of {header_shape} px, the patterns have {shape}."
        )
    axes = signal.axes_manager.navigation_axes
    if _up_version(file) == 1:  # has no step, for which kikuchipy states 1 um
        axes = ()
    steps: dict[str, float] = {}
    for axis in axes:
        if axis.units != "px" and 0 < axis.scale < math.inf:
            steps[axis.name] = float(axis.scale)
    ds = scan_dataset(patterns, grid, config, file, steps)
    if signal.detector is not None:
        ds.attrs["detector"] = _detector(signal.detector)
    if notes:
        ds.attrs["notes"] = notes
    background = np.asarray(signal.static_background)
    if background.shape == header_shape:
        attrs = {"long_name": "static background", "units": "counts"}
        ds["static_background"] = ((n.DY, n.DX), background, attrs)
    return ds.assign(_crystal_map(signal.xmap, grid))


def _detector(detector: Any) -> dict[str, Any]:
    """Geometry of the detector; the projection centre in Bruker's convention, its mean if it varies.

    Left out for files without one: (1/2, 1/2, 1/2) is kikuchipy's default, and an uncalibrated
    header has a detector at no distance.
    """
    attrs: dict[str, Any] = {}
    for key in ("sample_tilt", "tilt", "azimuthal", "twist", "binning"):
        attrs[key] = float(getattr(detector, key))
    attrs["angle_units"] = "degree"
    centres = np.asarray(detector.pc, dtype="f8").reshape(-1, 3)
    if not np.all(centres == 0.5) and np.all(centres[:, 2] > 0):
        attrs["projection_centre"] = centres.mean(axis=0).tolist()
        attrs["projection_centre_convention"] = "Bruker"
    return attrs


def _crystal_map(xmap: Any, grid: ScanGrid) -> dict[str, xr.DataArray]:
    """Phases, orientations and scores of the crystal map in files of kikuchipy and EMsoft."""
    names = m.phase_names(xmap) if xmap is not None else {}
    if not any(names.values()) or xmap.is_in_data.size != grid.rows.size:
        return {}
    rows = np.full(grid.rows.size, -1)
    rows[xmap.is_in_data] = np.arange(xmap.size)
    xmap_grid = replace(grid, rows=rows.reshape(grid.rows.shape))
    columns = {}
    if "scores" in xmap.prop:
        columns["scores"] = xmap.prop["scores"].reshape(xmap.size, -1)[:, 0]
    numbers = np.where(xmap.is_indexed, xmap.phase_id, n.PHASE_UNKNOWN)
    euler = xmap.rotations.to_euler().reshape(xmap.size, -1, 3)[:, 0]
    return m.indexed_maps(xmap_grid, columns, numbers, names, euler)


def _maps(
    file: h5py.File, scan: str, layout: Layout, grid: ScanGrid, header: Mapping[str, Any]
) -> dict[str, xr.DataArray]:
    """All maps of the file, which kikuchipy does not read, on the grid."""
    data = _table(file, f"{scan}/EBSD/Data", grid)
    maps = {name: data[key] for key, name in MAPS.items() if key in data}
    numbers = euler = None
    names: dict[int, str] = {}
    if "Phase" in data:
        numbers, names = _phases(data["Phase"], layout, maps.get(m.CI), header)
    if layout.euler and set(layout.euler) <= set(data):
        euler = np.column_stack([data[key] for key in layout.euler]) * layout.to_radians
    if m.MAD in maps:
        maps[m.MAD] = maps[m.MAD] * layout.mad_to_degrees
    if "X Position" in data:
        is_invalid = data["X Position"] == EDAX_NO_POSITION
        maps = {name: np.where(is_invalid, np.nan, values) for name, values in maps.items()}
    variables = m.indexed_maps(grid, maps, numbers, names, euler)
    return variables | _element_maps(file, scan, grid)


def _element_maps(file: h5py.File, scan: str, grid: ScanGrid) -> dict[str, xr.DataArray]:
    """The element maps of a combined EBSD and EDS scan (H5OINA)."""
    for kind, units in ELEMENT_MAPS.items():
        columns = _table(file, f"{scan}/EDS/Data/{kind}", grid)
        if columns:
            attrs = {**n.ATTRS[n.ELEMENTS], "units": units, "source": kind}
            values = np.stack([grid.put(column) for column in columns.values()]).astype("f4")
            symbols = [key.split()[0] for key in columns]
            dims = (n.ELEMENT, n.Y, n.X)
            return {n.ELEMENTS: xr.DataArray(values, {n.ELEMENT: symbols}, dims, attrs=attrs)}
    return {}


def _table(file: h5py.File, folder: str, grid: ScanGrid) -> dict[str, np.ndarray]:
    """The datasets of a group that hold numbers for each row: (N,) or (N, width), as floats."""
    count = int(grid.present.sum())
    table = {}
    for key in file.get(folder, ()):
        item = file[f"{folder}/{key}"]
        is_numbers = isinstance(item, h5py.Dataset) and item.dtype.kind in "uif"
        if is_numbers and item.ndim in (1, 2) and len(item) == count:
            values = find_dataset(file, item.name, "images")[()].astype("f8")
            table[key] = values[:, 0] if values.shape[1:] == (1,) else values
    return table


def _phases(
    rows: np.ndarray, layout: Layout, ci: np.ndarray | None, header: Mapping[str, Any]
) -> tuple[np.ndarray, dict[int, str]]:
    """Phase number of each row, -1 where it is not indexed, and names by number."""
    group, name_key = layout.phases
    names = {}
    for key, entry in sorted(dict(header.get(group, {})).items()):
        if key.isdigit():
            names[int(key)] = str(entry.get(name_key, ""))
    is_indexed = (rows >= 0) & (rows != layout.unindexed)
    if ci is not None:
        is_indexed &= ci >= 0
    if layout.unindexed is None and len(names) == 1 and not rows[is_indexed].any():
        names = {0: next(iter(names.values()))}  # EDAX numbers a single phase 0, several from 1 on
    return np.where(is_indexed, rows, n.PHASE_UNKNOWN), names
