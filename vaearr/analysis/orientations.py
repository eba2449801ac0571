"""Misorientation between neighbouring scan points, with crystal symmetry: maps of it, and the boundaries it shows.

An orientation is a unit quaternion (a, b, c, d), scalar first, the passive rotation from the sample to the crystal
frame, as in orix and kikuchipy. Symmetrically equivalent orientations are s * q for the rotations s of the crystal's
Laue group, so the misorientation angle (disorientation) of two points of one phase is

    2 arccos max_s |Re(s * q2 * conj(q1))|

over that group's rotations (the group is closed, so one side suffices; Morawiec, Orientations and Rotations, 2004).
Axes: z along c, x along a; two-fold axes of `-3m` along x, that of `2/m` along y (b unique). Angles are in degrees.
Everything is NaN-safe: a point without an orientation has no misorientation to anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from vaearr import names as n
from vaearr.errors import SchemaError, UsageError, did_you_mean
from vaearr.recipe import nested
from vaearr.sources.ebsd_maps import ANGLE, EULER, LAUE_GROUPS, QUATERNION, QUATERNION_COMPONENT, euler_to_quaternion

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

MAX_PAIRS = 200_000  # pairs of points whose products are held at a time
ROTATIONS = {  # Laue group -> its rotations, as scipy names the groups of them
    "-1": "C1", "2/m": "C2", "mmm": "D2", "4/m": "C4", "4/mmm": "D4", "-3": "C3", "-3m": "D3", "6/m": "C6",
    "6/mmm": "D6", "m-3": "T", "m-3m": "O",
}  # fmt: skip

Floats = NDArray[np.float64]
Symmetries = Mapping[int, str] | str


def symmetry_rotations(laue: str) -> Rotation:
    """The rotations of a Laue group: 24 for `m-3m`, 12 for `6/mmm`. Raises UsageError."""
    from scipy.spatial.transform import Rotation

    if laue not in ROTATIONS:
        raise UsageError(f"no Laue group {laue!r}.{did_you_mean(laue, list(ROTATIONS))}")
    return Rotation.create_group(ROTATIONS[laue], axis="Y" if laue == "2/m" else "Z")


def misorientation_angles(q1: np.ndarray, q2: np.ndarray, laue: str) -> Floats:
    """Misorientation angle in degrees of each pair of quaternions (m, 4) of one phase."""
    from scipy.spatial.transform import Rotation

    group, angles = symmetry_rotations(laue), np.empty(len(q1))
    for start in range(0, len(q1), MAX_PAIRS):
        part = slice(start, start + MAX_PAIRS)
        one, two = (Rotation.from_quat(np.roll(q[part].astype("f8"), -1, axis=1)) for q in (q1, q2))
        between = two * one.inv()
        best = np.abs(between.as_quat() @ group.as_quat().T).argmax(axis=1)  # the rotation that comes nearest
        angles[part] = (group[best].inv() * between).magnitude()
    return np.asarray(np.rad2deg(angles))


def offset_angles(
    quaternion: np.ndarray, phase: np.ndarray, symmetries: Mapping[int, str], offset: tuple[int, int]
) -> Floats:
    """Misorientation in degrees (y, x) of each point with the one `offset` = (rows down, columns right) away.

    NaN where that point is outside, of another phase, or where either is not indexed (phase < 0). `offset` must lead
    down, or right in the same row.
    """
    (ny, nx), (down, right) = phase.shape, offset
    angles = np.full((ny, nx), np.nan)
    if down >= ny or abs(right) >= nx:
        return angles
    here = (slice(0, ny - down), slice(max(0, -right), nx - max(0, right)))
    there = (slice(down, ny), slice(max(0, right), nx + min(0, right)))
    for number in np.unique(phase[phase >= 0]).tolist():
        pairs = (phase[here] == number) & (phase[there] == number)
        if pairs.any():
            found = misorientation_angles(quaternion[here][pairs], quaternion[there][pairs], symmetries[number])
            angles[here][pairs] = found
    return angles


def misorientation(data: xr.Dataset, symmetries: Symmetries | None = None) -> xr.Dataset:
    """Misorientation of each scan point with its neighbours: `right` and `down` (y, x), in degrees.

    data: with `quaternion (y, x, quaternion_component)` (scalar first, sample to crystal) or `euler (y, x, angle)`, and
    `phase`, unless all points are of one. symmetries: Laue group of each phase, or of all; default: those that `phase`
    came with from its file. NaN in the last column (`right`) and row (`down`), between phases and where a point is not
    indexed. Raises SchemaError where orientations or phases are lacking, UsageError for an unknown Laue group.
    """
    of = _orientations(data, symmetries)
    edges = {"right": ((0, 1), "to the right"), "down": ((1, 0), "below")}
    return xr.Dataset(
        {
            name: _map(
                data, offset_angles(*of, step), long_name=f"misorientation with the scan point {where}", units="degree"
            )
            for name, (step, where) in edges.items()
        }
    )


def kernel_average_misorientation(
    data: xr.Dataset,
    kernel: int = 1,
    max_angle: float = 5.0,
    *,
    symmetries: Symmetries | None = None,
) -> xr.DataArray:
    """Mean misorientation in degrees (y, x) with the neighbours in the same grain; NaN where there is none.

    kernel: order of the neighbours, all points at most so many steps along rows and columns away (1: the four nearest,
    2: twelve). max_angle: neighbours further misoriented are across a boundary and do not count. The other arguments as
    in `misorientation`. Calcagnotto et al., Materials Science and Engineering A 527 (2010) 2738.
    """
    if kernel < 1 or not max_angle > 0:
        raise UsageError(f"kernel={kernel} must be at least 1, and max_angle={max_angle} above 0 degrees.")
    of = _orientations(data, symmetries)
    total, count = np.zeros(of[1].shape), np.zeros(of[1].shape)
    steps = [(down, right) for down in range(kernel + 1) for right in range(down - kernel, kernel - down + 1)]
    for down, right in (step for step in steps if step > (0, 0)):  # each pair of neighbours once
        angles = offset_angles(*of, (down, right))
        iy, ix = np.nonzero(np.nan_to_num(angles, nan=np.inf) <= max_angle)
        for y, x in ((iy, ix), (iy + down, ix + right)):  # each pair counts for both of its points
            total[y, x] += angles[iy, ix]
            count[y, x] += 1
    mean = total / np.where(count > 0, count, np.nan)
    name = "kernel average misorientation"
    return _map(data, mean, long_name=name, units="degree", kernel=kernel, max_angle=max_angle)


def max_misorientation(data: xr.Dataset, symmetries: Symmetries | None = None) -> xr.DataArray:
    """Largest misorientation in degrees (y, x) with the up to four nearest neighbours of the same phase."""
    edges = misorientation(data, symmetries)
    largest = _largest(edges["right"].values, edges["down"].values)
    return _map(data, largest, long_name="largest misorientation with a neighbour", units="degree")


def grain_boundaries(data: xr.Dataset, threshold: float = 15.0, symmetries: Symmetries | None = None) -> xr.DataArray:
    """Boolean (y, x): one of the four neighbours is misoriented by more than `threshold` degrees or of another phase.

    Both points of such a pair are True; points that are not indexed make no boundary.
    """
    if not threshold > 0:
        raise UsageError(f"threshold={threshold} must be above 0 degrees.")
    values = max_misorientation(data, symmetries).values > threshold
    if n.PHASE in data:
        values = values | phase_boundaries(data).values
    return _map(data, values, long_name="grain boundary", threshold=threshold)


def phase_boundaries(data: xr.Dataset) -> xr.DataArray:
    """Boolean (y, x): one of the four neighbours is of another phase; points that are not indexed make none."""
    numbers = _phase_numbers(data)
    right, down = np.zeros(numbers.shape), np.zeros(numbers.shape)
    right[:, :-1] = (numbers[:, 1:] != numbers[:, :-1]) & (numbers[:, 1:] >= 0) & (numbers[:, :-1] >= 0)
    down[:-1] = (numbers[1:] != numbers[:-1]) & (numbers[1:] >= 0) & (numbers[:-1] >= 0)
    return _map(data, _largest(right, down) > 0, long_name="phase boundary")


def _largest(right: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Of the values of the four edges of each point: to the right, below, to the left, above; NaN where all are."""
    left, up = np.full_like(right, np.nan), np.full_like(down, np.nan)
    left[:, 1:], up[1:] = right[:, :-1], down[:-1]
    return np.asarray(np.fmax(np.fmax(right, down), np.fmax(left, up)))


