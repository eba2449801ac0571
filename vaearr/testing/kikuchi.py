"""Kikuchi patterns from crystal geometry: bands of Bragg width, gnomonic projection, no noise.

Frames. A *ray* is the direction from the illuminated point to a detector pixel, given in the specimen frame (x along
the tilt axis, z along the surface normal). An *orientation* is a unit quaternion, scalar first, that turns specimen
vectors into crystal vectors. Detector columns run along the tilt axis, rows run downwards; the projection centre
follows Bruker: x from the left in detector widths, y from the top in detector heights, distance in detector heights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating]
Miller = tuple[int, int, int]

_TABLE = 640  # side of the table of intensities over one cube face
_SIGNS = tuple(product((1, -1), repeat=3))
PIXEL_BLUR = 0.36  # standard deviation of the detector blur, pixels
_SATURATION = 1.3  # in units of the strongest band
_BASIS = {
    "fcc": np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]),
    "bcc": np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
}


@dataclass(frozen=True)
class Crystal:
    """A cubic element: lattice parameter in angstrom, lattice, atomic number, families of planes that make bands."""

    name: str
    a: float
    lattice: str
    z: int
    families: tuple[Miller, ...]


NICKEL = Crystal("ni_fcc", 3.56, "fcc", 28, ((1, 1, 1), (2, 0, 0), (2, 2, 0), (3, 1, 1)))
IRON = Crystal("fe_bcc", 2.87, "bcc", 26, ((1, 1, 0), (2, 0, 0), (2, 1, 1), (3, 1, 0)))


@dataclass(frozen=True)
class Detector:
    """Where the detector stands: pixels, projection centre (Bruker), specimen tilt in degrees, beam energy in keV."""

    shape: tuple[int, int] = (60, 60)
    projection_centre: tuple[float, float, float] = (0.42, 0.22, 0.5)
    sample_tilt: float = 70.0
    energy: float = 20.0

    @property
    def pixel_angle(self) -> float:
        """Angle in radians that a pixel covers at the projection centre."""
        return 1.0 / (self.shape[0] * self.projection_centre[2])


def electron_wavelength(energy: float) -> float:
    """Relativistic electron wavelength in angstrom for a beam energy in keV.

    lambda = h / sqrt(2 m e V (1 + e V / (2 m c^2))); Williams and Carter, Transmission Electron Microscopy (2009),
    eq. 1.6. 20 keV gives 0.0859 angstrom.
    """
    from scipy.constants import c, e, h, m_e

    joule = energy * 1e3 * e
    return float(h / np.sqrt(2 * m_e * joule * (1 + joule / (2 * m_e * c**2))) * 1e10)


def bragg_angle(hkl: Miller, a: float, energy: float = 20.0) -> float:
    """Bragg angle in radians of a reflection of a cubic crystal: sin(theta) = lambda sqrt(h^2 + k^2 + l^2) / (2 a)."""
    return float(np.arcsin(electron_wavelength(energy) * np.linalg.norm(hkl) / (2 * a)))


def structure_factor(hkl: Miller, crystal: Crystal) -> float:
    """Modulus of the structure factor, in relative units; 0 for a forbidden reflection.

    F = f(q) sum_j exp(2 pi i hkl . r_j), with the scattering amplitude of a screened (Wentzel) atom,
    f ~ Z / (q^2 + q0^2), q = 1/d, q0 = Z^(1/3) / (2 pi a_H); Reimer and Kohl, Transmission Electron Microscopy
    (2008).
    """
    q = np.linalg.norm(hkl) / crystal.a
    q0 = crystal.z ** (1 / 3) / (2 * np.pi * 0.529)
    phases = np.exp(2j * np.pi * (_BASIS[crystal.lattice] @ np.array(hkl)))
    modulus = float(abs(phases.sum())) * crystal.z / (q**2 + q0**2)
    return modulus if modulus > 1e-9 else 0.0


def equivalent_planes(hkl: Miller) -> NDArray[np.int64]:
    """Planes of the family {hkl} of a cubic crystal, one of each pair +-hkl: 4 of {111}, 12 of {311}."""
    signed = {tuple(s * i for s, i in zip(signs, p, strict=True)) for p in permutations(hkl) for signs in _SIGNS}
    return np.array(sorted(p for p in signed if p > (0, 0, 0)))


def band_profile(angle: ArrayLike, bragg: float, *, edge: float = 0.25, blur: float = 0.0) -> Floats:
    """Intensity across a band: bright within the Bragg angle, darker just outside, 0 far away.

    `angle` is the angle between ray and plane, `edge` the width of the band's edge in Bragg angles, `blur` the standard
    deviation of a Gaussian (radians) that stands for the pixel size. An empirical shape in the manner of two-beam
    theory with anomalous absorption (Reimer, Scanning Electron Microscopy, 1998): a step w / sqrt(1 + w^2) in the
    deviation w from the Bragg angle, and a dispersion term that brightens the edge inside and darkens it outside.
    Measured and simulated profiles: Winkelmann et al., Ultramicroscopy 107 (2007) 414.
    """
    from scipy.ndimage import gaussian_filter1d

    spacing = bragg / 40
    reach = 12 * bragg + 5 * blur
    grid = np.arange(-np.ceil(reach / spacing), np.ceil(reach / spacing) + 1) * spacing
    w = (np.abs(grid) - bragg) / (edge * bragg)
    profile = 0.5 * (1 - w / np.sqrt(1 + w**2)) - 1.6 * w / (1 + w**2) ** 2
    if blur > 0:
        profile = gaussian_filter1d(profile, blur / spacing)
    return np.interp(np.asarray(angle), grid, profile, left=0.0, right=0.0)


def kikuchi_sphere(directions: ArrayLike, crystal: Crystal, *, energy: float = 20.0, blur: float = 0.0) -> Floats:
    """Intensity along crystal directions (..., 3): the sum of all bands, each profile weighted with |F|^2.

    Where many bands cross the sum saturates, as in many-beam theory, where zone axes are not as bright as the
    two-beam contributions add up to: `sum -> s (1 - exp(-sum / s))`. Not normalised.
    """
    v = np.asarray(directions, dtype=np.float64)
    v = v / np.linalg.norm(v, axis=-1, keepdims=True)
    strongest = max(structure_factor(hkl, crystal) for hkl in crystal.families)
    total = np.zeros(v.shape[:-1])
    for hkl in crystal.families:
        weight = (structure_factor(hkl, crystal) / strongest) ** 2
        theta = bragg_angle(hkl, crystal.a, energy)
        for plane in equivalent_planes(hkl):
            angle = np.arcsin(np.clip(v @ (plane / np.linalg.norm(plane)), -1, 1))
            total += weight * band_profile(angle, theta, blur=blur)
    return _SATURATION * (1 - np.exp(-total / _SATURATION))


@lru_cache(maxsize=16)
def _face_table(crystal: Crystal, energy: float, blur: float) -> NDArray[np.float32]:
    """Sphere of a cubic crystal over the cube face (1, u, v), 0 <= u, v <= 1; mean 0 and variance 1 over the sphere."""
    u, v = np.meshgrid(*[np.linspace(0, 1, _TABLE)] * 2, indexing="ij")
    values = kikuchi_sphere(np.stack([np.ones_like(u), u, v], axis=-1), crystal, energy=energy, blur=blur)
    area = (1 + u**2 + v**2) ** -1.5  # solid angle of a cell of the face
    mean = np.average(values, weights=area)
    spread = np.sqrt(np.average((values - mean) ** 2, weights=area))
    return ((values - mean) / spread).astype(np.float32)


def detector_rays(detector: Detector) -> NDArray[np.float32]:
    """Rays (dy, dx, 3) to the pixel centres in the specimen frame; the gnomonic projection, so not of unit length.

    Geometry as in Britton et al., Materials Characterization 117 (2016) 113, with a vertical detector and square
    pixels.
    """
    rows, columns = detector.shape
    x0, y0, distance = detector.projection_centre
    right = ((np.arange(columns) + 0.5) - x0 * columns) / (rows * distance)
    up = (y0 - (np.arange(rows) + 0.5) / rows) / distance
    up, right = np.meshgrid(up, right, indexing="ij")
    tilt = np.deg2rad(detector.sample_tilt)
    along, normal = np.cos(tilt) - up * np.sin(tilt), np.sin(tilt) + up * np.cos(tilt)
    return np.stack([right, along, normal], axis=-1).astype(np.float32)


def rotation_matrices(orientations: ArrayLike) -> Floats:
    """Matrices (..., 3, 3) of unit quaternions (..., 4), scalar first: v_crystal = R v_specimen."""
    q = np.asarray(orientations, dtype=np.float64)
    a, b, c, d = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def kikuchi_patterns(
    orientations: ArrayLike,
    phases: ArrayLike = 0,
    *,
    detector: Detector | None = None,
    crystals: Sequence[Crystal] = (NICKEL, IRON),
) -> NDArray[np.float32]:
    """Noise-free Kikuchi signal (..., dy, dx) of orientations (..., 4); `phases` (...) are indices into `crystals`.

    The signal has mean 0 and variance 1 over all directions. Cubic symmetry is exact: directions are folded into the
    part of the sphere with 0 <= z <= y <= x before the table is read.
    """
    detector = detector or Detector()
    matrices = rotation_matrices(orientations).astype(np.float32)
    lead = matrices.shape[:-2]
    phase = np.broadcast_to(np.asarray(phases, dtype=np.int32), lead).reshape(-1, 1)
    matrices = matrices.reshape(-1, 3, 3)
    rays = detector_rays(detector).reshape(-1, 3)
    # plain products rather than a matrix product: the result is then the same for one pattern and for many
    components = [
        np.abs(
            matrices[:, i, 0, None] * rays[:, 0]
            + matrices[:, i, 1, None] * rays[:, 1]
            + matrices[:, i, 2, None] * rays[:, 2]
        )
        for i in range(3)
    ]
    blur = detector.pixel_angle * PIXEL_BLUR
    tables = np.stack([_face_table(crystal, detector.energy, blur) for crystal in crystals])
    return _look_up(tables, phase, components).reshape(*lead, *detector.shape)


def _look_up(
    tables: NDArray[np.float32], phase: NDArray[np.int32], components: list[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Bilinear values of the tables for absolute direction components [x, y, z] in any order."""
    high, low = np.maximum(components[0], components[1]), np.minimum(components[0], components[1])
    largest, smallest = np.maximum(high, components[2]), np.minimum(low, components[2])
    middle = np.maximum(low, np.minimum(high, components[2]))
    side = tables.shape[-1]
    u, v = (part / largest * np.float32(side - 1) for part in (middle, smallest))
    i, j = (np.minimum(part.astype(np.int32), side - 2) for part in (u, v))
    u -= i
    v -= j
    flat = tables.reshape(-1)
    first = phase * np.int32(side * side) + i * np.int32(side) + j
    near = flat.take(first) * (1 - v) + flat.take(first + 1) * v
    far = flat.take(first + side) * (1 - v) + flat.take(first + side + 1) * v
    return near + (far - near) * u


