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
from functools import cache
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from vaearr import names as n
from vaearr.errors import SchemaError, UsageError, did_you_mean
from vaearr.provenance import nested
from vaearr.sources.ebsd_maps import ANGLE, EULER, LAUE_GROUPS, QUATERNION, QUATERNION_COMPONENT, euler_to_quaternion

MAX_PAIRS = 200_000  # pairs of points whose products are held at a time
_X, _Y, _Z, _D = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)
# Laue group -> generators of its rotations: axis and order
GENERATORS: dict[str, tuple[tuple[tuple[float, float, float], int], ...]] = {
    "-1": (),
    "2/m": ((_Y, 2),),
    "mmm": ((_Z, 2), (_X, 2)),
    "4/m": ((_Z, 4),),
    "4/mmm": ((_Z, 4), (_X, 2)),
    "-3": ((_Z, 3),),
    "-3m": ((_Z, 3), (_X, 2)),
    "6/m": ((_Z, 6),),
    "6/mmm": ((_Z, 6), (_X, 2)),
    "m-3": ((_Z, 2), (_D, 3)),
    "m-3m": ((_Z, 4), (_D, 3)),
}

Floats = NDArray[np.float64]


@cache
def symmetry_rotations(laue: str) -> Floats:
    """The rotations of a Laue group as quaternions (k, 4): 24 for `m-3m`, 12 for `6/mmm`. Raises UsageError."""
    if laue not in GENERATORS:
        raise UsageError(f"no Laue group {laue!r}.{did_you_mean(laue, list(GENERATORS))}")
    found = np.array([[1.0, 0.0, 0.0, 0.0]])
    generators = []
    for axis, order in GENERATORS[laue]:
        half = np.pi / order
        generators.append(np.array([np.cos(half), *(np.sin(half) * np.array(axis) / np.linalg.norm(axis))]))
    while True:
        products = np.concatenate([found, *(multiply(found, generator) for generator in generators)])
        sign = np.where(np.abs(products) > 1e-9, np.sign(products), 0)
        first = np.take_along_axis(sign, (sign != 0).argmax(axis=1)[:, None], axis=1)
        distinct = np.unique(np.round(products * first, 9), axis=0)
        if len(distinct) == len(found):
            break
        found = distinct
    result = found / np.linalg.norm(found, axis=1, keepdims=True)
    result.flags.writeable = False
    return result


def multiply(p: np.ndarray, q: np.ndarray) -> Floats:
    """Hamilton product of quaternions (..., 4)."""
    a, b, c, d = np.moveaxis(np.asarray(p, dtype="f8"), -1, 0)
    e, f, g, h = np.moveaxis(np.asarray(q, dtype="f8"), -1, 0)
    parts = [
        a * e - b * f - c * g - d * h,
        a * f + b * e + c * h - d * g,
        a * g - b * h + c * e + d * f,
        a * h + b * g - c * f + d * e,
    ]
    return np.stack(parts, axis=-1)


def misorientation_angles(q1: np.ndarray, q2: np.ndarray, laue: str) -> Floats:
    """Misorientation angle in degrees of each pair of quaternions (m, 4) of one phase, NaN where either is NaN."""
    rotations = symmetry_rotations(laue)
    angles = np.empty(len(q1))
    for start in range(0, len(q1), MAX_PAIRS):
        part = slice(start, start + MAX_PAIRS)
        between = multiply(_unit(q2[part]), _unit(q1[part]) * [1, -1, -1, -1])
        scalar = np.abs(between @ (rotations * [1, -1, -1, -1]).T)  # |Re(s * between)| for every s
        best = rotations[np.nan_to_num(scalar).argmax(axis=1)]
        nearest = multiply(best, between)
        angles[part] = 2 * np.arctan2(np.linalg.norm(nearest[:, 1:], axis=1), np.abs(nearest[:, 0]))
    return np.rad2deg(angles)


def _unit(q: np.ndarray) -> Floats:
    values = np.asarray(q, dtype="f8")
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return values / np.where(length > 0, length, np.nan)


def offset_angles(
    quaternion: np.ndarray, phase: np.ndarray, symmetries: Mapping[int, str], offset: tuple[int, int]
) -> Floats:
    """Misorientation in degrees (y, x) of each point with the one `offset` = (rows down, columns right) away.

    NaN where that point is outside, of another phase, or where either is not indexed (phase < 0 or NaN). `offset` must
    lead down, or right in the same row.
    """
    ny, nx = phase.shape
    down, right = offset
    here = (slice(0, ny - down), slice(max(0, -right), nx - max(0, right)))
    there = (slice(down, ny), slice(max(0, right), nx + min(0, right)))
    angles = np.full((ny, nx), np.nan)
    if down >= ny or abs(right) >= nx:
        return angles
    part = np.full(phase[here].shape, np.nan)
    for number in np.unique(phase[phase >= 0]).tolist():
        pairs = (phase[here] == number) & (phase[there] == number)
        if pairs.any():
            part[pairs] = misorientation_angles(quaternion[here][pairs], quaternion[there][pairs], symmetries[number])
    angles[here] = part
    return angles