def _orientations(data: xr.Dataset, symmetries: Symmetries | None) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Quaternions (y, x, 4), phase numbers (y, x) with -1 where there is no orientation, and each phase's group."""
    stored, last, size = (QUATERNION, QUATERNION_COMPONENT, 4) if QUATERNION in data else (EULER, ANGLE, 3)
    if stored not in data or set(data[stored].dims) != {n.Y, n.X, last} or data[stored].sizes[last] != size:
        raise SchemaError(
            f"the Dataset has neither {QUATERNION} (y, x, {QUATERNION_COMPONENT}) nor {EULER} (y, x, {ANGLE}); ingest "
            f"an orientation map beside the patterns (orientations=…)."
        )
    values = data[stored].transpose(n.Y, n.X, last).values
    quaternion = values if stored == QUATERNION else euler_to_quaternion(values)
    is_single = n.PHASE not in data and isinstance(symmetries, str)
    numbers = np.zeros(values.shape[:2], dtype=np.int64) if is_single else _phase_numbers(data)
    numbers = np.where(np.linalg.norm(quaternion, axis=-1) > 0, numbers, n.PHASE_UNKNOWN)  # false for NaN
    found = np.unique(numbers[numbers >= 0]).tolist()
    if isinstance(symmetries, str):
        return quaternion, numbers, dict.fromkeys(found, symmetries)
    given = symmetries if symmetries is not None else nested(data[n.PHASE].attrs, LAUE_GROUPS) or {}
    groups = {int(number): str(laue) for number, laue in given.items()}
    if lacking := [number for number in found if number not in groups]:
        raise UsageError(
            f"the Laue group of phase {', '.join(map(str, lacking))} is not known; give "
            f"symmetries={{{lacking[0]}: 'm-3m', …}}. Known groups: {', '.join(ROTATIONS)}."
        )
    return quaternion, numbers, groups


def _phase_numbers(data: xr.Dataset) -> np.ndarray:
    if n.PHASE not in data or set(data[n.PHASE].dims) != {n.Y, n.X}:
        raise SchemaError(
            f"there is no {n.PHASE} (y, x); assign one, or give symmetries='m-3m' for orientations of a single phase."
        )
    values = data[n.PHASE].transpose(n.Y, n.X).values
    return np.where(np.isfinite(values), values, n.PHASE_UNKNOWN).astype(np.int64)


def _map(data: xr.Dataset, values: np.ndarray, **attrs: Any) -> xr.DataArray:
    coords = {dim: data[dim] for dim in (n.Y, n.X) if dim in data.coords}
    kept = values if values.dtype == bool else values.astype("f4")
    return xr.DataArray(kept, dims=(n.Y, n.X), coords=coords, attrs=attrs)
