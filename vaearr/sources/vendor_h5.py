"""What lies where in the HDF5 files of EBSD vendors: grid, patterns, and the maps of their indexing.

The layouts of EDAX, Oxford (H5OINA), Bruker and kikuchipy follow Jackson et al., Integrating Materials and
Manufacturing Innovation 3 (2014) 4: a group for each scan with `EBSD/Header` and `EBSD/Data`, one row of `Data` for
each scan point. The patterns of an EMsoft simulation are a plain list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.errors import DataError, UsageError, did_you_mean
from vaearr.sources import ebsd_maps as m
from vaearr.sources.hdf5 import find_dataset, find_optional, listed_groups
from vaearr.sources.scan_grid import ScanGrid

EDAX_NO_POSITION = -1111111.0  # x and y of grid points with invalid data


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names inside a scan's group; patterns: the datasets that may hold them, the preferred one first."""

    holds: str
    patterns: tuple[str, ...]
    shape: tuple[str, str] = ("", "")
    step: tuple[str, str] = ("", "")
    grid_type: str = ""
    square: str = ""
    maps: Mapping[str, str] = field(default_factory=dict)
    euler: tuple[str, ...] = ()
    degrees: bool = False
    mad_in_radians: bool = False
    unindexed: int | None = None  # phase number that means "not indexed"
    phases: Callable[[h5py.File, str], dict[int, tuple[str, str]]] = lambda file, scan: {}


def _edax_phases(file: h5py.File, scan: str) -> dict[int, tuple[str, str]]:
    path = f"{scan}/EBSD/Header/Phase"
    return {
        i: (text(file, f"{path}/{i}/MaterialName"), m.LAUE_BY_EDAX.get(text(file, f"{path}/{i}/Symmetry"), ""))
        for i in _numbered(file, path)
    }


def _oxford_phases(file: h5py.File, scan: str) -> dict[int, tuple[str, str]]:
    path = f"{scan}/EBSD/Header/Phases"
    found = {}
    for i in _numbered(file, path):
        laue = number(file, f"{path}/{i}/Laue Group")
        found[i] = (text(file, f"{path}/{i}/Phase Name"), m.LAUE_BY_NUMBER.get(int(laue or 0), ""))
    return found


def _bruker_phases(file: h5py.File, scan: str) -> dict[int, tuple[str, str]]:
    path = f"{scan}/EBSD/Header/Phases"
    found = {}
    for i in _numbered(file, path):
        group = number(file, f"{path}/{i}/IT")
        found[i] = (text(file, f"{path}/{i}/Name"), m.laue_of_space_group(int(group or 0)))
    return found


LAYOUTS: dict[str, Layout] = {
    "edax-h5": Layout(
        holds="EDAX HDF5 (OIM Analysis)",
        patterns=("Pattern",),
        shape=("nRows", "nColumns"),
        step=("Step Y", "Step X"),
        grid_type="Grid Type",
        square="SqrGrid",
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
        phases=_edax_phases,
    ),
    "h5oina": Layout(
        holds="Oxford Instruments H5OINA (AZtec)",
        patterns=("Processed Patterns", "Unprocessed Patterns"),
        shape=("Y Cells", "X Cells"),
        step=("Y Step", "X Step"),
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
        phases=_oxford_phases,
    ),
    "bruker-h5": Layout(
        holds="Bruker HDF5 (Esprit)",
        patterns=("RawPatterns",),
        shape=("NROWS", "NCOLS"),
        step=("YSTEP", "XSTEP"),
        grid_type="Grid Type",
        square="isometric",
        maps={"RadonQuality": "iq_radon", "MAD": m.MAD, "NIndexedBands": m.BANDS},
        euler=("phi1", "PHI", "phi2"),
        degrees=True,
        unindexed=0,
        phases=_bruker_phases,
    ),
    "kikuchipy-h5": Layout(
        holds="kikuchipy h5ebsd",
        patterns=("patterns",),
        shape=("n_rows", "n_columns"),
        step=("step_y", "step_x"),
        grid_type="grid_type",
        square="square",
    ),
}
MANUFACTURERS = {
    "edax": "edax-h5",
    "oxford instruments": "h5oina",
    "bruker nano": "bruker-h5",
    "kikuchipy": "kikuchipy-h5",
}
EMSOFT_PATTERNS = "EMData/EBSD/EBSDPatterns"
MASTER_PATTERNS = ("EMData/EBSDmaster", "EMData/ECPmaster", "EMData/TKDmaster")


