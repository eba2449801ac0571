"""Scans in the formats of EBSD vendors: lazy, labelled, with the maps that come in the file.

kikuchipy (an optional package, GPL) reads the headers: grid and step, detector, static background, crystal map. Ours is
what it lacks: the maps of the vendors' indexing, the choice of a scan, interrupted scans, refusals in one line; and
patterns read in blocks, since kikuchipy makes a task of 1 kB for each chunk of the file, which is often one pattern.

HDF5 files of EDAX, Oxford (H5OINA), Bruker and kikuchipy follow Jackson et al., Integrating Materials and Manufacturing
Innovation 3 (2014) 4: a group for each scan with `EBSD/Header` and `EBSD/Data`, one row of `Data` for each scan point.
"""

from __future__ import annotations

import math
import struct
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.config import IngestConfig
from vaearr.errors import DataError, UsageError, did_you_mean, need
from vaearr.sources import ebsd_maps as m
from vaearr.sources.hdf5 import (
    check_file,
    damage_in_words,
    find_dataset,
    find_optional,
    has_hdf5_signature,
    listed,
    open_hdf5,
    refuse_outside_links,
)
from vaearr.sources.lazy import H5Rows, RawRows, Read
from vaearr.sources.scan_grid import ScanGrid, scan_dataset, scan_grid, step_numbers