def misorientation(
    data: xr.Dataset, phase: xr.DataArray | None = None, symmetries: Mapping[int, str] | str | None = None
) -> xr.Dataset:
    """Misorientation of each scan point with its neighbours: `right` and `down` (y, x), in degrees.

    data: with `quaternion (y, x, quaternion_component)` (scalar first, sample to crystal) or `euler (y, x, angle)`, and
    `phase`, unless it is given. symmetries: Laue group of each phase, or of all; default: those that `phase` came with
    from its file. NaN in the last column (`right`) and row (`down`), between different phases and where a point is not
    indexed. Raises SchemaError where orientations or phases are lacking, UsageError for an unknown Laue group.
    """
    quaternion, numbers, groups = _orientations(data, phase, symmetries)
    edges = {"right": (0, 1), "down": (1, 0)}
    maps = {name: offset_angles(quaternion, numbers, groups, offset) for name, offset in edges.items()}
    return xr.Dataset(
        {
            name: _map(data, values, long_name=f"misorientation with the scan point {where}", units="degree")
            for (name, values), where in zip(maps.items(), ("to the right", "below"), strict=True)
        }
    )


def kernel_average_misorientation(
    data: xr.Dataset,
    kernel: int = 1,
    max_angle: float = 5.0,
    *,
    phase: xr.DataArray | None = None,
    symmetries: Mapping[int, str] | str | None = None,
) -> xr.DataArray:
    """Mean misorientation in degrees (y, x) with the neighbours in the same grain; NaN where there is none.

    kernel: order of the neighbours, all points at most so many steps along rows and columns away (1: the four nearest,
    2: twelve). max_angle: neighbours further misoriented are across a boundary and do not count. The other arguments as
    in `misorientation`. Calcagnotto et al., Materials Science and Engineering A 527 (2010) 2738.
    """
    if kernel < 1 or not max_angle > 0:
        raise UsageError(f"kernel={kernel} must be at least 1, and max_angle={max_angle} above 0 degrees.")
    quaternion, numbers, groups = _orientations(data, phase, symmetries)
    total, count = np.zeros(numbers.shape), np.zeros(numbers.shape, dtype=np.int64)
    for offset in _half_kernel(kernel):
        angles = offset_angles(quaternion, numbers, groups, offset)
        near = np.nan_to_num(angles, nan=np.inf) <= max_angle
        iy, ix = np.nonzero(near)
        for y, x in ((iy, ix), (iy + offset[0], ix + offset[1])):  # each pair counts for both of its points
            total[y, x] += angles[iy, ix]
            count[y, x] += 1
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    name = "kernel average misorientation"
    return _map(data, mean, long_name=name, units="degree", kernel=kernel, max_angle=max_angle)


def _half_kernel(order: int) -> list[tuple[int, int]]:
    """Offsets that lead down, or right in the same row: each pair of neighbours once."""
    return [
        (down, right)
        for down in range(order + 1)
        for right in range(-(order - down), order - down + 1)
        if down > 0 or right > 0
    ]


def max_misorientation(
    data: xr.Dataset, phase: xr.DataArray | None = None, symmetries: Mapping[int, str] | str | None = None
) -> xr.DataArray:
    """Largest misorientation in degrees (y, x) with the up to four nearest neighbours of the same phase."""
    edges = misorientation(data, phase, symmetries)
    around = _around(edges["right"].values, edges["down"].values, np.nan)
    found = np.isfinite(around).any(axis=0)
    largest = np.where(found, np.nan_to_num(around, nan=-1.0).max(axis=0), np.nan)
    return _map(data, largest, long_name="largest misorientation with a neighbour", units="degree")


def grain_boundaries(
    data: xr.Dataset,
    threshold: float = 15.0,
    phase: xr.DataArray | None = None,
    symmetries: Mapping[int, str] | str | None = None,
) -> xr.DataArray:
    """Boolean (y, x): one of the four neighbours is misoriented by more than `threshold` degrees or of another phase.

    Both points of such a pair are True; points that are not indexed make no boundary.
    """
    if not threshold > 0:
        raise UsageError(f"threshold={threshold} must be above 0 degrees.")
    largest = max_misorientation(data, phase, symmetries)
    values = np.asarray(np.nan_to_num(largest.values, nan=0.0) > threshold)
    if phase is not None or n.PHASE in data:
        values = np.logical_or(values, phase_boundaries(data, phase).values)
    return _map(data, values, long_name="grain boundary", threshold=threshold)