def manufacturer(file: h5py.File) -> str:
    """The text of the top dataset `Manufacturer`, lower case; "" where there is none."""
    for key in file:
        if key.strip().lower() == "manufacturer":
            return text(file, key).lower()
    return ""


def scans(file: h5py.File) -> list[str]:
    """Names of the scans in the file, in its order."""
    return [key for key in listed_groups(file, "/") if f"{key}/EBSD/Data" in file]


def choose_scan(file: h5py.File, wanted: str | None) -> str:
    """The scan `wanted`, or the first one. Raises DataError or UsageError that lists them."""
    found = scans(file)
    if not found:
        raise DataError(f"{file.filename} holds no scan: no group with 'EBSD/Data' in it; check the export.")
    if wanted is None:
        return found[0]
    if wanted not in found:
        raise UsageError(f"{file.filename} has no scan {wanted!r}.{did_you_mean(wanted, found)}")
    return wanted


def refuse_other_grids(file: h5py.File, scan: str, layout: Layout) -> None:
    """Raise DataError where the scan points do not lie on a square grid."""
    found = text(file, f"{scan}/EBSD/Header/{layout.grid_type}") if layout.grid_type else ""
    if found and found.lower() != layout.square.lower():
        raise DataError(
            f"{file.filename}: the scan points of {scan!r} lie on the grid {found!r}; only square grids "
            f"({layout.square!r}) can be read, so convert the scan to a square grid in the vendor's program first."
        )


def patterns_in(file: h5py.File, scan: str, layout: Layout, wanted: str | None) -> h5py.Dataset:
    """The dataset of the patterns (N, dy, dx). Raises DataError where there is none."""
    folder = f"{scan}/EBSD/Data"
    if wanted is not None:
        return find_dataset(file, f"{folder}/{wanted}", "images")
    for name in layout.patterns:
        dataset = find_optional(file, f"{folder}/{name}")
        if dataset is not None:
            return find_dataset(file, f"{folder}/{name}", "images")
    expected = " or ".join(map(repr, layout.patterns))
    raise DataError(f"{file.filename}: {folder!r} holds no patterns ({expected}); save the patterns with the scan.")


def header_shape(file: h5py.File, scan: str, layout: Layout) -> tuple[int, int] | None:
    """Rows and columns of the scan as the header gives them."""
    rows, columns = (number(file, f"{scan}/EBSD/Header/{key}") for key in layout.shape)
    return None if rows is None or columns is None else (int(rows), int(columns))


def header_step(file: h5py.File, scan: str, layout: Layout) -> tuple[float | None, float | None]:
    """Step of y and of x in um, None where the header has no positive number."""
    found = [number(file, f"{scan}/EBSD/Header/{key}") for key in layout.step]
    y, x = (step if step is not None and step > 0 else None for step in found)
    return y, x


def bruker_steps(file: h5py.File, scan: str, n_patterns: int) -> np.ndarray | None:
    """Step numbers [x, y] of each row (Bruker lists them where the region of interest is not the whole scan)."""
    for folder in (f"{scan}/EBSD/SEM", f"{scan}/SEM"):
        for keys in (("IX", "IY"), ("SEM IX", "SEM IY")):
            found = [find_optional(file, f"{folder}/{key}") for key in keys]
            if all(item is not None and item.shape == (n_patterns,) for item in found) and n_patterns > 1:
                return np.stack([np.asarray(item) for item in found], axis=1)
    return None


