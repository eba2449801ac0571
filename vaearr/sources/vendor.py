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
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.config import IngestConfig
from vaearr.errors import DataError, UsageError, did_you_mean, need
from vaearr.sources import ebsd_maps as m
from vaearr.sources.hdf5 import (
    check_file,
    find_dataset,
    find_optional,
    in_words,
    keys_of,
    open_hdf5,
    refuse_outside_links,
)
from vaearr.sources.lazy import H5Rows, Read, raw_rows
from vaearr.sources.scan_grid import ScanGrid, scan_dataset, scan_grid, step_numbers

EDAX_NO_POSITION = -1111111.0  # x and y of grid points with invalid data
EMSOFT_PATTERNS = "EMData/EBSD/EBSDPatterns"
MASTER_PATTERNS = ("EMData/EBSDmaster", "EMData/ECPmaster", "EMData/TKDmaster")
UP_HEADER, UP_GRID = struct.Struct("<4I"), struct.Struct("<x2IB2d")  # then, from version 3 on: grid, hexagonal, steps
UP_DTYPES = {".up1": "<u1", ".up2": "<u2"}
MASTER, NORDIF_MARK = "emsoft-master", b"[NORDIF]"
DETECTOR, NOTES = "detector", "notes"
SQUARE = "only square grids can be read, so convert the scan to a square grid in the vendor's program first."
Step = tuple[float | None, float | None]