def random_orientations(n: int, rng: np.random.Generator) -> Floats:
    """`n` uniformly distributed unit quaternions (n, 4); Shoemake, Graphics Gems III (1992) 124."""
    u, a, b = rng.random(n), *(2 * np.pi * rng.random((2, n)))
    return np.stack(
        [np.sqrt(1 - u) * np.sin(a), np.sqrt(1 - u) * np.cos(a), np.sqrt(u) * np.sin(b), np.sqrt(u) * np.cos(b)],
        axis=-1,
    )


def rotation(axis: ArrayLike, angle: ArrayLike) -> Floats:
    """Unit quaternions (..., 4) of a turn by `angle` (radians) about `axis` (..., 3)."""
    axis, half = np.asarray(axis, dtype=np.float64), np.asarray(angle, dtype=np.float64)[..., None] / 2
    unit = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    scalar, vector = np.broadcast_arrays(np.cos(half), np.sin(half) * unit)
    return np.concatenate([scalar[..., :1], vector], axis=-1)


def multiply(p: ArrayLike, q: ArrayLike) -> Floats:
    """Hamilton product p q (..., 4): first q, then p."""
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    pv, qv = p[..., 1:], q[..., 1:]
    scalar = p[..., :1] * q[..., :1] - (pv * qv).sum(-1, keepdims=True)
    return np.concatenate([scalar, p[..., :1] * qv + q[..., :1] * pv + np.cross(pv, qv)], axis=-1)