def maps_in(file: h5py.File, scan: str, layout: Layout, grid: ScanGrid) -> dict[str, xr.DataArray]:
    """Every map of the layout that the file has, on the grid."""
    columns = {name: _column(file, scan, key, grid) for key, name in layout.maps.items()}
    found: dict[str, xr.DataArray] = {}
    invalid = _column(file, scan, "X Position", grid)
    for name, values in columns.items():
        if values is not None and values.ndim == 2:
            if name == m.MAD and layout.mad_in_radians:
                values = np.rad2deg(values)
            if invalid is not None:
                values = np.where(invalid == EDAX_NO_POSITION, np.nan, values)
            found[name] = xr.DataArray(values.astype("f4"), dims=(n.Y, n.X), attrs=dict(m.ATTRS[name]))
    phase = _phases(file, scan, layout, grid, columns.get(m.CI))
    if phase is not None:
        found[n.PHASE] = phase
    angles = [_column(file, scan, key, grid) for key in layout.euler]
    if angles and all(angle is not None for angle in angles):
        euler = np.stack(angles, axis=-1) if len(angles) == 3 else angles[0]  # type: ignore[arg-type]
        if euler is not None and euler.shape[2:] == (3,):
            euler = np.deg2rad(euler) if layout.degrees else euler
            indexed = np.isfinite(euler).all(axis=-1) & grid.present & (euler.min(axis=-1) < m.EDAX_NO_ANGLE)
            indexed &= np.ones_like(indexed) if phase is None else phase.values >= 0
            found |= m.orientation_arrays(euler, indexed)
    found |= _elements(file, scan, grid)
    return found


def _phases(file: h5py.File, scan: str, layout: Layout, grid: ScanGrid, ci: np.ndarray | None) -> xr.DataArray | None:
    column = _column(file, scan, "Phase", grid)
    if column is None or column.ndim != 2:
        return None
    known = layout.phases(file, scan)
    numbers = np.where(np.isfinite(column), column, n.PHASE_UNKNOWN)
    if layout.unindexed is not None:
        numbers[numbers == layout.unindexed] = n.PHASE_UNKNOWN
    elif len(known) == 1 and set(np.unique(numbers)) <= {n.PHASE_UNKNOWN, 0}:
        known = {0: next(iter(known.values()))}  # EDAX numbers a single phase 0, several from 1 on
    numbers[numbers < 0] = n.PHASE_UNKNOWN
    if ci is not None:
        numbers[ci < 0] = n.PHASE_UNKNOWN
    numbers[~grid.present] = n.PHASE_MISSING
    names = {i: name for i, (name, _) in known.items()}
    return m.phase_map(numbers, names, {i: laue for i, (_, laue) in known.items()})


def _elements(file: h5py.File, scan: str, grid: ScanGrid) -> dict[str, xr.DataArray]:
    """Element maps of a combined EBSD and EDS scan (H5OINA): composition, else counts."""
    for kind, units in (("Composition", "wt%"), ("Peak Area", "counts/s"), ("Window Integral", "counts/s")):
        folder = f"{scan}/EDS/Data/{kind}"
        found = {}
        for key in listed_groups(file, folder, of=h5py.Dataset):
            values = _on_grid(find_optional(file, f"{folder}/{key}"), grid)
            if values is not None and values.ndim == 2:
                found[key.split()[0]] = values
        if found:
            attrs = {**n.ATTRS[n.ELEMENTS], "units": units, "source": kind}
            stack = np.stack(list(found.values())).astype("f4")
            array = xr.DataArray(stack, dims=(n.ELEMENT, n.Y, n.X), coords={n.ELEMENT: list(found)}, attrs=attrs)
            return {n.ELEMENTS: array}
    return {}


def _column(file: h5py.File, scan: str, key: str, grid: ScanGrid) -> np.ndarray | None:
    return _on_grid(find_optional(file, f"{scan}/EBSD/Data/{key}"), grid)


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


def number(file: h5py.File, path: str) -> float | None:
    """A single finite number, else None."""
    value = _single(file, path)
    if isinstance(value, (np.integer, np.floating, int, float)) and np.isfinite(value):
        return float(value)
    return None


def text(file: h5py.File, path: str) -> str:
    """A single text (or the text of a number), "" where there is none."""
    value = _single(file, path)
    if isinstance(value, bytes):
        value = value.split(b"\0")[0].decode("latin-1")
    return "" if value is None else str(value).strip()


def _single(file: h5py.File, path: str) -> Any:
    dataset = find_optional(file, path)
    if dataset is None or dataset.size != 1:
        return None
    value = dataset[()]
    return value.reshape(-1)[0] if isinstance(value, np.ndarray) else value


def _numbered(file: h5py.File, path: str) -> list[int]:
    return sorted(int(key) for key in listed_groups(file, path) if key.isdigit())
