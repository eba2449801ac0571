"""Names, units and conventions of the maps that EBSD indexing leaves, whichever vendor wrote them.

Orientations are kept twice: `euler (y, x, angle)`, Bunge angles in radians as the file has them, and
`quaternion (y, x, quaternion_component)`, scalar first, the passive rotation from the sample to the crystal frame, as
orix and kikuchipy have it. Both are NaN where the point is not indexed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n
from vaearr.schema import flags
from vaearr.sources.scan_grid import ScanGrid

EULER, ANGLE, QUATERNION = "euler", "angle", n.QUATERNION
QUATERNION_COMPONENT = f"{QUATERNION}_component"
BAND_SLOPE, BANDS, MAD, INDEXING_ERROR = "band_slope", "bands", "mad", "indexing_error"
IQ_HOUGH, IQ_FFT, CI, FIT, SEM_SIGNAL = "iq_hough", "iq_fft", "ci", "fit", "sem_signal"
LAUE_GROUPS = "laue_groups"  # attribute of `phase`: phase number (as text) -> symbol
NO_PHASE = {n.PHASE_MISSING: "no_entry", n.PHASE_UNKNOWN: "not_indexed"}

EDAX_NO_ANGLE = 4 * np.pi - 1e-3  # EDAX writes 4 pi for the angles of points that are not indexed
ANGLES = ["phi1", "Phi", "phi2"]
COMPONENTS = ["a", "b", "c", "d"]

KNOWN = {  # long names that are not the name itself, and units that are not 1
    EULER: ("Euler angles (Bunge, ZXZ), sample to crystal", "rad"),
    QUATERNION: ("orientation quaternion, scalar first, sample to crystal", "1"),
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

# Laue groups by number (Oxford), by the last space group of each (Bruker), and by the codes of EDAX
LAUE = ("-1", "2/m", "mmm", "4/m", "4/mmm", "-3", "-3m", "6/m", "6/mmm", "m-3", "m-3m")
LAST_SPACE_GROUP = (2, 15, 74, 88, 142, 148, 167, 176, 194, 206, 230)
EDAX_CODES = ("1", "2 20 21", "22", "4", "42", "3", "32", "6", "62", "23", "43")
LAUE_BY_NUMBER = dict(enumerate(LAUE, 1))
LAUE_BY_EDAX = {code: laue for codes, laue in zip(EDAX_CODES, LAUE, strict=True) for code in codes.split()}


def laue_of_space_group(number: int) -> str:
    """Laue group of a space group, "" for a number outside 1 … 230 (files write 0 for "not given")."""
    return LAUE[bisect_left(LAST_SPACE_GROUP, number)] if 1 <= number <= 230 else ""


def euler_to_quaternion(angles: np.ndarray) -> np.ndarray:
    """Bunge angles (..., 3) in radians -> unit quaternions (..., 4), scalar first and not negative, sample to crystal.

    With s = (phi1 + phi2) / 2, d = (phi1 - phi2) / 2: (cos Phi/2 cos s, -sin Phi/2 cos d, -sin Phi/2 sin d,
    -cos Phi/2 sin s), after Rowenhorst et al., Modelling Simul. Mater. Sci. Eng. 23 (2015) 083501, with P = +1
    conjugated to the passive rotation.
    """
    phi1, phi, phi2 = np.moveaxis(np.asarray(angles, dtype="f8"), -1, 0)
    mean, half = (phi1 + phi2) / 2, (phi1 - phi2) / 2
    cos, sin = np.cos(phi / 2), np.sin(phi / 2)
    quaternion = np.stack([cos * np.cos(mean), -sin * np.cos(half), -sin * np.sin(half), -cos * np.sin(mean)], axis=-1)
    return np.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def map_array(name: str, values: np.ndarray) -> xr.DataArray:
    """A map (y, x[, components]) in float32 with the name and unit that it is known by."""
    long_name, units = KNOWN.get(name, (name.replace("_", " "), "1"))
    dim, labels = {EULER: (ANGLE, ANGLES), QUATERNION: (QUATERNION_COMPONENT, COMPONENTS)}.get(name, ("", []))
    attrs = n.ATTRS.get(name, {"long_name": long_name, "units": units})
    further = {dim: labels} if dim else {}
    return xr.DataArray(values.astype("f4"), further, (n.Y, n.X, *further), attrs=dict(attrs))


def phase_map(numbers: np.ndarray, names: Mapping[int, str], laue: Mapping[int, str]) -> xr.DataArray:
    """Phase numbers (y, x) as an int16 variable with names and Laue groups; -1 = not indexed, -2 = no entry.

    Raises ValueError for what is no whole number or does not fit.
    """
    largest = np.iinfo("i2").max
    wrong = (numbers != np.rint(numbers)) | (np.abs(numbers) > largest)
    if wrong.any():
        raise ValueError(f"a phase number is {numbers[wrong][0]:g}; expected whole numbers up to {largest}")
    known = {str(i): symbol for i, symbol in laue.items() if symbol}
    attrs = n.ATTRS[n.PHASE] | flags(
        numbers.astype("i2"), {i: w for i, w in names.items() if i <= largest}, NO_PHASE, n.PHASE
    )
    return xr.DataArray(numbers.astype("i2"), dims=(n.Y, n.X), attrs=attrs | ({LAUE_GROUPS: known} if known else {}))


def indexed_maps(
    grid: ScanGrid,
    columns: Mapping[str, np.ndarray],
    numbers: np.ndarray | None = None,
    names: Mapping[int, str] | None = None,
    laue: Mapping[int, str] | None = None,
    euler: np.ndarray | None = None,
) -> dict[str, xr.DataArray]:
    """Maps on the grid from one value for each row: columns by name, phase numbers (-1: not indexed), Euler angles.

    names, laue: of the phases, by number. euler: (rows, 3) in radians; NaN where a point is not indexed.
    """
    found = {name: map_array(name, grid.put(values)) for name, values in columns.items()}
    if numbers is not None:
        found[n.PHASE] = phase_map(grid.put(numbers, n.PHASE_MISSING), names or {}, laue or {})
    if euler is not None:
        known = (
            np.isfinite(euler).all(-1) & (euler.min(-1) < EDAX_NO_ANGLE) & (True if numbers is None else numbers >= 0)
        )
        angles = grid.put(np.where(known[:, None], euler, np.nan))
        found |= {EULER: map_array(EULER, angles), QUATERNION: map_array(QUATERNION, euler_to_quaternion(angles))}
    return found


def phases_of(xmap: Any) -> tuple[dict[int, str], dict[int, str]]:
    """Names and Laue groups of the phases of an orix crystal map, by number."""
    phases = {int(i): phase for i, phase in xmap.phases if int(i) >= 0}
    laue = {i: str(phase.point_group.laue.name) for i, phase in phases.items() if phase.point_group is not None}
    return {i: str(phase.name or "") for i, phase in phases.items()}, laue