def phase_boundaries(data: xr.Dataset, phase: xr.DataArray | None = None) -> xr.DataArray:
    """Boolean (y, x): one of the four neighbours is of another phase; points that are not indexed make none."""
    numbers = _phase_numbers(data, phase)
    indexed = numbers >= 0
    right = np.zeros(numbers.shape, dtype=bool)
    down = np.zeros(numbers.shape, dtype=bool)
    right[:, :-1] = (numbers[:, 1:] != numbers[:, :-1]) & indexed[:, 1:] & indexed[:, :-1]
    down[:-1] = (numbers[1:] != numbers[:-1]) & indexed[1:] & indexed[:-1]
    return _map(data, _around(right, down, False).any(axis=0), long_name="phase boundary")


def _around(right: np.ndarray, down: np.ndarray, fill: float | bool) -> np.ndarray:
    """Values of the four edges of each point: to the right, below, to the left, above."""
    left, up = np.full_like(right, fill), np.full_like(down, fill)
    left[:, 1:], up[1:] = right[:, :-1], down[:-1]
    return np.stack([right, down, left, up])


def _orientations(
    data: xr.Dataset, phase: xr.DataArray | None, symmetries: Mapping[int, str] | str | None
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Quaternions (y, x, 4), phase numbers (y, x) with -1 where there is no orientation, and each phase's group."""
    stored, last = (QUATERNION, QUATERNION_COMPONENT) if QUATERNION in data else (EULER, ANGLE)
    if stored in data and set(data[stored].dims) != {n.Y, n.X, last}:
        raise SchemaError(f"{stored!r} has dims {data[stored].dims}, expected ('{n.Y}', '{n.X}', '{last}').")
    if stored in data:
        values = data[stored].transpose(n.Y, n.X, last).values
        quaternion = values if stored == QUATERNION else euler_to_quaternion(values)
    else:
        known = [str(name) for name in data.data_vars]
        raise SchemaError(
            f"the Dataset has neither {QUATERNION!r} nor {EULER!r}; ingest an orientation map beside the patterns "
            f"(orientations=…).{did_you_mean(QUATERNION, known)}"
        )
    if quaternion.shape[-1] != 4:
        raise SchemaError(f"{QUATERNION!r} has {quaternion.shape[-1]} components, expected 4 (scalar first).")
    numbers = _phase_numbers(data, phase, optional=isinstance(symmetries, str))
    if numbers.shape != quaternion.shape[:2]:
        raise SchemaError(f"the phases lie on {numbers.shape} points, the orientations on {quaternion.shape[:2]}.")
    numbers = np.where(np.isfinite(quaternion).all(axis=-1), numbers, n.PHASE_UNKNOWN)
    return quaternion, numbers, _groups(data, phase, symmetries, numbers)


def _phase_numbers(data: xr.Dataset, phase: xr.DataArray | None, *, optional: bool = False) -> np.ndarray:
    given = phase if phase is not None else data.get(n.PHASE)
    if given is None:
        if optional:
            return np.zeros((data.sizes[n.Y], data.sizes[n.X]), dtype=np.int64)
        raise SchemaError(
            f"the Dataset has no variable {n.PHASE!r}; give phase=…, or symmetries='m-3m' for a single phase."
        )
    if set(given.dims) != {n.Y, n.X}:
        raise SchemaError(f"{n.PHASE!r} has dims {given.dims}, expected ('{n.Y}', '{n.X}').")
    values = given.transpose(n.Y, n.X).values
    return np.where(np.isfinite(values), values, n.PHASE_UNKNOWN).astype(np.int64)


def _groups(
    data: xr.Dataset, phase: xr.DataArray | None, symmetries: Mapping[int, str] | str | None, numbers: np.ndarray
) -> dict[int, str]:
    found = np.unique(numbers[numbers >= 0]).tolist()
    if isinstance(symmetries, str):
        groups = dict.fromkeys(found, symmetries)
    elif symmetries is not None:
        groups = {int(number): laue for number, laue in symmetries.items()}
    else:
        given = phase if phase is not None else data[n.PHASE]
        groups = {int(number): str(laue) for number, laue in (nested(given.attrs, LAUE_GROUPS) or {}).items()}
    lacking = [number for number in found if number not in groups]
    if lacking:
        raise UsageError(
            f"the Laue group of phase {', '.join(map(str, lacking))} is not known; give "
            f"symmetries={{{lacking[0]}: 'm-3m', …}}. Known groups: {', '.join(GENERATORS)}."
        )
    for number in found:
        symmetry_rotations(groups[number])
    return groups


def _map(data: xr.Dataset, values: Any, **attrs: object) -> xr.DataArray:
    coords = {dim: data[dim] for dim in (n.Y, n.X) if dim in data.coords}
    kept = values if values.dtype == bool else values.astype("f4")
    return xr.DataArray(kept, dims=(n.Y, n.X), coords=coords, attrs=attrs)