EDAX_NO_POSITION = -1111111.0  # x and y of grid points with invalid data
EMSOFT_PATTERNS = "EMData/EBSD/EBSDPatterns"
MASTER_PATTERNS = ("EMData/EBSDmaster", "EMData/ECPmaster", "EMData/TKDmaster")
UP_HEADER, UP_GRID = struct.Struct("<4I"), struct.Struct("<x2IB2d")  # then, from version 3 on: grid, hexagonal, steps
UP_DTYPES = {".up1": "<u1", ".up2": "<u2"}
MASTER, NORDIF_MARK = "emsoft-master", b"[NORDIF]"
NOTES, DETECTOR = "notes", "detector"
Step = tuple[float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What an HDF5 file of a vendor holds for each scan; patterns: datasets that may hold them, the preferred first.

    unindexed: the phase number that means so. phases: group of the header, name and Laue group of an entry in it.
    """

    holds: str
    maker: str
    patterns: tuple[str, ...]
    maps: Mapping[str, str] = field(default_factory=dict)
    euler: tuple[str, ...] = ()
    degrees: bool = False
    mad_in_radians: bool = False
    unindexed: int | None = None
    phases: tuple[str, str, Callable[[Mapping[str, Any]], str]] = ("", "", lambda entry: "")


LAYOUTS: dict[str, Layout] = {
    "edax-h5": Layout(
        holds="EDAX HDF5 (OIM Analysis)",
        maker="edax",
        patterns=("Pattern",),
        maps={
            "IQ": m.IQ_HOUGH,
            "CI": m.CI,
            "Fit": m.FIT,
            "SEM Signal": m.SEM_SIGNAL,
            "PRIAS Bottom Strip": "prias_bottom",
            "PRIAS Center Square": "prias_centre",
            "PRIAS Top Strip": "prias_top",
        },
        euler=("Phi1", "Phi", "Phi2"),
        phases=("Phase", "MaterialName", lambda entry: m.LAUE_BY_EDAX.get(str(entry.get("Symmetry")), "")),
    ),
    "h5oina": Layout(
        holds="Oxford Instruments H5OINA (AZtec)",
        maker="oxford instruments",
        patterns=("Processed Patterns", "Unprocessed Patterns"),
        maps={
            "Band Contrast": n.BC,
            "Band Slope": m.BAND_SLOPE,
            "Bands": m.BANDS,
            "Mean Angular Deviation": m.MAD,
            "Pattern Quality": "pattern_quality",
            "Error": m.INDEXING_ERROR,
        },
        euler=("Euler",),
        mad_in_radians=True,
        unindexed=0,
        phases=("Phases", "Phase Name", lambda entry: m.LAUE_BY_NUMBER.get(int(entry.get("Laue Group", 0)), "")),
    ),
    "bruker-h5": Layout(
        holds="Bruker HDF5 (Esprit)",
        maker="bruker nano",
        patterns=("RawPatterns",),
        maps={"RadonQuality": "iq_radon", "MAD": m.MAD, "NIndexedBands": m.BANDS},
        euler=("phi1", "PHI", "phi2"),
        degrees=True,
        unindexed=0,
        phases=("Phases", "Name", lambda entry: m.laue_of_space_group(int(entry.get("IT", 0)))),
    ),
    "kikuchipy-h5": Layout(holds="kikuchipy h5ebsd", maker="kikuchipy", patterns=("patterns",)),
    "emsoft-ebsd": Layout(holds="EMsoft simulation of EBSD patterns", maker="", patterns=()),
}
FORMATS: dict[str, str] = {
    **{name: layout.holds for name, layout in LAYOUTS.items()},
    "edax-up": "EDAX UP1 or UP2 patterns",
    "nordif": "NORDIF patterns (.dat) with Setting.txt beside them",
}


def format_of(path: Path) -> str:
    """Name of the vendor format, "" for anything else. Looks at the content; raises nothing for a damaged file."""
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(UP_HEADER.size)
    if suffix in UP_DTYPES and len(head) == UP_HEADER.size and 1 <= UP_HEADER.unpack(head)[0] < 100:
        return "edax-up"
    setting = path.with_name("Setting.txt")
    if suffix == ".dat" and setting.is_file() and NORDIF_MARK in setting.read_bytes()[:4096]:
        return "nordif"
    if not has_hdf5_signature(path):
        return ""
    try:
        with open_hdf5(path) as opened:
            if any(name in opened for name in MASTER_PATTERNS):
                return MASTER
            if EMSOFT_PATTERNS in opened:
                return "emsoft-ebsd"
            key = next((key for key in opened if key.strip().lower() == "manufacturer"), "")
            maker = np.ravel(opened[key][()])[0].split(b"\0")[0].decode().strip().lower() if key else ""
            return next((name for name, layout in LAYOUTS.items() if maker and layout.maker == maker), "")
    except Exception:  # whatever a damaged file makes of it; opening it says how
        return ""


def refuse_master_pattern(
    path: str | Path, config: IngestConfig | None = None, *, scratch: Path | None = None
) -> NoReturn:
    """Raises DataError: there are no scan points in a master pattern."""
    raise DataError(
        f"{path} holds a master pattern, not a scan: the diffraction of one crystal in all directions, without scan "
        f"points; give the file of a measured or simulated scan."
    )


@dataclass(kw_only=True, eq=False)
class _Scan:
    """Where the rows of a scan are, how they lie on its grid, and what the file says besides."""

    read: Read
    grid: ScanGrid
    shape: tuple[int, ...]
    dtype: np.dtype
    step: Step
    notes: list[str]
    facts: dict[str, Any] = field(default_factory=dict)


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
            scan = _up(file, config)
        elif kind == "nordif":
            scan = _nordif(file, config)
        elif kind in LAYOUTS:
            with open_hdf5(file) as opened:
                refuse_outside_links(opened)
                scan = _hdf5(opened, file, kind, config, scratch)
        else:
            raise DataError(f"{file} is in none of the vendor formats {', '.join(FORMATS)}.")
    step = (config.step, config.step) if config.step is not None else scan.step
    units = config.units if config.step is not None else "um" if any(step) else "step"
    ds = scan_dataset(scan.read, scan.grid, scan.shape, scan.dtype, step, units, file)
    about = {DETECTOR: scan.facts.pop(DETECTOR, {}), NOTES: scan.notes}
    ds = ds.assign(scan.facts).assign_attrs({key: value for key, value in about.items() if value})
    if isinstance(scan.read, H5Rows):
        ds.set_close(scan.read.close)
    return ds


def _up(file: Path, config: IngestConfig) -> _Scan:
    """An EDAX file, which has a header of some numbers; kikuchipy opens no interrupted scan and flattens hexagons."""
    size, dtype = file.stat().st_size, np.dtype(UP_DTYPES[file.suffix.lower()])
    with file.open("rb") as opened:
        head = opened.read(UP_HEADER.size + UP_GRID.size).ljust(UP_HEADER.size + UP_GRID.size, b"\0")
    version, columns, rows, offset = UP_HEADER.unpack(head[: UP_HEADER.size])
    if version == 2:
        raise DataError(f"{file} has version 2 of the EDAX format; versions 1, 3 and later can be read, export it so.")
    count, rest = divmod(size - offset, max(1, rows * columns * dtype.itemsize))
    nx, ny, is_hexagonal, dx, dy = UP_GRID.unpack(head[UP_HEADER.size :]) if version > 2 else (0, 0, False, 0, 0)
    if is_hexagonal:
        raise DataError(f"{file}: the scan points lie on a hexagonal grid ({nx} x {ny}); {_SQUARE}")
    if min(rows, columns) < 1 or offset < UP_HEADER.size or count < 1 or (rest and (version == 1 or nx * ny > count)):
        raise DataError(
            f"{file} is truncated or damaged: its header says patterns of {rows} x {columns} px from byte {offset} on, "
            f"and the file has {size} bytes; fetch it again from where it was written."
        )
    shape = (count, rows, columns)
    nav, notes = _nav_shape(file, count, (ny, nx) if version > 2 else None, config)
    step = tuple(value if 0 < value < math.inf else None for value in (dy, dx))
    need("kikuchipy", "vaearr[ebsd]", file.name)
    read = RawRows(file.resolve(), offset, dtype.str, shape)
    return _Scan(read=read, grid=_raster(nav), shape=shape[1:], dtype=dtype, step=(step[0], step[1]), notes=notes)


def _nordif(file: Path, config: IngestConfig) -> _Scan:
    signal = _by_kikuchipy(file, file)
    shape = signal.axes_manager.signal_shape[::-1]
    count, rest = divmod(file.stat().st_size, math.prod(shape))
    if count == 0 or rest:
        raise DataError(
            f"{file} is truncated or belongs to another Setting.txt: {file.stat().st_size} bytes are {count} patterns "
            f"of {shape[0]} x {shape[1]} px and {rest} bytes more; put the file and its Setting.txt together."
        )
    sizes, step = _axes(signal)
    nav, notes = _nav_shape(file, count, sizes, config)
    grid, dtype = _raster(nav), np.dtype("u1")
    read = RawRows(file.resolve(), 0, "u1", (count, *shape))
    scan = _Scan(read=read, grid=grid, shape=shape, dtype=dtype, step=step, notes=notes)
    scan.facts = _facts(file, signal, scan, grid)
    return scan


def _hdf5(opened: h5py.File, file: Path, kind: str, config: IngestConfig, scratch: Path | None) -> _Scan:
    """A scan of an HDF5 file. kikuchipy gets a copy without patterns, so that it makes no task for each of them."""
    layout, notes, name = LAYOUTS[kind], [], ""
    options: dict[str, Any] = {}
    if kind == "emsoft-ebsd":
        dataset = find_dataset(opened, EMSOFT_PATTERNS, "images")
        notes.append("the patterns are simulated")
    else:
        name, others = _choose_scan(opened, config.scan)
        if others and config.scan is None:
            notes.append(f"{name!r} is read; the file also holds {', '.join(map(repr, others))} (scan=…).")
        dataset, beside = _choose_patterns(opened, name, layout, config)
        if beside:
            own = dataset.name.rsplit("/", 1)[-1]
            notes.append(f"{own!r} are read; the file also holds {beside!r} (images=…).")
        options = {"scan_group_names": name}
        if kind == "h5oina":
            options["processed"] = not dataset.name.endswith("/Unprocessed Patterns")
    if dataset.ndim != 3 or 0 in dataset.shape or dataset.dtype.kind not in "uif":
        raise DataError(
            f"{file}: {dataset.name!r} has dtype {dataset.dtype} and shape {dataset.shape}; expected numbers (N, dy, "
            f"dx), one pattern for each scan point."
        )
    with tempfile.TemporaryDirectory() as folder:
        header = Path(folder) / file.name
        with h5py.File(header, "w") as copy:
            _copy_header(opened, copy, dataset, keep=name)
        signal = _by_kikuchipy(file, header, **options)
        sizes, step = _axes(signal)
        grid = _bruker_grid(opened, name, dataset.shape[0]) if kind == "bruker-h5" else None
        if grid is None:
            in_file = None if kind == "emsoft-ebsd" else sizes
            nav, more = _nav_shape(file, dataset.shape[0], in_file, config)
            grid, notes = _raster(nav), [*notes, *more]
        read = H5Rows(file, str(dataset.name), grid.rows, scratch)
        scan = _Scan(read=read, grid=grid, shape=dataset.shape[1:], dtype=dataset.dtype, step=step, notes=notes)
        scan.step = (None, None) if kind == "emsoft-ebsd" else step
        maps = _maps(opened, name, layout, grid, signal.original_metadata.as_dictionary())
        scan.facts = _facts(file, signal, scan, grid, maps)
    return scan


def _choose_scan(file: h5py.File, wanted: str | None) -> tuple[str, list[str]]:
    """The scan that is wanted, or the first one, and the others."""
    found = [key for key in listed(file, "/") if f"{key}/EBSD/Data" in file]
    if not found:
        raise DataError(f"{file.filename} holds no scan: no group with 'EBSD/Data' in it; check the export.")
    if wanted is not None and wanted not in found:
        raise UsageError(f"{file.filename} has no scan {wanted!r}.{did_you_mean(wanted, found)}")
    chosen = wanted or found[0]
    return chosen, [name for name in found if name != chosen]


def _choose_patterns(
    file: h5py.File, scan: str, layout: Layout, config: IngestConfig
) -> tuple[h5py.Dataset, str | None]:
    """The dataset of the patterns, and another one that the file has."""
    folder = f"{scan}/EBSD/Data"
    if config.images != IngestConfig.model_fields["images"].default:
        return find_dataset(file, f"{folder}/{config.images}", "images"), None
    there = [name for name in layout.patterns if find_optional(file, f"{folder}/{name}") is not None]
    if not there:
        expected = " or ".join(map(repr, layout.patterns))
        raise DataError(f"{file.filename}: {folder!r} holds no patterns ({expected}); save the patterns with the scan.")
    return find_dataset(file, f"{folder}/{there[0]}", "images"), next(iter(there[1:]), None)


def _copy_header(source: h5py.Group, target: h5py.Group, patterns: h5py.Dataset, keep: str) -> None:
    """All but patterns, element maps and, at the top, scans other than `keep`; patterns stay as a shape."""
    top = source.name == "/" and bool(keep)
    for name in source:
        item = source.get(name)
        if isinstance(item, h5py.Group) and name != "EDS" and not (top and name != keep):
            _copy_header(item, target.create_group(name), patterns, keep)
        elif isinstance(item, h5py.Dataset) and item.ndim == 3 and item.shape == patterns.shape:
            target.create_dataset(name, item.shape, item.dtype)  # of no bytes, since nothing is written
        elif isinstance(item, h5py.Dataset):
            source.copy(item, target, name)


_SQUARE = "only square grids can be read, so convert the scan to a square grid in the vendor's program first."


def _by_kikuchipy(file: Path, header: Path, **options: Any) -> Any:
    """The lazy signal of kikuchipy. Raises DataError for what it cannot read."""
    need("kikuchipy", "vaearr[ebsd]", file.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kikuchipy

        try:
            signal = kikuchipy.load(str(header), lazy=True, **options)
            grid = signal.original_metadata.as_dictionary().get("grid_type", "square")
            if grid != "square":
                raise ValueError(f"grid {grid!r}, not a square grid")
        except Exception as error:  # whatever a damaged header makes it raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            then = _SQUARE if "square grid" in reason else "check how it was exported."
            raise DataError(f"{file} cannot be read by kikuchipy ({reason}); {then}") from error
    if type(signal).__name__ not in ("EBSD", "LazyEBSD"):
        raise DataError(f"{file} is read by kikuchipy as {type(signal).__name__}, not as a scan of EBSD patterns.")
    return signal


def _axes(signal: Any) -> tuple[tuple[int, int], Step]:
    """Rows and columns of the scan, and the steps of y and x in um where they are positive numbers."""
    axes = {axis.name: axis for axis in signal.axes_manager.navigation_axes}
    sizes = [int(axes[dim].size) if dim in axes else 1 for dim in (n.Y, n.X)]
    steps = [float(axes[dim].scale) if dim in axes else 0.0 for dim in (n.Y, n.X)]
    known = [step if 0 < step < math.inf else None for step in steps]
    return (sizes[0], sizes[1]), (known[0], known[1])


def _nav_shape(
    file: Path, n_patterns: int, in_file: tuple[int, int] | None, config: IngestConfig
) -> tuple[tuple[int, int], list[str]]:
    """Rows and columns of the scan: the setting, else the file's, else one row (which a note says)."""
    wanted = config.nav_shape or in_file
    if wanted is None:
        note = f"{file.name} stores no scan shape: {n_patterns} patterns in one row; nav_shape=(rows, columns) sets it."
        return (1, n_patterns), [note] if n_patterns > 1 else []
    if wanted[0] * wanted[1] == n_patterns:
        return wanted, []
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


def _bruker_grid(file: h5py.File, scan: str, n_patterns: int) -> ScanGrid | None:
    """The grid by the step numbers of each row, which Bruker lists where the region is not the whole scan."""
    for folder in (f"{scan}/EBSD/SEM", f"{scan}/SEM"):
        for keys in (("IX", "IY"), ("SEM IX", "SEM IY")):
            found = [find_optional(file, f"{folder}/{key}") for key in keys]
            if all(item is not None and item.shape == (n_patterns,) for item in found) and n_patterns > 1:
                where = f"{file.filename}: {scan!r}"
                return scan_grid(step_numbers(np.stack([np.asarray(item) for item in found], axis=1), where), where)
    return None


def _facts(
    file: Path, signal: Any, scan: _Scan, grid: ScanGrid, maps: Mapping[str, xr.DataArray] | None = None
) -> dict[str, Any]:
    """What kikuchipy made of the header besides the grid: variables, `detector`, a note."""
    shape = tuple(signal.axes_manager.signal_shape[::-1])
    if shape != tuple(scan.shape):
        raise DataError(f"{file}: the header says patterns of {shape} px, the patterns have {scan.shape}.")
    facts: dict[str, Any] = {DETECTOR: _detector(signal.detector), **(maps or {})}
    if signal.static_background is not None:
        background = np.asarray(signal.static_background)
        if background.shape == shape:
            attrs = {"long_name": "static background", "units": "counts"}
            facts["static_background"] = xr.DataArray(background, dims=(n.DY, n.DX), attrs=attrs)
        else:
            scan.notes.append(f"a static background of {background.shape} px is left out: patterns have {shape}.")
    return facts if n.PHASE in facts else facts | _crystal_map(signal.xmap, grid)


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


def _crystal_map(xmap: Any, grid: ScanGrid) -> dict[str, xr.DataArray]:
    """Phases, orientations and scores of a crystal map that holds any (kikuchipy's own files, EMsoft)."""
    names, laue = m.phases_of(xmap) if xmap is not None else ({}, {})
    if not any(names.values()) or xmap.is_in_data.size != grid.rows.size:
        return {}
    inside, cells = np.asarray(xmap.is_in_data), grid.rows.shape

    def on_grid(values: Any, fill: float = np.nan) -> np.ndarray:
        out = np.full((inside.size, *np.shape(values)[1:]), fill)
        out[inside] = values
        return out.reshape(*cells, *np.shape(values)[1:])

    numbers = on_grid(np.where(xmap.is_indexed, xmap.phase_id, n.PHASE_UNKNOWN), n.PHASE_UNKNOWN)
    maps = {n.PHASE: m.phase_map(numbers, names, laue)}
    maps |= m.orientation_arrays(on_grid(xmap.rotations.to_euler().reshape(-1, 3)), numbers >= 0)
    if "scores" in xmap.prop:
        scores = np.asarray(xmap.prop["scores"]).reshape(int(inside.sum()), -1)[:, 0]
        maps["scores"] = m.map_array("scores", on_grid(scores))
    return maps


def _maps(
    file: h5py.File, scan: str, layout: Layout, grid: ScanGrid, header: Mapping[str, Any]
) -> dict[str, xr.DataArray]:
    """Every map of the layout that the file has, on the grid: what kikuchipy leaves out."""

    def column(key: str) -> np.ndarray | None:
        return _on_grid(find_optional(file, f"{scan}/EBSD/Data/{key}"), grid)

    columns = {name: column(key) for key, name in layout.maps.items()}
    found: dict[str, xr.DataArray] = {}
    place = column("X Position")
    for name, values in columns.items():
        if values is not None and values.ndim == 2:
            values = np.rad2deg(values) if name == m.MAD and layout.mad_in_radians else values
            found[name] = m.map_array(
                name, values if place is None else np.where(place == EDAX_NO_POSITION, np.nan, values)
            )
    numbers = column("Phase")
    if numbers is not None and numbers.ndim == 2 and layout.maps:
        found[n.PHASE] = _phases(numbers, layout, grid, columns.get(m.CI), header)
    parts = [column(key) for key in layout.euler]
    if parts and all(part is not None for part in parts):
        euler = np.stack(parts, axis=-1) if len(parts) == 3 else parts[0]  # type: ignore[arg-type]
        if euler is not None and euler.shape[2:] == (3,):
            indexed = np.isfinite(euler).all(axis=-1) & grid.present
            euler = np.deg2rad(euler) if layout.degrees else euler
            indexed &= euler.min(axis=-1) < m.EDAX_NO_ANGLE
            found |= m.orientation_arrays(euler, indexed & (found[n.PHASE].values >= 0 if n.PHASE in found else True))
    return found | _elements(file, scan, grid)


def _phases(
    column: np.ndarray, layout: Layout, grid: ScanGrid, ci: np.ndarray | None, header: Mapping[str, Any]
) -> xr.DataArray:
    group, name, laue = layout.phases
    listed = {int(key): entry for key, entry in dict(header.get(group, {})).items() if key.isdigit()}
    known = {i: (str(entry.get(name, "")), laue(entry)) for i, entry in sorted(listed.items())}
    numbers = np.where(np.isfinite(column), column, n.PHASE_UNKNOWN)
    if layout.unindexed is not None:
        numbers[numbers == layout.unindexed] = n.PHASE_UNKNOWN
    elif len(known) == 1 and set(np.unique(numbers)) <= {n.PHASE_UNKNOWN, 0}:
        known = {0: next(iter(known.values()))}  # EDAX numbers a single phase 0, several from 1 on
    numbers[(numbers < 0) | (ci < 0 if ci is not None else False)] = n.PHASE_UNKNOWN
    numbers[~grid.present] = n.PHASE_MISSING
    names, groups = ({i: pair[part] for i, pair in known.items()} for part in (0, 1))
    return m.phase_map(numbers, names, groups)


def _elements(file: h5py.File, scan: str, grid: ScanGrid) -> dict[str, xr.DataArray]:
    """Element maps of a combined EBSD and EDS scan (H5OINA): composition, else counts."""
    for kind, units in (("Composition", "wt%"), ("Peak Area", "counts/s"), ("Window Integral", "counts/s")):
        folder = f"{scan}/EDS/Data/{kind}"
        found = {}
        for key in listed(file, folder, of=h5py.Dataset):
            values = _on_grid(find_optional(file, f"{folder}/{key}"), grid)
            if values is not None and values.ndim == 2:
                found[key.split()[0]] = values
        if found:
            attrs = {**n.ATTRS[n.ELEMENTS], "units": units, "source": kind}
            stack = np.stack(list(found.values())).astype("f4")
            array = xr.DataArray(stack, dims=(n.ELEMENT, n.Y, n.X), coords={n.ELEMENT: list(found)}, attrs=attrs)
            return {n.ELEMENTS: array}
    return {}


def _on_grid(dataset: h5py.Dataset | None, grid: ScanGrid) -> np.ndarray | None:
    """Rows as floats (y, x[, k]), NaN where the grid has no row; None for what is not one number for each row."""
    if dataset is None or dataset.dtype.kind not in "uif" or dataset.ndim not in (1, 2):
        return None
    if dataset.shape[0] != int(grid.present.sum()):
        return None
    rows = np.asarray(dataset[()], dtype="f8")
    rows = rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else rows
    values = np.full((*grid.rows.shape, *rows.shape[1:]), np.nan)
    values[grid.present] = rows[grid.rows[grid.present]]
    return values
