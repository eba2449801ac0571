"""Names, units and conventions of the maps that EBSD indexing leaves, whichever vendor wrote them.

Orientations are kept twice: `euler (y, x, angle)`, Bunge angles in radians as the file has them, and
`quaternion (y, x, quaternion_component)`, scalar first, the passive rotation from the sample to the crystal frame, as
orix and kikuchipy have it. Both are NaN where the point is not indexed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from vaearr import names as n

EULER, ANGLE, QUATERNION = "euler", "angle", n.QUATERNION
QUATERNION_COMPONENT = f"{QUATERNION}_component"
BAND_SLOPE, BANDS, MAD, INDEXING_ERROR = "band_slope", "bands", "mad", "indexing_error"
IQ_HOUGH, IQ_FFT, CI, FIT, SEM_SIGNAL = "iq_hough", "iq_fft", "ci", "fit", "sem_signal"
LAUE_GROUPS = "laue_groups"  # attribute of `phase`: phase number (as text) -> symbol

EDAX_NO_ANGLE = 4 * np.pi - 1e-3  # EDAX writes 4 pi for the angles of points that are not indexed
ANGLES = ["phi1", "Phi", "phi2"]
COMPONENTS = ["a", "b", "c", "d"]

ATTRS: dict[str, dict[str, Any]] = {
    n.BC: n.ATTRS[n.BC],
    EULER: {"long_name": "Euler angles (Bunge, ZXZ), sample to crystal", "units": "rad"},
    QUATERNION: {"long_name": "orientation quaternion, scalar first, sample to crystal", "units": "1"},
    BAND_SLOPE: {"long_name": "band slope", "units": "1"},
    BANDS: {"long_name": "number of indexed bands", "units": "1"},
    MAD: {"long_name": "mean angular deviation", "units": "degree"},
    INDEXING_ERROR: {"long_name": "indexing status code of the vendor", "units": "1"},
    IQ_HOUGH: {"long_name": "image quality (Hough)", "units": "1"},
    IQ_FFT: {"long_name": "image quality (Fourier)", "units": "1"},
    "iq_radon": {"long_name": "image quality (Radon)", "units": "1"},
    "pattern_quality": {"long_name": "pattern quality of the vendor", "units": "1"},
    CI: {"long_name": "confidence index", "units": "1"},
    FIT: {"long_name": "fit of the indexed bands", "units": "degree"},
    SEM_SIGNAL: {"long_name": "signal of the electron detector", "units": "counts"},
    "dot_product": {"long_name": "dot product of dictionary indexing", "units": "1"},
    "orientation_similarity": {"long_name": "orientation similarity metric", "units": "1"},
    "correlation_index": {"long_name": "correlation index of template matching", "units": "1"},
    "reliability": {"long_name": "reliability of template matching", "units": "1"},
    "scores": {"long_name": "score of dictionary indexing", "units": "1"},
    "prias_bottom": {"long_name": "PRIAS signal, bottom strip", "units": "counts"},
    "prias_centre": {"long_name": "PRIAS signal, centre square", "units": "counts"},
    "prias_top": {"long_name": "PRIAS signal, top strip", "units": "counts"},
}

# Laue groups by their number in the files of Oxford and Bruker, and by the code in those of EDAX.
LAUE_BY_NUMBER = {
    1: "-1", 2: "2/m", 3: "mmm", 4: "4/m", 5: "4/mmm", 6: "-3", 7: "-3m", 8: "6/m", 9: "6/mmm", 10: "m-3", 11: "m-3m",
}  # fmt: skip
LAUE_BY_EDAX = {
    "1": "-1", "2": "2/m", "20": "2/m", "21": "2/m", "22": "mmm", "4": "4/m", "42": "4/mmm", "3": "-3", "32": "-3m",
    "6": "6/m", "62": "6/mmm", "23": "m-3", "43": "m-3m",
}  # fmt: skip
_LAST_SPACE_GROUP = (
    (2, "-1"), (15, "2/m"), (74, "mmm"), (88, "4/m"), (142, "4/mmm"), (148, "-3"), (167, "-3m"), (176, "6/m"),
    (194, "6/mmm"), (206, "m-3"), (230, "m-3m"),
)  # fmt: skip


def laue_of_space_group(number: int) -> str:
    """Laue group of a space group, "" for a number outside 1 … 230 (files write 0 for "not given")."""
    return next((laue for last, laue in _LAST_SPACE_GROUP if 1 <= number <= last), "")


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


def orientation_arrays(euler: np.ndarray, indexed: np.ndarray) -> dict[str, xr.DataArray]:
    """`euler` and `quaternion` from angles (y, x, 3) in radians, float32, NaN where `indexed` (y, x) is False."""
    angles = np.where(indexed[..., None], euler, np.nan)
    dims = (n.Y, n.X)
    return {
        EULER: xr.DataArray(angles.astype("f4"), dims=(*dims, ANGLE), coords={ANGLE: ANGLES}, attrs=dict(ATTRS[EULER])),
        QUATERNION: xr.DataArray(
            euler_to_quaternion(angles).astype("f4"),
            dims=(*dims, QUATERNION_COMPONENT),
            coords={QUATERNION_COMPONENT: COMPONENTS},
            attrs=dict(ATTRS[QUATERNION]),
        ),
    }


def phase_flags(numbers: np.ndarray, names: Mapping[int, str]) -> dict[str, Any]:
    """Attributes of a map of phase numbers: CF flags with the names that are known, `phase_<number>` for the others."""
    flags = {n.PHASE_MISSING: "no_entry", n.PHASE_UNKNOWN: "not_indexed"}
    flags |= {int(i): f"phase_{i}" for i in np.unique(numbers) if i >= 0}
    flags |= {i: "_".join(name.split()) for i, name in names.items() if name.strip()}
    flags = dict(sorted(flags.items()))
    return {**n.ATTRS[n.PHASE], "flag_values": list(flags), "flag_meanings": " ".join(flags.values())}


def phase_map(numbers: np.ndarray, names: Mapping[int, str], laue: Mapping[int, str]) -> xr.DataArray:
    """Phase numbers (y, x) as an int16 variable with names and Laue groups; -1 = not indexed, -2 = no entry.

    Raises ValueError for what is no whole number or does not fit.
    """
    wrong = (numbers != np.rint(numbers)) | (np.abs(numbers) > np.iinfo("i2").max)
    if wrong.any():
        raise ValueError(f"a phase number is {numbers[wrong][0]:g}; expected whole numbers up to {np.iinfo('i2').max}")
    numbers = numbers.astype("i2")
    attrs = phase_flags(numbers, {i: name for i, name in names.items() if i <= np.iinfo("i2").max})
    known = {str(i): symbol for i, symbol in laue.items() if symbol}
    if known:
        attrs[LAUE_GROUPS] = known
    return xr.DataArray(numbers, dims=(n.Y, n.X), attrs=attrs)


def phases_of(xmap: Any) -> tuple[dict[int, str], dict[int, str]]:
    """Names and Laue groups of the phases of an orix crystal map, by number."""
    phases = {int(i): phase for i, phase in xmap.phases if int(i) >= 0}
    laue = {i: str(phase.point_group.laue.name) for i, phase in phases.items() if phase.point_group is not None}
    return {i: str(phase.name or "") for i, phase in phases.items()}, laue


def map_array(name: str, values: np.ndarray) -> xr.DataArray:
    """A map (y, x) in float32 with the name and unit that it is known by."""
    attrs = ATTRS.get(name, {"long_name": name.replace("_", " ")})
    return xr.DataArray(values.astype("f4"), dims=(n.Y, n.X), attrs=dict(attrs))
