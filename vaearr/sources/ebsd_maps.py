"""Names, units and conventions of the maps of EBSD indexing, for all vendors.

Orientations are `euler (y, x, angle)`: Bunge angles in radians, NaN where the point is not indexed,
as `orix.quaternion.Rotation.from_euler` takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.schema import flags
from vaearr.sources.scan_grid import ScanGrid

EULER, ANGLE = "euler", "angle"
BAND_SLOPE, BANDS, MAD, INDEXING_ERROR = "band_slope", "bands", "mad", "indexing_error"
IQ_HOUGH, IQ_FFT, CI, FIT, SEM_SIGNAL = "iq_hough", "iq_fft", "ci", "fit", "sem_signal"
NO_PHASE = {n.PHASE_MISSING: "no_entry", n.PHASE_UNKNOWN: "not_indexed"}

EDAX_NO_ANGLE = 4 * np.pi - 1e-3  # EDAX writes 4 pi for the angles of points that are not indexed
ANGLES = ["phi1", "Phi", "phi2"]

LONG_NAMES = {  # and units
    EULER: ("Euler angles (Bunge, ZXZ), sample to crystal", "rad"),
    BANDS: ("number of indexed bands", "1"),
    MAD: ("mean angular deviation", "degree"),
    INDEXING_ERROR: ("indexing status code of the vendor", "1"),
    IQ_HOUGH: ("image quality (Hough)", "1"),
    IQ_FFT: ("image quality (Fourier)", "1"),
    "iq_radon": ("image quality (Radon)", "1"),
    CI: ("confidence index", "1"),
    FIT: ("fit of the indexed bands", "degree"),
    SEM_SIGNAL: ("signal of the electron detector", "counts"),
    "dot_product": ("dot product of dictionary indexing", "1"),
    "scores": ("score of dictionary indexing", "1"),
    "prias_bottom": ("PRIAS signal, bottom strip", "counts"),
    "prias_centre": ("PRIAS signal, centre square", "counts"),
    "prias_top": ("PRIAS signal, top strip", "counts"),
}


def map_array(name: str, values: np.ndarray) -> xr.DataArray:
    """A map (y, x[, angle]) in float32 with the name and unit that it is known by."""
    long_name, units = LONG_NAMES.get(name, (name.replace("_", " "), "1"))
    attrs = n.ATTRS.get(name, {"long_name": long_name, "units": units})
    angles = {ANGLE: ANGLES} if name == EULER else {}
    return xr.DataArray(values.astype("f4"), angles, (n.Y, n.X, *angles), attrs=dict(attrs))


def phase_map(numbers: np.ndarray, names: Mapping[int, str]) -> xr.DataArray:
    """Phase numbers (y, x) as an int16 variable with their names; -1 = not indexed, -2 = no entry.

    Raises ValueError for what is no whole number or does not fit.
    """
    largest = np.iinfo("i2").max
    is_wrong = (numbers != np.rint(numbers)) | (np.abs(numbers) > largest)
    if is_wrong.any():
        raise ValueError(
            f"a phase number is {numbers[is_wrong][0]:g}; expected whole numbers up to {largest}"
        )
    fitting = {number: name for number, name in names.items() if number <= largest}
    attrs = n.ATTRS[n.PHASE] | flags(numbers.astype("i2"), fitting, NO_PHASE, n.PHASE)
    return xr.DataArray(numbers.astype("i2"), dims=(n.Y, n.X), attrs=attrs)


def indexed_maps(
    grid: ScanGrid,
    columns: Mapping[str, np.ndarray],
    numbers: np.ndarray | None,
    names: Mapping[int, str],
    euler: np.ndarray | None,
) -> dict[str, xr.DataArray]:
    """Maps on the grid from one value for each row: columns by name, phase numbers (-1: not
    indexed), Euler angles.

    names: of the phases, by number. euler: (rows, 3) in radians; NaN where a point is not indexed.
    """
    maps = {name: map_array(name, grid.put(values)) for name, values in columns.items()}
    if numbers is not None:
        maps[n.PHASE] = phase_map(grid.put(numbers, n.PHASE_MISSING), names)
    if euler is not None:
        is_indexed = np.isfinite(euler).all(-1) & (euler.min(-1) < EDAX_NO_ANGLE)
        if numbers is not None:
            is_indexed &= numbers >= 0
        maps[EULER] = map_array(EULER, grid.put(np.where(is_indexed[:, None], euler, np.nan)))
    return maps


def phase_names(xmap: Any) -> dict[int, str]:
    """Names of the phases of an orix crystal map, by number."""
    return {int(number): str(phase.name or "") for number, phase in xmap.phases if int(number) >= 0}