MAPS = {  # columns of `EBSD/Data`, whichever vendor's, and what they are called here
    "IQ": m.IQ_HOUGH, "CI": m.CI, "Fit": m.FIT, "SEM Signal": m.SEM_SIGNAL, "PRIAS Bottom Strip": "prias_bottom",
    "PRIAS Center Square": "prias_centre", "PRIAS Top Strip": "prias_top", "Band Contrast": n.BC,
    "Band Slope": m.BAND_SLOPE, "Bands": m.BANDS, "Mean Angular Deviation": m.MAD, "Error": m.INDEXING_ERROR,
    "Pattern Quality": "pattern_quality", "RadonQuality": "iq_radon", "MAD": m.MAD, "NIndexedBands": m.BANDS,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What an HDF5 file of a vendor holds for each scan; patterns: datasets that may hold them, the preferred first.

    unindexed: the phase number that means so. phases: group of the header, and name of an entry in it.
    """

    holds: str
    maker: str
    patterns: tuple[str, ...]
    euler: tuple[str, ...] = ()
    to_radians: float = 1
    mad_to_degrees: float = 1
    unindexed: int | None = None
    phases: tuple[str, str] | None = None


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
    "emsoft-ebsd": Layout(holds="EMsoft simulation of EBSD patterns", maker="", patterns=()),
}
FORMATS: dict[str, str] = {
    **{name: layout.holds for name, layout in LAYOUTS.items()},
    MASTER: "EMsoft master pattern (no scan)",
    "edax-up": "EDAX UP1 or UP2 patterns",
    "nordif": "NORDIF patterns (.dat) with Setting.txt next to them",
}
HDF5_FORMATS = (*LAYOUTS, MASTER)


def sniff_hdf5(name: str, file: h5py.File) -> int:
    """2: an HDF5 file is of this format; 0: another one."""
    return 2 * (_hdf5_format(file) == name)


def sniff(name: str, path: Path) -> int:
    """2: a file without HDF5 is of this format; 0: another one."""
    return 2 * (path.is_file() and _binary_format(path) == name)


def _hdf5_format(file: h5py.File) -> str:
    """Name of the vendor format, "" for other HDF5."""
    if any(name in file for name in MASTER_PATTERNS):
        return MASTER
    if EMSOFT_PATTERNS in file:
        return "emsoft-ebsd"
    for key in file:
        if key.strip().lower() == "manufacturer":
            text = np.ravel(file[key][()])[0].split(b"\0")[0].decode()
            maker = text.strip().lower()
            return next((name for name, layout in LAYOUTS.items() if maker and layout.maker == maker), "")
    return ""


def _binary_format(path: Path) -> str:
    """Name of the vendor format of a file that is no HDF5, "" for anything else."""
    suffix = path.suffix.lower()
    if suffix in UP_DTYPES:
        with path.open("rb") as file:
            head = file.read(UP_HEADER.size)
        if len(head) == UP_HEADER.size and 1 <= UP_HEADER.unpack(head)[0] < 100:
            return "edax-up"
    setting = path.with_name("Setting.txt")
    if suffix == ".dat" and setting.is_file() and NORDIF_MARK in setting.read_bytes()[:4096]:
        return "nordif"
    return ""


def open_vendor(path: str | Path, config: IngestConfig | None = None, *, scratch: Path | None = None) -> xr.Dataset:
    """Lazy Dataset of patterns (y, x, dy, dx) with `present`, the file's maps, `static_background` and `detector`.

    config: `scan` chooses one of several scans, `nav_shape` gives (rows, columns) where the file has none, `images` the
    dataset of the patterns where the file has several, `step` and `units` replace those of the file. Attribute `notes`:
    lines worth knowing, such as a scan shape that is not known. Raises DataError or UsageError for what cannot be read,
    MissingExtraError where kikuchipy is not installed.
    """
    config = config or IngestConfig()
    file = check_file(path)
    with in_words(file, "a scan"):
        if h5py.is_hdf5(file):
            with open_hdf5(file) as opened:
                refuse_outside_links(opened)
                return _hdf5(opened, file, _hdf5_format(opened), config, scratch)
        kind = _binary_format(file)
        if kind == "edax-up":
            return _up(file, config)
        if kind == "nordif":
            return _nordif(file, config)
    raise DataError(f"{file} is in none of the vendor formats {', '.join(FORMATS)}.")


def _dataset(
    file: Path,
    config: IngestConfig,
    read: Read,
    grid: ScanGrid,
    stored: tuple[tuple[int, ...], np.dtype],
    step: Step,
    facts: Mapping[str, Any],
) -> xr.Dataset:
    """stored: shape and dtype of a pattern. facts: variables, and the attributes `detector` and `notes`."""
    given = (config.step, config.step) if config.step is not None else step
    units = config.units if config.step is not None else "um" if any(step) else "step"
    ds = scan_dataset(read, grid, *stored, given, units, file)
    ds.attrs = {name: facts[name] for name in (DETECTOR, NOTES) if facts.get(name)}
    return ds.assign({name: value for name, value in facts.items() if name not in (DETECTOR, NOTES)})


def _up(file: Path, config: IngestConfig) -> xr.Dataset:
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
        raise DataError(f"{file}: the scan points lie on a hexagonal grid ({nx} x {ny}); {SQUARE}")
    if min(rows, columns) < 1 or offset < UP_HEADER.size or count < 1 or (rest and (version == 1 or nx * ny > count)):
        raise DataError(
            f"{file} is truncated or damaged: its header says patterns of {rows} x {columns} px from byte {offset} on, "
            f"and the file has {size} bytes; fetch it again from where it was written."
        )
    need("kikuchipy", "vaearr[ebsd]", file.name)
    grid, notes = _raster(file, count, (ny, nx) if version > 2 else None, config)
    read = partial(raw_rows, path=file.resolve(), offset=offset, dtype=dtype.str, shape=(count, rows, columns))
    return _dataset(file, config, read, grid, ((rows, columns), dtype), (_known(dy), _known(dx)), {NOTES: notes})


def _nordif(file: Path, config: IngestConfig) -> xr.Dataset:
    signal = _by_kikuchipy(file, file)
    shape = signal.axes_manager.signal_shape[::-1]
    count, rest = divmod(file.stat().st_size, math.prod(shape))
    if count == 0 or rest:
        raise DataError(
            f"{file} is truncated or belongs to another Setting.txt: {file.stat().st_size} bytes are {count} patterns "
            f"of {shape[0]} x {shape[1]} px and {rest} bytes more; put the file and its Setting.txt together."
        )
    sizes, step = _axes(signal)
    grid, notes = _raster(file, count, sizes, config)
    read = partial(raw_rows, path=file.resolve(), offset=0, dtype="u1", shape=(count, *shape))
    facts = _facts(file, signal, shape, grid, notes)
    return _dataset(file, config, read, grid, (shape, np.dtype("u1")), step, facts)


def _hdf5(opened: h5py.File, file: Path, kind: str, config: IngestConfig, scratch: Path | None) -> xr.Dataset:
    """A scan of an HDF5 file. kikuchipy gets a copy without patterns, so that it makes no task for each of them."""
    if kind == MASTER:
        raise DataError(
            f"{file} holds a master pattern, not a scan: the diffraction of one crystal in all directions, without "
            "scan points; give the file of a measured or simulated scan."
        )
    if kind not in LAYOUTS:
        raise DataError(f"{file} is in none of the vendor formats {', '.join(FORMATS)}.")
    layout, name, options = LAYOUTS[kind], "", dict[str, Any]()
    is_simulated = kind == "emsoft-ebsd"
    if is_simulated:
        dataset, notes = find_dataset(opened, EMSOFT_PATTERNS, "images"), ["the patterns are simulated"]
    else:
        name, dataset, notes = _choose(opened, layout, config)
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
            _copy_header(opened, copy, dataset, name)
        signal = _by_kikuchipy(file, header, **options)
        sizes, step = _axes(signal)
        grid = _bruker_grid(opened, name, len(dataset)) if kind == "bruker-h5" else None
        if grid is None:
            grid, more = _raster(file, len(dataset), None if is_simulated else sizes, config)
            notes += more
        facts = _facts(file, signal, dataset.shape[1:], grid, notes)
        facts |= _maps(opened, name, layout, grid, signal.original_metadata.as_dictionary())
    rows, stored = H5Rows(dataset, grid.rows, scratch), (dataset.shape[1:], dataset.dtype)
    ds = _dataset(file, config, rows, grid, stored, (None, None) if is_simulated else step, facts)
    ds.set_close(rows.close)
    return ds


def _choose(file: h5py.File, layout: Layout, config: IngestConfig) -> tuple[str, h5py.Dataset, list[str]]:
    """The scan that is wanted, or the first one, its patterns, and notes of what else the file has."""
    found = [key for key in keys_of(file, "/") if f"{key}/EBSD/Data" in file]
    if not found:
        raise DataError(f"{file.filename} holds no scan: no group with 'EBSD/Data' in it; check the export.")
    name = config.scan or found[0]
    if name not in found:
        raise UsageError(f"{file.filename} has no scan {name!r}.{did_you_mean(name, found)}")
    folder = f"{name}/EBSD/Data"
    there = [key for key in layout.patterns if isinstance(file.get(f"{folder}/{key}"), h5py.Dataset)]
    if config.images != IngestConfig.model_fields["images"].default:
        there = [config.images]
    if not there:
        expected = " or ".join(map(repr, layout.patterns))
        raise DataError(f"{file.filename}: {folder!r} holds no patterns ({expected}); save the patterns with the scan.")
    both = ((name, found if config.scan is None else [], "scan"), (there[0], there, "images"))
    notes = [
        f"{chosen!r} is read; the file also holds {', '.join(repr(key) for key in known if key != chosen)} ({how}=…)."
        for chosen, known, how in both
        if len(known) > 1
    ]
    return name, find_dataset(file, f"{folder}/{there[0]}", "images"), notes


def _copy_header(source: h5py.Group, target: h5py.Group, patterns: h5py.Dataset, scan: str = "") -> None:
    """All but patterns, element maps and, with `scan`, other scans; patterns stay as a shape."""
    for name in source:
        item = source.get(name)
        if isinstance(item, h5py.Group) and name != "EDS" and scan in ("", name):
            _copy_header(item, target.create_group(name), patterns)
        elif isinstance(item, h5py.Dataset) and item.ndim == 3 and item.shape == patterns.shape:
            target.create_dataset(name, item.shape, item.dtype)  # of no bytes, since nothing is written
        elif isinstance(item, h5py.Dataset):
            source.copy(item, target, name)


def _by_kikuchipy(file: Path, header: Path, **options: Any) -> Any:
    """The lazy signal of kikuchipy. Raises DataError for what it cannot read."""
    need("kikuchipy", "vaearr[ebsd]", file.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kikuchipy

        try:
            signal = kikuchipy.load(str(header), lazy=True, **options)
            grid = signal.original_metadata.as_dictionary().get("grid_type", "square")
            if grid != "square" or type(signal).__name__ not in ("EBSD", "LazyEBSD"):
                raise ValueError(f"grid {grid!r} of {type(signal).__name__}, not a square grid of EBSD patterns")
        except Exception as error:  # whatever a damaged header makes it raise
            traceback.clear_frames(error.__traceback__)  # closes the files that it leaves open then
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            then = SQUARE if "square grid" in reason else "check how it was exported."
            raise DataError(f"{file} cannot be read by kikuchipy ({reason}); {then}") from error
    return signal


def _known(step: float) -> float | None:
    return float(step) if 0 < step < math.inf else None


def _axes(signal: Any) -> tuple[tuple[int, int], Step]:
    """Rows and columns of the scan, and the steps of y and x in um where they are positive numbers."""
    axes = {axis.name: axis for axis in signal.axes_manager.navigation_axes}
    rows, columns = (int(axes[dim].size) if dim in axes else 1 for dim in (n.Y, n.X))
    dy, dx = (_known(axes[dim].scale) if dim in axes else None for dim in (n.Y, n.X))
    return (rows, columns), (dy, dx)


def _raster(
    file: Path, count: int, in_file: tuple[int, int] | None, config: IngestConfig
) -> tuple[ScanGrid, list[str]]:
    """Patterns in rows and columns of the setting, else of the file, else in one row, which a note says."""
    wanted, notes = config.nav_shape or in_file, []
    if wanted is None:
        wanted = (1, count)
        notes = [f"{file.name} stores no scan shape: {count} patterns in one row; nav_shape=(rows, columns) sets it."]
    if wanted[0] * wanted[1] != count:
        who, error = ("nav_shape", UsageError) if config.nav_shape else ("its header", DataError)
        raise error(
            f"{file}: {who} says {wanted[0]} x {wanted[1]} = {wanted[0] * wanted[1]} scan points, but it holds {count} "
            f"patterns; of an interrupted scan give nav_shape=(rows, columns) of those that are there."
        )
    rows = np.arange(count).reshape(wanted)
    return ScanGrid(x=np.arange(wanted[1]), y=np.arange(wanted[0]), rows=rows), notes if count > 1 else []


def _bruker_grid(file: h5py.File, scan: str, n_patterns: int) -> ScanGrid | None:
    """The grid by the step numbers of each row, which Bruker lists where the region is not the whole scan."""
    for folder in (f"{scan}/EBSD/SEM", f"{scan}/SEM"):
        for keys in (("IX", "IY"), ("SEM IX", "SEM IY")):
            found = [find_optional(file, f"{folder}/{key}") for key in keys]
            if all(item is not None and item.shape == (n_patterns,) for item in found) and n_patterns > 1:
                where = f"{file.filename}: {scan!r}"
                return scan_grid(step_numbers(np.stack([np.asarray(item) for item in found], axis=1), where), where)
    return None


def _facts(file: Path, signal: Any, shape: tuple[int, ...], grid: ScanGrid, notes: list[str]) -> dict[str, Any]:
    """What kikuchipy made of the header besides the grid: variables, `detector`, a note.

    The projection centre is in Bruker's convention, the mean over the scan where it varies; (1/2, 1/2, 1/2) is what
    kikuchipy puts where a file has none, so it is left out.
    """
    said = tuple(signal.axes_manager.signal_shape[::-1])
    if said != tuple(shape):
        raise DataError(f"{file}: the header says patterns of {said} px, the patterns have {shape}.")
    facts: dict[str, Any] = {NOTES: notes, **_crystal_map(signal.xmap, grid)}
    if (detector := signal.detector) is not None:
        angles = ("sample_tilt", "tilt", "azimuthal", "twist", "binning")
        facts[DETECTOR] = {key: float(getattr(detector, key)) for key in angles} | {"angle_units": "degree"}
        centres = np.asarray(detector.pc, dtype="f8").reshape(-1, 3)
        if not np.all(centres == 0.5):
            facts[DETECTOR] |= {
                "projection_centre": centres.mean(axis=0).tolist(),
                "projection_centre_convention": "Bruker",
            }
    if signal.static_background is not None:
        background = np.asarray(signal.static_background)
        if background.shape == said:
            attrs = {"long_name": "static background", "units": "counts"}
            facts["static_background"] = xr.DataArray(background, dims=(n.DY, n.DX), attrs=attrs)
        else:
            notes.append(f"a static background of {background.shape} px is left out: patterns have {said}.")
    return facts


def _crystal_map(xmap: Any, grid: ScanGrid) -> dict[str, xr.DataArray]:
    """Phases, orientations and scores of a crystal map that holds any (kikuchipy's own files, EMsoft)."""
    names = m.phase_names(xmap) if xmap is not None else {}
    if not any(names.values()) or xmap.is_in_data.size != grid.rows.size:
        return {}

    def rows(values: Any, fill: float = np.nan) -> np.ndarray:
        out = np.full((grid.rows.size, *np.shape(values)[1:]), fill, "f8")
        out[np.asarray(xmap.is_in_data)] = values
        return out

    scores = xmap.prop.get("scores")
    columns = {} if scores is None else {"scores": rows(np.asarray(scores).reshape(xmap.size, -1)[:, 0])}
    numbers = rows(np.where(xmap.is_indexed, xmap.phase_id, n.PHASE_UNKNOWN), n.PHASE_UNKNOWN)
    return m.indexed_maps(grid, columns, numbers, names, rows(xmap.rotations.to_euler().reshape(-1, 3)))


def _table(file: h5py.File, folder: str, count: int) -> dict[str, np.ndarray]:
    """The datasets of a group that hold numbers for each row: (N,) or (N, width), as floats."""
    found = {}
    for key in keys_of(file, folder, h5py.Dataset):
        dataset = find_optional(file, f"{folder}/{key}")
        if dataset is not None and dataset.dtype.kind in "uif" and dataset.ndim in (1, 2) and len(dataset) == count:
            values = np.asarray(dataset[()], dtype="f8")
            found[key] = values[:, 0] if values.shape[1:] == (1,) else values
    return found


def _maps(
    file: h5py.File, scan: str, layout: Layout, grid: ScanGrid, header: Mapping[str, Any]
) -> dict[str, xr.DataArray]:
    """Every map that the file has, on the grid: what kikuchipy leaves out."""
    count, numbers, names, euler = int(grid.present.sum()), None, None, None
    data = _table(file, f"{scan}/EBSD/Data", count)
    maps = {name: data[key] for key, name in MAPS.items() if key in data and data[key].ndim == 1}
    if layout.phases is not None and "Phase" in data:
        numbers, names = _phases(data["Phase"], layout, maps.get(m.CI), header)
    if layout.euler and set(layout.euler) <= set(data):
        angles = np.column_stack([data[key] for key in layout.euler])
        euler = angles * layout.to_radians if angles.shape[1] == 3 else None
    if m.MAD in maps:
        maps[m.MAD] = maps[m.MAD] * layout.mad_to_degrees
    if (place := data.get("X Position")) is not None:
        maps = {name: np.where(place == EDAX_NO_POSITION, np.nan, values) for name, values in maps.items()}
    found = m.indexed_maps(grid, maps, numbers, names, euler)
    for kind, units in (("Composition", "wt%"), ("Peak Area", "counts/s"), ("Window Integral", "counts/s")):
        if elements := _table(file, f"{scan}/EDS/Data/{kind}", count):  # of a combined EBSD and EDS scan (H5OINA)
            attrs = {**n.ATTRS[n.ELEMENTS], "units": units, "source": kind}
            stack = np.stack([grid.put(values) for values in elements.values()]).astype("f4")
            named = [key.split()[0] for key in elements]
            found[n.ELEMENTS] = xr.DataArray(stack, {n.ELEMENT: named}, (n.ELEMENT, n.Y, n.X), attrs=attrs)
            break
    return found


def _phases(
    rows: np.ndarray, layout: Layout, ci: np.ndarray | None, header: Mapping[str, Any]
) -> tuple[np.ndarray, dict[int, str]]:
    """Phase number of each row, -1 where it is not indexed, and names by number."""
    group, key_of_name = layout.phases or ("", "")
    entries = dict(header.get(group, {}))
    names = {int(key): str(entries[key].get(key_of_name, "")) for key in sorted(entries) if key.isdigit()}
    numbers = np.where(np.isfinite(rows), rows, n.PHASE_UNKNOWN)
    if layout.unindexed is not None:
        numbers[numbers == layout.unindexed] = n.PHASE_UNKNOWN
    elif len(names) == 1 and set(np.unique(numbers)) <= {n.PHASE_UNKNOWN, 0}:
        names = {0: next(iter(names.values()))}  # EDAX numbers a single phase 0, several from 1 on
    numbers[numbers < 0] = n.PHASE_UNKNOWN
    if ci is not None:
        numbers[ci < 0] = n.PHASE_UNKNOWN
    return numbers, names
